package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// bootable is an application with a database, a page, and all that a copy of
// it must not have.
const bootable = `
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {davit-e2e: "true"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: %[1]s}
data: {database: db.%[1]s.svc}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: %[1]s}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: %[1]s}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: bill, namespace: %[1]s}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: bill, image: "davit.test/bedtool:1", command: ["true"]}]}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: davit.test/bedtool:1
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "mkdir /tmp/www && echo open > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
%[2]s
`

// scratchOf names the namespaces of restore tests at a site.
func scratchOf(t *testing.T, site, app string) string {
	t.Helper()
	var mine []string
	for _, name := range strings.Fields(try(t, site, "get", "namespaces", "-l", "davit.dev/restore-test", "-o", "jsonpath={.items[*].metadata.name}")) {
		if strings.HasSuffix(name, "-"+app) {
			mine = append(mine, name)
		}
	}
	return strings.Join(mine, " ")
}

// booted proves a point by bringing it up. The control is a point whose
// database does not start: nothing but a test finds that out, for its bytes are
// just what was captured. It asks east for nothing.
func booted(t *testing.T) {
	a := &app{name: short(t), vault: common, home: west}
	removeNamespace(t, west, a.name)
	apply(t, west, fmt.Sprintf(bootable, a.name, postgres{namespace: a.name}.yaml()))
	t.Cleanup(func() { unprotect(west, a.name) })
	in := func(command string) {
		t.Helper()
		kubectl(t, west, "-n", a.name, "exec", "db-0", "--", "sh", "-c", command)
	}
	kubectl(t, west, "-n", a.name, "rollout", "status", "statefulset/db", "--timeout", "4m")
	in("psql -q shop -c 'create table orders (n int)' -c 'insert into orders select generate_series(1, 500)'")
	a.protect(t)
	whole := a.backup(t)
	rows := "name=rows; pods=app=db; sql=psql select count(*) from orders; database=shop; expect=^500$"
	page := "name=page; http=web:80/; status=200; expect=open"
	job := "name=job; job=davit.test/bedtool:1; run=echo done; expect=^done$"
	davit(t, west, a.vault, "restore-test", a.name, "--probe", rows, "--probe", page, "--probe", job).
		want(t, 0, whole.ID+" came up", "rows passed", "page passed", "job passed", "type ClusterIP in the copy, not NodePort", "*."+a.name+".svc")
	if left := scratchOf(t, west, a.name); left != "" {
		t.Errorf("the copy is still there: %s", left)
	}
	for what, want := range map[string]string{"cronjob/bill": "spec.suspend=false", "service/web": "spec.type=NodePort", "ingress/web": "metadata.name=web"} {
		path, value, _ := strings.Cut(want, "=")
		if got := try(t, west, "-n", a.name, "get", what, "-o", "jsonpath={."+path+"}"); got != value {
			t.Errorf("the original's %s has %s %q", what, path, got)
		}
	}
	davit(t, west, a.vault, "points", a.name).want(t, 0, "boot")
	davit(t, west, a.vault, "describe", whole.ID).want(t, 0, "restore test", "passed")
	davit(t, west, a.vault, "restore-test", whole.ID, "--probe", strings.Replace(rows, "500", "501", 1)+"; timeout=3s").
		want(t, 7, "rows FAILED", `got "500"`, "hint:")

	in("echo 9 > $PGDATA/PG_VERSION") // the server that runs has read it
	broken := a.backup(t)
	davit(t, west, a.vault, "verify", broken.ID).want(t, 0, "is whole")
	a.protect(t, "--test-every", "1h", "--test-timeout", "35s")
	eventually(t, 5*time.Minute, "the agent finds that the database does not start", func() (bool, string) {
		got := a.status(t, west, `conditions[?(@.type=="Ready")]`)
		return strings.Contains(got, "RestoreTestFailed") && strings.Contains(got, broken.ID) && strings.Contains(got, "db"), got
	})
	davit(t, west, a.vault, "describe", a.name).want(t, 0, "FAILED", "restore tests", broken.ID)
	if got := a.status(t, west, "role"); got != "Active" {
		t.Errorf("role %s", got)
	}
	eventually(t, 3*time.Minute, "the copy is gone", func() (bool, string) { got := scratchOf(t, west, a.name); return got == "", got })
	for _, p := range a.points(t, west) {
		if p.ID == broken.ID && (p.Damaged || p.Phase != "Available") {
			t.Errorf("a point that did not come up counts as damaged: %+v", p)
		}
	}
}

// testKilled kills the agent while it tests: the next one removes the copy, and
// tests again.
func testKilled(t *testing.T) {
	a := &app{slow: 5}
	a.protected(t)
	a.protect(t, "--test-every", "1h")
	first := ""
	eventually(t, 3*time.Minute, "the test begins", func() (bool, string) {
		first = scratchOf(t, east, a.name)
		return first != "", first
	})
	kill(t, east, "davit-agent")
	eventually(t, 3*time.Minute, "the copy is gone, and a test passed", func() (bool, string) {
		got := a.status(t, east, "restoreTest.passed") + " " + scratchOf(t, east, a.name)
		return got == "true ", got
	})
	if got := try(t, east, "get", "namespace", first, "--ignore-not-found", "-o", "name"); got != "" {
		t.Errorf("the dead agent's copy is there: %s", got)
	}
	noHelpers(t, east, a.name, a.name)
	davit(t, east, a.vault, "status", "-o", "json").want(t, 0, `"provenHow": "boot"`)
}
