package trial

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	fakediscovery "k8s.io/client-go/discovery/fake"
	fakedynamic "k8s.io/client-go/dynamic/fake"
	fakekubernetes "k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/target"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

var noon = time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)

// world is a vault with one point, and a cluster that is a fake in which no
// controller lives: a workload is ready when its captured status says so.
type world struct {
	t       *testing.T
	project *vault.Project
	dynamic *fakedynamic.FakeDynamicClient
	deps    Deps
	opts    Options

	mu      sync.Mutex
	now     time.Time
	passed  chan struct{} // closed when time passes
	closed  []string
	removed []string
	answer  func(ctx context.Context, command []string) (string, error)
	held    error // of removing
}

var kinds = map[string][][3]string{
	"v1": {
		{"namespaces", "Namespace", ""},
		{"configmaps", "ConfigMap", "n"},
		{"services", "Service", "n"},
		{"pods", "Pod", "n"},
		{"persistentvolumeclaims", "PersistentVolumeClaim", "n"},
		{"events", "Event", "n"},
	},
	"apps/v1": {
		{"deployments", "Deployment", "n"}, {"statefulsets", "StatefulSet", "n"}, {"daemonsets", "DaemonSet", "n"}, {"replicasets", "ReplicaSet", "n"},
	},
	"batch/v1":                     {{"jobs", "Job", "n"}, {"cronjobs", "CronJob", "n"}},
	"networking.k8s.io/v1":         {{"ingresses", "Ingress", "n"}, {"networkpolicies", "NetworkPolicy", "n"}},
	"rbac.authorization.k8s.io/v1": {{"clusterroles", "ClusterRole", ""}},
	"coordination.k8s.io/v1":       {{"leases", "Lease", "n"}},
	"storage.k8s.io/v1":            {{"storageclasses", "StorageClass", ""}},
}

func newWorld(t *testing.T) *world {
	t.Helper()
	id, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	project, err := vault.CreateProject(t.Context(), mem.New(time.Now), "default", id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, project: project, now: noon, passed: make(chan struct{}), answer: func(context.Context, []string) (string, error) { return "1\n", nil }}
	s := runtime.NewScheme()
	if err := scheme.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	w.dynamic = fakedynamic.NewSimpleDynamicClient(s, &corev1.Namespace{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: "shop"},
	})
	k := fakekubernetes.NewClientset()
	k.PrependReactor("create", "selfsubjectaccessreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &authorizationv1.SelfSubjectAccessReview{Status: authorizationv1.SubjectAccessReviewStatus{Allowed: true}}, nil
	})
	w.dynamic.PrependReactor("create", "leases", func(a clienttesting.Action) (bool, runtime.Object, error) {
		_, err := w.dynamic.Tracker().Get(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, "", a.GetNamespace())
		return err != nil, nil, err // as the API server refuses it
	})
	d, ok := k.Discovery().(*fakediscovery.FakeDiscovery)
	if !ok {
		t.Fatal("no fake discovery")
	}
	for gv, all := range kinds {
		list := &metav1.APIResourceList{GroupVersion: gv}
		for _, r := range all {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: r[0], Kind: r[1], Namespaced: r[2] != ""})
		}
		d.Resources = append(d.Resources, list)
	}
	w.deps = Deps{
		Recovery: recovery.Deps{
			Project: project, VaultName: "main", Site: "east", Holder: "test", Cluster: target.New(&kube.Clients{Dynamic: w.dynamic, Kubernetes: k, Discovery: d}),
			Clock: w,
		},
		Cluster: w, Sleep: w.Sleep,
	}
	w.deps.Recovery.Now = w.Now
	w.opts = Options{Application: "shop", Point: "shop-1", Owner: AgentOwner("a")}
	return w
}

// Now and Sleep are a clock that a short sleep moves on at once. A long one, as
// of what renews the lease beside the restore, lasts until the others have slept
// so long.
func (w *world) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) Sleep(ctx context.Context, d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	until := w.now.Add(d)
	if d <= askAgain {
		w.now = until
		close(w.passed)
		w.passed = make(chan struct{})
		return ctx.Err()
	}
	for w.now.Before(until) && ctx.Err() == nil {
		passed := w.passed
		w.mu.Unlock()
		select {
		case <-passed:
		case <-ctx.Done():
		}
		w.mu.Lock()
	}
	return ctx.Err()
}

// publish makes the point of these objects, all in namespace shop.
func (w *world) publish(objects ...string) {
	w.t.Helper()
	writer, err := w.project.NewWriter(w.t.Context(), "shop", "shop-1")
	if err != nil {
		w.t.Fatal(err)
	}
	m := &point.Manifest{
		FormatVersion: 1, ID: "shop-1", Application: "shop", Project: "default", Site: "east", Epoch: 1, Instant: noon, CutBy: noon,
		StartedAt: noon, FinishedAt: noon, Consistency: point.Crash, Namespaces: []string{"shop"},
	}
	for i, raw := range objects {
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON([]byte(raw)); err != nil {
			w.t.Fatal(err)
		}
		if u.GetKind() != "ClusterRole" {
			u.SetNamespace("shop")
		}
		u.SetUID(types.UID(fmt.Sprintf("u%d", i)))
		gvk := u.GroupVersionKind()
		res := point.Resource{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind, Versions: []string{gvk.Version}}
		for _, r := range kinds[u.GetAPIVersion()] {
			if r[1] == gvk.Kind {
				res.Resource, res.Namespaced = r[0], r[2] != ""
			}
		}
		body, err := u.MarshalJSON()
		if err != nil {
			w.t.Fatal(err)
		}
		rw := writer.Resource(res)
		if err := rw.Add(w.t.Context(), body); err != nil {
			w.t.Fatal(err)
		}
		if res, err = rw.Close(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		m.Resources = append(m.Resources, res)
		m.Objects++
	}
	if err := writer.Publish(w.t.Context(), m, func(context.Context) error { return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// db is a Deployment of one replica; start makes the fake's get ready at once.
const db = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"db","generation":1},"spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[]}}}}`

func (w *world) start() {
	w.dynamic.PrependReactor("create", "deployments", func(a clienttesting.Action) (bool, runtime.Object, error) {
		u, ok := a.(clienttesting.CreateAction).GetObject().(*unstructured.Unstructured)
		if replicas, _, _ := unstructured.NestedInt64(u.Object, "spec", "replicas"); ok && replicas > 0 {
			u.Object["status"] = map[string]any{"observedGeneration": u.GetGeneration(), "readyReplicas": replicas, "availableReplicas": replicas, "updatedReplicas": replicas}
		}
		return false, nil, nil
	})
}

const conf = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"conf"},"data":{"db":"db.shop.svc:5432"}}`

// Copies implements Cluster over the fake's namespaces.
func (w *world) Copies(ctx context.Context) ([]Copy, error) {
	list, err := w.dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var all []Copy
	for i := range list.Items {
		ns := &list.Items[i]
		if ns.GetLabels()[v1alpha1.LabelRestoreTest] == "" {
			continue
		}
		until, err := time.Parse(time.RFC3339, ns.GetAnnotations()[v1alpha1.AnnotationTestUntil])
		if err != nil {
			return nil, err
		}
		all = append(all, Copy{
			Namespace: ns.GetName(), Test: ns.GetLabels()[v1alpha1.LabelRestoreTest], RestoreID: ns.GetLabels()[v1alpha1.LabelRestore],
			Owner: ns.GetAnnotations()[v1alpha1.AnnotationTestOwner], Until: until,
		})
	}
	return all, nil
}

// Close implements Cluster.
func (w *world) Close(_ context.Context, namespaces []string) error {
	w.closed = namespaces
	return nil
}

// Remove implements Cluster.
func (w *world) Remove(ctx context.Context, copies []Copy) error {
	if w.held != nil {
		return w.held
	}
	for _, c := range copies {
		w.removed = append(w.removed, c.Namespace)
		if err := w.dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).Delete(ctx, c.Namespace, metav1.DeleteOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// Exec implements Prober.
func (w *world) Exec(ctx context.Context, namespace string, _ v1alpha1.PodChoice, command []string) (string, error) {
	if !strings.HasPrefix(namespace, "davit-test-") {
		w.t.Errorf("asked in %s", namespace)
	}
	return w.answer(ctx, command)
}

// HTTP implements Prober.
func (w *world) HTTP(ctx context.Context, _ string, p v1alpha1.HTTPProbe) (int, string, error) {
	text, err := w.answer(ctx, []string{p.Path})
	return 503, text, err
}

// Job implements Prober.
func (w *world) Job(ctx context.Context, _, name string, _ v1alpha1.JobProbe) (string, error) {
	return w.answer(ctx, []string{name})
}

func (w *world) marks() []vault.Mark {
	w.t.Helper()
	marks, err := w.project.Marks(w.t.Context(), "shop", "shop-1")
	if err != nil {
		w.t.Fatal(err)
	}
	return marks
}

// left are the namespaces of copies.
func (w *world) left() int {
	w.t.Helper()
	all, err := w.Copies(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return len(all)
}

func sqlProbe(expect string) v1alpha1.RestoreProbe {
	return v1alpha1.RestoreProbe{
		Name: "rows", Expect: expect, Timeout: &metav1.Duration{Duration: 20 * time.Millisecond},
		SQL: &v1alpha1.SQLProbe{Client: "psql", Query: "SELECT 1", Database: "shop"},
	}
}

func TestWhatWorksPasses(t *testing.T) {
	w := newWorld(t)
	w.publish(conf)
	w.opts.Probes = []v1alpha1.RestoreProbe{sqlProbe("^1$")}
	w.answer = func(_ context.Context, command []string) (string, error) {
		if want := []string{"psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "shop", "-c", "SELECT 1"}; !slices.Equal(command, want) {
			t.Errorf("command %q", command)
		}
		return "1", nil
	}
	report, err := Run(t.Context(), w.opts, w.deps)
	if err != nil || !report.Passed || w.left() != 0 || !slices.Equal(w.removed, report.Namespaces) {
		t.Fatalf("%v %+v, removed %v", err, report, w.removed)
	}
	m := w.marks()
	if len(m) != 1 || m[0].Kind != vault.MarkVerified || m[0].How != vault.HowBoot || len(m[0].Probes) != 1 || !m[0].Probes[0].Passed {
		t.Errorf("marks %+v", m)
	}
	if !slices.ContainsFunc(report.Warnings, func(s string) bool { return strings.Contains(s, "*.shop.svc") }) {
		t.Errorf("nothing warns that the copy may reach the original: %q", report.Warnings)
	}
}

func TestAFailedProbeIsAVerdictAndNoDamage(t *testing.T) {
	w := newWorld(t)
	w.publish(conf)
	w.opts.Probes = []v1alpha1.RestoreProbe{sqlProbe("^2$")}
	report, err := Run(t.Context(), w.opts, w.deps)
	if !errors.Is(err, ErrFailed) || !strings.Contains(report.Failure, `probe rows: want an answer that matches "^2$", got "1"`) || w.left() != 0 {
		t.Fatalf("%v %+v", err, report)
	}
	m := w.marks()
	if len(m) != 1 || m[0].Kind != vault.MarkUnbootable {
		t.Fatalf("marks %+v", m)
	}
	infos, err := w.project.Points(t.Context(), "shop")
	if err != nil || !infos[0].Point().Good() {
		t.Errorf("a point whose restore test failed is not offered: %v", err)
	}
	w.opts.Probes = []v1alpha1.RestoreProbe{sqlProbe("^1$")}
	if err := w.Sleep(t.Context(), time.Second); err != nil { // marks are told apart by their time
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), w.opts, w.deps); err != nil {
		t.Fatal(err)
	}
	if infos, err = w.project.Points(t.Context(), "shop"); err != nil || infos[0].Tested().Kind != vault.MarkVerified {
		t.Errorf("the newer verdict does not count: %v %+v", err, infos[0].Tested())
	}
}

// TestTheOriginalIsLeftAlone: nothing cluster-scoped, nothing that reaches out.
func TestTheOriginalIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.publish(conf,
		`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"reader"}}`,
		`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"web"},"spec":{}}`,
		`{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"type":"LoadBalancer","ports":[{"port":80,"nodePort":30080}],"externalIPs":["10.0.0.1"]}}`,
		`{"apiVersion":"batch/v1","kind":"CronJob","metadata":{"name":"bill"},"spec":{"schedule":"* * * * *"}}`)
	var seen []string
	w.dynamic.PrependReactor("create", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		u, ok := a.(clienttesting.CreateAction).GetObject().(*unstructured.Unstructured)
		if !ok {
			return false, nil, nil
		}
		// Preflight asks by dry runs, which the fake cannot tell apart, before anything is made.
		if len(seen) == 0 && u.GetNamespace() == metav1.NamespaceDefault {
			return true, u, nil
		}
		switch u.GetKind() {
		case "ClusterRole", "Ingress":
			t.Errorf("made %s", u.GetKind())
		case "Service":
			if spec := u.Object["spec"].(map[string]any); spec["type"] != "ClusterIP" || spec["externalIPs"] != nil {
				t.Errorf("Service %v", spec)
			}
		case "CronJob":
			if spec := u.Object["spec"].(map[string]any); spec["suspend"] != true {
				t.Errorf("CronJob %v", spec)
			}
		}
		if u.GetKind() != "Namespace" && !strings.HasPrefix(u.GetNamespace(), "davit-test-") {
			t.Errorf("made %s in %q", u.GetKind(), u.GetNamespace())
		}
		if u.GetKind() != "Lease" { // of the restore: refused until its namespace is there
			seen = append(seen, u.GetKind())
		}
		return false, nil, nil
	})
	w.opts.Probes = []v1alpha1.RestoreProbe{sqlProbe("1")}
	report, err := Run(t.Context(), w.opts, w.deps)
	if err != nil || !report.Passed || seen[0] != "Namespace" || !slices.Contains(seen, "Service") || !slices.Contains(seen, "CronJob") {
		t.Fatalf("%v %+v, made %v", err, report, seen)
	}
	if len(w.closed) != 1 || w.closed[0] != report.Namespaces[0] {
		t.Errorf("closed %v before the CronJob came", w.closed)
	}
}

// TestNoVerdict: what was disturbed or stopped says nothing about the point.
func TestNoVerdict(t *testing.T) {
	gone := errors.New("connection refused")
	for name, prepare := range map[string]func(*world, context.CancelFunc){
		"the copy is removed": func(w *world, _ context.CancelFunc) {
			w.publish(conf, `{"apiVersion":"batch/v1","kind":"CronJob","metadata":{"name":"bill"},"spec":{"schedule":"* * * * *"}}`)
			w.answer = func(ctx context.Context, _ []string) (string, error) {
				all, err := w.Copies(ctx)
				return "", errors.Join(gone, err, w.Remove(ctx, all))
			}
		},
		"the agent stops": func(w *world, stop context.CancelFunc) {
			w.publish(conf)
			w.answer = func(context.Context, []string) (string, error) { stop(); return "", gone }
		},
		"the point is deleted": func(w *world, _ context.CancelFunc) {
			w.publish(conf)
			w.answer = func(ctx context.Context, _ []string) (string, error) {
				return "1", w.project.Mark(ctx, "shop", "shop-1", vault.Mark{Kind: vault.MarkDeleting})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			prepare(w, stop)
			w.opts.Probes = []v1alpha1.RestoreProbe{sqlProbe("1")}
			report, err := Run(ctx, w.opts, w.deps)
			if err == nil || errors.Is(err, ErrFailed) || report.Passed || w.left() != 0 {
				t.Errorf("%v %+v, %d left", err, report, w.left())
			}
			for _, m := range w.marks() {
				if m.Kind != vault.MarkDeleting {
					t.Errorf("mark %+v", m)
				}
			}
		})
	}
}

// TestAnUndeletedPointGetsItsVerdict: a deletion that was taken off is none.
func TestAnUndeletedPointGetsItsVerdict(t *testing.T) {
	w := newWorld(t)
	w.publish(conf)
	w.opts.Probes = []v1alpha1.RestoreProbe{sqlProbe("1")}
	deleting := vault.Mark{Kind: vault.MarkDeleting, At: noon.Add(-time.Hour)}
	if err := w.project.Mark(t.Context(), "shop", "shop-1", deleting); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), w.opts, w.deps); err == nil || errors.Is(err, ErrFailed) {
		t.Errorf("a point on its way out is tested: %v", err)
	}
	takenOff := vault.Mark{Kind: vault.MarkUndeleted, At: noon.Add(-time.Minute), Seen: []string{w.marks()[0].Ordinal}}
	if err := w.project.Mark(t.Context(), "shop", "shop-1", takenOff); err != nil {
		t.Fatal(err)
	}
	if report, err := Run(t.Context(), w.opts, w.deps); err != nil || !report.Passed {
		t.Errorf("%v %+v", err, report)
	}
	if m := w.marks(); m[len(m)-1].How != vault.HowBoot {
		t.Errorf("marks %+v", m)
	}
}

// TestACopyTakesNoVolumeThatExists: a claim of a class without a provisioner
// would bind to one.
func TestACopyTakesNoVolumeThatExists(t *testing.T) {
	claim := `{"storageClassName":"local","resources":{"requests":{"storage":"1Gi"}},"accessModes":["ReadWriteOnce"]}`
	for name, object := range map[string]string{
		"claim":        `{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"data"},"spec":` + claim + `}`,
		"StatefulSet":  `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"db"},"spec":{"replicas":0,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[]}},"volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":` + claim + `}]}}`,
		"pod's volume": `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"db"},"spec":{"replicas":0,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[],"volumes":[{"name":"v","ephemeral":{"volumeClaimTemplate":{"spec":` + claim + `}}}]}}}}`,
	} {
		for provisioner, refused := range map[string]bool{"kubernetes.io/no-provisioner": true, "csi.test": false} {
			w := newWorld(t)
			w.publish(conf, object)
			class := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": map[string]any{"name": "local"}, "provisioner": provisioner,
			}}
			if _, err := w.dynamic.Resource(schema.GroupVersionResource{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses"}).Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			_, err := Run(t.Context(), w.opts, w.deps)
			if got := err != nil && strings.Contains(err.Error(), "storage class local makes no volumes"); got != refused || refused && (errors.Is(err, ErrFailed) || len(w.marks()) != 0 || w.left() != 0) {
				t.Errorf("%s, %s: %v, marks %v", name, provisioner, err, w.marks())
			}
		}
	}
}

// TestDamageInTheVaultIsAFailure: a pack of the point is gone.
func TestDamageInTheVaultIsAFailure(t *testing.T) {
	w := newWorld(t)
	w.publish(conf)
	m, err := w.project.Manifest(t.Context(), "shop", "shop-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.project.Store().Delete(t.Context(), m.Resources[0].Packs[0].Key); err != nil {
		t.Fatal(err)
	}
	if report, err := Run(t.Context(), w.opts, w.deps); !errors.Is(err, ErrFailed) || !strings.Contains(report.Failure, "not whole in the vault") {
		t.Errorf("%v %+v", err, report)
	}
}

func TestAWorkloadThatDoesNotStartFails(t *testing.T) {
	w := newWorld(t)
	w.publish(db)
	w.opts.ReadyTimeout = 3 * time.Second
	report, err := Run(t.Context(), w.opts, w.deps)
	if !errors.Is(err, ErrFailed) || !strings.Contains(report.Failure, "not ready in time") || !strings.Contains(report.Failure, "/db: ") || w.left() != 0 {
		t.Errorf("%v %+v", err, report)
	}
}

// TestWhatIsLeftIsToldAndSweptLater: the next agent removes it.
func TestWhatIsLeftIsToldAndSweptLater(t *testing.T) {
	w := newWorld(t)
	w.publish(conf)
	w.held = errors.New("namespace waits for a finalizer")
	w.opts.Probes = []v1alpha1.RestoreProbe{sqlProbe("1")}
	report, err := Run(t.Context(), w.opts, w.deps)
	if err != nil || !report.Passed || len(report.Leftovers) != 1 || w.left() != 1 {
		t.Fatalf("%v %+v", err, report)
	}
	w.held = nil
	sweep := func(owner string, now time.Time) []string {
		t.Helper()
		tests, err := Sweep(t.Context(), w, owner, now)
		if err != nil {
			t.Fatal(err)
		}
		return tests
	}
	if tests := sweep(AgentOwner("a"), w.Now()); len(tests) != 0 {
		t.Errorf("swept its own: %v", tests)
	}
	if tests := sweep("cli/somebody/1", w.Now()); len(tests) != 0 {
		t.Errorf("a person's sweep took a living agent's: %v", tests)
	}
	if tests := sweep(AgentOwner("b"), w.Now()); len(tests) != 1 || w.left() != 0 {
		t.Errorf("the next agent swept %v, %d left", tests, w.left())
	}
}

func TestOver(t *testing.T) {
	for name, c := range map[string]struct {
		copied Copy
		owner  string
		want   bool
	}{
		"a person's, within its time": {Copy{Owner: "cli/x/1", Until: noon.Add(time.Hour)}, AgentOwner("a"), false},
		"a person's, after it":        {Copy{Owner: "cli/x/1", Until: noon.Add(-time.Second)}, AgentOwner("a"), true},
		"another agent's":             {Copy{Owner: AgentOwner("b"), Until: noon.Add(time.Hour)}, AgentOwner("a"), true},
		"no time":                     {Copy{Owner: "?", Created: noon.Add(-time.Hour)}, AgentOwner("a"), false},
		"no time, and old":            {Copy{Owner: "?", Created: noon.Add(-25 * time.Hour)}, AgentOwner("a"), true},
	} {
		if got := c.copied.over(c.owner, noon); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestProbesAreAskedAgainUntilTheyPass(t *testing.T) {
	w := newWorld(t)
	w.publish(conf)
	tries := 0
	w.answer = func(context.Context, []string) (string, error) {
		if tries++; tries < 3 {
			return "", errors.New("starting up")
		}
		return "1", nil
	}
	p := sqlProbe("1")
	p.Timeout = &metav1.Duration{Duration: time.Minute}
	w.opts.Probes = []v1alpha1.RestoreProbe{p}
	if _, err := Run(t.Context(), w.opts, w.deps); err != nil || tries != 3 {
		t.Errorf("%v after %d tries", err, tries)
	}
}

// TestJobsHaveNamesOfTheirOwn: of each probe and each try.
func TestJobsHaveNamesOfTheirOwn(t *testing.T) {
	w := newWorld(t)
	w.publish(conf)
	made, refused := map[string]bool{}, 0
	w.answer = func(_ context.Context, command []string) (string, error) {
		if made[command[0]] {
			refused++
			return "", errors.New("AlreadyExists")
		}
		made[command[0]] = true
		if len(made) == 1 {
			return "", errors.New("not yet")
		}
		return "", nil
	}
	for _, name := range []string{"first", "second"} {
		w.opts.Probes = append(w.opts.Probes, v1alpha1.RestoreProbe{Name: name, Job: &v1alpha1.JobProbe{Image: "i"}})
	}
	if report, err := Run(t.Context(), w.opts, w.deps); err != nil || !report.Passed || len(made) != 3 || refused != 0 {
		t.Errorf("%v %+v, made %v", err, report, made)
	}
}

func TestHTTPStatus(t *testing.T) {
	for want, passes := range map[int32]bool{0: false, 503: true, 200: false} {
		w := newWorld(t)
		w.publish(conf)
		w.opts.Probes = []v1alpha1.RestoreProbe{{Name: "web", Timeout: &metav1.Duration{Duration: time.Millisecond}, HTTP: &v1alpha1.HTTPProbe{Service: "web", Status: want}}}
		report, err := Run(t.Context(), w.opts, w.deps)
		if report.Passed != passes {
			t.Errorf("want %d: %v %+v", want, err, report)
		}
	}
}

func TestBadProbesAreRefused(t *testing.T) {
	for _, p := range []v1alpha1.RestoreProbe{
		{Name: "none"},
		{Name: "two", HTTP: &v1alpha1.HTTPProbe{}, Job: &v1alpha1.JobProbe{}},
		{Name: "pattern", Expect: "(", Job: &v1alpha1.JobProbe{}},
		{Name: "where", Namespace: "other", Job: &v1alpha1.JobProbe{}},
	} {
		w := newWorld(t)
		w.publish(conf)
		w.opts.Probes = []v1alpha1.RestoreProbe{p}
		if _, err := Run(t.Context(), w.opts, w.deps); err == nil || errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), p.Name) || w.left() != 0 {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}

func TestCopiesHaveNamesOfTheirOwn(t *testing.T) {
	long := strings.Repeat("a", 60)
	a, b := copyName("id", long+"x", 0), copyName("id", long+"y", 1)
	if a == b || len(a) > 63 || copyName("id", "shop", 0) != "davit-test-id-shop" {
		t.Errorf("%s, %s", a, b)
	}
}
