package target

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/shape"
)

// reconcilers are the kinds that make objects from git, with no more of a
// schema than the fields that matter here.
var reconcilers = []struct {
	kind            schema.GroupKind
	version, plural string
	document        string
}{
	{gitops.KindKustomization, "v1", "kustomizations", `spec: {path: ./shop, suspend: false}`},
	{gitops.KindHelmRelease, "v2", "helmreleases", `spec: {interval: 1m}`},
	{gitops.KindApplication, "v1alpha1", "applications", `spec: {project: default, syncPolicy: {automated: {prune: true, selfHeal: true}, syncOptions: [CreateNamespace=true]}}`},
}

// defined are the definitions that these tests gave the cluster. They share
// them, and TestMain takes them away: no test loses a kind under its feet.
var defined struct {
	sync.Mutex
	names []string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if err := undefine(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func undefine() error {
	if len(defined.names) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	clients, err := kube.Kubeconfig(os.Getenv("DAVIT_TEST_KUBECONFIG"), "")
	if err != nil {
		return err
	}
	c := New(clients)
	at, err := c.Serves(ctx, shape.KindCRD)
	if err != nil {
		return err
	}
	for _, name := range defined.names {
		if err := c.at(at[0], "").Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// defineReconcilers gives the cluster their definitions, where it has none.
func defineReconcilers(t *testing.T, c *Cluster) {
	t.Helper()
	defined.Lock()
	defer defined.Unlock()
	if err := c.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range reconcilers {
		if _, err := c.Serves(t.Context(), r.kind); err == nil {
			continue
		}
		defined.names = append(defined.names, r.plural+"."+r.kind.Group)
		singular := strings.ToLower(r.kind.Kind)
		create(t, c, fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[2]s.%[1]s}
spec:
  group: %[1]s
  scope: Namespaced
  names: {plural: %[2]s, singular: %[3]s, kind: %[4]s}
  versions:
  - name: %[5]s
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-preserve-unknown-fields: true
            properties: {suspend: {type: boolean}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
`, r.kind.Group, r.plural, singular, r.kind.Kind, r.version))
		eventually(t, "serve "+r.plural, func() (bool, error) {
			if err := c.Refresh(t.Context()); err != nil {
				return false, err
			}
			_, err := c.Serves(t.Context(), r.kind)
			return err == nil, err
		})
	}
}

// Objects of every reconciler are restored while it is suspended, on a real
// API server; afterwards each is what it was.
func TestGitOpsOnRealCluster(t *testing.T) {
	t.Parallel()
	clients := realClients(t)
	c := New(clients)
	suffix := fmt.Sprint(time.Now().UnixNano() % 1e6)
	ns, gitNS := "f-git-"+suffix, "f-flux-"+suffix
	nsAt := served(t, c, schema.GroupKind{Kind: "Namespace"})
	defineReconcilers(t, c)
	for _, n := range []string{ns, gitNS} {
		create(t, c, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+n+"}")
	}
	t.Cleanup(func() { remove(t, c, nsAt, ns, gitNS, "f-lease-"+suffix) })
	was := map[schema.GroupKind]map[string]any{}
	find := func(r schema.GroupKind) *unstructured.Unstructured {
		t.Helper()
		u, err := c.Get(t.Context(), served(t, c, r), gitNS, "shop-"+suffix)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, r := range reconcilers {
		create(t, c, fmt.Sprintf("apiVersion: %s/%s\nkind: %s\nmetadata: {name: shop-%s, namespace: %s}\n%s", r.kind.Group, r.version, r.kind.Kind, suffix, gitNS, r.document))
		was[r.kind] = find(r.kind).Object["spec"].(map[string]any)
	}
	marks := map[string]string{
		"kustomize": fmt.Sprintf("labels: {kustomize.toolkit.fluxcd.io/name: shop-%s, kustomize.toolkit.fluxcd.io/namespace: %s}", suffix, gitNS),
		"helm":      fmt.Sprintf("labels: {helm.toolkit.fluxcd.io/name: shop-%s, helm.toolkit.fluxcd.io/namespace: %s}", suffix, gitNS),
		"argo":      fmt.Sprintf(`annotations: {argocd.argoproj.io/tracking-id: "shop-%s:/ConfigMap:%s/argo"}`, suffix, ns),
		"labelled":  fmt.Sprintf("labels: {app.kubernetes.io/instance: shop-%s}", suffix),
		"none":      "labels: {app.kubernetes.io/instance: chart}",
	}
	for name, mark := range marks {
		create(t, c, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: %s, %s}\ndata: {a: b}", name, ns, mark))
	}
	m, src := take(t, c, ns, []schema.GroupKind{{Kind: "ConfigMap"}}, map[schema.GroupKind]string{{Kind: "Namespace"}: ns})
	remove(t, c, nsAt, ns)

	engine := func(id string, mode gitops.Mode, before func()) *restore.Engine {
		return restore.New(m, restore.Options{
			ID: id + suffix, Holder: t.Name(), LeaseNamespace: "f-lease-" + suffix, GitOps: mode,
		}, restore.Deps{Source: src, Cluster: watched{c, before}})
	}
	have := func() (names string) {
		for _, name := range []string{"kustomize", "helm", "argo", "labelled", "none"} {
			if _, err := c.Get(t.Context(), served(t, c, schema.GroupKind{Kind: "ConfigMap"}), ns, name); err == nil {
				names += name + " "
			}
		}
		return names
	}
	if res, err := engine("rskip", gitops.Skip, nil).Run(t.Context()); err != nil || len(res.Failures) > 0 || have() != "none " {
		t.Errorf("skip: %v %v, restored %q", err, res.Failures, have())
	}
	plan, err := engine("rsusp", gitops.Suspend, nil).Plan(t.Context())
	if err != nil || !strings.Contains(fmt.Sprint(plan[:3]), "suspend") || gitops.Suspended(gitops.KindApplication, find(gitops.KindApplication).Object) {
		t.Errorf("dry run: %v %v", err, plan)
	}
	var looks atomic.Int64 // objects are made side by side
	res, err := engine("rsusp", gitops.Suspend, func() {
		looks.Add(1)
		for _, r := range reconcilers {
			if !gitops.Suspended(r.kind, find(r.kind).Object) {
				t.Errorf("%s goes on while objects are made", r.kind)
			}
		}
	}).Run(t.Context())
	if err != nil || len(res.Failures) > 0 || looks.Load() == 0 || have() != "kustomize helm argo labelled none " {
		t.Errorf("suspend: %v %v, restored %q, %d looks", err, res.Failures, have(), looks.Load())
	}
	for _, r := range reconcilers {
		u := find(r.kind)
		spec, _ := u.Object["spec"].(map[string]any)
		var differ []string
		delete(was[r.kind], "suspend") // absent is false
		shape.Differ("", was[r.kind], spec, &differ)
		if len(differ) > 0 || gitops.Suspended(r.kind, u.Object) || len(u.GetAnnotations()) > 0 {
			t.Errorf("%s is left as %v %v, was %v", r.kind, u.GetAnnotations(), spec, was[r.kind])
		}
	}
}

// watched looks on before a ConfigMap is made.
type watched struct {
	*Cluster
	before func()
}

func (w watched) Create(ctx context.Context, at restore.Served, u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if w.before != nil && at.GVK.Kind == "ConfigMap" {
		w.before()
	}
	return w.Cluster.Create(ctx, at, u)
}
