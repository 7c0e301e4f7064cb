package failover

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
)

// goingBack is a run that waits for its commit and is told to roll back. Its source says
// of its applications what back says, if anything.
func goingBack(t *testing.T, verb plan.Verb, change func(p *plan.Plan, s *Spec), back func(r *rig, f Effect) *Event) *rig {
	t.Helper()
	r := newRig(t, verb, func(p *plan.Plan, s *Spec) {
		s.Commit = plan.Commit{Window: 0}
		if change != nil {
			change(p, s)
		}
	})
	r.facts.Holders["shop"] = []string{"east", "south"}
	r.answer = func(f Effect) *Event {
		if f.Step == nil || f.Step.Kind != plan.KindFence || f.Action != Undo {
			if f.Step != nil && f.Step.Name == "fence/shop" && f.Action == Act {
				a := r.well(f)
				a.Proofs = append(a.Proofs, Proof{"shop", "south", f.Token.Epochs["shop"], "stopped"})
				return a
			}
			return nil
		}
		if !slices.Equal(f.Sites, []string{"east"}) {
			t.Errorf("who is asked whether it runs again: %v", f.Sites)
		}
		if want := map[string]int64{"cart": 9, "shop": 6}[f.Step.Application]; f.Token.Epochs[f.Step.Application] != want {
			t.Errorf("asked under epoch %v, want %d", f.Token.Epochs, want)
		}
		return back(r, f)
	}
	r.run(AwaitingCommit)
	if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
		t.Fatal(why)
	}
	return r
}

// TestRollBackSeesTheSourceRunAgain: when all else is taken back, and not before, the run
// asks the source, and only that, and is over when it says so.
func TestRollBackSeesTheSourceRunAgain(t *testing.T) {
	for _, verb := range []plan.Verb{plan.Failover, plan.Switchover, plan.Failback} {
		again := time.Duration(0)
		r := goingBack(t, verb, nil, func(r *rig, f Effect) *Event {
			if f.Step.Name == "fence/cart" || again != 0 && r.now >= again {
				return nil
			}
			if again == 0 {
				again = r.now + time.Minute // longer than a fence may take
			}
			return &Event{Kind: Acted, Outcome: NoAnswer, Asked: []string{"east"}, Note: "StatefulSet shop/db: 0 of 1 ready"}
		})
		if waits := fmt.Sprint(r.m.Waits()); r.m.Phase() != RollingBack || !strings.Contains(waits, "0 of 1 ready") {
			t.Errorf("%s: it is %s, and waits for %s", verb, r.m.Phase(), waits)
		}
		r.pass(RolledBack)
		r.order("undo scale/shop", "undo claim/shop", "undo fence/shop")
		if verb != plan.Failover {
			r.order("undo quiesce/shop", "undo fence/cart")
		}
		if s := r.m.State(); r.now < again || s.Why != "" {
			t.Errorf("%s: over %s too early, %q", verb, again-r.now, s.Why)
		}
	}
}

// TestASourceThatDoesNotRunAgain keeps no roll-back from its end, which says so: silence for
// as long as a fence waits, a source that has something to say for as long as the target has
// to become ready. The control is a source that answers at once.
func TestASourceThatDoesNotRunAgain(t *testing.T) {
	for name, c := range map[string]struct {
		says  Event
		after time.Duration
		why   string
	}{
		"silent":      {Event{}, 10 * time.Second, "shop: not seen to run again"},
		"unreachable": {Event{Kind: Acted, Outcome: NoAnswer, Note: "site east did not answer"}, 10 * time.Second, "shop: not seen to run again: site east did not answer"},
		"never ready": {Event{Kind: Acted, Outcome: NoAnswer, Asked: []string{"east"}, Note: "StatefulSet shop/db: 0 of 1 ready"}, 10 * time.Minute, "shop: not seen to run again: StatefulSet shop/db: 0 of 1 ready"},
		"unwatched":   {Event{Kind: Acted, Outcome: Refused, Note: "nobody watches"}, 0, "shop: nobody watches"},
		"another's":   {Event{Kind: Acted, Outcome: Superseded, Note: "site north holds epoch 9 of shop"}, 0, "shop: site north holds epoch 9 of shop"},
		"at once":     {Event{Kind: Acted, Outcome: Done, Note: "it runs again"}, 0, ""},
	} {
		r := goingBack(t, plan.Failover, nil, func(_ *rig, f Effect) *Event {
			if f.Step.Name == "fence/cart" {
				return nil
			}
			says := c.says
			return &says
		})
		began := r.now
		r.pass(RolledBack, RollbackFailed)
		s := r.m.State()
		for _, step := range s.Result().Steps {
			if step.Left {
				t.Errorf("%s: %s is said to be left, and is nothing that can be", name, step.Name)
			}
		}
		if s.Phase != RolledBack || !strings.Contains(s.Why, c.why) || (s.Why == "") != (c.why == "") || strings.Contains(s.Why, "cart") {
			t.Errorf("%s: %s, %q", name, s.Phase, s.Why)
		}
		if note := s.Steps["fence/shop"].Note; strings.Contains(note, "it runs again") != (name == "at once") {
			t.Errorf("%s: the fence says %q", name, note)
		}
		if took := r.now - began; took < c.after || took > c.after+Patience {
			t.Errorf("%s: over after %s, want %s", name, took, c.after)
		}
		replayed := NewState()
		for i, entries := range r.records {
			if err := replayed.Replay(int64(i)+1, entries); err != nil {
				t.Fatal(err)
			}
		}
		if replayed.Phase != s.Phase || replayed.Why != s.Why {
			t.Errorf("%s: who reads the journal finds %s, %q", name, replayed.Phase, replayed.Why)
		}
	}
}

// TestAStepThatFailsBeforeAnythingIsClaimed: the source was brought to rest, and is seen to
// run again. The control is a run that never touched it.
func TestAStepThatFailsBeforeAnythingIsClaimed(t *testing.T) {
	for failing, asked := range map[string]bool{"sync/shop": true, "network": false} {
		r := newRig(t, plan.Switchover, func(p *plan.Plan, _ *Spec) {
			p.Steps = []plan.Step{{
				Name: "network", Kind: plan.KindCommand, Early: true, Timeout: time.Minute, OnError: plan.Rollback, Before: []string{"quiesce/cart", "quiesce/shop"},
				Command: &plan.Command{Image: "x"}, Undo: &plan.Command{Image: "y"},
			}}
		})
		r.answer = func(f Effect) *Event {
			if f.Step != nil && f.Step.Name == failing && f.Action == Act {
				return &Event{Kind: Acted, Outcome: Refused, Note: "no room"}
			}
			return nil
		}
		r.run(RolledBack)
		if got := slices.Contains(r.did, "undo fence/shop"); got != asked {
			t.Errorf("%s fails: asked whether it runs again: %v; did %v", failing, got, r.did)
		}
		r.never("act claim/cart")
	}
}

// TestARunOfBeforeEndsAsItDid: the fences of older journals are not taken back, so that
// what is over stays over.
func TestARunOfBeforeEndsAsItDid(t *testing.T) {
	r := newRig(t, plan.Failover, func(_ *plan.Plan, s *Spec) { s.Commit = plan.Commit{Window: 0} })
	spec := r.m.Spec()
	for _, name := range []string{"fence/cart", "fence/shop"} {
		spec.step(name).Returns = false
	}
	old, err := New("e1", spec)
	if err != nil {
		t.Fatal(err)
	}
	r.m = old
	r.run(AwaitingCommit)
	if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
		t.Fatal(why)
	}
	r.pass(RolledBack)
	r.order("undo claim/shop")
	r.never("undo fence/shop")
}

// TestNobodyHasToWaitForASource: once all is taken back, a person can end the run, as another
// one for the application has to wait for it. The control is a claim that is still to be
// given back.
func TestNobodyHasToWaitForASource(t *testing.T) {
	unready := Event{Kind: Acted, Outcome: NoAnswer, Asked: []string{"east"}, Note: "StatefulSet shop/db: 0 of 1 ready"}
	r := goingBack(t, plan.Failover, nil, func(*rig, Effect) *Event { return &unready })
	if !slices.ContainsFunc(r.m.State().Offers(), func(o Offer) bool { return o.Kind == Cancel && strings.Contains(o.About, "all is taken back") }) {
		t.Error("nobody is told that the run can be ended")
	}
	if why := r.says(Cancel, nil); why != "" {
		t.Fatal(why)
	}
	s := r.m.State()
	if s.Phase != RolledBack || !strings.Contains(s.Why, "shop: not waited for any longer, by bob") || !strings.Contains(s.Why, "cart: ") {
		t.Errorf("%s, %q", s.Phase, s.Why)
	}
	replayed := NewState()
	for i, entries := range r.records {
		if err := replayed.Replay(int64(i)+1, entries); err != nil {
			t.Fatal(err)
		}
	}
	if replayed.Phase != s.Phase || replayed.Why != s.Why {
		t.Errorf("who reads the journal finds %s, %q", replayed.Phase, replayed.Why)
	}

	r = newRig(t, plan.Failover, func(_ *plan.Plan, s *Spec) { s.Commit = plan.Commit{Window: 0} })
	r.run(AwaitingCommit)
	r.answer = answerTo(Undo, "claim/shop", Event{})
	if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
		t.Fatal(why)
	}
	if why := r.says(Cancel, nil); r.m.Phase() != RollingBack || !strings.Contains(why, "roll back") {
		t.Errorf("a claim stands, and it is canceled: %s, %q", r.m.Phase(), why)
	}
}

// TestAShortLimitToComeToRestKeepsNoneFromStartingAgain: the site waits for a node that was cut off, for longer
// than the plan gives it to come to rest. The control is a step whose own limit is all that it has.
func TestAShortLimitToComeToRestKeepsNoneFromStartingAgain(t *testing.T) {
	for name, c := range map[string]struct {
		step string
		took time.Duration
		want Phase
	}{
		"quiesce":               {"quiesce/shop", LettingGo - 2*Patience, RolledBack},
		"one that never starts": {"quiesce/shop", time.Hour, RollbackFailed},
		"data":                  {"data/shop", LettingGo - 2*Patience, RollbackFailed},
	} {
		r := newRig(t, plan.Switchover, func(p *plan.Plan, s *Spec) {
			p.Limits = map[plan.Kind]time.Duration{plan.KindQuiesce: 10 * time.Second, plan.KindRestore: 10 * time.Second}
			s.Commit = plan.Commit{Window: 0}
		})
		var began time.Duration
		r.answer = func(f Effect) *Event {
			if f.Step == nil || f.Step.Name != c.step || f.Action != Undo {
				return nil
			}
			if began == 0 {
				began = r.now
			}
			if r.now < began+c.took {
				return &Event{Kind: Acted, Outcome: NoAnswer, Note: "node two has not lifted its fence yet"}
			}
			return nil
		}
		r.run(AwaitingCommit)
		if why := r.says(RollBack, func(e *Event) { e.Text = "west" }); why != "" {
			t.Fatal(why)
		}
		r.pass(c.want)
		if s := r.m.State(); c.want == RollbackFailed && !strings.Contains(s.Why, "node two") {
			t.Errorf("%s: %q", name, s.Why)
		}
	}
}
