package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// drilled tries a plan on a clone at west, beside what runs at east: the clone
// answers, cannot speak to the world, and is removed; nothing of the live application
// changes meanwhile, and it is captured as before. Then a drill is killed, and swept.
func drilled(t *testing.T) {
	world := listen(t)
	a := &app{name: short(t)}
	a.more = writer(a.name, "writer", world.address)
	sum, first := a.protected(t)
	clone, live := west+" "+a.name+"/writer", east+" "+a.name+"/writer"
	world.more(t, live)
	file := planOf(t, a.name, "5s",
		"{name: told, kind: command, verbs: [drill], command: {image: 'davit.test/bedtool:1', args: [-c, 'test \"$DAVIT_DRILL\" = true && echo $DAVIT_SANDBOX_NAMESPACES | grep -q "+a.name+"=davit-drill-']}, timeout: 1m, after: [ready/"+a.name+"]}",
		"{name: inside, kind: probe, verbs: [drill], timeout: 1m, after: [told], checks: [{kind: command, target: '"+a.name+"/app=db', command: [cat, /data/sum], expect: '^"+sum+"', timeout: 10s}, {kind: http, target: 'http://example.com/', timeout: 5s}]}",
		"{name: look, kind: manual, verbs: [drill], prompt: look around, timeout: 10m, after: [inside]}")
	davit(t, west, a.vault, "drill", "-f", file, "--to", east).want(t, 3, "this is site west")
	davit(t, east, a.vault, "drill", "-f", file).want(t, 3, "runs at site east")
	davit(t, west, a.vault, "drill", "-f", file, "--dry-run").want(t, 0, first.ID)
	before := shapeOf(t, a.name)

	began := time.Now()
	davit(t, west, a.vault, "drill", "-f", file).want(t, 1, "look around")
	run := runOf(t, a.vault, a.name)
	eventually(t, time.Minute, "the clone is closed in", func() (bool, string) {
		got := kubectl(t, west, "-n", system, "get", "nodefences", "-o", "jsonpath={.items[*].status.sandboxes}")
		return strings.Contains(got, `"pods":2`), got
	})
	early := world.quiet(t, clone)
	world.more(t, live)
	if now, _ := world.heard(clone); now != early {
		t.Errorf("the clone was heard although it was closed in: %d lines more", now-early)
	}
	t.Logf("the clone said %d lines before it was closed in", early)
	davit(t, west, a.vault, "drill", "-f", file).want(t, 3, "is under way", "runs cancel")
	second := a.backup(t) // live protection goes on
	if second.ID == first.ID {
		t.Errorf("no new point: %s", second.ID)
	}
	var r runView
	davit(t, west, a.vault, "runs", "answer", run, "look", "-o", "json").want(t, 0).read(t, &r)
	if r.State != "Completed" || len(r.Applications) != 1 || r.Applications[0].Point != first.ID {
		t.Fatalf("%+v", r)
	}
	t.Logf("the drill, with a look around: %s; RTO of the clone: %s", time.Since(began).Round(time.Second), r.Applications[0].RTO)
	noSandbox(t, run)
	if got := epochs(t, commonBucket(), a.name); got != 1 {
		t.Errorf("the drill raised the epoch: there are %d", got)
	}
	if after := shapeOf(t, a.name); after != before {
		t.Errorf("the live application changed:\n%s\nwas:\n%s", after, before)
	}
	if role := a.status(t, east, "role"); role != "Active" {
		t.Errorf("east is %s", role)
	}
	davit(t, west, a.vault, "runs", "report", run, "--verify").want(t, 0, "Genuine", "Completed")
	html := davit(t, west, a.vault, "runs", "report", run, "-o", "html").want(t, 0, "The drill passed", "look around", "not asked: it leads out").out
	if dir := os.Getenv("DAVIT_E2E_REPORTS"); dir != "" {
		_ = os.WriteFile(dir+"/"+run+".html", []byte(html), 0o600)
	}

	// The negative control: a clone that is no sandbox is heard.
	free := a.name + "-free"
	removeNamespace(t, west, free)
	davit(t, west, a.vault, "restore", a.name, "--as-clone", "--map-namespace", a.name+"="+free, "--yes").want(t, 0)
	world.more(t, clone)
	sweptDrill(t, a, file)
}

// sweptDrill kills a drill in the middle, and sweeps.
func sweptDrill(t *testing.T, a *app, file string) {
	t.Helper()
	cmd := command(t.Context(), west, a.vault, "drill", "-f", file)
	ended := make(chan outcome, 1)
	go func() { ended <- finish(t, cmd) }()
	var run string
	eventually(t, time.Minute, "the sandbox is there", func() (bool, string) {
		run = kubectl(t, west, "get", "namespaces", "-l", "davit.dev/sandbox", "-o", `jsonpath={range .items[*]}{.metadata.annotations.davit\.dev/run}{"\n"}{end}`)
		for line := range strings.Lines(run) {
			if run = strings.TrimSpace(line); strings.HasPrefix(run, a.name+"-drill-") {
				return true, run
			}
		}
		return false, run
	})
	_ = cmd.Process.Kill()
	<-ended
	eventually(t, 2*time.Minute, "the killed drill is swept", func() (bool, string) {
		got := davit(t, west, a.vault, "drill", "--sweep", "-o", "json")
		return got.code == 0 && strings.Contains(got.out, run), fmt.Sprintf("code %d: %s %s", got.code, got.out, got.err)
	})
	noSandbox(t, run)
	davit(t, west, a.vault, "runs", "show", run).want(t, 0, "Canceled")
}

func noSandbox(t *testing.T, run string) {
	t.Helper()
	got := kubectl(t, west, "get", "namespaces", "-l", "davit.dev/sandbox", "-o", "jsonpath={.items[*].metadata.annotations}")
	if strings.Contains(got, `"`+run+`"`) {
		t.Errorf("the sandbox of %s is still there: %s", run, got)
	}
	if jobs := kubectl(t, west, "-n", system, "get", "jobs", "-l", "davit.dev/sandbox", "-o", "jsonpath={.items[*].metadata.annotations}"); strings.Contains(jobs, run) {
		t.Errorf("a Job of %s is still there: %s", run, jobs)
	}
}

// shapeOf is what people would notice of the live application: which objects
// there are, and which generation their specs have.
func shapeOf(t *testing.T, namespace string) string {
	t.Helper()
	return kubectl(t, east, "-n", namespace, "get", "deployments,statefulsets,services,configmaps,secrets,persistentvolumeclaims,pods", "-o",
		`jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid} {.metadata.generation}{"\n"}{end}`)
}
