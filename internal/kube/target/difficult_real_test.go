package target

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore"
)

// Group kinds of the difficult objects.
var (
	kindNamespace = schema.GroupKind{Kind: "Namespace"}
	kindConfigMap = schema.GroupKind{Kind: "ConfigMap"}
	kindSecret    = schema.GroupKind{Kind: "Secret"}
	kindService   = schema.GroupKind{Kind: "Service"}
	kindClaim     = schema.GroupKind{Kind: "PersistentVolumeClaim"}
	kindJob       = schema.GroupKind{Group: "batch", Kind: "Job"}
	kindSet       = schema.GroupKind{Group: "apps", Kind: "StatefulSet"}
	kindDeploy    = schema.GroupKind{Group: "apps", Kind: "Deployment"}
	kindBinding   = schema.GroupKind{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"}
	kindGuard     = schema.GroupKind{Group: "admissionregistration.k8s.io", Kind: "ValidatingWebhookConfiguration"}
)

// field reads a field of a live object.
func field(u *unstructured.Unstructured, path ...string) any {
	v, _, _ := unstructured.NestedFieldNoCopy(u.Object, path...)
	return v
}

// difficult are objects that are hard to restore. "NS" stands for the namespace.
var difficult = []struct {
	name string
	kind schema.GroupKind
	doc  string
	// captured changes what was captured, to what another cluster would have held.
	captured func(d map[string]any)
	// check looks at what was restored, and what was there before.
	check func(was, got *unstructured.Unstructured) string
	// warned is what the restore must say of it.
	warned string
	absent bool // it must not come back
}{
	{
		name: "finalizer", kind: kindConfigMap,
		doc: `{apiVersion: v1, kind: ConfigMap, metadata: {name: finalizer, namespace: NS, finalizers: [hard.example.com/held]}}`,
		check: func(_, got *unstructured.Unstructured) string {
			if !slices.Equal(got.GetFinalizers(), []string{"hard.example.com/held"}) {
				return fmt.Sprint("finalizers ", got.GetFinalizers())
			}
			return ""
		},
	},
	{
		name: "going", kind: kindConfigMap, absent: true, warned: "was being deleted when it was captured",
		doc: `{apiVersion: v1, kind: ConfigMap, metadata: {name: going, namespace: NS, finalizers: [hard.example.com/held]}}`,
	},
	{
		name: "generated-", kind: kindSecret,
		doc: `{apiVersion: v1, kind: Secret, metadata: {generateName: generated-, namespace: NS}, stringData: {a: b}}`,
		check: func(was, got *unstructured.Unstructured) string {
			if got.GetGenerateName() != "" || fmt.Sprint(field(got, "data")) != fmt.Sprint(field(was, "data")) {
				return fmt.Sprint(got.Object)
			}
			return ""
		},
	},
	{
		name: "immutable", kind: kindConfigMap,
		doc:   `{apiVersion: v1, kind: ConfigMap, metadata: {name: immutable, namespace: NS}, immutable: true, data: {a: b}}`,
		check: func(_, got *unstructured.Unstructured) string { return want(got, true, "immutable") },
	},
	{
		name: "immutable", kind: kindSecret,
		doc:   `{apiVersion: v1, kind: Secret, metadata: {name: immutable, namespace: NS}, immutable: true, stringData: {a: b}}`,
		check: func(_, got *unstructured.Unstructured) string { return want(got, true, "immutable") },
	},
	{
		name: "job", kind: kindJob,
		doc: `{apiVersion: batch/v1, kind: Job, metadata: {name: job, namespace: NS}, spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: none}]}}}}`,
		check: func(_, got *unstructured.Unstructured) string {
			return want(got, string(got.GetUID()), "spec", "selector", "matchLabels", "batch.kubernetes.io/controller-uid")
		},
	},
	{
		name: "set", kind: kindSet,
		doc: `{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: set, namespace: NS}, spec: {replicas: 0, serviceName: headless, selector: {matchLabels: {app: set}},
  template: {metadata: {labels: {app: set}}, spec: {containers: [{name: c, image: none, volumeMounts: [{name: d, mountPath: /d}]}]}},
  volumeClaimTemplates: [{metadata: {name: d}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}]}}`,
		check: func(_, got *unstructured.Unstructured) string { return want(got, "headless", "spec", "serviceName") },
	},
	{
		name: "claim", kind: kindClaim, warned: "it starts empty",
		doc: `{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: claim, namespace: NS}, spec: {storageClassName: "", accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}`,
	},
	{
		name: "cluster-ip", kind: kindService,
		doc: `{apiVersion: v1, kind: Service, metadata: {name: cluster-ip, namespace: NS}, spec: {ports: [{port: 80}]}}`,
		check: func(_, got *unstructured.Unstructured) string {
			if ip := fmt.Sprint(field(got, "spec", "clusterIP")); !strings.Contains(ip, ".") {
				return "cluster IP " + ip
			}
			return ""
		},
	},
	{
		name: "headless", kind: kindService,
		doc:   `{apiVersion: v1, kind: Service, metadata: {name: headless, namespace: NS}, spec: {clusterIP: None, ports: [{port: 80}]}}`,
		check: func(_, got *unstructured.Unstructured) string { return want(got, "None", "spec", "clusterIP") },
	},
	{
		name: "external-name", kind: kindService,
		doc: `{apiVersion: v1, kind: Service, metadata: {name: external-name, namespace: NS}, spec: {type: ExternalName, externalName: db.example.com}}`,
		check: func(_, got *unstructured.Unstructured) string {
			return want(got, "db.example.com", "spec", "externalName")
		},
	},
	{
		name: "node-port", kind: kindService,
		doc: `{apiVersion: v1, kind: Service, metadata: {name: node-port, namespace: NS}, spec: {type: NodePort, ports: [{port: 80}]}}`,
		check: func(was, got *unstructured.Unstructured) string {
			if nodePort(was) != nodePort(got) {
				return fmt.Sprintf("node port %d, was %d", nodePort(got), nodePort(was))
			}
			return ""
		},
	},
	{
		name: "taken-port", kind: kindService, warned: "its node ports cannot be had here",
		doc: `{apiVersion: v1, kind: Service, metadata: {name: taken-port, namespace: NS}, spec: {type: NodePort, ports: [{port: 80}]}}`,
		check: func(was, got *unstructured.Unstructured) string {
			if nodePort(got) == 0 || nodePort(was) == nodePort(got) {
				return fmt.Sprintf("node port %d, was %d, which is taken", nodePort(got), nodePort(was))
			}
			return ""
		},
	},
	{
		name: "balanced", kind: kindService,
		doc: `{apiVersion: v1, kind: Service, metadata: {name: balanced, namespace: NS, finalizers: [service.kubernetes.io/load-balancer-cleanup]}, spec: {type: LoadBalancer, loadBalancerClass: none.example.com/lb, ports: [{port: 80}]}}`,
		captured: func(d map[string]any) {
			d["status"] = map[string]any{"loadBalancer": map[string]any{"ingress": []any{map[string]any{"ip": "192.0.2.1"}}}}
		},
		check: func(_, got *unstructured.Unstructured) string {
			if field(got, "status", "loadBalancer", "ingress") != nil || len(got.GetFinalizers()) > 0 {
				return fmt.Sprintf("it has the source's address or finalizer: %v %v", got.GetFinalizers(), field(got, "status"))
			}
			return want(got, "none.example.com/lb", "spec", "loadBalancerClass")
		},
	},
	{
		name: "prefers-dual", kind: kindService, warned: "it got those that there are",
		doc:      `{apiVersion: v1, kind: Service, metadata: {name: prefers-dual, namespace: NS}, spec: {ipFamilyPolicy: PreferDualStack, ports: [{port: 80}]}}`,
		captured: families("IPv4", "IPv6"),
		check: func(_, got *unstructured.Unstructured) string {
			return want(got, "PreferDualStack", "spec", "ipFamilyPolicy")
		},
	},
	{
		name: "other-family", kind: kindService, warned: "it got those that there are",
		doc:      `{apiVersion: v1, kind: Service, metadata: {name: other-family, namespace: NS}, spec: {ports: [{port: 80}]}}`,
		captured: families("IPv6"),
		check: func(_, got *unstructured.Unstructured) string {
			return want(got, "SingleStack", "spec", "ipFamilyPolicy")
		},
	},
	{
		name: "binding", kind: kindBinding,
		doc:   `{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: binding, namespace: NS}, subjects: [{kind: ServiceAccount, name: default, namespace: NS}], roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}`,
		check: func(_, got *unstructured.Unstructured) string { return want(got, "view", "roleRef", "name") },
	},
	{
		name: "web", kind: kindDeploy,
		doc: `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: NS}, spec: {replicas: 0, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: none, resources: {requests: {memory: 48Mi}, limits: {memory: 48Mi}}}]}}}}`,
	},
	{
		// Exactly what is there, and nothing to spare: it must come last, and nothing may be created that exists.
		name: "tight", kind: schema.GroupKind{Kind: "ResourceQuota"},
		doc: `{apiVersion: v1, kind: ResourceQuota, metadata: {name: tight, namespace: NS}, spec: {hard: {count/services: "8", count/jobs.batch: "1", persistentvolumeclaims: "1"}}}`,
	},
	{
		name: "range", kind: schema.GroupKind{Kind: "LimitRange"},
		doc: `{apiVersion: v1, kind: LimitRange, metadata: {name: range, namespace: NS}, spec: {limits: [{type: Container, max: {memory: 64Mi}, default: {memory: 32Mi}}]}}`,
	},
}

func want(got *unstructured.Unstructured, wanted any, path ...string) string {
	if v := field(got, path...); v != wanted {
		return fmt.Sprintf("%s is %v, want %v", strings.Join(path, "."), v, wanted)
	}
	return ""
}

func nodePort(u *unstructured.Unstructured) int64 {
	ports, _, _ := unstructured.NestedSlice(u.Object, "spec", "ports")
	port, _ := ports[0].(map[string]any)
	n, _ := port["nodePort"].(int64)
	return n
}

// families make of a captured Service one of a cluster that has others.
func families(all ...string) func(map[string]any) {
	return func(d map[string]any) {
		list := make([]any, 0, len(all))
		for _, f := range all {
			list = append(list, f)
		}
		_ = unstructured.SetNestedSlice(d, list, "spec", "ipFamilies")
	}
}

// hard is a namespace with all difficult objects, its name, and its point.
type hard struct {
	c       *Cluster
	clients *kube.Clients
	suffix  string
	ns      string
	names   []string // of the objects, as difficult has them
	was     []*unstructured.Unstructured
	m       *point.Manifest
	src     *memory
}

// ports is held by whoever needs a node port of its own to stay free: another
// test would be given it.
var ports sync.Mutex

// newHard makes them and captures them.
func newHard(t *testing.T) *hard {
	t.Helper()
	clients := realClients(t)
	ports.Lock()
	t.Cleanup(ports.Unlock)
	h := &hard{c: New(clients), clients: clients, suffix: fmt.Sprint(time.Now().UnixNano() % 1e6)}
	h.ns = "f-hard-" + h.suffix
	h.namespace(t, h.ns, "")
	t.Cleanup(func() { remove(t, h.c, served(t, h.c, kindNamespace), "f-lease-"+h.suffix) })
	var kinds []schema.GroupKind
	for _, d := range difficult {
		made := create(t, h.c, strings.ReplaceAll(d.doc, "NS", h.ns))
		h.names, h.was = append(h.names, made.GetName()), append(h.was, made)
		if d.absent {
			if err := h.c.Delete(t.Context(), served(t, h.c, d.kind), made, false); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Contains(kinds, d.kind) {
			kinds = append(kinds, d.kind)
		}
	}
	h.m, h.src = take(t, h.c, h.ns, kinds, map[schema.GroupKind]string{kindNamespace: h.ns})
	for i, d := range difficult {
		if d.captured != nil {
			h.recast(t, d.kind, h.names[i], d.captured)
		}
	}
	return h
}

// namespace makes one that is gone when the test ends.
func (h *hard) namespace(t *testing.T, name, labels string) {
	t.Helper()
	t.Cleanup(func() { h.lose(t, name) })
	create(t, h.c, "{apiVersion: v1, kind: Namespace, metadata: {name: "+name+", labels: {"+labels+"}}}")
}

// recast changes one captured object.
func (h *hard) recast(t *testing.T, kind schema.GroupKind, name string, change func(map[string]any)) {
	t.Helper()
	for i, raw := range h.src.raw[kind.Group+"/"+kind.Kind] {
		u := &unstructured.Unstructured{}
		if err := json.Unmarshal(raw, &u.Object); err != nil {
			t.Fatal(err)
		}
		if u.GetName() != name {
			continue
		}
		change(u.Object)
		data, err := json.Marshal(u.Object)
		if err != nil {
			t.Fatal(err)
		}
		h.src.raw[kind.Group+"/"+kind.Kind][i] = data
	}
}

// lose deletes a namespace with what finalizers hold in it.
func (h *hard) lose(t *testing.T, name string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for held, kind := range map[string]schema.GroupKind{"finalizer": kindConfigMap, "going": kindConfigMap, "balanced": kindService} {
		_, err := h.c.Patch(ctx, served(t, h.c, kind), name, held, []byte(`{"metadata":{"finalizers":null}}`))
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
	remove(t, h.c, served(t, h.c, kindNamespace), name)
}

// engine restores with the given rights.
func (h *hard) engine(c *Cluster, opts restore.Options) *restore.Engine {
	opts.Holder, opts.LeaseNamespace, opts.ReadyTimeout = "test", "f-lease-"+h.suffix, 20*time.Second
	opts.PreserveNodePorts = true
	opts.Captured = func(point.Resource, *unstructured.Unstructured) bool { return true }
	return restore.New(h.m, opts, restore.Deps{Source: h.src, Cluster: c})
}

// preflight returns the findings, as one text.
func (h *hard) preflight(t *testing.T, c *Cluster, opts restore.Options) (blocking, all string) {
	t.Helper()
	opts.ID = "rlook" + h.suffix
	found, err := h.engine(c, opts).Preflight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, f := range found {
		texts = append(texts, string(f.Severity)+" "+f.Check+" "+f.Reason+": "+f.String())
	}
	var bad []string
	for _, f := range restore.Blocking(found) {
		bad = append(bad, f.String())
	}
	return strings.Join(bad, "\n"), strings.Join(texts, "\n")
}

func says(res restore.Result) string {
	var texts []string
	for _, p := range slices.Concat(res.Failures, res.Warnings) {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, "\n")
}

// Every difficult object, lost and restored; then what cannot change in one
// that exists, by policy.
func TestDifficultObjects(t *testing.T) {
	t.Parallel()
	h := newHard(t)
	h.lose(t, h.ns)
	other := "f-port-" + h.suffix // somebody takes a node port meanwhile
	h.namespace(t, other, "")
	for i, d := range difficult {
		if d.name == "taken-port" {
			create(t, h.c, fmt.Sprintf(`{apiVersion: v1, kind: Service, metadata: {name: thief, namespace: %s}, spec: {type: NodePort, ports: [{port: 80, nodePort: %d}]}}`, other, nodePort(h.was[i])))
		}
	}
	if bad, all := h.preflight(t, h.c, restore.Options{}); bad != "" {
		t.Errorf("preflight refuses: %s\n%s", bad, all)
	}
	res, err := h.engine(h.c, restore.Options{ID: "rone" + h.suffix}).Run(t.Context())
	if err != nil || len(res.Failures) > 0 {
		t.Fatalf("restore: %v %s", err, says(res))
	}
	for i, d := range difficult {
		got, err := h.c.Get(t.Context(), served(t, h.c, d.kind), h.ns, h.names[i])
		switch {
		case d.absent && !apierrors.IsNotFound(err):
			t.Errorf("%s %s came back", d.kind, h.names[i])
		case d.absent:
		case err != nil:
			t.Error(err)
		case d.check != nil:
			if wrong := d.check(h.was[i], got); wrong != "" {
				t.Errorf("%s %s: %s", d.kind, h.names[i], wrong)
			}
		}
		if d.warned != "" && !slices.ContainsFunc(res.Warnings, func(p restore.Problem) bool {
			return strings.HasSuffix(p.Object, "/"+h.names[i]) && strings.Contains(p.Message, d.warned)
		}) {
			t.Errorf("%s %s: no warning says %q:\n%s", d.kind, h.names[i], d.warned, says(res))
		}
	}
	t.Run("Immutable", h.immutable)
}

// changed are objects in the way that differ in what cannot change.
var changed = []struct {
	kind           schema.GroupKind
	name, doc, key string
	restored       func(*unstructured.Unstructured) string
}{
	{
		kind: kindConfigMap, name: "immutable", key: "configmaps",
		doc:      `{apiVersion: v1, kind: ConfigMap, metadata: {name: immutable, namespace: NS}, immutable: true, data: {a: other}}`,
		restored: func(u *unstructured.Unstructured) string { return want(u, "b", "data", "a") },
	},
	{
		kind: kindSecret, name: "immutable", key: "secrets",
		doc:      `{apiVersion: v1, kind: Secret, metadata: {name: immutable, namespace: NS}, immutable: true, stringData: {a: other}}`,
		restored: func(u *unstructured.Unstructured) string { return want(u, "Yg==", "data", "a") },
	},
	{
		kind: kindService, name: "headless", key: "services",
		doc:      `{apiVersion: v1, kind: Service, metadata: {name: headless, namespace: NS}, spec: {ports: [{port: 80}]}}`,
		restored: func(u *unstructured.Unstructured) string { return want(u, "None", "spec", "clusterIP") },
	},
	{
		kind: kindJob, name: "job", key: "jobs.batch",
		doc: `{apiVersion: batch/v1, kind: Job, metadata: {name: job, namespace: NS}, spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: other, image: none}]}}}}`,
		restored: func(u *unstructured.Unstructured) string {
			return want(u, "Never", "spec", "template", "spec", "restartPolicy")
		},
	},
	{
		kind: kindSet, name: "set", key: "statefulsets.apps",
		doc: `{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: set, namespace: NS}, spec: {replicas: 0, serviceName: other, selector: {matchLabels: {app: set}},
  template: {metadata: {labels: {app: set}}, spec: {containers: [{name: c, image: none}]}}}}`,
		restored: func(u *unstructured.Unstructured) string { return want(u, "headless", "spec", "serviceName") },
	},
	{
		kind: kindBinding, name: "binding", key: "rolebindings.rbac.authorization.k8s.io",
		doc:      `{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: binding, namespace: NS}, subjects: [], roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}}`,
		restored: func(u *unstructured.Unstructured) string { return want(u, "view", "roleRef", "name") },
	},
	{
		kind: kindDeploy, name: "web", key: "deployments.apps",
		doc: `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: NS}, spec: {replicas: 0, selector: {matchLabels: {app: other}}, template: {metadata: {labels: {app: other}}, spec: {containers: [{name: c, image: none}]}}}}`,
		restored: func(u *unstructured.Unstructured) string {
			return want(u, "web", "spec", "selector", "matchLabels", "app")
		},
	},
}

// immutable meets what cannot be changed in place: update says so and what to
// do, exact makes it anew.
func (h *hard) immutable(t *testing.T) {
	for _, c := range changed {
		at := served(t, h.c, c.kind)
		live, err := h.c.Get(t.Context(), at, h.ns, c.name)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.c.Delete(t.Context(), at, live, false); err != nil {
			t.Fatal(err)
		}
		eventually(t, c.name+" is gone", func() (bool, error) {
			_, err := h.c.Get(t.Context(), at, h.ns, c.name)
			return apierrors.IsNotFound(err), err
		})
		create(t, h.c, strings.ReplaceAll(c.doc, "NS", h.ns))
	}
	res, err := h.engine(h.c, restore.Options{ID: "rupd" + h.suffix, Existing: restore.Update, KeepClaims: true}).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changed {
		if !slices.ContainsFunc(res.Failures, func(p restore.Problem) bool {
			return strings.HasSuffix(p.Object, "/"+c.name) && strings.Contains(p.Message, "--existing-kind "+c.key+"=replace")
		}) {
			t.Errorf("update of %s %s does not fail with the remedy:\n%s", c.kind, c.name, says(res))
		}
	}
	res, err = h.engine(h.c, restore.Options{ID: "rexact" + h.suffix, Existing: restore.Exact, KeepClaims: true}).Run(t.Context())
	if err != nil || len(res.Failures) > 0 {
		t.Fatalf("exact: %v %s", err, says(res))
	}
	for _, c := range changed {
		got, err := h.c.Get(t.Context(), served(t, h.c, c.kind), h.ns, c.name)
		if err != nil {
			t.Fatal(err)
		}
		if wrong := c.restored(got); wrong != "" {
			t.Errorf("exact left %s %s: %s", c.kind, c.name, wrong)
		}
	}
}

// What a target would refuse is said before anything changes.
func TestTargetsRefusals(t *testing.T) {
	t.Parallel()
	h := newHard(t)
	h.recast(t, kindDeploy, "web", func(d map[string]any) {
		_ = unstructured.SetNestedField(d, int64(2), "spec", "replicas")
	})
	to := "f-limits-" + h.suffix
	opts := restore.Options{NamespaceMapping: map[string]string{h.ns: to}}
	h.namespace(t, to, "")
	steps := []struct {
		name, doc string
		kind      schema.GroupKind
		blocking  bool
		says      []string
	}{
		{
			name: "LimitRange", kind: schema.GroupKind{Kind: "LimitRange"},
			doc:  `{apiVersion: v1, kind: LimitRange, metadata: {name: low, namespace: NS}, spec: {limits: [{type: Container, max: {memory: 16Mi}}]}}`,
			says: []string{"warning refusals LimitRange", "maximum memory usage per Container is 16Mi, but limit is 48Mi", "change the LimitRange"},
		},
		{
			name: "Quota", kind: schema.GroupKind{Kind: "ResourceQuota"}, blocking: true,
			doc:  `{apiVersion: v1, kind: ResourceQuota, metadata: {name: low, namespace: NS}, spec: {hard: {count/services: "3", pods: "1", persistentvolumeclaims: "0"}}}`,
			says: []string{"Quota", "exceeded quota: low", "count/services: 8 needed, 3 of 3 left", "pods: 2 needed, 1 of 1 left", "persistentvolumeclaims: 1 needed, 0 of 0 left"},
		},
		{
			name: "Webhook", kind: kindGuard, blocking: true,
			doc: `{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: NS}, webhooks: [{name: dead.example.com, failurePolicy: Fail, sideEffects: None, admissionReviewVersions: [v1],
  clientConfig: {service: {namespace: davit-nowhere, name: nobody}}, namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NS}},
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [secrets]}]}]}`,
			says: []string{"WebhookDown", "webhook dead.example.com", "would refuse all secrets", "davit-nowhere/nobody, has no ready endpoint", "restore the application it is in"},
		},
	}
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			if s.doc != "" {
				_, before := h.preflight(t, h.c, opts)
				made := create(t, h.c, strings.ReplaceAll(s.doc, "NS", to))
				t.Cleanup(func() {
					if err := h.c.Delete(context.WithoutCancel(t.Context()), served(t, h.c, s.kind), made, false); err != nil {
						t.Error(err)
					}
				})
				if strings.Contains(before, s.says[len(s.says)-1]) {
					t.Errorf("said without a reason:\n%s", before)
				}
			}
			eventually(t, "the finding", func() (bool, error) { // quotas begin to hold a moment later
				bad, all := h.preflight(t, h.c, opts)
				for _, text := range s.says {
					if !strings.Contains(all, text) {
						return false, fmt.Errorf("%q is not in:\n%s", text, all)
					}
				}
				if (bad != "") != s.blocking {
					return false, fmt.Errorf("blocking: %q", bad)
				}
				return true, nil
			})
		})
	}
	t.Run("PodSecurity", func(t *testing.T) {
		strict := "f-strict-" + h.suffix
		h.namespace(t, strict, "pod-security.kubernetes.io/enforce: restricted")
		bad, all := h.preflight(t, h.c, restore.Options{NamespaceMapping: map[string]string{h.ns: strict}})
		for _, text := range []string{"warning refusals PodSecurity", "pods of Deployment.apps " + strict + "/web", `violates PodSecurity "restricted:latest"`, "allowPrivilegeEscalation", "label the namespace"} {
			if bad != "" || !strings.Contains(all, text) {
				t.Errorf("%q is not in:\n%s", text, all)
			}
		}
	})
	t.Run("DualStack", func(t *testing.T) {
		h.recast(t, kindService, "prefers-dual", func(d map[string]any) {
			_ = unstructured.SetNestedField(d, "RequireDualStack", "spec", "ipFamilyPolicy")
		})
		bad, _ := h.preflight(t, h.c, opts)
		if !strings.Contains(bad, "Service "+to+"/prefers-dual would be refused") || !strings.Contains(bad, "PreferDualStack instead") {
			t.Errorf("a Service that requires both families: %q", bad)
		}
	})
	t.Run("Escalation", h.escalation)
	t.Run("Terminating", h.terminating)
}

// escalation restores as an account that may make roles, but does not hold what they grant.
func (h *hard) escalation(t *testing.T) {
	account := "f-weak-" + h.suffix
	create(t, h.c, `{apiVersion: v1, kind: ServiceAccount, metadata: {name: weak, namespace: `+h.ns+`}}`)
	create(t, h.c, `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: `+account+`}, rules: [{apiGroups: ["", apps, batch, rbac.authorization.k8s.io, coordination.k8s.io, storage.k8s.io, discovery.k8s.io, admissionregistration.k8s.io], resources: ["*"], verbs: [get, list, create, update, patch, delete]}]}`)
	binding := create(t, h.c, `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: `+account+`}, subjects: [{kind: ServiceAccount, name: weak, namespace: `+h.ns+`}], roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: `+account+`}}`)
	t.Cleanup(func() {
		for _, kind := range []string{"ClusterRoleBinding", "ClusterRole"} {
			at := served(t, h.c, schema.GroupKind{Group: binding.GroupVersionKind().Group, Kind: kind})
			_ = h.c.at(at, "").Delete(context.WithoutCancel(t.Context()), account, metav1.DeleteOptions{})
		}
	})
	role := create(t, h.c, `{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: mighty, namespace: `+h.ns+`}, rules: [{apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [create]}]}`)
	m, src := take(t, h.c, h.ns, []schema.GroupKind{{Group: role.GroupVersionKind().Group, Kind: "Role"}}, nil)
	weak, err := h.clients.Impersonate(kube.ServiceAccountUser(h.ns, "weak"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		who     string
		cluster *Cluster
		refused bool
	}{{"an account without the rights", New(weak), true}, {"an administrator", h.c, false}} {
		e := restore.New(m, restore.Options{ID: "rweak", NamespaceMapping: map[string]string{h.ns: "f-new-" + h.suffix}}, restore.Deps{Source: src, Cluster: c.cluster})
		eventually(t, "the finding for "+c.who, func() (bool, error) {
			found, err := e.Preflight(t.Context())
			if err != nil {
				return false, err
			}
			text := fmt.Sprint(restore.Blocking(found))
			said := strings.Contains(text, "mighty would be refused") && strings.Contains(text, "poddisruptionbudgets") && strings.Contains(text, "may escalate")
			return said == c.refused, fmt.Errorf("findings: %s", text)
		})
	}
}

// terminating restores into a namespace that does not come to its end.
func (h *hard) terminating(t *testing.T) {
	at := served(t, h.c, kindNamespace)
	live, err := h.c.Get(t.Context(), at, "", h.ns)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.c.Delete(t.Context(), at, live, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the finding", func() (bool, error) {
		bad, _ := h.preflight(t, h.c, restore.Options{})
		return strings.Contains(bad, "namespace "+h.ns+" is being deleted") && strings.Contains(bad, "hard.example.com/held in 2 resource instances"), fmt.Errorf("findings: %s", bad)
	})
}
