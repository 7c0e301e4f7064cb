package restore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/occupant"
	"davit.dev/davit/internal/restore/shape"
)

// errKilled is what every call says after the fake's process was "killed".
var errKilled = errors.New("killed")

// fakeCluster keeps objects in memory, with the API server's rules that the
// engine relies on: names are unique, namespaces must exist, resource versions
// grow, and dangling owners are collected.
type fakeCluster struct {
	mu      sync.Mutex
	served  map[schema.GroupKind][]Served
	objects map[string]*unstructured.Unstructured // kind|namespace/name
	version int
	effects int    // writes so far
	killAt  int    // the write before which the process dies; 0: never
	after   bool   // it dies after the write, with the answer lost
	onKill  func() // cancels the run
	onList  func(Served) error
	history []string // "create Kind ns/name", what was done
	asked   []string // the same, and what was refused
	deny    func(verb string, at Served, namespace string) bool
	fail    func(verb string, obj *unstructured.Unstructured) error // before a write
	ready   bool                                                    // workloads get ready at once
}

func newFake() *fakeCluster {
	f := &fakeCluster{served: map[schema.GroupKind][]Served{}, objects: map[string]*unstructured.Unstructured{}, ready: true}
	for _, k := range []struct {
		gv, resource, kind string
		namespaced         bool
	}{
		{"v1", "namespaces", "Namespace", false},
		{"v1", "pods", "Pod", true},
		{"v1", "secrets", "Secret", true},
		{"v1", "configmaps", "ConfigMap", true},
		{"v1", "services", "Service", true},
		{"v1", "endpoints", "Endpoints", true},
		{"v1", "serviceaccounts", "ServiceAccount", true},
		{"v1", "persistentvolumeclaims", "PersistentVolumeClaim", true},
		{"v1", "resourcequotas", "ResourceQuota", true},
		{"v1", "limitranges", "LimitRange", true},
		{"apps/v1", "deployments", "Deployment", true},
		{"apps/v1", "statefulsets", "StatefulSet", true},
		{"apps/v1", "replicasets", "ReplicaSet", true},
		{"apps/v1", "daemonsets", "DaemonSet", true},
		{"batch/v1", "jobs", "Job", true},
		{"batch/v1", "cronjobs", "CronJob", true},
		{"rbac.authorization.k8s.io/v1", "roles", "Role", true},
		{"rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding", true},
		{"rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", false},
		{"storage.k8s.io/v1", "storageclasses", "StorageClass", false},
		{"apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", false},
		{"coordination.k8s.io/v1", "leases", "Lease", true},
		{"policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", true},
		{"admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", false},
	} {
		f.serve(k.gv, k.resource, k.kind, k.namespaced)
	}
	f.put("v1", "Namespace", "", "davit-system", nil)
	f.put("storage.k8s.io/v1", "StorageClass", "", "fast", shape.Document{"provisioner": "csi.example.com"})
	return f
}

func (f *fakeCluster) serve(gv, resource, kind string, namespaced bool) {
	g, err := schema.ParseGroupVersion(gv)
	if err != nil {
		panic(err)
	}
	gk := schema.GroupKind{Group: g.Group, Kind: kind}
	f.served[gk] = append(f.served[gk], Served{GVK: g.WithKind(kind), GVR: g.WithResource(resource), Namespaced: namespaced})
}

// put places an object without counting it as an effect.
func (f *fakeCluster) put(apiVersion, kind, namespace, name string, body shape.Document) *unstructured.Unstructured {
	d := shape.Document{"apiVersion": apiVersion, "kind": kind, "metadata": shape.Document{"name": name}}
	if namespace != "" {
		shape.Child(d, "metadata")["namespace"] = namespace
	}
	maps.Copy(d, body)
	u := &unstructured.Unstructured{Object: d}
	f.store(u)
	return u
}

func key(kind, namespace, name string) string { return kind + "|" + namespace + "/" + name }

func keyOf(u *unstructured.Unstructured) string {
	return key(u.GetKind(), u.GetNamespace(), u.GetName())
}

func (f *fakeCluster) store(u *unstructured.Unstructured) {
	f.version++
	u.SetResourceVersion(fmt.Sprint(f.version))
	if u.GetUID() == "" {
		u.SetUID(types.UID(fmt.Sprintf("new-%s", keyOf(u))))
	}
	f.objects[keyOf(u)] = u
}

// write runs one effect, or dies.
func (f *fakeCluster) write(what string, do func() error) error {
	f.effects++
	f.asked = append(f.asked, what)
	if f.killAt > 0 && f.effects >= f.killAt {
		var err error
		if f.after && f.effects == f.killAt {
			err = do()
			f.history = append(f.history, what)
		}
		f.onKill()
		return errors.Join(errKilled, err)
	}
	err := do()
	if err == nil {
		f.history = append(f.history, what)
	}
	return err
}

func (f *fakeCluster) Serves(_ context.Context, kind schema.GroupKind) ([]Served, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.served[kind]; len(s) > 0 {
		return s, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNotServed, kind)
}

func (f *fakeCluster) Refresh(context.Context) error { return nil }

func (f *fakeCluster) Get(_ context.Context, at Served, namespace, name string) (*unstructured.Unstructured, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.killAt > 0 && f.effects >= f.killAt {
		return nil, errKilled
	}
	u, ok := f.objects[key(at.GVK.Kind, namespace, name)]
	if !ok {
		return nil, apierrors.NewNotFound(at.GVR.GroupResource(), name)
	}
	return u.DeepCopy(), nil
}

func (f *fakeCluster) Create(_ context.Context, at Served, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := obj.DeepCopy()
	if f.fail != nil {
		if err := f.fail("create", u); err != nil {
			return nil, err
		}
	}
	err := f.write("create "+u.GetKind()+" "+u.GetNamespace()+"/"+u.GetName(), func() error {
		if _, ok := f.objects[keyOf(u)]; ok {
			return apierrors.NewAlreadyExists(at.GVR.GroupResource(), u.GetName())
		}
		if ns := u.GetNamespace(); ns != "" && f.objects[key("Namespace", "", ns)] == nil {
			return apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, ns)
		}
		f.settle(u)
		f.store(u)
		return f.collect(u)
	})
	return u.DeepCopy(), err
}

// settle is what the cluster does to a new object.
func (f *fakeCluster) settle(u *unstructured.Unstructured) {
	switch u.GetKind() {
	case "CustomResourceDefinition":
		u.Object["status"] = shape.Document{"conditions": []any{shape.Document{"type": "Established", "status": "True"}}}
		spec := shape.Child(u.Object, "spec")
		for _, v := range shape.Items(spec, "versions") {
			f.serve(shape.Text(spec, "group")+"/"+shape.Text(v, "name"), shape.Text(spec, "names", "plural"), shape.Text(spec, "names", "kind"), shape.Text(spec, "scope") == "Namespaced")
		}
	case "Namespace":
		sa := &unstructured.Unstructured{Object: shape.Document{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": shape.Document{"name": "default", "namespace": u.GetName()}}}
		f.store(sa)
	case "Deployment", "StatefulSet", "ReplicaSet":
		if n, ok := shape.Number(u.Object, "spec", "replicas"); ok && f.ready {
			u.Object["status"] = shape.Document{"readyReplicas": n, "availableReplicas": n, "updatedReplicas": n}
		}
	case "Pod":
		if f.ready {
			u.Object["status"] = shape.Document{"conditions": []any{shape.Document{"type": "Ready", "status": "True"}}}
		}
	}
}

// collect is the garbage collector: an object with an owner that does not
// exist is removed.
func (f *fakeCluster) collect(u *unstructured.Unstructured) error {
	for _, o := range u.GetOwnerReferences() {
		alive := slices.ContainsFunc(slices.Collect(maps.Values(f.objects)), func(x *unstructured.Unstructured) bool { return x.GetUID() == o.UID })
		if !alive {
			delete(f.objects, keyOf(u))
			f.history = append(f.history, "collected "+keyOf(u))
		}
	}
	return nil
}

func (f *fakeCluster) Update(_ context.Context, at Served, obj *unstructured.Unstructured, sub string) (*unstructured.Unstructured, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := obj.DeepCopy()
	if f.fail != nil && u.GetKind() != "Lease" {
		if err := f.fail("update", u); err != nil {
			return nil, err
		}
	}
	err := f.write("update "+u.GetKind()+" "+u.GetNamespace()+"/"+u.GetName()+" "+sub, func() error {
		live, ok := f.objects[keyOf(u)]
		if !ok {
			return apierrors.NewNotFound(at.GVR.GroupResource(), u.GetName())
		}
		if live.GetResourceVersion() != u.GetResourceVersion() {
			return apierrors.NewConflict(at.GVR.GroupResource(), u.GetName(), errors.New("changed"))
		}
		f.store(u)
		return nil
	})
	return u.DeepCopy(), err
}

func (f *fakeCluster) Apply(_ context.Context, _ Served, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := obj.DeepCopy()
	if f.fail != nil {
		if err := f.fail("apply", u); err != nil {
			return nil, err
		}
	}
	err := f.write("apply "+u.GetKind()+" "+u.GetNamespace()+"/"+u.GetName(), func() error {
		if live, ok := f.objects[keyOf(u)]; ok {
			if v := u.GetResourceVersion(); v != "" && v != live.GetResourceVersion() {
				return apierrors.NewConflict(schema.GroupResource{}, u.GetName(), errors.New("changed"))
			}
			u.SetUID(live.GetUID())
		}
		f.settle(u)
		f.store(u)
		return nil
	})
	return u.DeepCopy(), err
}

func (f *fakeCluster) Patch(_ context.Context, at Served, namespace, name string, patch []byte) (*unstructured.Unstructured, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out *unstructured.Unstructured
	err := f.write("patch "+at.GVK.Kind+" "+namespace+"/"+name, func() error {
		live, ok := f.objects[key(at.GVK.Kind, namespace, name)]
		if !ok {
			return apierrors.NewNotFound(at.GVR.GroupResource(), name)
		}
		p, err := shape.Decode(patch)
		if err != nil {
			return err
		}
		if v := shape.Text(p, "metadata", "resourceVersion"); v != "" && v != live.GetResourceVersion() {
			return apierrors.NewConflict(at.GVR.GroupResource(), name, errors.New("changed"))
		}
		if uid := shape.Text(p, "metadata", "uid"); uid != "" && uid != string(live.GetUID()) {
			return apierrors.NewConflict(at.GVR.GroupResource(), name, errors.New("another object"))
		}
		out = live.DeepCopy()
		merge(out.Object, p)
		f.store(out)
		return f.collect(out)
	})
	if err != nil {
		return nil, err
	}
	return out.DeepCopy(), nil
}

func (f *fakeCluster) Delete(_ context.Context, _ Served, obj *unstructured.Unstructured, _ bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.write("delete "+obj.GetKind()+" "+obj.GetNamespace()+"/"+obj.GetName(), func() error {
		if live := f.objects[keyOf(obj)]; live != nil && live.GetUID() == obj.GetUID() {
			delete(f.objects, keyOf(obj))
		}
		return nil
	})
}

func (f *fakeCluster) Try(_ context.Context, _ Served, obj *unstructured.Unstructured) error {
	if f.fail != nil {
		return f.fail("try", obj)
	}
	return nil
}

func merge(into, from shape.Document) {
	for k, v := range from {
		if v == nil {
			delete(into, k)
			continue
		}
		m, ok := v.(map[string]any)
		target, has := into[k].(map[string]any)
		if ok && has {
			merge(target, m)
			continue
		}
		into[k] = v
	}
}

func (f *fakeCluster) List(_ context.Context, at Served, namespace, selector string, fn func(*unstructured.Unstructured) error) error {
	if f.onList != nil {
		if err := f.onList(at); err != nil {
			return err
		}
	}
	sel, err := labels.Parse(selector)
	if err != nil {
		return err
	}
	f.mu.Lock()
	var found []*unstructured.Unstructured
	for _, k := range slices.Sorted(maps.Keys(f.objects)) {
		u := f.objects[k]
		if strings.HasPrefix(k, at.GVK.Kind+"|") && (namespace == "" || u.GetNamespace() == namespace) && sel.Matches(labels.Set(u.GetLabels())) {
			found = append(found, u.DeepCopy())
		}
	}
	f.mu.Unlock()
	for _, u := range found {
		if err := fn(u); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeCluster) May(_ context.Context, verb string, at Served, namespace string) (bool, string, error) {
	return f.deny == nil || !f.deny(verb, at, namespace), "", nil
}

// get reads an object for an assertion.
func (f *fakeCluster) get(kind, namespace, name string) *unstructured.Unstructured {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.objects[key(kind, namespace, name)]
}

// state is everything at the target but leases, without what may differ
// between two ways to the same end.
func (f *fakeCluster) state() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]string{}
	for k, u := range f.objects {
		if u.GetKind() == "Lease" {
			continue
		}
		c := u.DeepCopy()
		c.SetResourceVersion("")
		data, err := json.Marshal(c.Object)
		if err != nil {
			panic(err)
		}
		all[k] = string(data)
	}
	return all
}

// order is the place of an object's creation in the history, or -1.
func (f *fakeCluster) order(what string) int { return slices.Index(f.history, what) }

// fakeVolumes fills claims in the fake cluster.
type fakeVolumes struct {
	c      *fakeCluster
	mu     sync.Mutex
	data   map[string]string // namespace/claim: snapshot id
	fills  int
	unable error
	during func() // runs while a volume is being filled
	broken map[string]error
	reqs   []FillRequest
}

func (v *fakeVolumes) Ready(context.Context) error { return v.unable }

func (v *fakeVolumes) Fill(_ context.Context, r FillRequest) ([]string, error) {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.broken[r.Claim]; err != nil {
		return nil, err
	}
	for k, u := range v.c.objects {
		for _, kind := range occupant.Kinds {
			if strings.HasPrefix(k, kind.Kind+"|"+r.Namespace+"/") && shape.Active(kind, u) && shape.Mounts(kind, u.Object, r.Claim) {
				return nil, fmt.Errorf("HARM: %s runs on %s while it is filled", k, r.Claim)
			}
		}
	}
	if v.during != nil {
		v.during()
	}
	v.fills++
	v.reqs = append(v.reqs, r)
	return nil, v.c.write("fill "+r.Namespace+"/"+r.Claim, func() error {
		v.data[r.Namespace+"/"+r.Claim] = r.Volume.Snapshot.ID
		return nil
	})
}

// fakeSource holds a point in memory.
type fakeSource struct {
	raw     map[string][]string // group/kind: objects
	missing error
	noData  error
}

func (s *fakeSource) ReadResource(ctx context.Context, res point.Resource, fn func([]byte) error) error {
	for _, o := range s.raw[res.Group+"/"+res.Kind] {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn([]byte(o)); err != nil {
			return err
		}
	}
	return nil
}

func (s *fakeSource) CheckObjects(context.Context, *point.Manifest) error { return s.missing }
func (s *fakeSource) CheckVolume(context.Context, point.Volume) error     { return s.noData }

// pointOf makes a manifest and its source of objects in JSON.
func pointOf(objects ...string) (*point.Manifest, *fakeSource) {
	m := &point.Manifest{ID: "shop-1", Application: "shop", Consistency: point.PerVolume}
	s := &fakeSource{raw: map[string][]string{}}
	index := map[string]int{}
	namespaces := map[string]bool{}
	for _, o := range objects {
		d, err := shape.Decode([]byte(o))
		if err != nil {
			panic(err)
		}
		gv, err := schema.ParseGroupVersion(shape.Text(d, "apiVersion"))
		if err != nil {
			panic(err)
		}
		k := gv.Group + "/" + shape.Text(d, "kind")
		i, ok := index[k]
		if !ok {
			i = len(m.Resources)
			index[k] = i
			m.Resources = append(m.Resources, point.Resource{
				Group: gv.Group, Version: gv.Version, Kind: shape.Text(d, "kind"), Versions: []string{gv.Version},
				Resource: strings.ToLower(shape.Text(d, "kind")) + "s", Namespaced: shape.Text(d, "metadata", "namespace") != "",
			})
		}
		m.Resources[i].Count++
		m.Objects++
		s.raw[k] = append(s.raw[k], o)
		if ns := shape.Text(d, "metadata", "namespace"); ns != "" {
			namespaces[ns] = true
		}
	}
	m.Namespaces = slices.Sorted(maps.Keys(namespaces))
	return m, s
}

func volume(m *point.Manifest, namespace, claim string) {
	m.Volumes = append(m.Volumes, point.Volume{
		Namespace: namespace, Claim: claim, StorageClass: "fast", Capacity: 1 << 30, Consistency: point.PerVolume,
		Snapshot: point.Snapshot{Repository: "east", ID: "snap-" + claim, Bytes: 1000}, Instant: time.Unix(1, 0),
	})
}

func mustDecode(t interface {
	Helper()
	Fatal(...any)
}, s string,
) shape.Document {
	t.Helper()
	d, err := shape.Decode([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return d
}
