package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// books is PostgreSQL with one volume, two things beside it that keep state of
// their own, and objects of several kinds for the policies.
const books = `
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {davit-e2e: "true"}}
---
%[2]s
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %[1]s}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: web, image: "davit.test/bedtool:1", imagePullPolicy: IfNotPresent, command: [sh, -c, "trap exit TERM; sleep 1000000 & wait"]}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: %[1]s}
data: {colour: green}
---
apiVersion: v1
kind: Secret
metadata: {name: password, namespace: %[1]s}
stringData: {password: green}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: sealed, namespace: %[1]s}
immutable: true
data: {colour: green}
`

// sql asks the database of the books, once it answers.
func sql(t *testing.T, namespace, query string) string {
	t.Helper()
	var got string
	eventually(t, 3*time.Minute, "db-0 in "+namespace+" answers", func() (bool, string) {
		got = try(t, east, "-n", namespace, "exec", "db-0", "--", "psql", "-qAt", "-v", "ON_ERROR_STOP=1", "shop", "-c", query)
		return !strings.HasPrefix(got, "error:"), got
	})
	return got
}

// field reads one field of an object at east.
func (a *app) field(t *testing.T, object, path string) string {
	t.Helper()
	return kubectl(t, east, "-n", a.name, "get", object, "-o", "jsonpath={"+path+"}")
}

// deployBooks brings them to east with a hundred rows, and captures them.
func deployBooks(t *testing.T) *app {
	t.Helper()
	a := &app{name: short(t), vault: common}
	removeNamespace(t, east, a.name)
	apply(t, east, fmt.Sprintf(books, a.name, postgres{namespace: a.name}.yaml()))
	sql(t, a.name, "select 1")
	sql(t, a.name, "create table t as select generate_series(1, 100) n")
	a.protect(t)
	a.backup(t)
	return a
}

// ruin does to the books what people do on a bad day.
func ruin(t *testing.T, a *app) {
	t.Helper()
	sql(t, a.name, "delete from t where n <= 50; insert into t select generate_series(1001, 1300); checkpoint")
	for _, change := range [][]string{
		{"configmap/settings", `{"data":{"colour":"red"}}`},
		{"secret/password", `{"stringData":{"password":"red"}}`},
		{"deployment/web", `{"spec":{"replicas":3}}`},
	} {
		kubectl(t, east, "-n", a.name, "patch", change[0], "-p", change[1])
	}
	kubectl(t, east, "-n", a.name, "delete", "configmap", "sealed")
	apply(t, east, "{apiVersion: v1, kind: ConfigMap, metadata: {name: sealed, namespace: "+a.name+"}, immutable: true, data: {colour: red}}")
	for _, stray := range []string{"configmap", "secret generic"} {
		kubectl(t, east, append([]string{"-n", a.name, "create"}, append(strings.Fields(stray), "stray", "--from-literal=a=b")...)...)
	}
}

const books100 = "100|1|100"

// rows tells what is in the books: how many, and from what to what.
func rows(t *testing.T, a *app) string {
	t.Helper()
	return sql(t, a.name, "select count(*), min(n), max(n) from t")
}

// asBefore checks what a roll-back must leave: the data of the point, the same
// claim, the workload running again as it was, nothing at rest.
func asBefore(t *testing.T, a *app, claim, pod string) {
	t.Helper()
	if got := rows(t, a); got != books100 {
		t.Errorf("the table holds %s, want %s", got, books100)
	}
	if got := a.field(t, "pvc/data-db-0", ".metadata.uid"); got != claim {
		t.Errorf("the claim was made anew: %s, was %s", got, claim)
	}
	if got := a.field(t, "pod/db-0", ".metadata.uid"); got == pod {
		t.Error("the pod that had the volume mounted was never stopped")
	}
	if got := a.field(t, "statefulset/db", ".spec.replicas") + a.field(t, "statefulset/db", `.metadata.annotations.davit\.dev/before-restore`); got != "1" {
		t.Errorf("the StatefulSet is left as %q", got)
	}
}

// rolledBack rolls a database's volume back in place and leaves everything
// else as it is.
func rolledBack(t *testing.T) {
	a := deployBooks(t)
	ruin(t, a)
	claim, pod := a.field(t, "pvc/data-db-0", ".metadata.uid"), a.field(t, "pod/db-0", ".metadata.uid")
	args := []string{"restore", a.name, "--yes", "--existing-kind", "persistentvolumeclaims=replace"}
	davit(t, east, a.vault, append(args, "--dry-run")...).want(t, 4, "roll back", a.name+"/data-db-0")
	if got := rows(t, a); !strings.HasPrefix(got, "350|") {
		t.Errorf("a dry run changed the table to %s", got)
	}
	davit(t, east, a.vault, args...).want(t, 4, "differs in data.colour", "differs in spec.replicas")
	asBefore(t, a, claim, pod)
	for object, path := range map[string]string{"configmap/settings": ".data.colour", "configmap/sealed": ".data.colour"} {
		if got := a.field(t, object, path); got != "red" {
			t.Errorf("%s became %q, although only claims were to be replaced", object, got)
		}
	}
	if got := a.field(t, "deployment/web", ".spec.replicas"); got != "3" {
		t.Errorf("the Deployment has %s replicas, and was to be left alone", got)
	}
	noHelpers(t, east, a.name, a.name)
}

// exactly brings everything back to the point, with another policy for some kinds.
func exactly(t *testing.T) {
	a := deployBooks(t)
	ruin(t, a)
	claim, pod := a.field(t, "pvc/data-db-0", ".metadata.uid"), a.field(t, "pod/db-0", ".metadata.uid")
	settings, sealed, secret := a.field(t, "configmap/settings", ".metadata.uid"), a.field(t, "configmap/sealed", ".metadata.uid"), a.field(t, "secret/password", ".metadata.uid")
	args := []string{"restore", a.name, "--yes", "--existing", "exact", "--existing-kind", "secrets=replace"}
	davit(t, east, a.vault, append(args, "--dry-run")...).want(t, 4, "prune ConfigMap "+a.name+"/stray", "replace Secret "+a.name+"/password")
	davit(t, east, a.vault, args...).want(t, 4) // the namespace is in use, which is a finding
	asBefore(t, a, claim, pod)

	if got := a.field(t, "configmap/settings", ".data.colour"); got != "green" || a.field(t, "configmap/settings", ".metadata.uid") != settings {
		t.Errorf("exact made the ConfigMap anew, or left it %q", got)
	}
	if got := a.field(t, "configmap/sealed", ".data.colour"); got != "green" || a.field(t, "configmap/sealed", ".metadata.uid") == sealed {
		t.Errorf("an immutable ConfigMap is %q and was not made anew", got)
	}
	if got := a.field(t, "secret/password", ".data.password"); got != "Z3JlZW4=" || a.field(t, "secret/password", ".metadata.uid") == secret {
		t.Errorf("the Secret, whose policy is replace, is %q and was not made anew", got)
	}
	if got := a.field(t, "deployment/web", ".spec.replicas"); got != "2" {
		t.Errorf("the Deployment has %s replicas, want 2", got)
	}
	if got := kubectl(t, east, "-n", a.name, "get", "configmap,secret", "--ignore-not-found", "-o", "name"); strings.Contains(got, "configmap/stray") || !strings.Contains(got, "secret/stray") {
		t.Errorf("exact is to prune ConfigMaps and no Secrets, but there are %s", got)
	}
	noHelpers(t, east, a.name, a.name)
}

// startedMeanwhile is the control: what starts on a volume while that is being
// filled makes its data worth nothing, and the engine says so. Given again, when
// nothing interferes, the restore puts it right.
func startedMeanwhile(t *testing.T) {
	a, w := heldApp(t, "meanwhile", east)
	sum, _ := a.protected(t)
	a.rewrite(t)
	let := w.hold(t, http.MethodGet)
	args := []string{"restore", a.name, "--yes", "--existing-kind", "persistentvolumeclaims=replace"}
	done := make(chan outcome, 1)
	go func() { done <- finish(t, command(t.Context(), east, a.vault, args...)) }()
	awaitTask(t, east, a.name)
	kubectl(t, east, "-n", a.name, "scale", "statefulset/db", "--replicas=1")
	let()
	ended := <-done
	ended.want(t, 1, "data-db-0", "ran on the volume while it was being filled", "restore again")
	if got := a.field(t, "pvc/data-db-0", `.metadata.annotations.davit\.dev/filled-from`); got != "" {
		t.Errorf("the claim is called whole: %s", got)
	}
	davit(t, east, a.vault, args...).want(t, 4) // the namespace is in use, which is a finding
	if got := a.sum(t, east, a.name); got != sum {
		t.Errorf("the data is %s, want %s", got, sum)
	}
	if got := a.replicas(t, east); got != "1" {
		t.Errorf("the StatefulSet has %s replicas", got)
	}
}
