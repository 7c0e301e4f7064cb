// Package standing shows a run as a console has it from its journal.
package standing

import (
	"strings"

	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/words"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/steer"
	"davit.dev/davit/internal/failover"
)

// Run is how one stands, what it takes, and what it was asked last.
type Run struct {
	Run    fleet.Run        `json:"run"`
	Offers []failover.Offer `json:"offers"`
	Asked  []steer.Asked    `json:"asked"`
}

// Document implements output.Result.
func (r Run) Document() any { return r }

// Text implements output.Result.
func (r Run) Text(t *output.Text) {
	x := r.Run
	t.Line("Run %s, a %s of plan %s from %s to %s: %s", x.Run, x.Verb, x.Plan, x.From, x.To, x.State)
	t.Fields("  ", "asked by", x.By, "reason", x.Reason, "begun", output.Time(x.Begun), "carried by", x.Executor, "waits for", x.Pause)
	var rows [][]string
	for _, s := range x.Steps {
		rows = append(rows, []string{s.Name, string(s.Status), output.Duration(s.Took), output.OneLine(s.Note)})
	}
	t.Section("Steps")
	t.Table("  ", output.Columns("STEP", "STATUS", ">TOOK", "NOTE"), rows)
	words.Left(t, x.Remaining)
	if len(r.Offers) > 0 {
		t.Section("What it takes now")
		for _, o := range r.Offers {
			t.Line("  %s", strings.TrimSpace(string(o.Kind)+" "+o.Step+o.Site+about(o.About)))
		}
	}
	if len(r.Asked) == 0 {
		return
	}
	t.Section("Asked last")
	for _, a := range r.Asked {
		became := "no answer yet"
		switch {
		case a.Refused != "":
			became = "refused: " + a.Refused
		case a.Answered:
			became = "taken"
		}
		t.Line("  %s by %s: %s", strings.TrimSpace(string(a.Kind)+" "+a.Step+a.Site), a.By, became)
	}
}

func about(text string) string {
	if text == "" {
		return ""
	}
	return ": " + output.OneLine(text)
}
