package protection

import (
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
)

// TestClockOfTomorrow: while this site's clock is a day ahead its points are dated by the
// vault's clock, and say so; once it is right, what is captured is the newest. The control: a
// clock that is a little ahead dates them itself.
func TestClockOfTomorrow(t *testing.T) {
	r := newRig(t)
	r.now = time.Now()
	r.claim()
	r.mustCapture()
	for i, at := range []time.Duration{24 * time.Hour, 24*time.Hour + 5*time.Minute, 0} {
		r.ahead.Store(int64(i+1) * int64(10*time.Minute)) // the time that passes
		r.now = r.clock().Add(at)
		m := r.mustCapture()
		_, points, err := r.east.Points(t.Context(), "shop")
		if newest, ok := point.Newest(points, time.Time{}); err != nil || !ok || newest.ID != m.ID {
			t.Errorf("%s ahead: the newest is %s, not %s that was captured last: %v", at, newest.ID, m.ID, err)
		}
		if ahead := m.Instant.Sub(r.clock()); ahead > time.Minute {
			t.Errorf("%s ahead: the point is of %s after now", at, ahead)
		}
		if m.StartedAt.After(m.Instant) || m.CutBy.Before(m.Instant) || m.FinishedAt.Before(m.CutBy) || m.FinishedAt.Sub(m.StartedAt) > time.Hour {
			t.Errorf("%s ahead: begun %s, of %s, cut by %s, ended %s", at, m.StartedAt, m.Instant, m.CutBy, m.FinishedAt)
		}
		if said := len(m.Warnings) > 0 && strings.Contains(m.Warnings[0].Message, "clock"); said != (at > 0) {
			t.Errorf("%s ahead: warnings %v", at, m.Warnings)
		}
	}
	before := r.clock().Add(vault.SafeSkew / 2)
	r.now = before
	if m := r.mustCapture(); m.Instant.Before(before) || len(m.Warnings) > 0 {
		t.Errorf("a little ahead: of %s, the site's clock was %s, warnings %v", m.Instant, before, m.Warnings)
	}
}

// TestVaultOfYesterday: a vault whose clock falls a day behind makes no point older than
// those before it.
func TestVaultOfYesterday(t *testing.T) {
	r := newRig(t)
	r.now = time.Now()
	r.claim()
	r.mustCapture()
	r.ahead.Store(int64(-24 * time.Hour))
	for range 2 {
		m := r.mustCapture()
		_, points, err := r.east.Points(t.Context(), "shop")
		if newest, ok := point.Newest(points, time.Time{}); err != nil || !ok || newest.ID != m.ID {
			t.Errorf("the newest is %s, not %s that was captured last: %v", newest.ID, m.ID, err)
		}
	}
}

// TestClockSetWithinCapture: a clock that is set while a capture runs dates it neither ahead
// of the vault's nor by a day too early.
func TestClockSetWithinCapture(t *testing.T) {
	clock := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	const day, took = 24 * time.Hour, 10 * time.Minute
	for name, c := range map[string]struct{ instant, now, want time.Time }{
		"right":          {clock.Add(-took), clock, clock.Add(-took)},
		"a day ahead":    {clock.Add(day - took), clock.Add(day), clock.Add(-took)},
		"set back":       {clock.Add(day - took), clock, clock},
		"set forward":    {clock.Add(-took), clock.Add(day), clock.Add(-took)},
		"a day behind":   {clock.Add(-day - took), clock.Add(-day), clock.Add(-day - took)},
		"a little ahead": {clock.Add(vault.SafeSkew - took), clock.Add(vault.SafeSkew), clock.Add(vault.SafeSkew - took)},
	} {
		if got := momentOf(c.instant, c.now, clock, took); !got.Equal(c.want) {
			t.Errorf("%s: of %s, want %s", name, got, c.want)
		}
	}
}

// TestSinceWhenIsByTheClockOfPoints: what is said of volumes' blocks goes with the time of its point; that of points
// long before stays.
func TestSinceWhenIsByTheClockOfPoints(t *testing.T) {
	r, k, take := newKeeping(t)
	r.now = time.Now().Add(24 * time.Hour) // of this site
	before := r.clock().Add(-time.Hour)
	for _, at := range []time.Time{r.now, before} {
		k.compared = at
		if err := take(nil); err != nil {
			t.Fatal(err)
		}
		got := r.east.newest["shop"]["shop/data"].Blocks.Compared
		if ahead := got.Sub(r.clock()); ahead > time.Minute || at.Equal(before) && !got.Equal(before) {
			t.Errorf("compared %s, which is %s after now; it was %s by this site's clock", got, ahead, at)
		}
	}
}
