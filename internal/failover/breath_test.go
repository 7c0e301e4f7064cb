package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
)

// A restore that finds another one in its way, for hours, says so at each try. Tries become seldom,
// and are not given up: the journal stays one that can be read.
func TestTriesBecomeSeldom(t *testing.T) {
	r := newRig(t, plan.Failover, nil)
	r.answer = answerTo(Act, "data/shop", Event{Kind: Acted, Outcome: NoAnswer, Note: "busy"})
	r.tell(Event{Kind: Begin})
	tries := func() (n int) {
		for _, record := range r.records {
			for _, e := range record {
				if e.Kind == Intended && e.Step == "data/shop" {
					n++
				}
			}
		}
		return n
	}
	began, quick := r.now, 0
	for r.m.Phase() == Running {
		if r.now-began <= 20*time.Second {
			quick = tries()
		}
		if len(r.records) > 5000 || r.m.Deadline() == 0 {
			t.Fatalf("%d records after %s: %v", len(r.records), r.now-began, r.m.Waits())
		}
		r.now = r.m.Deadline()
		r.tell(Event{Kind: Tick})
	}
	limit := r.m.State().Spec.step("data/shop").Timeout
	if r.m.Phase() != Paused || r.now-began < limit || quick < 5 || tries() < int(limit/(2*LookAgain)) {
		t.Errorf("%s after %s of %s, with %d tries, %d of them at once: %v", r.m.Phase(), r.now-began, limit, tries(), quick, r.m.Waits())
	}
}

// What keeps a run from looking at the sites, and its people waiting, is said.
func TestItSaysWhatItCannotLookAt(t *testing.T) {
	for phase, silent := range map[Phase]Event{
		Evaluating: {Kind: Gathered, Note: "read epoch 3 of shop: damaged"},
		Verifying:  {Kind: Surveyed, Outcome: NoAnswer, Note: "read epoch 3 of shop: damaged"},
	} {
		r := newRig(t, plan.Failover, nil)
		heals := false
		r.answer = func(f Effect) *Event {
			if ask := map[Phase]Action{Evaluating: Evaluate, Verifying: Verify}[phase]; f.Action == ask && !heals {
				return &silent
			}
			return nil
		}
		r.run(phase)
		says := func() bool {
			return slices.ContainsFunc(r.m.Waits(), func(why string) bool { return strings.Contains(why, "epoch 3 of shop") })
		}
		if !says() {
			t.Errorf("%s: %v", phase, r.m.Waits())
		}
		r.now = r.m.Deadline()
		if r.tell(Event{Kind: Tick}); !says() {
			t.Errorf("%s, asked again: %v", phase, r.m.Waits())
		}
		heals, r.now = true, r.m.Deadline()
		r.tell(Event{Kind: Tick})
		if r.pass(AwaitingCommit); says() {
			t.Errorf("%s: it is over, and says %v", phase, r.m.Waits())
		}
	}
}
