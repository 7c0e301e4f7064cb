package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// selfService has a team bring its own namespace back, with an account that has
// rights in no other and none in davit-system; and has it fail to reach others.
func selfService(t *testing.T) {
	a := &app{}
	sum := a.deploy(t)
	other := a.name + "-other"
	removeNamespace(t, east, other)
	account := fmt.Sprintf("system:serviceaccount:%s:restorer", a.name)
	apply(t, east, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[2]s, labels: {davit-e2e: "true"}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: restorer, namespace: %[1]s}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: restorer, namespace: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}
subjects: [{kind: ServiceAccount, name: restorer, namespace: %[1]s}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: davit-restore-as, namespace: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: davit-restore-as}
subjects: [{kind: ServiceAccount, name: davit-agent, namespace: davit-system}]
---
apiVersion: davit.dev/v1alpha1
kind: Application
metadata: {name: shop, namespace: %[1]s}
spec: {vault: %[3]s}
`, a.name, other, common))
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.Background(), east, "-n", a.name, "delete", "application", "shop", "--ignore-not-found")
	})
	// The account has no right to the lease: the agent must take it.
	may := func(what, namespace string) string { // kubectl ends with 1 for "no"
		return try(t, east, "auth", "can-i", "create", what, "-n", namespace, "--as", account)
	}
	if lease, own := may("leases", system), may("configmaps", a.name); strings.HasPrefix(lease, "yes") || !strings.HasPrefix(own, "yes") {
		t.Fatalf("may the team make leases in %s: %s; objects of its own: %s", system, lease, own)
	}
	davit(t, east, common, "backup", a.name+"/shop", "--wait", "--timeout", "4m").want(t, 0)

	kubectl(t, east, "-n", a.name, "delete", "statefulset/db", "configmap/settings", "pvc/data-db-0", "--wait=true")
	done := teamRestore(t, a.name, "back", a.name+".shop", "")
	if !strings.HasPrefix(done, "Completed") {
		t.Fatalf("the team's restore ended as %s", done)
	}
	if got := a.sum(t, east, a.name); got != sum {
		t.Errorf("the data is %s, want %s", got, sum)
	}

	// Not into another's namespace, and not another's application.
	done = teamRestore(t, a.name, "reach", a.name+".shop", fmt.Sprintf("mode: Clone\n  namespaceMapping: {%s: %s}", a.name, other))
	if !strings.HasPrefix(done, "Failed") || !strings.Contains(done, "no right to") && !strings.Contains(done, "is forbidden") {
		t.Errorf("a restore into another's namespace ended as %s", done)
	}
	if got := kubectl(t, east, "-n", other, "get", "configmap,statefulset,pvc", "-o", "name"); strings.Contains(got, "settings") || strings.Contains(got, "db") {
		t.Errorf("it made %s", got)
	}
	done = teamRestore(t, a.name, "steal", other+".shop", "")
	if !strings.HasPrefix(done, "Failed") || !strings.Contains(done, "is not of namespace") {
		t.Errorf("a restore of another's application ended as %s", done)
	}
}

// teamRestore orders a restore in a namespace and returns how it ended.
func teamRestore(t *testing.T, namespace, name, application, more string) string {
	t.Helper()
	apply(t, east, fmt.Sprintf(`
apiVersion: davit.dev/v1alpha1
kind: Restore
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  vault: %[3]s
  application: %[4]s
  serviceAccountName: restorer
  %[5]s
`, namespace, name, common, application, more))
	ended := ""
	eventually(t, 3*time.Minute, "Restore "+name+" ends", func() (bool, string) {
		ended = try(t, east, "-n", namespace, "get", "restore", name, "-o", `jsonpath={.status.phase}: {.status.conditions[?(@.type=="Ready")].message} {.status.warningList}`)
		return strings.HasPrefix(ended, "Completed") || strings.HasPrefix(ended, "Failed"), ended
	})
	return ended
}
