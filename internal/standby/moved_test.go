package standby

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/promotion"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/standby/remains"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// movedVault is a second copy that became the vault. North, which held the newest epoch of
// shop, goes on with it; east, which held an older one, came over second and claimed
// nothing. Of the sites that were not moved a person said that they have stopped.
func movedVault(t *testing.T) *vault.Project {
	t.Helper()
	store := mem.New(nil)
	key, err := vault.NewRecoveryKey()
	check(t, err)
	lost, err := vault.Init(t.Context(), mem.New(nil))
	check(t, err)
	check(t, vault.InitCopy(t.Context(), store, lost))
	_, err = vault.CreateProject(t.Context(), store, "default", key.Recipient())
	check(t, err)
	open := func() *vault.Project {
		p, err := vault.OpenProject(t.Context(), store, "default", key)
		check(t, err)
		return p
	}
	for _, s := range []struct {
		self lease.Identity
		app  promotion.App
		want promotion.Verdict
	}{
		{lease.Identity{Site: "north", Cluster: "n"}, promotion.App{Name: "shop", Seen: 3, Held: 3}, promotion.Here},
		{lease.Identity{Site: "east", Cluster: "e"}, promotion.App{Name: "shop", Seen: 3, Held: 2}, promotion.Elsewhere},
	} {
		promoter := promotion.New(store, open(), s.self, "test", time.Now)
		record, err := promoter.Promote(t.Context())
		check(t, err)
		got, err := promoter.Settle(t.Context(), record, []promotion.App{s.app})
		check(t, err)
		if len(got) != 1 || got[0].Verdict != s.want || got[0].Noted != (s.want != promotion.Here) {
			t.Fatalf("%s: %+v", s.self.Site, got)
		}
	}
	p := open()
	history, err := lease.New(p).History(t.Context(), "shop")
	check(t, err)
	nobodys, ok := lease.Unheld(history)
	if !ok {
		t.Fatal("nothing is nobody's")
	}
	check(t, lease.Say(t.Context(), p, "shop", nobodys, "ann", time.Now()))
	return p
}

func siteWest(p *vault.Project) *Site {
	site := New(Options{Recovery: recovery.Deps{Project: p, VaultName: "main", Site: "west", ClusterID: "w", Now: time.Now}})
	site.check = func(context.Context, recovery.Options, recovery.Deps) (recovery.Report, error) {
		return recovery.Report{Findings: []restore.Finding{}}, nil
	}
	return site
}

// field is what a failover to west does, from what west finds in the vault. Each site
// writes shop until it has proven that it stopped.
type field struct {
	t    *testing.T
	m    *failover.Machine
	site *Site
	now  time.Duration
	// deaf are sites of which a node writes on, and hears of nothing.
	deaf   []string
	writes map[string]bool
	both   bool // two wrote
}

func newField(t *testing.T, p *vault.Project, deaf ...string) *field {
	t.Helper()
	of := &plan.Plan{Name: "p", Sites: []plan.Site{{Name: "north"}, {Name: "west"}}, Applications: []plan.Application{{Name: "shop"}}, Fence: plan.Fence{Timeout: 10 * time.Second}}
	g, err := of.Graph(plan.Failover)
	check(t, err)
	m, err := failover.New("e1", failover.Spec{
		Run: "r", Plan: "p", Verb: plan.Failover, From: "north", To: "west", By: "ann", At: time.Now(), Accept: failover.TimedOut,
		Applications: []string{"shop"}, Steps: g.Steps, Fence: of.Fence,
	})
	check(t, err)
	f := &field{t: t, m: m, site: siteWest(p), now: time.Hour, deaf: deaf, writes: map[string]bool{"north": true, "east": slices.Contains(deaf, "east")}}
	f.tell(failover.Event{Kind: failover.Begin})
	return f
}

// until lets time pass until the run is in one of the phases.
func (f *field) until(phases ...failover.Phase) *failover.State {
	f.t.Helper()
	for range 1000 {
		if slices.Contains(phases, f.m.Phase()) {
			return f.m.State()
		}
		f.now += time.Second
		f.tell(failover.Event{Kind: failover.Tick})
	}
	f.t.Fatalf("the run is %s: %v", f.m.Phase(), f.m.Waits())
	return nil
}

func (f *field) tell(e failover.Event) {
	for queue := []failover.Event{e}; len(queue) > 0; {
		e, queue = queue[0], queue[1:]
		for _, effect := range f.m.Step(failover.Moment{Mono: f.now, Wall: time.Now()}, e) {
			if answer := f.answer(effect); answer != nil {
				answer.ID = effect.ID
				queue = append(queue, *answer)
			}
		}
	}
}

func (f *field) answer(e failover.Effect) *failover.Event {
	switch {
	case e.Action == failover.Append:
		return &failover.Event{Kind: failover.Recorded}
	case e.Action == failover.Evaluate:
		facts, err := f.site.Evaluate(f.t.Context(), f.m.State().Spec)
		check(f.t, err)
		return &failover.Event{Kind: failover.Gathered, Facts: facts}
	case e.Action == failover.Refuse:
		f.t.Errorf("refused: %s", e.Why)
		return nil
	case e.Action == failover.Verify:
		return &failover.Event{Kind: failover.Surveyed, Outcome: failover.Done}
	case e.Action == failover.Look:
		return &failover.Event{Kind: failover.Looked, Outcome: failover.NotDone}
	case e.Step == nil:
		return nil
	}
	a := &failover.Event{Kind: failover.Acted, Outcome: failover.Done}
	switch e.Step.Kind {
	case plan.KindClaim:
		a.Epoch = e.Token.Epochs["shop"]
	case plan.KindRestore:
		a.Point = &failover.Point{ID: "p"}
	case plan.KindFence:
		for _, site := range e.Sites {
			if slices.Contains(f.deaf, site) {
				a.Outcome = failover.NoAnswer
				continue
			}
			f.writes[site] = false
			a.Proofs = append(a.Proofs, failover.Proof{Application: "shop", Site: site, Epoch: e.Token.Epochs["shop"], How: "stopped"})
		}
	case plan.KindScale:
		f.writes["west"] = true
		f.both = f.both || f.writes["east"] || f.writes["north"]
	}
	return a
}

// TestAMovedSiteIsAskedForItsProof: a node of east hears of nothing and writes on. The run
// waits, and says for whom, until somebody made sure. The controls: east's nodes prove it;
// what east noted is gone, as if a davit that notes nothing had moved it: then two write.
func TestAMovedSiteIsAskedForItsProof(t *testing.T) {
	p := movedVault(t)
	deaf := newField(t, p, "east")
	s := deaf.until(failover.Paused, failover.AwaitingCommit)
	if who := s.Facts.Holders["shop"]; deaf.m.Phase() != failover.Paused || !slices.Equal(who, []string{"east", promotion.Nobody, "north"}) || deaf.writes["west"] {
		t.Errorf("the run is %s, the former holders are %v, who writes: %v", s.Phase, who, deaf.writes)
	}
	if waits := strings.Join(deaf.m.Waits(), " "); !strings.Contains(waits, "nothing proves that site east has stopped") {
		t.Error(waits)
	}
	deaf.writes["east"] = false // somebody pulled the plug
	deaf.tell(failover.Event{Kind: failover.Consent, Site: "east", Text: "east", By: "ann"})
	if s := deaf.until(failover.AwaitingCommit); deaf.both || !deaf.writes["west"] || s.Result().Applications[0].Fences["east"] != "none (forced)" {
		t.Errorf("%v: %+v", deaf.writes, s.Result())
	}

	well := newField(t, p)
	if s := well.until(failover.Paused, failover.AwaitingCommit); s.Phase != failover.AwaitingCommit || well.both || s.Result().Applications[0].Fences["east"] != "proven" {
		t.Errorf("all prove it: the run is %s, %+v", s.Phase, s.Result())
	}

	check(t, p.Store().Delete(t.Context(), p.Root()+"moved/shop/east/e"))
	blind := newField(t, p, "east")
	if s := blind.until(failover.Paused, failover.AwaitingCommit); s.Phase != failover.AwaitingCommit || !blind.both {
		t.Errorf("without the fact this proves nothing: the run is %s, who writes: %v", s.Phase, blind.writes)
	}
}

// TestWhatAMovedSiteHasIsLeftOver: it ran the application in the lost vault, so what is
// there is rolled back to the point, and it may come back; the control is one that never
// ran it.
func TestWhatAMovedSiteHasIsLeftOver(t *testing.T) {
	p := movedVault(t)
	for cluster, want := range map[string]bool{"e": true, "another": false} {
		site := New(Options{Recovery: recovery.Deps{Project: p, VaultName: "main", Site: "east", ClusterID: cluster, Now: time.Now}})
		exact := false
		site.check = func(_ context.Context, o recovery.Options, _ recovery.Deps) (recovery.Report, error) {
			exact = o.Existing == v1alpha1.ExistingExact
			return recovery.Report{Findings: []restore.Finding{}}, nil
		}
		facts, err := site.Evaluate(t.Context(), failover.Spec{Verb: plan.Failover, From: "north", To: "east", Applications: []string{"shop"}})
		check(t, err)
		left, err := remains.Look(t.Context(), p, "shop", site.self(), 99)
		check(t, err)
		if exact != want || left.Here != want || slices.Contains(facts.Holders["shop"], "east") {
			t.Errorf("cluster %s: exact %v, left over %v, %v", cluster, exact, left, facts.Holders)
		}
	}
}

// TestANoteThatCannotBeReadDeletesNothing: anybody who may write to the vault can put it
// there, or spoil it. It counts, so that what is at the site gives way to the point, but
// nothing goes that the point does not have, and the step says so. The controls: the note
// as it was written; none; and a damaged one of a site that claimed an epoch as well.
func TestANoteThatCannotBeReadDeletesNothing(t *testing.T) {
	p := movedVault(t)
	key := p.Root() + "moved/shop/east/e"
	r, err := p.Store().Get(t.Context(), key, 0, -1)
	check(t, err)
	whole, err := io.ReadAll(r)
	check(t, errors.Join(err, r.Close()))
	put := func(key string, data []byte) {
		check(t, p.Store().Put(t.Context(), key, bytes.NewReader(data), int64(len(data))))
	}
	at := func(site string) (*Site, *v1alpha1.ExistingPolicy) {
		s := New(Options{Recovery: recovery.Deps{Project: p, VaultName: "main", Site: site, ClusterID: site[:1], Now: time.Now}})
		judged := new(v1alpha1.ExistingPolicy)
		s.check = func(_ context.Context, o recovery.Options, _ recovery.Deps) (recovery.Report, error) {
			*judged = o.Existing
			return recovery.Report{Findings: []restore.Finding{}}, nil
		}
		return s, judged
	}
	order := func(n int64) execute.Order {
		return execute.Order{Run: "r", Point: &failover.Point{ID: "p"}, Step: plan.Step{Kind: plan.KindRestore, Application: "shop"}, Token: failover.Token{Epochs: map[string]int64{"shop": n}}}
	}
	expect := func(what, site string, n int64, want v1alpha1.ExistingPolicy, warned bool) {
		t.Helper()
		s, judged := at(site)
		_, err := s.Evaluate(t.Context(), failover.Spec{Verb: plan.Failover, From: "north", To: site, Applications: []string{"shop"}})
		check(t, err)
		opts, warning, err := s.options(t.Context(), order(n))
		check(t, err)
		if opts.Existing != want || *judged != want || (warning != "") != warned {
			t.Errorf("%s: %q, beforehand %q, want %q; warned %q", what, opts.Existing, *judged, want, warning)
		}
		if warned && (!strings.Contains(warning, "vault check") || !strings.Contains(warning, "shop")) {
			t.Errorf("%s: %s", what, warning)
		}
	}
	expect("as it was written", "east", 99, v1alpha1.ExistingExact, false)
	put(key, []byte("garbage"))
	expect("damaged", "east", 99, v1alpha1.ExistingReplace, true)
	put(p.Root()+"moved/shop/west/w", whole)
	expect("of another name", "west", 99, v1alpha1.ExistingReplace, true)
	check(t, p.Store().Delete(t.Context(), p.Root()+"moved/shop/west/w"))
	expect("none", "west", 99, "", false)
	epochs := lease.New(p)
	current, err := epochs.Current(t.Context(), "shop")
	check(t, err)
	_, err = epochs.Claim(t.Context(), "shop", current.Number+1, lease.Claim{Site: "east", Cluster: "e", Request: "by east"})
	check(t, err)
	expect("one that claimed an epoch", "east", 99, v1alpha1.ExistingExact, false)
}

// TestAClusterThatIsCalledNobody: a planned run is refused before it stops anything, and
// says what to do. A failover begins, and takes no proof of that cluster for one of the
// sites that were not moved: it needs a person, and reports that.
func TestAClusterThatIsCalledNobody(t *testing.T) {
	p := movedVault(t)
	epochs := lease.New(p)
	current, err := epochs.Current(t.Context(), "shop")
	check(t, err)
	for i, site := range []string{promotion.Nobody, "north"} {
		_, err = epochs.Claim(t.Context(), "shop", current.Number+1+int64(i), lease.Claim{Site: site, Cluster: "of-" + site, Request: "by " + site})
		check(t, err)
	}
	for verb, refused := range map[plan.Verb]bool{plan.Switchover: true, plan.Failover: false} {
		facts, err := siteWest(p).Evaluate(t.Context(), failover.Spec{Verb: verb, From: "north", To: "west", Applications: []string{"shop"}})
		check(t, err)
		problems := strings.Join(facts.Problems, "; ")
		if refused != (len(facts.Problems) > 0) || refused && (!strings.Contains(problems, "a cluster of that name") || !strings.Contains(problems, "install --site")) {
			t.Errorf("%s: %q", verb, problems)
		}
	}
	f := newField(t, p)
	if f.until(failover.Paused, failover.AwaitingCommit); f.m.Phase() != failover.Paused || f.writes["west"] {
		t.Errorf("its proof counted: the run is %s", f.m.Phase())
	}
	f.tell(failover.Event{Kind: failover.Consent, Site: promotion.Nobody, Text: promotion.Nobody, By: "ann"})
	if s := f.until(failover.AwaitingCommit); s.Result().Level != "none (forced)" {
		t.Errorf("%+v", s.Result())
	}
}
