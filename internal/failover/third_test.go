package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
)

// third is a planned move from east to west of what north has held before; asked is whom the fence asked. Who
// is silent gives no answer. The others prove what they are asked for; they see the epoch by themselves, too.
func third(t *testing.T, verb plan.Verb, change func(p *plan.Plan, s *Spec), silent ...string) (r *rig, asked map[string]bool) {
	t.Helper()
	r, asked = newRig(t, verb, change), map[string]bool{}
	for app := range r.facts.Holders {
		r.facts.Holders[app] = []string{"east", "north"}
	}
	looks := 0
	r.answer = func(f Effect) *Event {
		if f.Step == nil || f.Step.Kind != plan.KindFence || f.Action == Undo {
			return nil
		}
		answer := &Event{Kind: Acted, Outcome: Done}
		if f.Action == Look {
			answer = &Event{Kind: Looked, Outcome: NotDone}
			looks++
		}
		for _, site := range f.Sites {
			asked[site] = true
			switch app := f.Step.Application; {
			case slices.Contains(silent, site):
				answer.Outcome = NoAnswer
			case f.Action == Act, looks > len(r.facts.Holders):
				answer.Proofs = append(answer.Proofs, Proof{Application: app, Site: site, Epoch: f.Token.Epochs[app], How: "stopped"})
			}
		}
		return answer
	}
	return r, asked
}

// TestPlannedMovePastAThirdSite: of a planned move the source takes part, and any other former holder may be
// gone for good. Without a word or a lease of it all is taken
// back: there was no way on. No word is taken about the source.
func TestPlannedMovePastAThirdSite(t *testing.T) {
	under := func(p *plan.Plan, _ *Spec) {
		p.Fence = lease()
		p.Declaration = plan.Declaration{Automatic: true, Vantages: []string{"a", "b", "c"}, Agree: 2, For: time.Minute, Block: 1}
	}
	lost := func(_ *plan.Plan, s *Spec) { s.Lost = []string{"north"} }
	for name, c := range map[string]struct {
		change func(*plan.Plan, *Spec)
		terms  map[string]plan.Fence
		silent []string
		phase  Phase
		level  string
		asked  []string
	}{
		"all answer":                   {nil, nil, nil, AwaitingCommit, "proven", []string{"east", "north"}},
		"north is silent":              {nil, nil, []string{"north"}, RolledBack, "", []string{"east", "north"}},
		"a person said that it is off": {lost, nil, []string{"north"}, AwaitingCommit, "none (forced)", []string{"east"}},
		"its lease is over":            {under, map[string]plan.Fence{"north": lease()}, []string{"north"}, AwaitingCommit, "timed-out lease", []string{"east", "north"}},
		"it keeps no lease":            {under, map[string]plan.Fence{"east": lease()}, []string{"north"}, RolledBack, "", []string{"east", "north"}},
		"the source is silent":         {nil, nil, []string{"east"}, RolledBack, "", []string{"east", "north"}},
		"silent, and its lease over":   {under, map[string]plan.Fence{"east": lease()}, []string{"east"}, AwaitingCommit, "timed-out lease", []string{"east", "north"}},
	} {
		for _, verb := range []plan.Verb{plan.Switchover, plan.Failback} {
			r, asked := third(t, verb, c.change, c.silent...)
			r.facts.Terms = c.terms
			r.run(AwaitingCommit, RolledBack, RollbackFailed, Paused, OutcomeUnknown)
			s := r.m.State()
			if s.Phase != c.phase {
				t.Errorf("%s, %s: the run is %s: %v", verb, name, s.Phase, r.m.Waits())
				continue
			}
			for _, site := range []string{"east", "north"} {
				if asked[site] != slices.Contains(c.asked, site) {
					t.Errorf("%s, %s: %s was asked: %t", verb, name, site, asked[site])
				}
			}
			if c.phase == AwaitingCommit {
				if got := s.Result().Level; got != c.level {
					t.Errorf("%s, %s: the fence is %s, want %s", verb, name, got, c.level)
				}
				continue
			}
			r.never("act scale/shop")
			if note := s.Steps["fence/cart"].Note + s.Steps["fence/shop"].Note; slices.Contains(c.silent, "north") != strings.Contains(note, "--lost north") {
				t.Errorf("%s, %s: why says nothing of what to do: %s", verb, name, note)
			}
		}
	}
}

// TestSourceOfAPlannedMoveIsNotLost: it is what the last write comes from.
func TestSourceOfAPlannedMoveIsNotLost(t *testing.T) {
	for _, verb := range []plan.Verb{plan.Switchover, plan.Failback} {
		s := newRig(t, verb, nil).m.Spec()
		s.Lost = []string{"north"}
		if err := s.Check(); err != nil {
			t.Error(err)
		}
		s.Lost = []string{"north", "east"}
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), "fail over from one that is lost") {
			t.Errorf("%s: %v", verb, err)
		}
	}
}

// TestALostRefusalIsReadBack: the source refuses the fence of a planned move, as something ran there after its last
// write, and that answer is lost. A look says the same: its lease, which is over soon, must not have the run go on. The
// control is a source that is silent altogether.
func TestALostRefusalIsReadBack(t *testing.T) {
	for name, tc := range map[string]struct {
		look Event
		want Phase
	}{
		"it says so when it is asked": {Event{Kind: Looked, Outcome: Refused, Note: "something ran at site east"}, RolledBack},
		"it is silent":                {Event{Kind: Looked, Outcome: NoAnswer}, Completed},
	} {
		r := newRig(t, plan.Switchover, func(p *plan.Plan, s *Spec) {
			p.Fence, p.Declaration = lease(), plan.Declaration{Automatic: true, Vantages: []string{"a", "b", "c"}, Agree: 2, For: 30 * time.Second, Block: time.Hour}
			s.Commit = plan.Commit{Then: plan.ThenCommit}
		})
		r.facts.Terms = map[string]plan.Fence{"east": lease()}
		sent := false
		r.answer = func(f Effect) *Event {
			switch {
			case f.Step == nil || f.Step.Kind != plan.KindFence || f.Action == Undo:
				return nil
			case f.Action == Act:
				sent = true
				return &Event{} // its answer is lost
			case !sent: // it ran after the first look
				return &Event{Kind: Looked, Outcome: NotDone}
			}
			return &tc.look
		}
		r.run(tc.want, Paused, OutcomeUnknown)
		s := r.m.State()
		if s.Phase != tc.want || tc.want == RolledBack && !strings.Contains(s.Steps["fence/cart"].Note+s.Steps["fence/shop"].Note, "something ran") {
			t.Errorf("%s: %s %q; %+v", name, s.Phase, s.Why, s.Steps["fence/shop"])
		}
	}
}
