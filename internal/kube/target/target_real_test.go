package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore"
)

// realClients opens the cluster that DAVIT_TEST_KUBECONFIG names.
func realClients(t *testing.T) *kube.Clients {
	t.Helper()
	path := os.Getenv("DAVIT_TEST_KUBECONFIG")
	if path == "" {
		t.Skip("DAVIT_TEST_KUBECONFIG names no cluster")
	}
	c, err := kube.Kubeconfig(path, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// memory is a point listed from a live cluster.
type memory struct{ raw map[string][][]byte }

func (m *memory) ReadResource(_ context.Context, r point.Resource, fn func([]byte) error) error {
	for _, o := range m.raw[r.Group+"/"+r.Kind] {
		if err := fn(o); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) CheckObjects(context.Context, *point.Manifest) error { return nil }
func (m *memory) CheckVolume(context.Context, point.Volume) error     { return nil }

// take lists what a namespace holds of the kinds, and cluster-scoped objects by name.
func take(t *testing.T, c *Cluster, namespace string, kinds []schema.GroupKind, cluster map[schema.GroupKind]string) (*point.Manifest, *memory) {
	t.Helper()
	m := &point.Manifest{ID: "real-" + namespace, Application: "real-" + namespace, Namespaces: []string{namespace}, Consistency: point.PerVolume}
	src := &memory{raw: map[string][][]byte{}}
	add := func(at restore.Served, u *unstructured.Unstructured) {
		data, err := json.Marshal(u.Object)
		if err != nil {
			t.Fatal(err)
		}
		k := at.GVK.Group + "/" + at.GVK.Kind
		if len(src.raw[k]) == 0 {
			m.Resources = append(m.Resources, point.Resource{
				Group: at.GVK.Group, Version: at.GVK.Version, Kind: at.GVK.Kind, Resource: at.GVR.Resource,
				Namespaced: at.Namespaced, Versions: []string{at.GVK.Version},
			})
		}
		src.raw[k] = append(src.raw[k], data)
		for i := range m.Resources {
			if r := &m.Resources[i]; r.Group+"/"+r.Kind == k {
				r.Count++
			}
		}
	}
	for kind, name := range cluster {
		at := served(t, c, kind)
		u, err := c.Get(t.Context(), at, "", name)
		if err != nil {
			t.Fatal(err)
		}
		add(at, u)
	}
	for _, kind := range kinds {
		at := served(t, c, kind)
		err := c.List(t.Context(), at, namespace, "", func(u *unstructured.Unstructured) error {
			add(at, u)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return m, src
}

func served(t *testing.T, c *Cluster, kind schema.GroupKind) restore.Served {
	t.Helper()
	all, err := c.Serves(t.Context(), kind)
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func create(t *testing.T, c *Cluster, doc string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
		t.Fatal(err)
	}
	var made *unstructured.Unstructured
	eventually(t, "create "+u.GetKind()+" "+u.GetName(), func() (bool, error) {
		got, err := c.Create(t.Context(), served(t, c, u.GroupVersionKind().GroupKind()), u)
		made = got
		return err == nil, err
	})
	return made
}

func eventually(t *testing.T, what string, f func() (bool, error)) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		ok, err := f()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond) // between looks
	}
}

// remove deletes cluster-scoped objects, and waits once for all of them.
func remove(t *testing.T, c *Cluster, at restore.Served, names ...string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for _, name := range names {
		err := c.at(at, "").Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
	for _, name := range names {
		eventually(t, "delete "+name, func() (bool, error) {
			_, err := c.Get(ctx, at, "", name)
			return apierrors.IsNotFound(err), err
		})
	}
}

var kinds = []schema.GroupKind{
	{Kind: "ServiceAccount"},
	{Kind: "Secret"},
	{Kind: "ConfigMap"},
	{Kind: "Service"},
	{Kind: "Pod"},
	{Kind: "ResourceQuota"},
	{Group: "discovery.k8s.io", Kind: "EndpointSlice"},
	{Kind: "Endpoints"},
	{Group: "apps", Kind: "Deployment"},
	{Group: "apps", Kind: "ReplicaSet"},
	{Group: "batch", Kind: "CronJob"},
	{Group: "batch", Kind: "Job"},
	{Group: "rbac.authorization.k8s.io", Kind: "Role"},
	{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"},
	{Group: "networking.k8s.io", Kind: "Ingress"},
	{Group: "networking.k8s.io", Kind: "NetworkPolicy"},
	{Group: "policy", Kind: "PodDisruptionBudget"},
	{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"},
}

// application is made in one namespace of a real cluster, with a CRD of its own.
func application(t *testing.T, c *Cluster, ns string, tills, drawers schema.GroupKind) {
	t.Helper()
	group := tills.Group
	create(t, c, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+ns+"}")
	for _, k := range []string{"till", "drawer"} {
		kind := strings.ToUpper(k[:1]) + k[1:]
		create(t, c, fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[1]ss.%[3]s}
spec:
  group: %[3]s
  scope: Namespaced
  names: {plural: %[1]ss, singular: %[1]s, kind: %[2]s, listKind: %[2]sList}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]`, k, kind, group))
	}
	eventually(t, "serve tills", func() (bool, error) {
		if err := c.Refresh(t.Context()); err != nil {
			return false, err
		}
		_, err := c.Serves(t.Context(), tills)
		_, err2 := c.Serves(t.Context(), drawers)
		return err == nil && err2 == nil, err
	})
	till := create(t, c, fmt.Sprintf("apiVersion: %s/v1\nkind: Till\nmetadata: {name: main, namespace: %s, finalizers: [%s/held]}\nspec: {n: 3}", group, ns, group))
	owner := fmt.Sprintf("ownerReferences: [{apiVersion: %s/v1, kind: Till, name: main, uid: %s, controller: true}]", group, till.GetUID())
	for _, doc := range []string{
		fmt.Sprintf("apiVersion: %s/v1\nkind: Drawer\nmetadata: {name: left, namespace: %s, %s}\nspec: {}", group, ns, owner),
		"apiVersion: v1\nkind: Secret\nmetadata: {name: pw, namespace: " + ns + ", " + owner + "}\nstringData: {p: x}",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf, namespace: " + ns + "}\ndata: {a: b}",
		"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: " + ns + "}",
		"apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r, namespace: " + ns + "}\nrules: [{apiGroups: [''], resources: [pods], verbs: [get]}]",
		"apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: rb, namespace: " + ns + "}\nsubjects: [{kind: ServiceAccount, name: web, namespace: " + ns + "}]\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}",
		"apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: " + ns + "}\nspec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}",
		"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: " + ns + "}\nspec: {replicas: 0, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {serviceAccountName: web, containers: [{name: c, image: none}]}}}",
		"apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: cj, namespace: " + ns + "}\nspec: {suspend: true, schedule: '0 0 1 1 *', jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: none}]}}}}}",
		"apiVersion: batch/v1\nkind: Job\nmetadata: {name: j, namespace: " + ns + "}\nspec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: none}]}}}",
		"apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i, namespace: " + ns + "}\nspec: {defaultBackend: {service: {name: web, port: {number: 80}}}}",
		"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: np, namespace: " + ns + "}\nspec: {podSelector: {}}",
		"apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: p, namespace: " + ns + "}\nspec: {minAvailable: 1, selector: {matchLabels: {app: web}}}",
		"apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: h, namespace: " + ns + "}\nspec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}",
		"apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: q, namespace: " + ns + "}\nspec: {hard: {pods: '5'}}",
	} {
		create(t, c, doc)
	}
}

// unhold lets the Till of a namespace be deleted: it keeps its own finalizer
// through a restore, and no operator is here to take it off.
func unhold(t *testing.T, c *Cluster, tills schema.GroupKind, ns string) {
	t.Helper()
	all, err := c.Serves(context.WithoutCancel(t.Context()), tills)
	if err != nil {
		return
	}
	_, err = c.Patch(context.WithoutCancel(t.Context()), all[0], ns, "main", []byte(`{"metadata":{"finalizers":null}}`))
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// A namespace with everything is captured, deleted with its CRDs, and restored
// into a real cluster, twice; then once more under another name. It takes kinds
// away from the cluster, so it has it for itself.
func TestRestoreOnRealCluster(t *testing.T) {
	clients := realClients(t)
	c := New(clients)
	suffix := fmt.Sprint(time.Now().UnixNano() % 1e6)
	ns, other, group := "f-real-"+suffix, "f-copy-"+suffix, "f"+suffix+".example.com"
	nsAt := served(t, c, schema.GroupKind{Kind: "Namespace"})
	crdKind := schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}
	tills, drawers := schema.GroupKind{Group: group, Kind: "Till"}, schema.GroupKind{Group: group, Kind: "Drawer"}
	t.Cleanup(func() {
		unhold(t, c, tills, ns)
		unhold(t, c, tills, other)
		remove(t, c, nsAt, ns, other, "f-lease-"+suffix)
		remove(t, c, served(t, c, crdKind), "tills."+group, "drawers."+group)
	})
	application(t, c, ns, tills, drawers)
	m, src := take(t, c, ns, append([]schema.GroupKind{tills, drawers}, kinds...), map[schema.GroupKind]string{{Kind: "Namespace"}: ns})
	for _, n := range []string{"tills.", "drawers."} {
		m2, src2 := take(t, c, ns, nil, map[schema.GroupKind]string{crdKind: n + group})
		if len(src.raw[crdKind.Group+"/"+crdKind.Kind]) == 0 {
			m.Resources = append(m.Resources, m2.Resources[0])
		} else {
			m.Resources[len(m.Resources)-1].Count++
		}
		k := crdKind.Group + "/" + crdKind.Kind
		src.raw[k] = append(src.raw[k], src2.raw[k]...)
	}
	unhold(t, c, tills, ns)
	remove(t, c, nsAt, ns)
	remove(t, c, served(t, c, crdKind), "tills."+group, "drawers."+group)
	eventually(t, "forget tills", func() (bool, error) {
		if err := c.Refresh(t.Context()); err != nil {
			return false, err
		}
		_, err := c.Serves(t.Context(), tills)
		return errors.Is(err, restore.ErrNotServed), err
	})

	do := func(id string, mapping map[string]string) restore.Result {
		t.Helper()
		e := restore.New(m, restore.Options{
			ID: id, Holder: t.Name(), NamespaceMapping: mapping, LeaseNamespace: "f-lease-" + suffix, ReadyTimeout: 3 * time.Minute,
		}, restore.Deps{Source: src, Cluster: c})
		found, err := e.Preflight(t.Context())
		if err != nil || len(restore.Blocking(found)) > 0 {
			t.Fatalf("preflight: %v %v", found, err)
		}
		res, err := e.Run(t.Context())
		if err != nil || len(res.Failures) > 0 {
			t.Fatalf("restore: %v %v", err, res.Failures)
		}
		t.Logf("%d created, %d continued, %d updated, %d skipped, ready %v, warnings %v", res.Created, res.Continued, res.Updated, res.Skipped, res.Ready, res.Warnings)
		for _, s := range res.Steps {
			t.Logf("  %-20s %s", s.Name, s.Duration.Round(time.Millisecond))
		}
		return res
	}
	if res := do("rone"+suffix, nil); len(res.Warnings) > 0 || !res.Ready {
		t.Errorf("result %+v", res)
	}
	check := func(ns string) {
		t.Helper()
		till, err := c.Get(t.Context(), served(t, c, tills), ns, "main")
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []schema.GroupKind{drawers, {Kind: "Secret"}} {
			name := map[string]string{"Drawer": "left", "Secret": "pw"}[kind.Kind]
			o, err := c.Get(t.Context(), served(t, c, kind), ns, name)
			if err != nil {
				t.Fatal(err)
			}
			if refs := o.GetOwnerReferences(); len(refs) != 1 || refs[0].UID != till.GetUID() {
				t.Errorf("%s %s: owners %v, want %s", kind, name, refs, till.GetUID())
			}
		}
		binding, err := c.Get(t.Context(), served(t, c, schema.GroupKind{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"}), ns, "rb")
		if err != nil {
			t.Fatal(err)
		}
		subjects, _, _ := unstructured.NestedSlice(binding.Object, "subjects")
		if s, _ := subjects[0].(map[string]any); s["namespace"] != ns {
			t.Errorf("subjects %v", subjects)
		}
	}
	check(ns)
	if res := do("rone"+suffix, nil); res.Created != 0 || len(res.Warnings) > 0 {
		t.Errorf("the same restore again: %+v", res)
	}
	do("rtwo"+suffix, map[string]string{ns: other})
	check(other)
	if res := do("rthree"+suffix, nil); res.Created != 0 || res.Continued != 0 || len(res.Warnings) > 0 {
		t.Errorf("another restore over equal objects must skip them without a word: %+v", res)
	}
}

// The harm that rewiring prevents, on a real garbage collector.
func TestRealClusterCollectsDanglingOwners(t *testing.T) {
	t.Parallel()
	c := New(realClients(t))
	ns := fmt.Sprintf("f-gc-%d", time.Now().UnixNano()%1e6)
	create(t, c, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+ns+"}")
	t.Cleanup(func() { remove(t, c, served(t, c, schema.GroupKind{Kind: "Namespace"}), ns) })
	create(t, c, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: "+ns+", ownerReferences: [{apiVersion: v1, kind: Secret, name: none, uid: 00000000-0000-0000-0000-00000000dead}]}")
	at := served(t, c, schema.GroupKind{Kind: "ConfigMap"})
	eventually(t, "garbage collection", func() (bool, error) {
		_, err := c.Get(t.Context(), at, ns, "a")
		return apierrors.IsNotFound(err), err
	})
}
