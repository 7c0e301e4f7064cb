package capture

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// parse makes an object of YAML.
func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatalf("parse %s: %v", text, err)
	}
	return o
}

func TestWantKind(t *testing.T) {
	all := []string{"create", "delete", "get", "list", "watch"}
	for _, tt := range []struct {
		name    string
		kind    Kind
		include string
		want    bool
	}{
		{"plain", Kind{Resource: "configmaps", Namespaced: true, Verbs: all}, "", true},
		{"custom resource", Kind{Group: "shop.example.com", Resource: "orders", Namespaced: true, Verbs: all}, "", true},
		{"cluster-scoped", Kind{Resource: "nodes", Verbs: all}, "", false},
		{"not listable", Kind{Resource: "things", Namespaced: true, Verbs: []string{"get", "create"}}, "", false},
		{"read-only view", Kind{Group: "x.example.com", Resource: "views", Namespaced: true, Verbs: []string{"get", "list"}}, "", false},
		{"review", Kind{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews", Namespaced: true, Verbs: []string{"create"}}, "", false},
		{"metrics", Kind{Group: "metrics.k8s.io", Resource: "pods", Namespaced: true, Verbs: all}, "", false},
		{"events", Kind{Resource: "events", Namespaced: true, Verbs: all}, "", false},
		{"new events", Kind{Group: "events.k8s.io", Resource: "events", Namespaced: true, Verbs: all}, "", false},
		{"somebody's events", Kind{Group: "calendar.example.com", Resource: "events", Namespaced: true, Verbs: all}, "", true},
		{"events by name", Kind{Resource: "events", Namespaced: true, Verbs: all}, "events", true},
		{"events by star", Kind{Resource: "events", Namespaced: true, Verbs: all}, "*", false},
		{"leases", Kind{Group: "coordination.k8s.io", Resource: "leases", Namespaced: true, Verbs: all}, "", false},
		{"controller revisions", Kind{Group: "apps", Resource: "controllerrevisions", Namespaced: true, Verbs: all}, "", false},
		{"davit's own", Kind{Group: "davit.dev", Resource: "applications", Namespaced: true, Verbs: all}, "", false},
		{"not included", Kind{Resource: "configmaps", Namespaced: true, Verbs: all}, "secrets", false},
	} {
		f, err := ParseFilter(fields(tt.include), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := wantKind(tt.kind, f); got != tt.want {
			t.Errorf("%s: wantKind = %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestJudge(t *testing.T) {
	pod, secret := Kind{Resource: "pods"}, Kind{Resource: "secrets"}
	replicaSet, job := Kind{Group: "apps", Resource: "replicasets"}, Kind{Group: "batch", Resource: "jobs"}
	account, configMap := Kind{Resource: "serviceaccounts"}, Kind{Resource: "configmaps"}
	endpoints, slice := Kind{Resource: "endpoints"}, Kind{Group: "discovery.k8s.io", Resource: "endpointslices"}
	claim := Kind{Resource: "persistentvolumeclaims"}
	snapshot := Kind{Group: "snapshot.storage.k8s.io", Resource: "volumesnapshots"}
	for _, tt := range []struct {
		name string
		kind Kind
		yaml string
		keep bool
		warn bool
	}{
		{"bare pod", pod, "metadata: {name: p}", true, false},
		{"finished pod", pod, "{metadata: {name: p}, status: {phase: Succeeded}}", false, false},
		{"controlled pod", pod, "metadata: {name: p, ownerReferences: [{kind: ReplicaSet, name: o, uid: u, controller: true}]}", false, false},
		{"owned, not controlled pod", pod, "metadata: {name: p, ownerReferences: [{kind: Thing, name: o, uid: u}]}", true, false},
		{"static pod", pod, "metadata: {name: p, annotations: {kubernetes.io/config.mirror: x}}", false, false},
		{"going", configMap, "metadata: {name: c, deletionTimestamp: '2026-01-01T00:00:00Z'}", false, true},
		{"replica set of a deployment", replicaSet, "metadata: {name: r, ownerReferences: [{kind: Deployment, name: o, uid: u, controller: true}]}", false, false},
		{"replica set of a custom resource", replicaSet, "metadata: {name: r, ownerReferences: [{kind: Rollout, name: o, uid: u, controller: true}]}", true, false},
		{"bare replica set", replicaSet, "metadata: {name: r}", true, false},
		{"running job", job, "{metadata: {name: j}, status: {active: 1}}", true, false},
		{"suspended job", job, "{metadata: {name: j}, status: {conditions: [{type: Suspended, status: 'True'}]}}", true, false},
		{"complete job", job, "{metadata: {name: j}, status: {conditions: [{type: Complete, status: 'True'}]}}", false, false},
		{"failed job", job, "{metadata: {name: j}, status: {conditions: [{type: Failed, status: 'True'}]}}", false, false},
		{"opaque secret", secret, "{metadata: {name: s}, type: Opaque}", true, false},
		{"token secret", secret, "{metadata: {name: s}, type: kubernetes.io/service-account-token}", false, false},
		{"token secret of the cluster's own", secret, "{metadata: {name: ci-token-x2k9p, annotations: {kubernetes.io/service-account.name: ci}}, type: kubernetes.io/service-account-token}", false, false},
		{"token secret that somebody asked for", secret, "{metadata: {name: ci-token, annotations: {kubernetes.io/service-account.name: ci}}, type: kubernetes.io/service-account-token}", true, false},
		{"default account", account, "metadata: {name: default}", false, false},
		{"old default account", account, "{metadata: {name: default}, secrets: [{name: default-token-x}]}", false, false},
		{"default account with pull secret", account, "{metadata: {name: default}, imagePullSecrets: [{name: r}]}", true, false},
		{"annotated default account", account, "metadata: {name: default, annotations: {a: b}}", true, false},
		{"default account without token", account, "{metadata: {name: default}, automountServiceAccountToken: false}", true, false},
		{"own account", account, "metadata: {name: shop}", true, false},
		{"root CA", configMap, "metadata: {name: kube-root-ca.crt}", false, false},
		{"leader record", configMap, "metadata: {name: l, annotations: {control-plane.alpha.kubernetes.io/leader: x}}", false, false},
		{"config", configMap, "metadata: {name: config}", true, false},
		{"managed endpoints", endpoints, "metadata: {name: e, labels: {endpoints.kubernetes.io/managed-by: endpoint-controller}}", false, false},
		{"triggered endpoints", endpoints, "metadata: {name: e, annotations: {endpoints.kubernetes.io/last-change-trigger-time: x}}", false, false},
		{"hand-made endpoints", endpoints, "metadata: {name: e}", true, false},
		{"managed slice", slice, "metadata: {name: e, labels: {endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}}", false, false},
		{"mirrored slice", slice, "metadata: {name: e, labels: {endpointslice.kubernetes.io/managed-by: endpointslicemirroring-controller.k8s.io}}", false, false},
		{"hand-made slice", slice, "metadata: {name: e, labels: {endpointslice.kubernetes.io/managed-by: me}}", true, false},
		{"the API server's slice", slice, "metadata: {name: kubernetes, namespace: default}", false, false},
		{"the API server's endpoints", endpoints, "metadata: {name: kubernetes, namespace: default}", false, false},
		{"the API server's service", Kind{Resource: "services"}, "metadata: {name: kubernetes, namespace: default}", false, false},
		{"somebody's service of that name", Kind{Resource: "services"}, "metadata: {name: kubernetes, namespace: shop}", true, false},
		{"somebody's object of that name", configMap, "metadata: {name: kubernetes, namespace: default}", true, false},
		{"claim", claim, "metadata: {name: c}", true, false},
		{"claim of a stateful set", claim, "metadata: {name: c, ownerReferences: [{kind: StatefulSet, name: o, uid: u}]}", true, false},
		{"ephemeral claim", claim, "metadata: {name: c, ownerReferences: [{kind: Pod, name: o, uid: u, controller: true}]}", false, false},
		{"snapshot", snapshot, "metadata: {name: s}", true, false},
		{"davit's snapshot", snapshot, "metadata: {name: s, labels: {davit.dev/managed-by: davit}}", false, false},
		{"excluded by label", configMap, "metadata: {name: c, labels: {davit.dev/exclude: 'true'}}", false, false},
		{"not excluded by label", configMap, "metadata: {name: c, labels: {davit.dev/exclude: 'false'}}", true, false},
	} {
		got := judge(tt.kind, parse(t, tt.yaml))
		if got.keep != tt.keep || (got.warn != "") != tt.warn {
			t.Errorf("%s: judge = %+v, want keep %t, warn %t", tt.name, got, tt.keep, tt.warn)
		}
	}
}

func TestImageDigest(t *testing.T) {
	for id, want := range map[string]string{
		"docker.io/library/web@sha256:aa":               "sha256:aa",
		"docker-pullable://registry:5000/web@sha256:bb": "sha256:bb",
		"sha256:cc":    "",
		"":             "",
		"web@nonsense": "",
	} {
		if got := imageDigest(id); got != want {
			t.Errorf("imageDigest(%q) = %q, want %q", id, got, want)
		}
	}
}
