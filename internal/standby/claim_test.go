package standby

import (
	"context"
	"testing"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

func project(t *testing.T) *vault.Project {
	t.Helper()
	id, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), mem.New(nil), "default", id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lease.New(p).Claim(t.Context(), "shop", 1, lease.Claim{Site: "east", Cluster: "e", Request: "first", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return p
}

func west(p *vault.Project) *Site {
	return New(Options{Recovery: recovery.Deps{Project: p, Site: "west", ClusterID: "w", Holder: "ann"}})
}

func claiming(a failover.Action, run string, epoch int64) execute.Order {
	return execute.Order{
		Action: a, Run: run, Plan: "p", Verb: plan.Failover, From: "east", To: "west", Site: "west",
		Step: plan.Step{Name: "claim/shop", Kind: plan.KindClaim, Application: "shop"}, Token: failover.Token{Run: run, Epochs: map[string]int64{"shop": epoch}},
	}
}

func expect(t *testing.T, what string, got execute.Answer, outcome failover.Outcome, epoch int64) {
	t.Helper()
	if got.Outcome != outcome || got.Epoch != epoch {
		t.Fatalf("%s: %+v, want %s and epoch %d", what, got, outcome, epoch)
	}
}

func TestAClaimIsMadeOnceAndGivenBack(t *testing.T) {
	p := project(t)
	claim := west(p).Kinds()[plan.KindClaim]
	do := func(a failover.Action, run string, epoch int64) execute.Answer {
		return claim.Do(context.Background(), claiming(a, run, epoch))
	}
	expect(t, "look before", do(failover.Look, "r", 2), failover.NotDone, 0)
	expect(t, "act", do(failover.Act, "r", 2), failover.Done, 2)
	expect(t, "act again, its answer was lost", do(failover.Act, "r", 2), failover.Done, 2)
	expect(t, "look", do(failover.Look, "r", 2), failover.Done, 2)
	expect(t, "another run", do(failover.Act, "other", 2), failover.Superseded, 0)
	expect(t, "another run gives back what it never had", do(failover.Undo, "other", 1), failover.Superseded, 0)
	expect(t, "undo", do(failover.Undo, "r", 2), failover.Done, 3)
	expect(t, "undo again", do(failover.Undo, "r", 2), failover.Done, 3)
	expect(t, "late act", do(failover.Act, "r", 2), failover.Superseded, 0)
	current, err := lease.New(p).Current(t.Context(), "shop")
	if err != nil || current.Number != 3 || current.Claim.Site != "east" || current.Claim.Cluster != "e" {
		t.Fatalf("%+v %v", current, err)
	}
}

func TestAClaimThatNeverArrivedFindsItsNumberTaken(t *testing.T) {
	p := project(t)
	claim := west(p).Kinds()[plan.KindClaim]
	expect(t, "undo", claim.Do(t.Context(), claiming(failover.Undo, "r", 1)), failover.Done, 2)
	expect(t, "late act", claim.Do(t.Context(), claiming(failover.Act, "r", 2)), failover.Superseded, 0)
}

func TestEverySiteThatEverHeldIsToBeFenced(t *testing.T) {
	facts := &failover.Facts{Epochs: map[string]failover.Held{}, Holders: map[string][]string{}, Terms: map[string]plan.Fence{}}
	claim := func(n int64, site string, terms *lease.Terms) lease.Epoch {
		return lease.Epoch{Number: n, Claim: lease.Claim{Site: site, Terms: terms}}
	}
	record(facts, "shop", []lease.Epoch{
		claim(1, "north", &lease.Terms{LeaseMillis: 15000}), claim(2, "west", nil), claim(3, "east", nil), claim(4, "east", &lease.Terms{LeaseMillis: 15000, BoundMillis: 5000, DriftPPM: 1000}),
	}, "west")
	if held := facts.Epochs["shop"]; held.Number != 4 || held.Site != "east" {
		t.Error(held)
	}
	if got := facts.Holders["shop"]; len(got) != 2 || got[0] != "east" || got[1] != "north" {
		t.Error(got)
	}
	if got := facts.Terms["east"]; got.Lease != 15*time.Second || got.Bound != 5*time.Second || got.Drift != 1000 {
		t.Error(got)
	}
	if _, kept := facts.Terms["west"]; kept {
		t.Error("a site that claimed without terms keeps no lease")
	}
}

func TestStepsThatNobodyDoesRefuseTheRun(t *testing.T) {
	s := west(project(t))
	steps := []plan.Step{
		{Name: "ok", Kind: plan.KindReady, Side: plan.Target},
		{Name: "task", Kind: plan.KindManual, Side: plan.Target},
		{Name: "net", Kind: plan.KindInfra, Side: plan.Target},
		{Name: "ask", Kind: plan.KindProbe, Side: plan.Target, Checks: []plan.Check{{Kind: plan.CheckSQL}}},
	}
	if got := s.cannot(failover.Spec{Steps: steps}); len(got) != 2 {
		t.Fatal(got)
	}
}

func TestServicesOfTheCluster(t *testing.T) {
	for host, want := range map[string]string{"web.shop": "web/shop", "web.shop.svc": "web/shop", "web.shop.svc.cluster.local": "web/shop", "www.example.com": "", "10.0.0.1": "", "web": ""} {
		service, namespace, ok := inCluster(host)
		if got := service + "/" + namespace; ok != (want != "") || ok && got != want {
			t.Errorf("%s: %s %v", host, got, ok)
		}
	}
}
