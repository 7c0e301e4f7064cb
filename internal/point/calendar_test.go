package point_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"davit.dev/davit/internal/point"
)

// drawHistory draws good points of some years, of one epoch and without marks.
func drawHistory(t *rapid.T) []point.Point {
	step := rapid.SampledFrom([]time.Duration{20 * time.Minute, 7 * time.Hour, 50 * time.Hour, 20 * 24 * time.Hour}).Draw(t, "step")
	points := make([]point.Point, rapid.IntRange(0, 60).Draw(t, "points"))
	at := epoch.Add(time.Duration(rapid.IntRange(0, 400*24).Draw(t, "first")) * time.Hour)
	for i := range points {
		at = at.Add(1 + time.Duration(rapid.Int64Range(0, int64(step)).Draw(t, "gap")))
		points[i] = point.Point{ID: fmt.Sprintf("p%02d", i), Instant: at}
	}
	return points
}

func drawRules(t *rapid.T) point.Retention {
	few := func(name string) int { return rapid.IntRange(0, 4).Draw(t, name) }
	zone, err := time.LoadLocation(rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"}).Draw(t, "zone"))
	if err != nil {
		t.Skip(err)
	}
	return point.Retention{
		KeepLast: few("last"), Hourly: few("hourly"), Daily: few("daily"), Weekly: few("weekly"), Monthly: few("monthly"), Yearly: few("yearly"), Zone: zone,
	}
}

// wanted says, in the plainest way, which points the calendar rules keep.
func wanted(points []point.Point, rules point.Retention) map[string]bool {
	keep := map[string]bool{}
	for _, rule := range []struct {
		count int
		name  func(time.Time) string
	}{
		{rules.Hourly, func(t time.Time) string { return t.Format("2006-01-02 15 -0700") }},
		{rules.Daily, func(t time.Time) string { return t.Format("2006-01-02") }},
		{rules.Weekly, func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, w) }},
		{rules.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
		{rules.Yearly, func(t time.Time) string { return t.Format("2006") }},
	} {
		var seen []string
		for _, p := range slices.Backward(points) {
			name := rule.name(p.Instant.In(rules.Zone))
			if len(seen) < rule.count && !slices.Contains(seen, name) {
				seen = append(seen, name)
				keep[p.ID] = true
			}
		}
	}
	return keep
}

func TestCalendarRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points, rules := drawHistory(t), drawRules(t)
		now := epoch.AddDate(10, 0, 0)
		want := wanted(points, rules)
		decisions := point.Keep(points, rules, now)
		for i, d := range decisions {
			must := want[d.Point.ID] || i < rules.KeepLast || i == 0 || rules.Empty()
			if d.Keep != must {
				t.Fatalf("%s of %s: kept %v (%s), want %v by %+v", d.Point.ID, d.Point.Instant.In(rules.Zone), d.Keep, d.Reason, must, rules)
			}
		}
		again := point.Keep(kept(decisions), rules, now)
		if len(kept(again)) != len(again) {
			t.Fatal("a second pass expires more at the same moment")
		}
	})
}

// What has expired stays expired, whatever is captured afterwards: no rule ever
// wants back what is gone.
func TestNoRuleWantsBackWhatExpired(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points, rules := drawHistory(t), drawRules(t)
		if len(points) == 0 {
			return
		}
		split := rapid.IntRange(1, len(points)).Draw(t, "split")
		gone := map[string]bool{}
		for _, d := range point.Keep(points[:split], rules, epoch) {
			gone[d.Point.ID] = !d.Keep
		}
		for _, d := range point.Keep(points, rules, epoch) {
			if gone[d.Point.ID] && d.Keep {
				t.Fatalf("%s had expired, and is wanted: %s", d.Point.ID, d.Reason)
			}
		}
	})
}
