package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// leasedPlan writes a plan whose application runs under a lease, and which declares a site
// lost that is seen so for as long as given. Whether east serves
// it is asked of east's node, which answers without agent and API server.
func leasedPlan(t *testing.T, a *app, hysteresis string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "plan.yaml")
	node := kubectl(t, east, "-n", system, "get", "pods", "-l", "app.kubernetes.io/name=davit-node", "-o", "jsonpath={.items[0].status.podIP}")
	text := fmt.Sprintf(`apiVersion: davit.dev/v1alpha1
kind: RecoveryPlan
metadata: {name: %s}
spec:
  vault: %s
  sites: [{name: east}, {name: west}]
  applications: [{name: %s}]
  declaration: {automatic: true, vantages: [west, north, witness], agree: 2, for: %s, block: 1h, probes: {east: {kind: http, target: "http://%s:8082/active/%s", timeout: 3s}}}
  fence: {timeout: 5s, lease: 15s, bound: 10s, driftPPM: 1000}
`, a.name, a.vault, a.name, hysteresis, node, a.name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// witness watches as a vantage point, from beside the sites, until it is told to stop
// or the test ends.
func witness(t *testing.T, vault string) (stop func()) {
	t.Helper()
	address := strings.TrimSpace(kubectl(t, west, "get", "vault", vault, "-o", "jsonpath={.spec.url}"))
	cmd := command(t.Context(), west, "", "witness", "--name", "witness", "--vault-url", address, "--recovery-key-file", commonKey(), "--kubeconfig", "/nowhere")
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// onlyServing takes east's API server and agent away, and leaves what it protects
// running: two vantage points see that nobody speaks for it, and that it answers all
// the same. So nothing is declared. Then both are back.
func onlyServing(t *testing.T, a *app, world *callers, mine string) {
	t.Helper()
	stop := witness(t, a.vault)
	defer stop()
	back := sync.OnceFunc(func() { revive(t, east) })
	t.Cleanup(back)
	signal(t, []int{component(t, east, "kube-apiserver")}, syscall.SIGKILL)
	signal(t, pidsOf(t, "agent"), syscall.SIGKILL)
	eventually(t, 3*time.Minute, "west and the witness say that east answers the probe, and is otherwise silent", func() (bool, string) {
		why := try(t, west, "get", "recoveryplan", a.name, "-o", `jsonpath={range .status.declaration.observers[?(@.view=="alive")]}{.name}: {.why}{"\n"}{end}`)
		return strings.Contains(why, "west: it answers the plan's probe") && strings.Contains(why, "witness: it answers the plan's probe"), why
	})
	world.more(t, mine)
	if got := epochs(t, commonBucket(), a.name); got != 2 || runOf(t, a.vault, a.name) != "" {
		t.Fatalf("a site that serves was declared lost: %d epochs", got)
	}
	back()
}

// flapping takes east away from everybody but its clients, twice, and gives it back each
// time when both vantage points that are heard call it lost: for less long than the plan
// asks. Nothing is declared, and nobody but east ever writes. That the same loss is
// declared once it lasts is what comes after.
func flapping(t *testing.T, a *app, world *callers, mine, theirs string) {
	t.Helper()
	defer witness(t, a.vault)()
	views := func() string {
		return try(t, west, "get", "recoveryplan", a.name, "-o", `jsonpath={range .status.declaration.observers[*]}{.name}={.view} {end}`)
	}
	both := func(view string) func() (bool, string) {
		return func() (bool, string) {
			got := views()
			return strings.Contains(got, "west="+view) && strings.Contains(got, "witness="+view), got
		}
	}
	for range 2 {
		for _, other := range []string{"vault", west} {
			if err := rig.Bed.Cut(t.Context(), east, other); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, 3*time.Minute, "west and the witness call east lost", both("lost"))
		if err := rig.Bed.HealAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, 3*time.Minute, "both see east again", both("alive"))
		world.more(t, mine)
	}
	if n, _ := world.heard(theirs); n != 0 || epochs(t, commonBucket(), a.name) != 2 || runOf(t, a.vault, a.name) != "" {
		t.Fatalf("a site that came back was declared lost: west has said %d lines", n)
	}
}

// seen is what west makes of east: the plan's condition, and what it says itself.
func seen(t *testing.T, plan string) string {
	return strings.TrimSpace(try(t, west, "get", "recoveryplan", plan, "-o",
		`jsonpath={.status.conditions[?(@.type=="Declares")].reason} {.status.declaration.observers[?(@.name=="west")].view}`))
}

// leaseOver takes agent and API server from a site whose node still answers the plan's
// probe: it is not declared lost. Then that site, alive and reached by its clients, is cut off
// from the vault: it stops what runs under a lease by itself. While one vantage point alone
// sees that, nothing happens. When a witness sees it too, the other site fails it
// over without a word of any person: it waits, and starts only when the old
// writer has said its last word.
func leaseOver(t *testing.T) {
	world := listen(t)
	a := &app{name: short(t)}
	a.more = writer(a.name, "writer", world.address)
	a.protected(t)
	removeNamespace(t, west, a.name)
	t.Cleanup(func() { unprotect(west, a.name) })
	mine, theirs := east+" "+a.name+"/writer", west+" "+a.name+"/writer"
	file := leasedPlan(t, a, "10m")
	davit(t, west, a.vault, "plan", "arm", file, "--yes").want(t, 3, "is held by site east, and this is site west")
	davit(t, east, a.vault, "plan", "arm", file, "--yes").want(t, 0, "epoch 2, lease of 15s, kept by every node")
	davit(t, east, a.vault, "plan", "arm", file, "--yes").want(t, 0, "epoch 2", "(as before)")
	davit(t, east, "", "status").want(t, 0, "(lease 15s)")
	world.more(t, mine)
	davit(t, west, a.vault, "failover", "-f", file, "--dry-run").want(t, 0, "Fence: timed-out lease at worst")

	for _, site := range []string{east, west} {
		kubectl(t, site, "apply", "-f", file)
		t.Cleanup(func() {
			for _, what := range []string{"recoveryplan", "run"} {
				_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), site, "delete", what, "--ignore-not-found", map[string]string{"recoveryplan": a.name, "run": a.name + "-declared-3"}[what])
			}
		})
	}
	eventually(t, 3*time.Minute, "west says that it is the only vantage point that is heard", func() (bool, string) {
		got := seen(t, a.name)
		return got == "VantagesSilent alive", got
	})
	davit(t, west, a.vault, "plan", "show", a.name).want(t, 0, "is not declared automatically now: VantagesSilent, 1 of 3", "west alive")

	onlyServing(t, a, world, mine)
	flapping(t, a, world, mine, theirs)
	file = leasedPlan(t, a, "20s")
	for _, site := range []string{east, west} {
		kubectl(t, site, "apply", "-f", file)
	}
	for _, other := range []string{"vault", west} { // the probe of the plan gets no answer either
		if err := rig.Bed.Cut(t.Context(), east, other); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = rig.Bed.HealAll(context.WithoutCancel(t.Context())) })
	eventually(t, 3*time.Minute, "west sees for longer than the plan asks that east is lost", func() (bool, string) {
		since := try(t, west, "get", "recoveryplan", a.name, "-o", `jsonpath={.status.declaration.observers[?(@.name=="west")].since}`)
		at, err := time.Parse(time.RFC3339, strings.TrimSpace(since))
		got := seen(t, a.name)
		return err == nil && got == "VantagesSilent lost" && time.Since(at) > 30*time.Second, got + " " + since
	})
	if got := epochs(t, commonBucket(), a.name); got != 2 || runOf(t, a.vault, a.name) != "" {
		t.Fatalf("one vantage point alone declared it: %d epochs", got)
	}
	witness(t, a.vault)
	run := a.name + "-declared-3"
	var r runView
	eventually(t, 4*time.Minute, "west has failed it over by itself", func() (bool, string) {
		out := davit(t, west, a.vault, "runs", "show", run, "-o", "json")
		if out.code != 0 {
			return false, seen(t, a.name)
		}
		out.read(t, &r)
		return r.State == "AwaitingCommit", r.State
	})
	if r.Level != "timed-out lease" || len(r.Applications) != 1 || r.Applications[0].Epoch != 3 {
		t.Fatalf("%+v", r)
	}
	if by := kubectl(t, west, "get", "run", run, "-o", "jsonpath={.spec.requestedBy}"); by != "declared automatically by west, witness" {
		t.Errorf("requested by %q", by)
	}
	t.Logf("RTO, the lease waited out: %s", r.Applications[0].RTO)
	world.more(t, theirs)
	_, last := world.span(mine)
	first, _ := world.span(theirs)
	if !first.After(last) {
		t.Errorf("two writers: east's last word came %s after west's first", last.Sub(first))
	}
	t.Logf("west's first word came %s after east's last", first.Sub(last))
	eventually(t, 3*time.Minute, "east says that the lease is over", func() (bool, string) {
		got := a.status(t, east, "role") + " " + a.status(t, east, "lease.over") + " " + a.status(t, east, "lease.message")
		return strings.HasPrefix(got, "Active true node "), got
	})
	davit(t, east, "", "status").want(t, 0, "(lease over)")
	davit(t, west, "", "status").want(t, 0, "lease")
	davit(t, west, a.vault, "runs", "commit", r.Run).want(t, 0, "Completed")

	if err := rig.Bed.HealAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*time.Minute, "east says Superseded and runs nothing of it", func() (bool, string) {
		role, replicas := a.status(t, east, "role"), a.replicas(t, east)
		return role == "Superseded" && replicas == "0", role + ", replicas " + replicas
	})
	if _, again := world.span(mine); !again.Equal(last) {
		t.Error("east's writer spoke again")
	}
	eventually(t, 3*time.Minute, "east declares nothing after it: going back is for people, and for an hour nothing is declared at all", func() (bool, string) {
		got := try(t, east, "get", "recoveryplan", a.name, "-o", `jsonpath={.status.conditions[?(@.type=="Declares")].status} {.status.conditions[?(@.type=="Declares")].message}`)
		return strings.HasPrefix(got, "False ") && (strings.Contains(got, "a run ended") || strings.Contains(got, "never automatic")), got
	})
	davit(t, west, a.vault, "plan", "disarm", file, "--yes").want(t, 0, "epoch 4, no lease")
}
