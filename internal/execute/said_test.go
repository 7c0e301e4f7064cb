package execute

import (
	"strings"
	"testing"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/transcript"
)

// TestWhatIsSaidIsBounded, wherever it comes from: an answer of another site may hold
// anything. So is what two sites say together, and a look's.
func TestWhatIsSaidIsBounded(t *testing.T) {
	long := "\x1b[2Jfirst\n" + strings.Repeat("a line\n", 10000)
	for _, action := range []failover.Action{failover.Act, failover.Look, failover.Undo} {
		f := failover.Effect{Action: action, Step: &plan.Step{Name: "mail"}, Sites: []string{"east", "west"}}
		got := sum(f, []Answer{{Outcome: failover.Done, Said: "east\x00 is done"}, {Outcome: failover.Done, Said: "west"}})
		if got.Said != "east is done\nwest" {
			t.Errorf("%s: %q", action, got.Said)
		}
		got = sum(f, []Answer{{Outcome: failover.Done, Said: long}, {Outcome: failover.Busy, Said: long, Stuck: true}})
		if len(got.Said) > transcript.Most || strings.Contains(got.Said, "first") || !strings.HasSuffix(got.Said, "a line") || !got.Stuck {
			t.Errorf("%s: %d bytes are kept", action, len(got.Said))
		}
	}
}

// TestARefusalStands: a step of several sites that one of them refuses has failed, whoever says nothing yet.
func TestARefusalStands(t *testing.T) {
	no, silent := Refuse("something ran"), Unknown("no answer")
	for _, answers := range [][]Answer{{no, silent}, {silent, no}, {Done(""), no, silent}} {
		got := sum(failover.Effect{Action: failover.Act, Step: &plan.Step{Kind: plan.KindFence}, Sites: []string{"east", "west", "south"}}, answers)
		if got.Outcome != failover.Refused || got.Note != "something ran" {
			t.Errorf("%+v: %+v", answers, got)
		}
	}
	for _, step := range []plan.Step{{Kind: plan.KindFence, OnError: plan.Rollback}, {Kind: plan.KindFence, OnError: plan.Continue}, {Kind: plan.KindQuiesce, OnError: plan.Rollback}} {
		want := failover.NoAnswer
		if step.Kind == plan.KindFence && step.OnError == plan.Rollback { // the fence of a planned move, and its source refuses
			want = failover.Refused
		}
		for _, answers := range [][]Answer{{no, silent}, {silent, no}, {Done(""), silent, no}} {
			got := sum(failover.Effect{Action: failover.Look, Step: &step, Sites: []string{"east", "west", "south"}}, answers)
			if got.Outcome != want || want == failover.Refused && got.Note != "something ran" {
				t.Errorf("of a look at %s, on error %s: %+v", step.Kind, step.OnError, got)
			}
		}
	}
}
