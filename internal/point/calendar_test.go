package point_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // a machine without zones must not pass for one where they were tried

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

// TestFiveYears: one point a day for five years, at half past ten in the evening by UTC, and
// retention after each. Berlin has that in winter half an hour before midnight, and in
// summer half an hour after it, so that a day goes by without a point in March, and one has two
// in October. Some days, a month and half a year have none.
func TestFiveYears(t *testing.T) {
	rules := point.Retention{Daily: 7, Weekly: 4, Monthly: 12, Yearly: 5}
	days := func(first, last string) (all []string) {
		from, _ := time.Parse(time.DateOnly, first)
		to, _ := time.Parse(time.DateOnly, last)
		for d := from; !d.After(to); d = d.AddDate(0, 0, 1) {
			all = append(all, d.Format(time.DateOnly))
		}
		return all
	}
	missed := slices.Concat(days("2023-07-01", "2023-12-31"), days("2025-08-01", "2025-08-31"), days("2025-12-24", "2025-12-26"))
	always := "2021-12-31 2022-12-31 2023-06-30 2024-12-31 " // of the years
	newest := "2025-12-14 2025-12-21 2025-12-22 2025-12-23 2025-12-27 2025-12-28 2025-12-29 2025-12-30 2025-12-31"
	for zone, months := range map[string]string{
		"UTC":           "2025-01-31 2025-02-28 2025-03-31 2025-04-30 2025-05-31 2025-06-30 2025-07-31 2025-09-30 2025-10-31 2025-11-30 ",
		"Europe/Berlin": "2025-01-31 2025-02-28 2025-03-30 2025-04-29 2025-05-30 2025-06-29 2025-07-30 2025-07-31 2025-09-29 2025-10-31 2025-11-30 ",
	} {
		var err error
		if rules.Zone, err = time.LoadLocation(zone); err != nil {
			t.Fatal(err)
		}
		var points []point.Point
		for _, day := range days("2021-01-01", "2025-12-31") {
			at, _ := time.Parse(time.DateTime, day+" 22:30:00")
			if !slices.Contains(missed, day) {
				points = append(points, point.Point{ID: day, Instant: at})
			}
			points = kept(point.Keep(points, rules, at))
		}
		var left []string
		for _, p := range points {
			left = append(left, p.ID)
		}
		slices.Sort(left)
		if got, want := strings.Join(left, " "), always+months+newest; got != want {
			t.Errorf("%s:\n%s, want\n%s", zone, got, want)
		}
	}
}
