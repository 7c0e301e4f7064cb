package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/quiesce"
	"davit.dev/davit/internal/selection"
)

// world is a fake of every port. Each call is noted, in order.
type world struct {
	t       *testing.T
	kinds   []Kind
	objects map[string][]*unstructured.Unstructured // by kind
	broken  map[string]error                        // list errors by kind

	mu       sync.Mutex
	calls    []string
	live     map[string]bool // claims read live
	fail     map[string]error
	errors   int64 // of every volume read
	released []string
	kept     []string                // of these, that are for the next capture
	blocks   map[string]point.Blocks // what is said of volumes read, by claim
	pods     []quiesce.Pod
	session  quiesce.Session
	written  map[string][]string // names by kind, as the sink saw them
	now      time.Time
	cuts     map[string]Cut // that were read, by claim
	onCut    func()
	freezer  Freezer
	volumes  Volumes // nil: the world itself
}

var allVerbs = []string{"create", "get", "list"}

func newWorld(t *testing.T, manifests string) *world {
	t.Helper()
	w := &world{
		t: t, objects: map[string][]*unstructured.Unstructured{}, broken: map[string]error{},
		live: map[string]bool{}, fail: map[string]error{}, written: map[string][]string{}, cuts: map[string]Cut{},
		now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	for _, line := range []struct{ group, kind, resource string }{
		{"", "ConfigMap", "configmaps"},
		{"", "Secret", "secrets"},
		{"", "Pod", "pods"},
		{"", "Service", "services"},
		{"", "Endpoints", "endpoints"},
		{"", "PersistentVolumeClaim", "persistentvolumeclaims"},
		{"", "ServiceAccount", "serviceaccounts"},
		{"apps", "Deployment", "deployments"},
		{"apps", "StatefulSet", "statefulsets"},
		{"apps", "ReplicaSet", "replicasets"},
		{"shop.example.com", "Order", "orders"},
		{"rbac.authorization.k8s.io", "Role", "roles"},
		{"rbac.authorization.k8s.io", "RoleBinding", "rolebindings"},
		{"networking.k8s.io", "Ingress", "ingresses"},
	} {
		w.kinds = append(w.kinds, Kind{Group: line.group, Version: "v1", Kind: line.kind, Resource: line.resource, Namespaced: true, Verbs: allVerbs})
	}
	for _, line := range []struct{ group, kind, resource string }{
		{"", "Namespace", "namespaces"},
		{"", "PersistentVolume", "persistentvolumes"},
		{"storage.k8s.io", "StorageClass", "storageclasses"},
		{"apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions"},
		{"rbac.authorization.k8s.io", "ClusterRole", "clusterroles"},
		{"rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings"},
		{"scheduling.k8s.io", "PriorityClass", "priorityclasses"},
		{"networking.k8s.io", "IngressClass", "ingressclasses"},
		{"admissionregistration.k8s.io", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations"},
	} {
		w.kinds = append(w.kinds, Kind{Group: line.group, Version: "v1", Kind: line.kind, Resource: line.resource, Verbs: allVerbs})
	}
	for doc := range strings.SplitSeq(manifests, "\n---\n") {
		if strings.TrimSpace(doc) != "" {
			w.put(parse(t, doc))
		}
	}
	return w
}

func (w *world) put(o *unstructured.Unstructured) {
	w.t.Helper()
	i := slices.IndexFunc(w.kinds, func(k Kind) bool { return k.Kind == o.GetKind() })
	if i < 0 {
		w.t.Fatalf("no kind %s", o.GetKind())
	}
	name := w.kinds[i].Name()
	w.objects[name] = append(w.objects[name], o)
}

func (w *world) note(format string, args ...any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	call := fmt.Sprintf(format, args...)
	w.calls = append(w.calls, call)
	return w.fail[call]
}

func (w *world) Catalog(context.Context) (Catalog, error) {
	return Catalog{Kinds: w.kinds, Broken: map[string]error{}}, nil
}
func (w *world) Version(context.Context) (string, error) { return "v1.34.0", nil }
func (w *world) Revision(context.Context) (string, error) {
	return "100", w.note("revision")
}

func (w *world) List(_ context.Context, q Query, page func([]unstructured.Unstructured) error) (Listed, error) {
	if err := w.broken[q.Kind.Name()]; err != nil {
		return Listed{}, err
	}
	selector, err := labels.Parse(q.Labels)
	if err != nil {
		return Listed{}, err
	}
	w.mu.Lock()
	all := slices.Clone(w.objects[q.Kind.Name()])
	w.mu.Unlock()
	for _, o := range all {
		if q.Name != "" && o.GetName() != q.Name || q.Kind.Namespaced && o.GetNamespace() != q.Namespace || !selector.Matches(labels.Set(o.GetLabels())) {
			continue
		}
		if err := page([]unstructured.Unstructured{*o.DeepCopy()}); err != nil {
			return Listed{}, err
		}
	}
	return Listed{Revision: "100", Late: q.Revision == "100" && q.Kind.Resource == "orders"}, nil
}

func (w *world) Plan(_ context.Context, c Claim, _ VolumeOptions) (VolumePlan, error) {
	plan := VolumePlan{Driver: "csi.example.com", Method: MethodSnapshot}
	if w.live[c.Name] {
		plan = VolumePlan{Method: MethodLive}
	}
	return plan, w.note("plan %s", c.Key())
}

func (w *world) Cut(_ context.Context, p VolumePlan) (Cut, error) {
	if w.onCut != nil {
		w.onCut()
	}
	return Cut{}, w.note("cut %s", p.Claim.Key())
}

func (w *world) Read(_ context.Context, c Cut, previous *point.Snapshot, _ func(VolumeProgress)) (VolumeRead, error) {
	w.mu.Lock()
	w.cuts[c.Plan.Claim.Name] = c
	w.mu.Unlock()
	id := "new"
	if previous != nil {
		id = "after " + previous.ID
	}
	snap := point.Snapshot{ID: id, Bytes: 10, Errors: w.errors}
	if b, ok := w.blocks[c.Plan.Claim.Name]; ok {
		snap.Blocks = &b
	}
	return VolumeRead{Snapshot: snap}, w.note("read %s", c.Plan.Claim.Key())
}

func (w *world) Release(_ context.Context, p VolumePlan) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.released = append(w.released, p.Claim.Key())
	if p.Keep {
		w.kept = append(w.kept, p.Claim.Key())
	}
	return nil
}

func (w *world) Pods(context.Context, []string) ([]quiesce.Pod, error) { return w.pods, nil }

func (w *world) Hold(context.Context, quiesce.Target, quiesce.Hold) (quiesce.Session, error) {
	return w.session, w.note("hold")
}

func (w *world) Run(ctx context.Context, _ quiesce.Target, a quiesce.Action) (string, error) {
	if err := w.note("exec %s", a.Command[0]); err != nil {
		return "said no", err
	}
	return "done", ctx.Err()
}

func (w *world) Resource(res point.Resource) ObjectWriter { return &fakeWriter{w: w, res: res} }

type fakeWriter struct {
	w   *world
	res point.Resource
}

func (f *fakeWriter) Add(_ context.Context, object []byte) error {
	var o unstructured.Unstructured
	if err := json.Unmarshal(object, &o.Object); err != nil {
		return err
	}
	if len(o.GetManagedFields()) > 0 {
		f.w.t.Errorf("%s %s has managed fields", f.res.Kind, o.GetName())
	}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	name := Kind{Group: f.res.Group, Resource: f.res.Resource}.Name()
	f.w.written[name] = append(f.w.written[name], o.GetName())
	f.res.Count++
	return nil
}

func (f *fakeWriter) Close(context.Context) (point.Resource, error) { return f.res, nil }

func (w *world) run(spec Spec) (*Result, error) {
	w.t.Helper()
	if spec.Namespaces == nil {
		spec.Namespaces = []string{"shop"}
	}
	if spec.Mode == "" {
		spec.Mode = ModeSnapshot
	}
	spec.Application, spec.ID = "shop", "shop-1"
	ports := Ports{Cluster: w, Volumes: w, Hooks: w, Freezer: w.freezer, Sink: w}
	if w.volumes != nil {
		ports.Volumes = w.volumes
	}
	return Run(w.t.Context(), spec, ports, Options{Now: w.clock})
}

// clock goes on by a second at each look.
func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(time.Second)
	return w.now
}

const shop = `
kind: Namespace
metadata: {name: shop}
---
kind: ConfigMap
metadata: {name: config, namespace: shop, managedFields: [{manager: me}]}
---
kind: ConfigMap
metadata: {name: other, namespace: elsewhere}
---
kind: Secret
metadata: {name: password, namespace: shop, labels: {app: db}}
---
kind: Secret
metadata: {name: tls, namespace: shop}
---
kind: ServiceAccount
metadata: {name: shop, namespace: shop}
---
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}}
---
kind: Endpoints
metadata: {name: web, namespace: shop}
---
kind: Endpoints
metadata: {name: outside, namespace: shop}
---
kind: StatefulSet
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  serviceName: db
  template:
    spec:
      serviceAccountName: shop
      priorityClassName: important
      containers: [{name: db, image: postgres:17, envFrom: [{secretRef: {name: tls}}]}]
  volumeClaimTemplates: [{metadata: {name: data}, spec: {storageClassName: reflink}}]
---
kind: Pod
metadata: {name: db-0, namespace: shop, ownerReferences: [{kind: StatefulSet, apiVersion: apps/v1, name: db, uid: u, controller: true}]}
spec: {containers: [{name: db, image: postgres:17}]}
status: {containerStatuses: [{name: db, imageID: registry/postgres@sha256:aa}]}
---
kind: PersistentVolumeClaim
metadata: {name: data-db-0, namespace: shop, uid: c1}
spec: {storageClassName: reflink, volumeName: pv-1}
status: {phase: Bound, capacity: {storage: 1Gi}}
---
kind: PersistentVolume
metadata: {name: pv-1}
---
kind: PersistentVolume
metadata: {name: pv-2}
---
kind: StorageClass
metadata: {name: reflink}
---
kind: PriorityClass
metadata: {name: important}
---
kind: Order
metadata: {name: first, namespace: shop}
---
kind: CustomResourceDefinition
metadata: {name: orders.shop.example.com}
---
kind: CustomResourceDefinition
metadata: {name: others.example.com}
---
kind: RoleBinding
metadata: {name: reads, namespace: shop}
roleRef: {kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: shop}]
---
kind: Role
metadata: {name: reader, namespace: shop}
---
kind: ClusterRoleBinding
metadata: {name: shop-nodes}
roleRef: {kind: ClusterRole, name: node-reader}
subjects: [{kind: ServiceAccount, name: shop, namespace: shop}]
---
kind: ClusterRoleBinding
metadata: {name: others}
roleRef: {kind: ClusterRole, name: other}
subjects: [{kind: ServiceAccount, name: x, namespace: elsewhere}]
---
kind: ClusterRole
metadata: {name: node-reader}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {part: nodes}}]}
---
kind: ClusterRole
metadata: {name: node-part, labels: {part: nodes}}
---
kind: ClusterRole
metadata: {name: other}
---
kind: ValidatingWebhookConfiguration
metadata: {name: ours}
webhooks: [{clientConfig: {service: {namespace: shop, name: web}}}]
---
kind: ValidatingWebhookConfiguration
metadata: {name: theirs}
webhooks: [{clientConfig: {service: {namespace: elsewhere, name: web}}}]
`

func TestRunCapturesWhatBelongs(t *testing.T) {
	w := newWorld(t, shop)
	res, err := w.run(Spec{Previous: map[string]point.Snapshot{"shop/data-db-0": {ID: "old"}}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"namespaces": "shop", "configmaps": "config", "secrets": "password tls", "serviceaccounts": "shop", "services": "web",
		"endpoints": "outside", "statefulsets.apps": "db", "persistentvolumeclaims": "data-db-0", "persistentvolumes": "pv-1",
		"storageclasses.storage.k8s.io": "reflink", "priorityclasses.scheduling.k8s.io": "important", "orders.shop.example.com": "first",
		"customresourcedefinitions.apiextensions.k8s.io": "orders.shop.example.com",
		"rolebindings.rbac.authorization.k8s.io":         "reads", "roles.rbac.authorization.k8s.io": "reader",
		"clusterrolebindings.rbac.authorization.k8s.io": "shop-nodes", "clusterroles.rbac.authorization.k8s.io": "node-part node-reader",
		"validatingwebhookconfigurations.admissionregistration.k8s.io": "ours",
	}
	w.checkWritten(want)
	if len(res.Images) != 1 || res.Images[0] != (point.Image{Reference: "postgres:17", Digest: "sha256:aa"}) {
		t.Errorf("images = %+v", res.Images)
	}
	if len(res.Volumes) != 1 || res.Volumes[0].Snapshot.ID != "after old" || res.Volumes[0].Capacity != 1<<30 {
		t.Errorf("volumes = %+v", res.Volumes)
	}
	if res.Consistency != point.Crash {
		t.Errorf("consistency = %s, want crash: one volume was cut", res.Consistency)
	}
	if !slices.ContainsFunc(res.Warnings, func(w point.Warning) bool { return strings.Contains(w.Object, "orders") }) {
		t.Errorf("warnings %+v do not say that a kind was listed late", res.Warnings)
	}
}

func (w *world) checkWritten(want map[string]string) {
	w.t.Helper()
	for kind, names := range w.written {
		slices.Sort(names)
		if got := strings.Join(names, " "); got != want[kind] {
			w.t.Errorf("%s: wrote %q, want %q", kind, got, want[kind])
		}
	}
	for kind, names := range want {
		if len(w.written[kind]) == 0 {
			w.t.Errorf("%s: wrote nothing, want %q", kind, names)
		}
	}
}

func TestRunWithSelectorBringsWhatIsNeeded(t *testing.T) {
	w := newWorld(t, shop)
	selector, err := labels.Parse("app=db")
	if err != nil {
		t.Fatal(err)
	}
	res, err := w.run(Spec{Select: selection.Selection{Any: []labels.Selector{selector}}})
	if err != nil {
		t.Fatal(err)
	}
	w.checkWritten(map[string]string{
		"namespaces": "shop", "secrets": "password tls", "serviceaccounts": "shop", "statefulsets.apps": "db",
		"persistentvolumeclaims": "data-db-0", "persistentvolumes": "pv-1", "storageclasses.storage.k8s.io": "reflink",
		"priorityclasses.scheduling.k8s.io": "important", "rolebindings.rbac.authorization.k8s.io": "reads",
		"roles.rbac.authorization.k8s.io": "reader", "clusterrolebindings.rbac.authorization.k8s.io": "shop-nodes",
		"clusterroles.rbac.authorization.k8s.io": "node-part node-reader",
	})
	if len(res.Volumes) != 1 {
		t.Errorf("volumes = %+v, want the stateful set's", res.Volumes)
	}
}

func TestRunRefusesSelectorThatMatchesNothing(t *testing.T) {
	w := newWorld(t, shop)
	selector, _ := labels.Parse("app=nothing")
	if _, err := w.run(Spec{Select: selection.Selection{Any: []labels.Selector{selector}}}); err == nil || !strings.Contains(err.Error(), "selection matches no object") {
		t.Errorf("err = %v", err)
	}
}

const secondClaim = `
kind: PersistentVolumeClaim
metadata: {name: files, namespace: shop, uid: c2}
spec: {volumeName: pv-2}
status: {phase: Bound}
`

func TestConsistency(t *testing.T) {
	for _, tt := range []struct {
		name string
		with func(*world)
		mode Mode
		want point.Consistency
	}{
		{"none", func(*world) {}, ModeNone, point.Crash},
		{"one cut", func(*world) {}, ModeSnapshot, point.Crash},
		{"two cuts", func(w *world) { w.put(parse(w.t, secondClaim)) }, ModeSnapshot, point.PerVolume},
		{"one live", func(w *world) { w.live["data-db-0"] = true }, ModeSnapshotOrLive, point.Fuzzy},
		{"one of two live", func(w *world) { w.put(parse(w.t, secondClaim)); w.live["files"] = true }, ModeSnapshotOrLive, point.Fuzzy},
	} {
		w := newWorld(t, shop)
		tt.with(w)
		res, err := w.run(Spec{Mode: tt.mode})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if res.Consistency != tt.want {
			t.Errorf("%s: consistency = %s, want %s", tt.name, res.Consistency, tt.want)
		}
	}
}

func hookSpec(before, after string) Spec {
	return Spec{Hooks: []quiesce.Hook{{
		Name: "quiet", Pods: labels.Everything(),
		Before: &quiesce.Action{Command: []string{before}}, After: &quiesce.Action{Command: []string{after}},
	}}}
}

// index returns where a call was made, or -1.
func (w *world) index(call string) int { return slices.Index(w.calls, call) }

func TestHooksHoldOnlyTheCut(t *testing.T) {
	w := newWorld(t, shop)
	w.pods = []quiesce.Pod{{Namespace: "shop", Name: "db-0", Containers: []quiesce.Container{{Name: "db"}}}}
	res, err := w.run(hookSpec("lock", "unlock"))
	if err != nil {
		t.Fatal(err)
	}
	order := []string{"plan shop/data-db-0", "exec lock", "revision", "cut shop/data-db-0", "exec unlock", "read shop/data-db-0"}
	at := -1
	for _, call := range order {
		if i := w.index(call); i <= at {
			t.Fatalf("%q out of order in %q", call, w.calls)
		} else {
			at = i
		}
	}
	if len(res.Hooks) != 2 || !res.Instant.Before(res.CutBy) || res.Volumes[0].Instant.Before(res.Instant) {
		t.Errorf("hooks %+v, instant %s, cut by %s, volume at %s", res.Hooks, res.Instant, res.CutBy, res.Volumes[0].Instant)
	}
}

func TestAfterHookRunsWhateverFails(t *testing.T) {
	refused := errors.New("refused")
	for _, call := range []string{"exec lock", "revision", "cut shop/data-db-0"} {
		w := newWorld(t, shop)
		w.pods = []quiesce.Pod{{Namespace: "shop", Name: "db-0", Containers: []quiesce.Container{{Name: "db"}}}}
		w.fail[call] = refused
		_, err := w.run(hookSpec("lock", "unlock"))
		if !errors.Is(err, refused) {
			t.Errorf("%s fails: err = %v", call, err)
		}
		if w.index("exec unlock") < 0 {
			t.Errorf("%s fails: the after-hook did not run", call)
		}
		if w.index("read shop/data-db-0") >= 0 || len(w.written) > 0 {
			t.Errorf("%s fails: something was still captured", call)
		}
		if !slices.Contains(w.released, "shop/data-db-0") {
			t.Errorf("%s fails: the volume was not released", call)
		}
	}
}

func TestHookMayFail(t *testing.T) {
	w := newWorld(t, shop)
	w.pods = []quiesce.Pod{{Namespace: "shop", Name: "db-0", Containers: []quiesce.Container{{Name: "db"}}}}
	w.fail["exec lock"] = errors.New("refused")
	spec := hookSpec("lock", "unlock")
	spec.Hooks[0].Continue = true
	res, err := w.run(spec)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Warnings) == 0 || res.Hooks[0].Error == "" {
		t.Errorf("warnings %+v, hooks %+v: the failure is told nowhere", res.Warnings, res.Hooks)
	}
}

func TestRunFailsWhole(t *testing.T) {
	for _, tt := range []struct {
		name string
		with func(*world)
		want string
	}{
		{"unreadable files", func(w *world) { w.errors = 3 }, "3 of its files"},
		{"broken conversion webhook", func(w *world) { w.broken["orders.shop.example.com"] = errors.New("webhook down") }, `excludeKinds "orders.shop.example.com"`},
		{"missing namespace", func(w *world) { w.objects["namespaces"] = nil }, "does not exist"},
		{"namespace going", func(w *world) {
			w.objects["namespaces"] = []*unstructured.Unstructured{parse(w.t, "metadata: {name: shop, deletionTimestamp: '2026-01-01T00:00:00Z'}")}
		}, "is being deleted"},
		{"lost claim", func(w *world) {
			_ = unstructured.SetNestedField(w.objects["persistentvolumeclaims"][0].Object, "Lost", "status", "phase")
		}, "has lost its volume"},
		{"block claim", func(w *world) {
			_ = unstructured.SetNestedField(w.objects["persistentvolumeclaims"][0].Object, "Block", "spec", "volumeMode")
		}, "raw block device"},
		{"no snapshot class", func(w *world) { w.fail["plan shop/data-db-0"] = errors.New("no class") }, "no class"},
		{"claim bound after the cut", func(w *world) { w.onCut = func() { w.mu.Lock(); defer w.mu.Unlock(); w.put(parse(w.t, secondClaim)) } }, "without its data"},
	} {
		w := newWorld(t, shop)
		tt.with(w)
		if _, err := w.run(Spec{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: err = %v, want %q in it", tt.name, err, tt.want)
		}
	}
}

func TestAggregatedAPIThatIsDownIsAWarning(t *testing.T) {
	w := newWorld(t, shop)
	w.kinds = append(w.kinds, Kind{Group: "far.example.com", Version: "v1", Kind: "Far", Resource: "fars", Namespaced: true, Verbs: allVerbs, Aggregated: true})
	w.broken["fars.far.example.com"] = fmt.Errorf("%w: 503", ErrUnavailable)
	res, err := w.run(Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(res.Warnings, func(w point.Warning) bool { return w.Object == "fars.far.example.com" }) {
		t.Errorf("warnings = %+v", res.Warnings)
	}
	// The same of a kind that the cluster keeps itself is an error.
	w = newWorld(t, shop)
	w.broken["orders.shop.example.com"] = fmt.Errorf("%w: 503", ErrUnavailable)
	if _, err := w.run(Spec{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("err = %v, want ErrUnavailable", err)
	}
}

func TestReadFailureReleasesVolumes(t *testing.T) {
	w := newWorld(t, shop)
	w.fail["read shop/data-db-0"] = errors.New("node gone")
	if _, err := w.run(Spec{}); err == nil || !slices.Contains(w.released, "shop/data-db-0") {
		t.Errorf("err = %v, released %q", err, w.released)
	}
}

// TestOnlyCutsThatAreOfUseAreKept, and none of a capture that failed.
func TestOnlyCutsThatAreOfUseAreKept(t *testing.T) {
	for _, fails := range []bool{false, true} {
		w := newWorld(t, shop)
		w.blocks = map[string]point.Blocks{"data-db-0": {Base: true}}
		if fails {
			w.broken["orders.shop.example.com"] = errors.New("broken")
		}
		_, err := w.run(Spec{ChangedBlocks: true})
		if (err != nil) != fails {
			t.Fatal(err)
		}
		if kept := slices.Equal(w.kept, []string{"shop/data-db-0"}); kept == fails || fails && len(w.kept) > 0 {
			t.Errorf("capture fails: %t; kept are %v of %v", fails, w.kept, w.released)
		}
	}
}

func TestModeNoneLeavesVolumesAlone(t *testing.T) {
	w := newWorld(t, shop)
	if _, err := w.run(Spec{Mode: ModeNone}); err != nil {
		t.Fatal(err)
	}
	if w.index("plan shop/data-db-0") >= 0 || !slices.Contains(w.written["persistentvolumeclaims"], "data-db-0") {
		t.Errorf("calls %q, wrote %q", w.calls, w.written["persistentvolumeclaims"])
	}
}

// TestAClaimThatLingersInItsDeletion: somebody deleted it while a pod has it mounted. What is
// captured without its data would make the points expire that have it. The controls are claims
// that go, those nobody wants, and a pod's own.
func TestAClaimThatLingersInItsDeletion(t *testing.T) {
	for what, tt := range map[string]struct {
		change func(*unstructured.Unstructured)
		fails  bool
	}{
		"in use for long": {func(*unstructured.Unstructured) {}, true},
		"deleted just now": {func(o *unstructured.Unstructured) {
			o.SetDeletionTimestamp(&metav1.Time{Time: time.Date(2026, 1, 2, 3, 3, 5, 0, time.UTC)})
		}, false},
		"used by nobody":    {func(o *unstructured.Unstructured) { o.SetFinalizers([]string{"example.com/x"}) }, false},
		"left out by label": {func(o *unstructured.Unstructured) { o.SetLabels(map[string]string{LabelExclude: "true"}) }, false},
		"a pod's own volume": {func(o *unstructured.Unstructured) {
			o.SetOwnerReferences([]metav1.OwnerReference{{Kind: "Pod", Name: "p", Controller: new(true)}})
		}, false},
		"not to be captured": {func(o *unstructured.Unstructured) { o.SetNamespace("elsewhere") }, false},
	} {
		w := newWorld(t, shop)
		claim := parse(t, `
kind: PersistentVolumeClaim
metadata: {name: uploads, namespace: shop, uid: c2, finalizers: [kubernetes.io/pvc-protection]}
spec: {storageClassName: reflink, volumeName: pv-2}
status: {phase: Bound, capacity: {storage: 1Gi}}
`)
		claim.SetDeletionTimestamp(&metav1.Time{Time: time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)})
		tt.change(claim)
		w.put(claim)
		res, err := w.run(Spec{})
		switch {
		case !tt.fails && (err != nil || len(res.Volumes) != 1):
			t.Errorf("%s: %d volumes, %v", what, len(res.Volumes), err)
		case tt.fails && (err == nil || !strings.Contains(err.Error(), "claim shop/uploads is being deleted since 2026-01-02T03:00:00Z") || !strings.Contains(err.Error(), "--force if their node is lost") || slices.Contains(w.calls, "revision")):
			t.Errorf("%s: %v, after %v", what, err, w.calls)
		}
	}
}
