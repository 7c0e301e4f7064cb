package schedule_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"davit.dev/davit/internal/schedule"
)

func parse(t *testing.T, every time.Duration, expression, zone string) *schedule.Table {
	t.Helper()
	table, err := schedule.Parse(every, expression, zone)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04Z07:00", text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestNextInATimeZone(t *testing.T) {
	for _, tt := range []struct{ what, cron, zone, last, want string }{
		{"UTC by default", "0 3 * * *", "", "2026-01-02 12:00Z", "2026-01-03 03:00Z"},
		{"winter", "0 3 * * *", "Europe/Berlin", "2026-01-02 12:00Z", "2026-01-03 02:00Z"},
		{"summer", "0 3 * * *", "Europe/Berlin", "2026-07-02 12:00Z", "2026-07-03 01:00Z"},
		{"far east", "30 0 1 * *", "Asia/Kolkata", "2026-01-15 12:00Z", "2026-01-31 19:00Z"},
		{"an hour that is leapt over", "30 2 * * *", "Europe/Berlin", "2026-03-28 02:00Z", "2026-03-29 01:30Z"},
		{"and then as ever", "30 2 * * *", "Europe/Berlin", "2026-03-29 01:30Z", "2026-03-30 00:30Z"},
		{"hourly over the leap", "0 * * * *", "Europe/Berlin", "2026-03-29 00:00Z", "2026-03-29 01:00Z"},
		{"noon after the leap", "0 12 * * *", "Europe/Berlin", "2026-03-28 11:00Z", "2026-03-29 10:00Z"},
		{"an hour that comes twice", "30 2 * * *", "Europe/Berlin", "2026-10-24 01:00Z", "2026-10-25 00:30Z"},
		{"missed, made up for once", "0 3 * * *", "", "2025-12-01 03:00Z", "2025-12-02 03:00Z"},
		{"a clock set back", "0 3 * * *", "", "2027-01-01 03:00Z", "2026-12-12 03:00Z"},
	} {
		now := at("2026-12-11 12:00Z")
		if got := parse(t, 0, tt.cron, tt.zone).Next(at(tt.last), time.Time{}, now); !got.Equal(at(tt.want)) {
			t.Errorf("%s: next is %s, want %s", tt.what, got.UTC(), tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ cron, zone, says string }{
		{"whenever", "", "whenever"},
		{"* * *", "", "* * *"},
		{"0 3 * * *", "Middle/Earth", "not known"},
		{"0 3 * * *", "Local", "another one everywhere"},
		{"CRON_TZ=Asia/Tokyo 0 3 * * *", "", "beside it"},
		{"0 0 * * *", "../etc/passwd", "not known"},
	} {
		if _, err := schedule.Parse(0, tt.cron, tt.zone); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("Parse(%q, %q) = %v, want %q", tt.cron, tt.zone, err, tt.says)
		}
	}
	if table, err := schedule.Parse(0, "", ""); table != nil || err != nil {
		t.Errorf("no schedule is %v, %v", table, err)
	}
	if _, err := schedule.Parse(time.Minute, "* * * * *", ""); err == nil {
		t.Error("both an interval and an expression were taken")
	}
}

func TestLongestGap(t *testing.T) {
	for _, tt := range []struct {
		cron, zone string
		want       time.Duration
	}{
		{"*/15 * * * *", "", 15 * time.Minute},
		{"0 3 * * *", "", 24 * time.Hour},
		{"0 3 * * *", "Europe/Berlin", 25 * time.Hour}, // the night in autumn
		{"0 9-17 * * 1-5", "", 64 * time.Hour},         // Friday evening to Monday morning
		{"0 0 1 * *", "", 31 * 24 * time.Hour},
	} {
		if got := parse(t, 0, tt.cron, tt.zone).LongestGap(at("2026-01-02 12:00Z")); got != tt.want {
			t.Errorf("%q: longest gap %s, want %s", tt.cron, got, tt.want)
		}
	}
	if got := parse(t, time.Minute, "", "").LongestGap(time.Time{}); got != time.Minute {
		t.Errorf("an interval's gap is %s", got)
	}
	if got := parse(t, 0, "0 0 30 2 *", "").LongestGap(at("2026-01-02 12:00Z")); got != 0 {
		t.Errorf("a day that never comes has a gap of %s", got)
	}
}

func TestCheckObjective(t *testing.T) {
	m := time.Minute
	for _, tt := range []struct {
		rpo, gap, took time.Duration
		says           string // "" for possible
	}{
		{rpo: 0, gap: time.Hour},
		{rpo: m, gap: 0, took: time.Hour},
		{rpo: 5 * m, gap: 5 * m},
		{rpo: 5 * m, gap: 6 * m, says: "up to 6m0s pass between two captures"},
		{rpo: 5 * m, gap: 4 * m, took: m},
		{rpo: 5 * m, gap: 4 * m, took: 2 * m, says: "4m0s + 2m0s = 6m0s"},
		{rpo: 5 * m, gap: m, took: 3 * m, says: "3m0s + 3m0s = 6m0s"},
	} {
		err := schedule.CheckObjective(tt.rpo, tt.gap, tt.took)
		if (err != nil) != (tt.says != "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("CheckObjective(%s, %s, %s) = %v, want %q", tt.rpo, tt.gap, tt.took, err, tt.says)
		}
	}
}

// After any outage one capture is due at once, and the next one a slot later:
// never a burst.
func TestBackfillIsOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		every := time.Duration(rapid.IntRange(1, 240).Draw(t, "minutes")) * time.Minute
		cron := rapid.SampledFrom([]string{"", "*/5 * * * *", "0 3 * * *", "30 2 * * 0"}).Draw(t, "cron")
		if cron != "" {
			every = 0
		}
		zone := rapid.SampledFrom([]string{"", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"}).Draw(t, "zone")
		table, err := schedule.Parse(every, cron, zone)
		if err != nil {
			t.Fatal(err)
		}
		last := at("2026-01-02 12:00Z").Add(time.Duration(rapid.IntRange(0, 500000).Draw(t, "last")) * time.Minute)
		now := last.AddDate(0, 0, rapid.IntRange(8, 100).Draw(t, "outage"))
		if due := table.Next(last, last, now); due.After(now) {
			t.Fatalf("after an outage from %s to %s the next is due at %s", last, now, due)
		}
		if again := table.Next(now, last, now); !again.After(now) {
			t.Fatalf("right after the one that made up for it, another is due at %s", again)
		}
	})
}
