package document

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"davit.dev/davit/internal/schedule"
	"davit.dev/davit/internal/testkit/detector"
)

// scheduled is the policy with a schedule and an objective.
func scheduled(kind, when string, rpo time.Duration) []byte {
	text := strings.Replace(policy, "every: 1h", fmt.Sprintf("%s: %q", kind, when), 1)
	return []byte(strings.Replace(text, "rpo: 2h", "rpo: "+rpo.String(), 1))
}

// What can never be kept is refused before anything is kept, with the arithmetic.
func TestImpossibleObjectives(t *testing.T) {
	for _, c := range []struct {
		kind, when string
		rpo        time.Duration
		says       string
	}{
		{"every", "1h", time.Hour, ""},
		{"every", "1h", 59 * time.Minute, "a capture every 1h leaves up to 1h of work unprotected: that can never keep an RPO of 59m0s"},
		{"cron", "30 2 * * *", 24 * time.Hour, ""},
		{"cron", "30 2 * * *", 23 * time.Hour, "the cron expression 30 2 * * * leaves up to 24h of work unprotected, or more: that can never keep an RPO of 23h0m0s"},
		{"cron", "@daily", time.Hour, "up to 24h"},
		{"cron", "@hourly", time.Hour, ""},
		{"cron", "@hourly", time.Minute, "up to 1h"},
		{"cron", " 5  * * * * ", 59 * time.Minute, "up to 1h"},
		{"cron", "0 */6 * * *", 5 * time.Hour, "up to 6h"},
		{"cron", "0 */6 * * *", 6 * time.Hour, ""},
		{"cron", "*/15 * * * *", 10 * time.Minute, "up to 15m"},
		{"cron", "*/15 * * * *", 15 * time.Minute, ""},
		{"cron", "*/5 3 * * *", time.Hour, "up to 23h"},
		{"cron", "*/5 * * * 1", 48 * time.Hour, "up to 144h"},
		{"cron", "0 0 1 * *", 48 * time.Hour, "up to 720h"},
		{"cron", "0 0 1,15 * *", 23 * time.Hour, "up to 24h"},
		{"cron", "0 9-17 * * *", 2 * time.Hour, ""}, // what takes a calendar is left to the application's status
	} {
		_, err := Parse(t.Context(), scheduled(c.kind, c.when, c.rpo))
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %q with an RPO of %s: %v, want it to say %q", c.kind, c.when, c.rpo, err, c.says)
		}
	}
}

// Nothing is refused that can be kept, whatever the expression.
func TestPossibleObjectivesAreTaken(t *testing.T) {
	if detector.Watches() {
		t.Skip("one goroutine reckons for half a minute under the race detector, which has nothing to find there")
	}
	from := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	field := func(t *rapid.T, name string, lo, hi int) string {
		n := func() int { return rapid.IntRange(lo, hi).Draw(t, name) }
		switch rapid.IntRange(0, 4).Draw(t, name+" kind") {
		case 0, 1:
			return "*"
		case 2:
			return fmt.Sprint(n())
		case 3:
			return fmt.Sprintf("*/%d", max(1, n()))
		}
		a, b := n(), n()
		return fmt.Sprintf("%d,%d-%d", a, min(a, b), max(a, b))
	}
	rapid.Check(t, func(rt *rapid.T) {
		cron := strings.Join([]string{
			field(rt, "minute", 0, 59), field(rt, "hour", 0, 23), field(rt, "day", 1, 28), field(rt, "month", 1, 12), field(rt, "weekday", 0, 6),
		}, " ")
		table, err := schedule.Parse(0, cron, rapid.SampledFrom([]string{"", "Europe/Lisbon"}).Draw(rt, "zone"))
		if err != nil {
			rt.Skip(err)
		}
		gap := table.LongestGap(from)
		if gap == 0 {
			rt.Skip("never")
		}
		if _, err := Parse(t.Context(), scheduled("cron", cron, gap)); err != nil {
			rt.Fatalf("%q leaves at most %s: %v", cron, gap, err)
		}
	})
}
