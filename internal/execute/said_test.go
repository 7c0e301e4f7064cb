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
