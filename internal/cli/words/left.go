package words

import (
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/failover"
)

// Left shows what a run that is over left to people, and who has seen to it.
func Left(t *output.Text, all []failover.Remaining) {
	if len(all) == 0 {
		return
	}
	var rows [][]string
	for _, r := range all {
		rows = append(rows, []string{r.Step, r.Site, output.OneLine(r.Do), settledBy(r)})
	}
	t.Section("Left to people")
	t.Table("  ", output.Columns("STEP", "SITE", "WHAT TO DO", "SETTLED BY"), rows)
}

func settledBy(r failover.Remaining) string {
	if s := r.Settled; s != nil {
		return output.OneLine(s.By + ", " + output.Time(s.At) + ": " + s.Reason)
	}
	return "nobody yet"
}
