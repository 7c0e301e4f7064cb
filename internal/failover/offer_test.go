package failover

import (
	"fmt"
	"slices"
	"testing"

	"davit.dev/davit/internal/plan"
)

// scenes are runs that wait for people in different ways.
func scenes() map[string]func(t *testing.T) *rig {
	return map[string]func(t *testing.T) *rig{
		"approval": func(t *testing.T) *rig {
			return newRig(t, plan.Failover, func(_ *plan.Plan, s *Spec) { s.Approvals = 1 }).run(AwaitingApproval)
		},
		"commit":  func(t *testing.T) *rig { return newRig(t, plan.Failover, nil).run(AwaitingCommit) },
		"planned": func(t *testing.T) *rig { return newRig(t, plan.Switchover, nil).run(AwaitingCommit) },
		"drill": func(t *testing.T) *rig {
			r := newRig(t, plan.Drill, func(_ *plan.Plan, s *Spec) { s.Approvals = 1 })
			return r.run(AwaitingApproval)
		},
		"paused": func(t *testing.T) *rig {
			r := newRig(t, plan.Failover, nil).run(AwaitingCommit)
			r.as(Pausing, "", "bob")
			return r
		},
		"over": func(t *testing.T) *rig {
			r := newRig(t, plan.Failover, nil).run(AwaitingCommit)
			r.as(Commit, "", "bob")
			return r
		},
	}
}

// What is offered is what the machine takes, and what is not offered is refused.
func TestOffers(t *testing.T) {
	kinds := []EventKind{Approve, Reject, Pausing, Resume, Retry, Skip, Answer, Commit, RollBack, Cancel}
	for name, scene := range scenes() {
		for _, kind := range kinds {
			t.Run(fmt.Sprint(name, "/", kind), func(t *testing.T) {
				r := scene(t)
				all := r.m.State().Offers()
				i := slices.IndexFunc(all, func(o Offer) bool { return o.Kind == kind })
				var o Offer
				if i >= 0 {
					o = all[i]
				}
				why := r.says(kind, func(e *Event) { e.By, e.Step, e.Site, e.Text, e.Outcome = "bob", o.Step, o.Site, o.Type, Done })
				if kind == Pausing && name == "commit" || kind == Pausing && name == "planned" {
					return // it can be, and is of no use to anybody
				}
				if (i >= 0) != (why == "") {
					t.Errorf("offered: %v; the machine says %q", all, why)
				}
			})
		}
	}
}

// What an approval or a task waits for is offered, what failed can be mended, and
// a site without proof can be consented to: by its name.
func TestOffersOfSteps(t *testing.T) {
	s := NewState()
	s.Phase, s.Spec = Running, Spec{Run: "r", Verb: plan.Failover, To: "west", By: "ann", Applications: []string{"shop"}, Steps: []plan.Step{
		{Name: "go", Kind: plan.KindApproval, Prompt: "Go?"},
		{Name: "call", Kind: plan.KindManual, Prompt: "Call"},
		{Name: "fence", Kind: plan.KindFence},
		{Name: "http", Kind: plan.KindHTTP},
		{Name: "gate", Kind: plan.KindGate},
	}}
	s.Facts.Holders = map[string][]string{"shop": {"east"}}
	s.Pause = &Pause{ForInput, "call: Call"}
	for name, status := range map[string]Status{"go": "", "call": "", "fence": Broke, "http": Broke, "gate": Succeeded} {
		s.Steps[name] = &StepState{Status: status, Meant: true}
	}
	var got []string
	for _, o := range s.Offers() {
		got = append(got, fmt.Sprintf("%s %s%s %s %v", o.Kind, o.Step, o.Site, o.Type, o.Approves))
	}
	want := []string{
		"answer go  true", "answer call  false", "consent east east false", "retry fence  false", "retry http  false", "skip http  false", "roll back  west false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("offers\n%q\nwant\n%q", got, want)
	}
}
