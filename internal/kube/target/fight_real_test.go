package target

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/gitops"
)

// flux reconciles as Flux's kustomize-controller does: unless the Kustomization
// is suspended it applies, over and over, what git holds, as a field manager of
// its own and by force, and says in the status what it has seen.
type flux struct {
	c          *Cluster
	namespace  string // of the Kustomization
	name       string
	git        []map[string]any // objects, in a namespace that may not be there
	rounds     atomic.Int64
	writes     atomic.Int64 // objects that were applied
	failed     atomic.Value
	kustomizAt restore.Served
	at         restore.Served
}

func (f *flux) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := f.reconcile(ctx); err != nil && ctx.Err() == nil {
			f.failed.Store(err)
		}
		f.rounds.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond): // its interval
		}
	}
}

func (f *flux) reconcile(ctx context.Context) error {
	k, err := f.c.Get(ctx, f.kustomizAt, f.namespace, f.name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || gitops.Suspended(gitops.KindKustomization, k.Object) {
		return err
	}
	// As Flux does, it says first that it is at work, and so a restore can wait.
	if k, err = f.say(ctx, k, "Reconciling"); k == nil || err != nil {
		return err
	}
	for _, object := range f.git {
		u := &unstructured.Unstructured{Object: object}
		data, err := json.Marshal(object)
		if err != nil {
			return err
		}
		force := true
		_, err = f.c.at(f.at, u.GetNamespace()).Patch(ctx, u.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: "kustomize-controller", Force: &force})
		switch {
		case err == nil:
			f.writes.Add(1)
		case !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err): // the namespace is not there, or ends
			return err
		}
	}
	// As Flux does, it says how that ended, also when somebody changed the
	// Kustomization meanwhile: whoever suspends it waits for that.
	for {
		if done, err := f.say(ctx, k, "Ready"); done != nil || err != nil {
			return err
		}
		k, err = f.c.Get(ctx, f.kustomizAt, f.namespace, f.name)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// say writes the status; nil says that somebody changed the Kustomization.
func (f *flux) say(ctx context.Context, k *unstructured.Unstructured, condition string) (*unstructured.Unstructured, error) {
	_ = unstructured.SetNestedMap(k.Object, map[string]any{
		"observedGeneration": k.GetGeneration(),
		"conditions":         []any{map[string]any{"type": condition, "status": "True"}},
	}, "status")
	got, err := f.c.Update(ctx, f.kustomizAt, k, "")
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil, nil
	}
	return got, err
}

// While a restore goes on that suspends it, a controller that reconciles from
// git changes nothing, and afterwards it goes on; without, it writes into the
// middle of the restore.
func TestRestoreIsNotFoughtByGit(t *testing.T) {
	t.Parallel()
	for _, mode := range []gitops.Mode{gitops.Suspend, gitops.Keep} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			fought(t, mode)
		})
	}
}

func fought(t *testing.T, mode gitops.Mode) {
	c := New(realClients(t))
	suffix := fmt.Sprint(time.Now().UnixNano() % 1e6)
	ns, gitNS := "f-fight-"+suffix, "f-source-"+suffix
	nsAt := served(t, c, kindNamespace)
	defineReconcilers(t, c)
	for _, n := range []string{ns, gitNS} {
		create(t, c, "{apiVersion: v1, kind: Namespace, metadata: {name: "+n+"}}")
	}
	t.Cleanup(func() {
		remove(t, c, nsAt, ns, gitNS, "f-lease-"+suffix)
	})
	labels := map[string]any{"kustomize.toolkit.fluxcd.io/name": "shop", "kustomize.toolkit.fluxcd.io/namespace": gitNS}
	f := &flux{c: c, namespace: gitNS, name: "shop", kustomizAt: served(t, c, gitops.KindKustomization), at: served(t, c, kindConfigMap)}
	for _, name := range []string{"a", "b", "c"} {
		create(t, c, fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: %s, namespace: %s, labels: {kustomize.toolkit.fluxcd.io/name: shop, kustomize.toolkit.fluxcd.io/namespace: %s}}, data: {v: point}}", name, ns, gitNS))
		f.git = append(f.git, map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name, "namespace": ns, "labels": labels}, "data": map[string]any{"v": "git"},
		})
	}
	m, src := take(t, c, ns, []schema.GroupKind{kindConfigMap}, map[schema.GroupKind]string{kindNamespace: ns})
	remove(t, c, nsAt, ns)
	create(t, c, "{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, metadata: {name: shop, namespace: "+gitNS+"}, spec: {path: ./shop}}")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.run(ctx) }()
	t.Cleanup(func() { stop(); <-done })

	var once sync.Once
	var during int64
	values := func() (all string) {
		for _, name := range []string{"a", "b", "c"} {
			if u, err := c.Get(t.Context(), f.at, ns, name); err == nil {
				all += fmt.Sprint(field(u, "data", "v"), " ")
			}
		}
		return all
	}
	midway := func() { // the namespace is there, and its objects are not: git has its chance
		once.Do(func() {
			before, rounds := f.writes.Load(), f.rounds.Load()
			eventually(t, "the controller comes round", func() (bool, error) { return f.rounds.Load() > rounds+3, nil })
			during = f.writes.Load() - before
		})
	}
	e := restore.New(m, restore.Options{ID: "rfight" + suffix, Holder: t.Name(), LeaseNamespace: "f-lease-" + suffix, GitOps: mode, Workers: 1},
		restore.Deps{Source: src, Cluster: watched{c, midway}})
	res, err := e.Run(t.Context())
	if err != nil || len(res.Failures) > 0 {
		t.Fatalf("%v %v", err, res.Failures)
	}
	if fights := during > 0; fights != (mode == gitops.Keep) {
		t.Errorf("%s: the controller wrote %d objects midway (%+v)", mode, during, res)
	}
	eventually(t, "git goes on", func() (bool, error) {
		k, err := c.Get(t.Context(), f.kustomizAt, gitNS, "shop")
		if err != nil {
			return false, err
		}
		return values() == "git git git " && !gitops.Suspended(gitops.KindKustomization, k.Object) && len(k.GetAnnotations()) == 0, fmt.Errorf("objects hold %s", values())
	})
	if err, failed := f.failed.Load().(error); failed {
		t.Errorf("the controller itself: %v", err)
	}
}
