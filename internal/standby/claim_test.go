package standby

import (
	"context"
	"testing"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	promised "davit.dev/davit/internal/promise/hold"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore/transform"
	"davit.dev/davit/internal/standby/mapping"
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

// TestWhoClaimedSinceIsNamed: a roll-back goes by it.
func TestWhoClaimedSinceIsNamed(t *testing.T) {
	p := project(t)
	claim := west(p).Kinds()[plan.KindClaim]
	expect(t, "act", claim.Do(t.Context(), claiming(failover.Act, "r", 2)), failover.Done, 2)
	if _, err := lease.New(p).Claim(t.Context(), "shop", 3, lease.Claim{Site: "west", Cluster: "w", Request: "restore", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for _, action := range []failover.Action{failover.Look, failover.Undo} {
		got := claim.Do(t.Context(), claiming(action, "r", 2))
		if got.Outcome != failover.Superseded || got.Holder != "west" {
			t.Errorf("%s: %+v", action, got)
		}
	}
}

func TestAClaimThatNeverArrivedFindsItsNumberTaken(t *testing.T) {
	p := project(t)
	claim := west(p).Kinds()[plan.KindClaim]
	expect(t, "undo", claim.Do(t.Context(), claiming(failover.Undo, "r", 1)), failover.Done, 2)
	expect(t, "late act", claim.Do(t.Context(), claiming(failover.Act, "r", 2)), failover.Superseded, 0)
}

// TestEverySiteThatEverHeldIsToBeFenced, and a wait counts only for one that
// keeps a lease of everything that it ever held.
func TestEverySiteThatEverHeldIsToBeFenced(t *testing.T) {
	terms := func(seconds int64) *lease.Terms {
		return &lease.Terms{LeaseMillis: seconds * 1000, BoundMillis: 10_000, DriftPPM: 1000}
	}
	claim := func(n int64, site string, terms *lease.Terms) lease.Epoch {
		return lease.Epoch{Number: n, Claim: lease.Claim{Site: site, Cluster: "of-" + site, Terms: terms}}
	}
	shop := []lease.Epoch{claim(1, "north", terms(15)), claim(2, "west", nil), claim(3, "east", nil), claim(4, "east", terms(15))}
	for name, c := range map[string]struct {
		bank []lease.Epoch
		kept map[string]int64 // of east
		want time.Duration
	}{
		"of both, the longest":     {[]lease.Epoch{claim(1, "east", terms(20))}, map[string]int64{"shop": 4, "bank": 1}, 20 * time.Second},
		"of the bank only claimed": {[]lease.Epoch{claim(1, "east", terms(20))}, map[string]int64{"shop": 4}, 0},
		"none of the bank":         {[]lease.Epoch{claim(1, "east", nil)}, map[string]int64{"shop": 4}, 0},
		"never held the bank":      {[]lease.Epoch{claim(1, "south", nil)}, map[string]int64{"shop": 4}, 15 * time.Second},
	} {
		p := project(t)
		facts := &failover.Facts{Epochs: map[string]failover.Held{}, Holders: map[string][]string{}, Terms: map[string]plan.Fence{}}
		histories := map[string][]lease.Epoch{"shop": shop, "bank": c.bank}
		for app, history := range histories {
			holders(facts, app, history, nil, "west")
		}
		for app, n := range c.kept {
			if err := lease.StateKept(t.Context(), p, lease.Kept{Application: app, Epoch: n, Site: "east", Cluster: "of-east", Nodes: []string{"n"}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := west(p).leases(t.Context(), facts, histories, nil); err != nil {
			t.Fatal(err)
		}
		if held, who := facts.Epochs["shop"], facts.Holders["shop"]; held.Number != 4 || held.Site != "east" || len(who) != 2 || who[0] != "east" || who[1] != "north" {
			t.Error(name, held, who)
		}
		if got := facts.Terms["east"]; got.Lease != c.want {
			t.Errorf("%s: %+v", name, got)
		}
		if _, kept := facts.Terms["north"]; kept {
			t.Errorf("%s: north claimed under terms, and nobody said that its nodes keep them", name)
		}
	}
}

func TestARunClaimsUnderThePlansTerms(t *testing.T) {
	p := project(t)
	o := claiming(failover.Act, "r", 2)
	o.Fence = plan.Fence{Timeout: time.Second, Lease: 15 * time.Second, Bound: 10 * time.Second, Drift: 1000}
	claim := west(p).Kinds()[plan.KindClaim]
	expect(t, "act", claim.Do(t.Context(), o), failover.Done, 2)
	got, err := lease.New(p).Current(t.Context(), "shop")
	if err != nil || got.Claim.Terms == nil || !got.Claim.Terms.Equal(&lease.Terms{LeaseMillis: 15000, BoundMillis: 10000, DriftPPM: 1000}) {
		t.Fatalf("%+v, %v", got, err)
	}
	o.Action = failover.Undo
	expect(t, "undo", claim.Do(t.Context(), o), failover.Done, 3)
	if got, err = lease.New(p).Current(t.Context(), "shop"); err != nil || got.Claim.Site != "east" || got.Claim.Terms != nil {
		t.Fatalf("given back under terms that its nodes may not know: %+v, %v", got, err)
	}
}

// TestAHoldIsDoneOnceItIsWritten: the claim names all other sites, and what the run claimed is what this cluster then
// holds. A roll-back leaves it.
func TestAHoldIsDoneOnceItIsWritten(t *testing.T) {
	p := project(t)
	cluster := newMemory(t)
	s := New(Options{Recovery: recovery.Deps{Project: p, Site: "west", ClusterID: "w", Holder: "ann", Cluster: cluster}})
	o := claiming(failover.Act, "r", 2)
	o.Fence = plan.Fence{
		Timeout: time.Second, Lease: 15 * time.Second, Bound: 10 * time.Second, Drift: 1000, Promises: true,
		Peers: map[string]string{"east": "e:1", "west": "w:1", "north": "n:1"},
	}
	for _, site := range []string{"east", "north"} {
		if err := p.Heartbeat(t.Context(), vault.SiteStatus{Site: site, Cluster: "uid-" + site}); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, "claim", s.Kinds()[plan.KindClaim].Do(t.Context(), o), failover.Done, 2)
	got, err := lease.New(p).Current(t.Context(), "shop")
	if err != nil || len(got.Claim.Terms.Peers) != 2 || got.Claim.Terms.Peers[0] != (lease.Peer{Site: "east", Cluster: "uid-east", Address: "e:1"}) || got.Claim.Terms.Peers[1].Site != "north" {
		t.Fatalf("%+v, %v", got.Claim.Terms, err)
	}
	hold := s.Kinds()[plan.KindHold]
	o.Step = plan.Step{Name: "hold", Kind: plan.KindHold}
	do := func(a failover.Action, want failover.Outcome) {
		t.Helper()
		o.Action = a
		expect(t, string(a), hold.Do(t.Context(), o), want, 0)
	}
	do(failover.Look, failover.NotDone)
	do(failover.Act, failover.Done)
	do(failover.Look, failover.Done)
	do(failover.Undo, failover.Done)
	do(failover.Look, failover.Done)
	o.Token.Epochs["shop"] = 3
	do(failover.Look, failover.NotDone)
	if held, err := promised.Held(t.Context(), cluster, p.KeyID(), map[string]int64{"shop": 2}); err != nil || !held {
		t.Errorf("%v, %v", held, err)
	}
}

func TestStepsThatNobodyDoesRefuseTheRun(t *testing.T) {
	s := west(project(t))
	steps := []plan.Step{
		{Name: "ok", Kind: plan.KindReady, Side: plan.Target},
		{Name: "task", Kind: plan.KindManual, Side: plan.Target},
		{Name: "net", Kind: plan.KindPromote, Side: plan.Target},
		{Name: "ask", Kind: plan.KindProbe, Side: plan.Target, Checks: []plan.Check{{Kind: plan.CheckSQL}}},
	}
	if got := s.cannot(failover.Spec{Steps: steps}); len(got) != 2 {
		t.Fatal(got)
	}
}

func TestThingsAreCalledAsAtTheTarget(t *testing.T) {
	p := plan.Plan{
		Name: "p", Sites: []plan.Site{{Name: "east"}, {Name: "west", Mappings: []plan.Mapping{
			{Kind: plan.MapStorageClass, From: "fast", To: "ssd"},
			{Kind: plan.MapImage, From: "east.example", To: "west.example"},
			{Kind: plan.MapNodeLabel, From: "disk=a", To: "disk=b"},
			{Kind: plan.MapIngressClass, From: "nginx", To: "traefik"},
			{Kind: plan.MapHost, From: ".east.example", To: ".west.example"},
		}}},
		Applications: []plan.Application{{Name: "shop"}}, Fence: plan.Fence{Timeout: time.Second},
		Traffic: []plan.Traffic{{Name: "www", Kind: plan.KindGate, Object: "www"}},
	}
	for site, mapped := range map[string]bool{"west": true, "east": false} {
		g, err := p.Graph(plan.Failover)
		if err != nil {
			t.Fatal(err)
		}
		p.Aim(g.Steps, site)
		var o recovery.Options
		mapping.Call(&o, g.Step("apply/shop").Mappings)
		if got := len(o.Transforms) == 1; got != mapped {
			t.Fatalf("%s: %+v", site, o.Transforms)
		}
		if _, err := transform.Compile(nil, o.Transforms...); err != nil {
			t.Error(err)
		}
		if gates := g.Step("data/shop").Gates; len(gates) != 1 || gates[0] != "www" {
			t.Errorf("gates: %v", gates)
		}
	}
	g, err := p.Graph(plan.Failover)
	if err != nil {
		t.Fatal(err)
	}
	p.Sites[1].Mappings = []plan.Mapping{{Kind: plan.MapNamespace, From: "shop", To: "shop-west"}} // that an older davit let through
	p.Aim(g.Steps, "west")
	if got := mapping.Unfit(failover.Spec{Verb: plan.Failover, To: "west", Steps: g.Steps}); len(got) != 1 {
		t.Errorf("a mapped namespace: %q", got)
	}
}

// TestANameIsNotTakenFromWhoClaimedSince: a roll-back may come to a name long after it gave the claims back, and
// whoever has claimed since need not have moved the name by Davit: no guard in the zone says so.
func TestANameIsNotTakenFromWhoClaimedSince(t *testing.T) {
	for name, c := range map[string]struct {
		action failover.Action
		by     string // has claimed epoch 2; empty: nobody
		want   failover.Outcome
	}{
		"nobody has":          {failover.Undo, "", failover.Done},
		"another site has":    {failover.Undo, "south", failover.Superseded},
		"this site has":       {failover.Undo, "west", failover.Superseded},
		"the source has anew": {failover.Undo, "east", failover.Done}, // that is where the name goes
		"an act":              {failover.Act, "south", failover.Done}, // its guard is for that
	} {
		p := project(t)
		if c.by != "" {
			if _, err := lease.New(p).Claim(t.Context(), "shop", 2, lease.Claim{Site: c.by, Cluster: c.by[:1], Request: "by hand", At: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		told := false
		s := west(p)
		s.o.More = execute.Kinds{plan.KindDNS: execute.Func(func(context.Context, execute.Order) execute.Answer {
			told = true
			return execute.Done("")
		})}
		o := claiming(c.action, "r", 1)
		o.Step = plan.Step{Name: "traffic/www", Kind: plan.KindDNS, Object: "www.example.com"}
		got := s.Kinds()[plan.KindDNS].Do(t.Context(), o)
		if got.Outcome != c.want || told != (c.want == failover.Done) {
			t.Errorf("%s: %+v, told: %t", name, got, told)
		}
	}
}
