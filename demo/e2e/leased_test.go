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
  sites: [{name: east}, {name: west}, {name: north}]
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

// views says whether west and the witness both make of east what is given.
func views(t *testing.T, a *app, view, why string) func() (bool, string) {
	return func() (bool, string) {
		got := try(t, west, "get", "recoveryplan", a.name, "-o", `jsonpath={range .status.declaration.observers[*]}{.name}={.view} {.why}; {end}`)
		return strings.Contains(got, "west="+view+" "+why) && strings.Contains(got, "witness="+view+" "+why), got
	}
}

// seen is what west makes of east: the plan's condition, and what it says itself.
func seen(t *testing.T, plan string) string {
	return strings.TrimSpace(try(t, west, "get", "recoveryplan", plan, "-o",
		`jsonpath={.status.conditions[?(@.type=="Declares")].reason} {.status.declaration.observers[?(@.name=="west")].view}`))
}

// parted takes east's links to others away, until all are healed.
func parted(t *testing.T, others ...string) {
	t.Helper()
	for _, other := range others {
		if err := rig.Bed.Cut(t.Context(), east, other); err != nil {
			t.Fatal(err)
		}
	}
}

func healed(t *testing.T) {
	t.Helper()
	if err := rig.Bed.HealAll(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// headless kills east's API server and agents. back has them started again, and does not wait: the
// site's node is called unready for a minute after that. settled does.
func headless(t *testing.T) (back, settled func()) {
	t.Helper()
	var reviving sync.WaitGroup
	t.Cleanup(func() {
		reviving.Wait()
		revive(t, east)
	})
	signal(t, []int{component(t, east, "kube-apiserver")}, syscall.SIGKILL)
	signal(t, pidsOf(t, "agent"), syscall.SIGKILL)
	back = func() {
		reviving.Go(func() {
			if err := rig.Bed.Revive(context.WithoutCancel(t.Context()), east); err != nil {
				t.Errorf("start %s again: %v", east, err)
			}
		})
	}
	return back, reviving.Wait
}

// undeclared: east goes on, and nobody has taken anything from it.
func (s *till) undeclared(t *testing.T) {
	t.Helper()
	s.sells(t, east)
	if got := epochs(t, commonBucket(), s.name); got != 2 || runOf(t, s.vault, s.name) != "" || len(s.at(west)) > 0 {
		t.Fatalf("a site that serves was declared lost: %d epochs, %d orders in west", got, len(s.at(west)))
	}
}

// seenByOne takes east's API server and agent away, and west's way to its node, which keeps the
// lease and serves: west alone calls it lost, for longer than the plan asks, and nothing is
// declared. Then a witness is there, and west's way: both see that it answers the
// plan's probe and is otherwise silent. Then east is back.
func (s *till) seenByOne(t *testing.T) (settled, witnessed func()) {
	t.Helper()
	back, settled := headless(t)
	parted(t, west)
	eventually(t, 3*time.Minute, "west, which is the only vantage point that is heard, sees for longer than the plan asks that east is lost", func() (bool, string) {
		since := try(t, west, "get", "recoveryplan", s.name, "-o", `jsonpath={.status.declaration.observers[?(@.name=="west")].since}`)
		at, err := time.Parse(time.RFC3339, strings.TrimSpace(since))
		got := seen(t, s.name)
		return err == nil && got == "VantagesSilent lost" && time.Since(at) > 20*time.Second, got + " " + since
	})
	davit(t, west, s.vault, "plan", "show", s.name).want(t, 0, "is not declared automatically now: VantagesSilent, 1 of 3", "west lost")
	s.undeclared(t)
	witnessed = witness(t, s.vault)
	healed(t)
	eventually(t, 3*time.Minute, "west and the witness say that east answers the probe, and is otherwise silent", views(t, s.app, "alive", "it answers the plan's probe"))
	s.undeclared(t)
	back()
	eventually(t, 3*time.Minute, "both see that east lives", views(t, s.app, "alive", ";"))
	return settled, witnessed
}

// seenByBoth takes east away from everybody but its clients, and gives it back when both vantage
// points that are heard call it lost: for less long than the plan asks. Nothing is declared,
// and nobody but east ever writes. That the same loss is declared once it lasts is what comes after.
func (s *till) seenByBoth(t *testing.T) {
	t.Helper()
	parted(t, "vault", west)
	eventually(t, 3*time.Minute, "west and the witness call east lost", views(t, s.app, "lost", "no sign of life"))
	healed(t)
	eventually(t, 3*time.Minute, "both see east again", views(t, s.app, "alive", ";"))
	s.undeclared(t)
}

// leaseOver is a site that comes and goes, with PostgreSQL under load: what one vantage point sees
// for long, and what two see for a while, declares nothing. Then the site, alive and reached by
// its clients, is cut off from vault and peer, its API server and agents dead: its node stops what
// runs under a lease by itself, and west fails it over without a word of any person. It waits,
// and starts only when the old writer has said its last word. Of the vantage points that agree one is a
// third site, by then: to that one it is moved on, in peace.
func leaseOver(t *testing.T) {
	up, joined := thirdSite(t)
	s := newTill(t)
	s.open(t)
	long, file := leasedPlan(t, s.app, "10m"), leasedPlan(t, s.app, "16s")
	davit(t, west, s.vault, "plan", "arm", file, "--yes").want(t, 3, "is held by site east, and this is site west")
	davit(t, east, s.vault, "plan", "arm", file, "--yes").want(t, 0, "epoch 2, lease of 15s, kept by every node")
	davit(t, east, s.vault, "plan", "arm", file, "--yes").want(t, 0, "epoch 2", "(as before)", "When this site is lost, site west takes over")
	davit(t, east, "", "status").want(t, 0, "(lease 15s)")
	davit(t, west, s.vault, "failover", "-f", file, "--dry-run").want(t, 0, "Fence: timed-out lease at worst")
	run := s.name + "-declared-3"
	for _, site := range []string{east, west} {
		kubectl(t, site, "apply", "-f", file)
		t.Cleanup(func() {
			_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), site, "delete", "recoveryplan", s.name, "--ignore-not-found")
			_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), site, "delete", "runs", "-l", "davit.dev/plan="+s.name)
		})
	}
	t.Cleanup(func() { _ = rig.Bed.HealAll(context.WithoutCancel(t.Context())) })
	eventually(t, 3*time.Minute, "west has heard east", func() (bool, string) { // who never spoke is never lost
		got := seen(t, s.name)
		return strings.HasSuffix(got, " alive"), got
	})
	settled, witnessed := s.seenByOne(t)
	kubectl(t, west, "apply", "-f", long)
	up()
	s.seenByBoth(t)
	kubectl(t, west, "apply", "-f", file)
	joined()
	s.watchedByThree(t, file)
	witnessed() // what it was asked for is done

	settled()
	s.backup(t)
	s.sells(t, east)
	back, _ := headless(t)
	parted(t, "vault", west, north) // the probe of the plan gets no answer either
	s.declared(t, run)
	back()
	eventually(t, 3*time.Minute, "east says that the lease is over", func() (bool, string) {
		got := s.status(t, east, "role") + " " + s.status(t, east, "lease.over") + " " + s.status(t, east, "lease.message")
		return strings.HasPrefix(got, "Active true node "), got
	})
	davit(t, east, "", "status").want(t, 0, "(lease over)")
	davit(t, west, "", "status").want(t, 0, "lease")
	davit(t, west, s.vault, "runs", "commit", run).want(t, 0, "Completed")

	mine := len(s.at(east))
	healed(t)
	eventually(t, 3*time.Minute, "east says Superseded and runs nothing of it", func() (bool, string) {
		role, replicas := s.status(t, east, "role"), s.replicas(t, east)
		return role == "Superseded" && replicas == "0", role + ", replicas " + replicas
	})
	if now := len(s.at(east)); now != mine {
		t.Errorf("east's writer placed %d more orders", now-mine)
	}
	eventually(t, 3*time.Minute, "east declares nothing after it: going back is for people, and for an hour nothing is declared at all", func() (bool, string) {
		got := try(t, east, "get", "recoveryplan", s.name, "-o", `jsonpath={.status.conditions[?(@.type=="Declares")].status} {.status.conditions[?(@.type=="Declares")].message}`)
		return strings.HasPrefix(got, "False ") && (strings.Contains(got, "a run ended") || strings.Contains(got, "never automatic")), got
	})
	s.onToTheThird(t, file, run)
	davit(t, north, s.vault, "plan", "disarm", file, "--yes").want(t, 0, "epoch 5, no lease")
}

// declared waits until west has failed it over by itself. Never did two write; what was
// acknowledged before the point that west has is there, and the run tells no smaller loss.
func (s *till) declared(t *testing.T, run string) {
	t.Helper()
	var r runView
	eventually(t, 4*time.Minute, "west has failed it over by itself", func() (bool, string) {
		out := davit(t, west, s.vault, "runs", "show", run, "-o", "json")
		if out.code != 0 {
			return false, seen(t, s.name)
		}
		out.read(t, &r)
		return r.State == "AwaitingCommit", r.State
	})
	if r.Level != "timed-out lease" || len(r.Applications) != 1 || r.Applications[0].Epoch != 3 {
		t.Fatalf("%+v", r)
	}
	if by := kubectl(t, west, "get", "run", run, "-o", "jsonpath={.spec.requestedBy}"); by != "declared automatically by west, north" {
		t.Errorf("requested by %q", by)
	}
	t.Logf("RTO, the lease waited out: %s", r.Applications[0].RTO)
	s.sells(t, west)
	s.neverTwo(t)
	s.keptAsTold(t, run)
}
