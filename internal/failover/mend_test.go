package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
)

// TestAMoveDoesNotGoOnWithoutWhatClientsWrite: an application that does not come to rest, or whose last write
// is not captured, holds a planned move up. Passed over, the source would serve clients until it is fenced,
// and what they wrote meanwhile would be nowhere, in a run that calls itself lossless.
func TestAMoveDoesNotGoOnWithoutWhatClientsWrite(t *testing.T) {
	for _, kind := range []plan.Kind{plan.KindQuiesce, plan.KindSync} {
		name := string(kind) + "/shop"
		r := newRig(t, plan.Switchover, func(p *plan.Plan, _ *Spec) { p.Limits = map[plan.Kind]time.Duration{kind: time.Minute} })
		r.answer = func(e Effect) *Event {
			if e.Step == nil || e.Step.Name != name {
				return nil
			}
			if e.Action == Look && slices.Contains(r.did, "act "+name) {
				return &Event{Kind: Looked, Outcome: Busy}
			}
			if e.Action == Act {
				return &Event{Kind: Acted, Outcome: NoAnswer}
			}
			return nil
		}
		r.run(OutcomeUnknown)
		if why := r.says(Skip, func(e *Event) { e.Step = name }); !strings.Contains(why, "leave behind what clients write") {
			t.Errorf("skip %s: %q", name, why)
		}
		for _, o := range r.m.State().Offers() {
			if o.Kind == Skip {
				t.Errorf("it is offered to skip %s", o.Step)
			}
		}
		r.never("act claim/shop")
		r.answer = nil
		if why := r.says(RollBack, nil); why != "" { // the way that is left
			t.Error(why)
		}
		r.pass(RolledBack)
	}
}

// TestNothingIsMendedThatNothingFollowsFrom: a step that failed, and kept nothing from going on, is tried
// again while steps are begun. Once all are through, an answer that it will be would be untrue, and what
// became of it would be forgotten.
func TestNothingIsMendedThatNothingFollowsFrom(t *testing.T) {
	r := newRig(t, plan.Failover, func(p *plan.Plan, _ *Spec) {
		p.Steps = []plan.Step{{Name: "tell", Kind: plan.KindHTTP, After: []string{"ready/shop"}, OnError: plan.Continue, Timeout: time.Second, Call: &plan.Call{Method: "POST", URL: "http://a.example.com", Expect: 200}}}
	})
	r.answer = answerTo(Act, "tell", Event{Kind: Acted, Outcome: Refused, Note: "status 500"})
	r.run(AwaitingCommit)
	for _, o := range r.m.State().Offers() {
		if o.Kind == Retry || o.Kind == Skip {
			t.Errorf("%s of %s is offered", o.Kind, o.Step)
		}
	}
	for _, kind := range []EventKind{Retry, Skip} {
		if why := r.says(kind, func(e *Event) { e.Step = "tell" }); why == "" {
			t.Errorf("%s is accepted, and nothing follows", kind)
		}
		if st := r.m.State().Steps["tell"]; st.Status != Broke || st.Note != "status 500" {
			t.Errorf("after %s: %+v", kind, st)
		}
	}
}
