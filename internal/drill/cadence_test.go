package drill

import (
	"testing"
	"time"
)

// What a drill leaves of the live application's protection is measured, beside what it
// was before.
func TestCadence(t *testing.T) {
	every := func(from, until, by int) (all []time.Time) {
		for s := from; s <= until; s += by {
			all = append(all, at.Add(time.Duration(s)*time.Second))
		}
		return all
	}
	for name, c := range map[string]struct {
		instants []time.Time
		want     string
	}{
		"as before":            {every(-300, 200, 10), "captured 7 times, never longer than 10s apart (before the drill: 10s)"},
		"held up":              {append(every(-300, -10, 10), every(40, 60, 10)...), "captured 3 times, never longer than 50s apart (before the drill: 10s)"},
		"stopped by the drill": {every(-300, -5, 5), "captured 0 times, never longer than 1m5s apart (before the drill: 5s)"},
		"slow before, too":     {every(-300, 100, 50), "captured 2 times, never longer than 50s apart (before the drill: 50s)"},
		"long before":          {every(-600, -300, 10), "captured 0 times, never longer than 6m0s apart"},
		"never":                {nil, "never captured before it ended"},
		"only afterwards":      {every(70, 100, 10), "never captured before it ended"},
	} {
		if got := measure(c.instants, at, at.Add(time.Minute)).String(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
