package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// asked is what a drill asks of the clone beyond its readiness: a Deployment whose
// pod serves a page and a database, each behind its Service.
const asked = `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: front}}
  template:
    metadata: {labels: {app: front}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: davit.test/bedtool:1
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "mkdir /tmp/www && echo open > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
      - name: postgres
        image: %[2]s
        imagePullPolicy: IfNotPresent
        args: [-c, min_wal_size=32MB, -c, max_wal_size=64MB]
        env: [{name: POSTGRES_PASSWORD, value: secret}]
        startupProbe: {exec: {command: [pg_isready, -q, -U, postgres]}, periodSeconds: 1, failureThreshold: 600}
        readinessProbe: {exec: {command: [pg_isready, -q, -U, postgres]}, periodSeconds: 10}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: %[1]s}
spec: {selector: {app: front}, ports: [{name: http, port: 80, targetPort: 8080}]}
`

// drilled has west's agent try a plan on a clone, as the plan's schedule says,
// beside what runs at east and is captured there on a schedule of its own: the clone
// answers, reaches nobody, and is removed with all that was made for it; nothing of the
// live application changes meanwhile.
func drilled(t *testing.T) {
	world := listen(t)
	a := &app{name: short(t)}
	a.more = fmt.Sprintf(asked, a.name, rig.Images["shop-db"])
	sum := a.deploy(t)
	kubectl(t, east, "-n", a.name, "rollout", "status", "deployment/front", "--timeout", "4m")
	a.protect(t, "--every", "10s", "--wait")
	file := planOf(t, a, "5s",
		"{name: told, kind: command, verbs: [drill], command: {image: 'davit.test/bedtool:1', args: [-c, 'test \"$DAVIT_DRILL\" = true && echo $DAVIT_SANDBOX_NAMESPACES | grep -q "+a.name+"=davit-drill-']}, timeout: 1m, after: [ready/"+a.name+"]}",
		"{name: inside, kind: probe, application: "+a.name+", verbs: [drill], timeout: 1m, after: [told], checks: [{kind: command, target: '"+a.name+"/app=db', command: [cat, /data/sum], expect: '^"+sum+"', timeout: 10s}, "+
			"{kind: http, target: 'http://front."+a.name+"/', expect: '^open', timeout: 5s}, {kind: sql, target: 'postgres://front."+a.name+"/postgres', container: postgres, query: 'select 6*7', expect: '^42$', timeout: 10s}, "+
			"{kind: http, target: 'http://example.com/', timeout: 5s}]}",
		"{name: look, kind: manual, verbs: [drill], prompt: look around, timeout: 10m, after: [inside]}")
	f := newNames(t, "5396")
	f.plan(t, file)
	davit(t, west, a.vault, "drill", "-f", file, "--to", "east").want(t, 3, "this is site west")
	a.readyTo(t, "", "none", "procedures none: write a plan")
	a.readyTo(t, file, "none", "procedures none: try it")
	davit(t, east, a.vault, "drill", "-f", file).want(t, 3, "runs at site east")
	davit(t, west, a.vault, "drill", "-f", file, "--dry-run").want(t, 0, a.name+"-20")
	before := shapeOf(t, a.name)

	began := time.Now()
	run := scheduled(t, a.name, file)
	t.Logf("the clone answered %s after the plan was applied", time.Since(began).Round(time.Second))
	captured := len(a.points(t, east))
	home, clone := sandboxOf(t, run)
	isolated(t, world, home, clone)
	davit(t, west, a.vault, "drill", "-f", file).want(t, 3, "is under way")
	eventually(t, 3*time.Minute, "the schedule captures beside the drill", func() (bool, string) {
		n := len(a.points(t, east))
		return n > captured, fmt.Sprintf("%d points, had %d", n, captured)
	})
	var r runView
	davit(t, west, a.vault, "runs", "answer", run, "look", "-o", "json").want(t, 0).read(t, &r)
	if r.State != "Completed" || len(r.Applications) != 1 {
		t.Fatalf("%+v", r)
	}
	t.Logf("the drill, with a look around: %s; RTO of the clone: %s", time.Since(began).Round(time.Second), r.Applications[0].RTO)
	nothingLeft(t, run, home)
	a.untouched(t, before)
	eventually(t, 3*time.Minute, "the plan says how the drill went, and when the next is due", func() (bool, string) {
		got := try(t, west, "get", "recoveryplan", a.name, "-o", "jsonpath={.status.lastDrill.name} {.status.lastDrill.verdict} {.status.lastDrill.report} {.status.nextDrill}")
		return strings.HasPrefix(got, run+" Passed reports/"+run+" 20"), got
	})
	davit(t, west, a.vault, "plan", "show", a.name).want(t, 0, run+" at west: Passed")
	if all := strings.Fields(kubectl(t, west, "get", "runs", "-l", "davit.dev/plan="+a.name, "-o", "name")); len(all) != 1 {
		t.Errorf("more was drilled than was due: %v", all)
	}
	davit(t, west, a.vault, "runs", "report", run, "--verify").want(t, 0, "Genuine", "Completed")
	html := davit(t, west, a.vault, "runs", "report", run, "-o", "html").want(t, 0, "The drill passed", "look around", "42", "not asked: it leads out").out
	evidence := "meanwhile " + a.name + " was captured "
	if _, told, ok := strings.Cut(html, evidence); !ok || strings.HasPrefix(told, "0 times") || !strings.Contains(told, " times, never longer than ") {
		t.Errorf("the report does not say how often the live application was captured beside the drill: %.100s", told)
	}
	a.provenBy(t, run, file)
	if dir := os.Getenv("DAVIT_E2E_REPORTS"); dir != "" {
		_ = os.WriteFile(dir+"/"+run+".html", []byte(html), 0o600)
	}
}

// readyTo computes how ready the application is to go to west, and checks the level and what must
// be said, of a column or of what needs verification.
func (a *app) readyTo(t *testing.T, file, level string, parts ...string) {
	t.Helper()
	args := []string{"readiness", a.name, "--registries=false", "-o", "json"}
	if file != "" {
		args = append(args, "-f", file)
	}
	var v struct {
		Applications []struct {
			Site, Level, Verify string
			Columns             []struct{ Name, Level, Evidence, Missing string }
		}
	}
	davit(t, west, a.vault, args...).want(t, 0).read(t, &v)
	if len(v.Applications) != 1 || v.Applications[0].Site != west {
		t.Fatalf("%+v", v)
	}
	row := v.Applications[0]
	said := "verify: " + row.Verify + "\n"
	for _, c := range row.Columns {
		said += c.Name + " " + c.Level + ": " + c.Missing + " (" + c.Evidence + ")\n"
	}
	if row.Level != level {
		t.Errorf("the level is %s, want %s:\n%s", row.Level, level, said)
	}
	for _, part := range parts {
		if !strings.Contains(said, part) {
			t.Errorf("readiness does not say %q:\n%s", part, said)
		}
	}
}

// provenBy: with the drill, and a point that was read back, it is as ready as this davit makes one, and what keeps it from the
// highest level is named; until the plan changes. How long a failover takes is known from the drill, and how much it loses from
// the cadence of the points: both drift beyond an objective.
func (a *app) provenBy(t *testing.T, run, file string) {
	t.Helper()
	davit(t, west, a.vault, "verify", a.name).want(t, 0, "is whole")
	a.readyTo(t, file, "2", "verify: \n", "its volumes are restored, not replicated", "apps 3: ", "infrastructure 3: ", "DNS 2: move it once", "drill "+run)
	davit(t, west, a.vault, "failover", "-f", file, "--dry-run").want(t, 0, "one run of the verb drill, which claims, fences and moves nothing")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := configured(t, "changed.yaml", "%s", strings.Replace(string(text), "  steps:\n", "  steps:\n    - {name: new, kind: command, verbs: [failover, drill], command: {image: 'davit.test/bedtool:1', args: ['true']}, timeout: 1m, after: [ready/"+a.name+"]}\n", 1))
	a.readyTo(t, changed, "0", "verify: the plan's steps changed since drill "+run, "procedures 0: verify it again")
	kubectl(t, west, "patch", "recoveryplan", a.name, "--type", "merge", "-p", `{"spec":{"objectives":{"rto":"1s","rpo":"1s"}}}`)
	pod := strings.Fields(kubectl(t, west, "-n", system, "get", "pods", "-l", "app.kubernetes.io/name=davit-agent", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.spec.containers[*].ports[?(@.name=="metrics")].containerPort}{"\n"}{end}`))
	if len(pod) < 2 {
		t.Fatalf("no agent with a port for metrics: %q", pod)
	}
	eventually(t, 3*time.Minute, "west's agent predicts more than the objectives", func() (bool, string) {
		seconds := map[string]float64{}
		all := try(t, west, "get", "--raw", "/api/v1/namespaces/"+system+"/pods/"+pod[0]+":"+pod[1]+"/proxy/metrics")
		for line := range strings.Lines(all) {
			if strings.Contains(line, `plan="`+a.name+`"`) {
				name, _, _ := strings.Cut(line, "{")
				_, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
				seconds[name], _ = strconv.ParseFloat(value, 64)
			}
		}
		rto, rpo := seconds["davit_plan_predicted_rto_seconds"], seconds["davit_plan_predicted_rpo_seconds"]
		rtoMost, rpoMost := seconds["davit_plan_rto_objective_seconds"], seconds["davit_plan_rpo_objective_seconds"]
		return rtoMost == 1 && rto > rtoMost && rpoMost == 1 && rpo > rpoMost, fmt.Sprintf("%g s of %g s until all runs, %g s of %g s lost", rto, rtoMost, rpo, rpoMost)
	})
}

// scheduled applies a plan that was never drilled, at west and with a schedule, and
// waits until its drill waits for a person.
func scheduled(t *testing.T, plan, file string) (run string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, west, string(text)+"  drills: {schedule: {every: 168h}, sites: [west]}\n")
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), west, "delete", "recoveryplan", "--ignore-not-found", plan)
		_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), west, "delete", "runs", "-l", "davit.dev/plan="+plan)
	})
	eventually(t, 3*time.Minute, "the drill of the schedule waits for a person", func() (bool, string) {
		got := try(t, west, "get", "runs", "-l", "davit.dev/plan="+plan+",davit.dev/scheduled=true", "-o", "jsonpath={.items[*].metadata.name} {.items[*].status.phase} {.items[*].status.why} {.items[*].status.next}")
		run, _, _ = strings.Cut(got, " ")
		return strings.Contains(got, "runs answer"), got
	})
	return run
}

// sandboxOf finds the first namespace of a drill's sandbox, and the clone's.
func sandboxOf(t *testing.T, run string) (home, clone string) {
	t.Helper()
	all := kubectl(t, west, "get", "namespaces", "-l", "davit.dev/sandbox", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.annotations.davit\.dev/run}{"\n"}{end}`)
	for line := range strings.Lines(all) {
		name, of, _ := strings.Cut(strings.TrimSpace(line), " ")
		if of == run && (clone == "" || len(name) > len(clone)) {
			home, clone = clone, name
		} else if of == run {
			home = name
		}
	}
	if home == "" || !strings.HasPrefix(clone, home+"-") {
		t.Fatalf("no sandbox of %s: %s", run, all)
	}
	return home, clone
}

// isolated: a pod of the clone reaches nobody outside. The negative control is the
// same pod while its namespace is no sandbox.
func isolated(t *testing.T, world *callers, home, clone string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(world.address)
	call := func(say string) bool {
		try(t, west, "-n", clone, "exec", "db-0", "-c", "db", "--", "sh", "-c", fmt.Sprintf("echo %s %s | nc -w 2 %s %s", say, clone, host, port))
		n, _ := world.heard(say + " " + clone)
		return n > 0
	}
	eventually(t, 3*time.Minute, "the clone is closed in", func() (bool, string) {
		got := try(t, west, "-n", system, "get", "nodefences", "-o", "jsonpath={.items[*].status.sandboxes}")
		return strings.Contains(got, `"pods":2`), got
	})
	if call("inside") {
		t.Error("the clone was heard although it was closed in")
	}
	name := kubectl(t, west, "get", "namespace", clone, "-o", `jsonpath={.metadata.labels.davit\.dev/sandbox}`)
	kubectl(t, west, "label", "namespace", clone, "davit.dev/sandbox-")
	eventually(t, 3*time.Minute, "the clone is heard once nothing closes it in", func() (bool, string) { return call("outside"), "nothing" })
	kubectl(t, west, "label", "namespace", clone, "davit.dev/sandbox="+name)
}

// nothingLeft: all that was made for a drill is gone.
func nothingLeft(t *testing.T, run, home string) {
	t.Helper()
	gone := func(what string, args ...string) {
		t.Helper()
		if got := kubectl(t, west, append([]string{"get"}, args...)...); strings.Contains(got, home) || strings.Contains(got, run) {
			t.Errorf("%s of %s, %s, are left: %s", what, run, home, got)
		}
	}
	gone("namespaces", "namespaces", "-o", "name")
	gone("Jobs", "-n", system, "jobs", "-o", "jsonpath={.items[*].metadata.annotations}")
	gone("volume tasks", "-n", system, "volumetasks", "-o", "jsonpath={.items[*]}")
	gone("holder pods", "-n", system, "pods", "-o", "jsonpath={.items[*].metadata}")
	for what, args := range map[string][]string{
		"volumes":                   {"get", "persistentvolumes", "-o", "jsonpath={.items[*].spec.claimRef.namespace}"},
		"rules of the node's fence": {"get", "-n", system, "nodefences", "-o", "jsonpath={.items[*].status.sandboxes}"},
	} {
		eventually(t, 3*time.Minute, what+" of the drill are gone", func() (bool, string) {
			got := try(t, west, args...)
			return !strings.Contains(got, home) && !strings.Contains(got, strings.TrimPrefix(home, "davit-drill-")) && !strings.HasPrefix(got, "error"), got
		})
	}
}

// untouched: the live application is as it was, and nothing went wrong with what was
// captured beside the drill.
func (a *app) untouched(t *testing.T, before string) {
	t.Helper()
	if got := epochs(t, commonBucket(), a.name); got != 1 {
		t.Errorf("the drill raised the epoch: there are %d", got)
	}
	if after := shapeOf(t, a.name); after != before {
		t.Errorf("the live application changed:\n%s\nwas:\n%s", after, before)
	}
	if role := a.status(t, east, "role"); role != "Active" {
		t.Errorf("east is %s", role)
	}
	for _, p := range a.points(t, east) {
		if p.Damaged || p.Phase == "Failed" || p.Phase == "Quarantined" {
			t.Errorf("captured beside the drill: %+v", p)
		}
	}
}

// shapeOf is what people would notice of the live application: which objects
// there are, and which generation their specs have.
func shapeOf(t *testing.T, namespace string) string {
	t.Helper()
	return kubectl(t, east, "-n", namespace, "get", "deployments,statefulsets,services,configmaps,secrets,persistentvolumeclaims,pods", "-o",
		`jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid} {.metadata.generation}{"\n"}{end}`)
}
