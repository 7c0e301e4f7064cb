package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
)

// sites are those of a run with a step that runs beside its claims. They refuse
// what goes out with an epoch older than the newest. They keep the newest epochs, and
// whether the step was made and not unmade.
type sites struct {
	*rig
	newest map[string]int64
	made   bool
}

func besideClaims(t *testing.T) *sites {
	t.Helper()
	s := &sites{newest: map[string]int64{"cart": 7, "shop": 4}}
	s.rig = newRig(t, plan.Failover, func(p *plan.Plan, s *Spec) {
		p.Steps = []plan.Step{{
			Name: "network", Kind: plan.KindInfra, Early: true, Timeout: time.Minute, Before: []string{"data/cart", "data/shop"},
			Command: &plan.Command{Image: "make"}, Undo: &plan.Command{Image: "unmake"},
		}}
		s.Commit = plan.Commit{Window: 0}
	})
	s.answer = s.answers
	return s
}

func (s *sites) answers(f Effect) *Event {
	switch {
	case f.Step == nil:
		return nil
	case f.Step.Kind == plan.KindClaim && f.Action != Look:
		s.newest[f.Step.Application] = s.well(f).Epoch
		return nil
	case f.Step.Name != "network" || f.Action == Look:
		return nil
	}
	for app, epoch := range f.Token.Epochs {
		if epoch < s.newest[app] {
			return &Event{Kind: Acted, Outcome: Superseded, Note: "a newer epoch of " + app + " is known here"}
		}
	}
	s.made = f.Action == Act
	return nil
}

// TestWhatRunsBesideTheClaims is refused as long as it says the epochs from before, and
// is done with the ones that the run's own claims brought; so is its undo.
func TestWhatRunsBesideTheClaims(t *testing.T) {
	r := besideClaims(t)
	r.run(AwaitingCommit)
	r.order("act claim/cart", "act network", "act data/cart")
	if st := r.m.State().Steps["network"]; st.Status != Succeeded || !r.made {
		t.Errorf("network was made: %t, %+v", r.made, st)
	}
	if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
		t.Fatal(why)
	}
	r.pass(RolledBack)
	r.order("undo claim/shop", "undo network")
	if why := r.m.State().Why; r.made || why != "" {
		t.Errorf("what was made is still there: %v, %s", r.did, why)
	}
}

// TestASupersededOrderIsNotRepeated while the claim that superseded it is under way: the journal
// has it once, whatever the time, and again when the claim has brought its epoch.
func TestASupersededOrderIsNotRepeated(t *testing.T) {
	r := besideClaims(t)
	until := r.now + 40*time.Second
	r.answer = func(f Effect) *Event {
		if f.Step == nil || f.Step.Name != "claim/shop" || r.now >= until {
			return r.answers(f)
		}
		if f.Action == Act { // it stands, and nobody hears of it
			r.newest["shop"] = 5
			return &Event{Kind: Acted, Outcome: NoAnswer}
		}
		if r.newest["shop"] == 5 {
			return &Event{Kind: Looked, Outcome: NoAnswer}
		}
		return nil
	}
	r.run(AwaitingCommit)
	ordered, intended := 0, 0
	for _, did := range r.did {
		if did == "act network" {
			ordered++
		}
	}
	for _, entries := range r.records {
		for _, e := range entries {
			if e.Kind == Intended && e.Step == "network" {
				intended++
			}
		}
	}
	if !r.made || ordered != intended || ordered < 2 || ordered > 3 { // before the claims, and after each
		t.Errorf("made %t; ordered %d times, the journal has %d: %v", r.made, ordered, intended, r.did)
	}
}

// TestWhatRunsBesideTheClaimsOfOthers is refused for good once another run has claimed.
func TestWhatRunsBesideTheClaimsOfOthers(t *testing.T) {
	r := besideClaims(t)
	r.answer = func(f Effect) *Event {
		if f.Action == Act && f.Step != nil && f.Step.Name == "claim/cart" {
			r.newest["cart"] = 99
			return &Event{Kind: Acted, Outcome: Superseded, Note: "run q"}
		}
		if f.Action == Look && f.Step != nil && f.Step.Name == "claim/cart" && r.newest["cart"] == 99 {
			return &Event{Kind: Looked, Outcome: Superseded, Site: "north", Note: "run q"}
		}
		return r.answers(f)
	}
	r.run(RolledBack)
	if st := r.m.State().Steps["network"]; st.Status != Broke || !slices.Contains(r.did, "undo network") {
		t.Errorf("network: %+v", st)
	}
	if why := r.m.State().Why; !strings.Contains(why, "left as it is, as another run has claimed since: network: ") {
		t.Errorf("the run does not say what it left: %q", why)
	}
}

// TestWhatOthersClaimedWhileTheRunsOwnClaimWasUnderWay: nobody knew what came of it when the
// run went back, and another run had been faster. What that superseded is not waited for: no
// epoch of the run will ever be new enough.
func TestWhatOthersClaimedWhileTheRunsOwnClaimWasUnderWay(t *testing.T) {
	r := besideClaims(t)
	r.answer = func(f Effect) *Event {
		switch {
		case f.Step == nil || f.Step.Name != "claim/cart":
			return r.answers(f)
		case f.Action == Act:
			r.newest["cart"] = 99
			return &Event{Kind: Acted, Outcome: NoAnswer}
		case !r.made:
			return nil
		}
		return &Event{Kind: Looked, Outcome: NoAnswer}
	}
	r.tell(Event{Kind: Begin})
	r.pass(Running)
	if st := r.m.State().Steps["claim/cart"]; st.Status != Doing {
		t.Fatalf("claim: %+v", st)
	}
	r.answer = func(f Effect) *Event {
		if f.Step != nil && f.Step.Name == "claim/cart" {
			return &Event{Kind: Looked, Outcome: Superseded, Site: "south", Epoch: 99, Note: "site south holds epoch 99 of cart"}
		}
		return r.answers(f)
	}
	if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
		t.Fatal(why)
	}
	r.pass(RolledBack, RollbackFailed)
	if s := r.m.State(); s.Phase != RolledBack {
		t.Errorf("%s, %s", s.Phase, s.Why)
	}
}

// TestWhatTakesBackMayWait for what it takes back, for all of the time that this has, and has
// its own after that. The control: what is known to have ended is not waited for.
func TestWhatTakesBackMayWait(t *testing.T) {
	for name, ends := range map[string]bool{"under way": false, "has ended": true} {
		r := besideClaims(t)
		var asked time.Duration
		r.answer = func(f Effect) *Event {
			switch {
			case f.Step == nil || f.Step.Name != "network" || ends && f.Action != Undo:
				return r.answers(f)
			case f.Action == Look && !slices.Contains(r.did, "act network"):
				return nil
			case f.Action == Look:
				return &Event{Kind: Looked, Outcome: Busy}
			case f.Action == Act:
				return &Event{Kind: Acted, Outcome: NoAnswer}
			case asked == 0:
				asked = r.now
			}
			if r.now-asked < f.Step.Timeout+Grace { // the site ends it
				return &Event{Kind: Acted, Outcome: NoAnswer, Note: "another Job of the step runs"}
			}
			return r.answers(f)
		}
		want := RolledBack
		if r.tell(Event{Kind: Begin}); ends {
			want = RollbackFailed
			r.pass(AwaitingCommit)
		}
		if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
			t.Fatal(why)
		}
		r.pass(RolledBack, RollbackFailed)
		if s := r.m.State(); s.Phase != want {
			t.Errorf("%s: %s, %s", name, s.Phase, s.Why)
		}
	}
}
