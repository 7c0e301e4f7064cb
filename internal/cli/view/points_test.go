package view

import (
	"strings"
	"testing"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
)

// TestNewestPointsAreMarked: which point a restore takes, and which was proven last, is
// seen at a glance, by application. What may not be restored is neither.
func TestNewestPointsAreMarked(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	at := func(minutes int) time.Time { return now.Add(-time.Duration(minutes) * time.Minute) }
	points := []Point{
		{ID: "shop-5", Application: "shop", Phase: v1alpha1.PointAvailable, Instant: at(5)},
		{ID: "shop-4", Application: "shop", Phase: v1alpha1.PointAvailable, Instant: at(4), Warnings: 2},
		{ID: "shop-3", Application: "shop", Phase: v1alpha1.PointQuarantined, Instant: at(3), Verified: now, Damaged: true},
		{ID: "shop-6", Application: "shop", Phase: v1alpha1.PointAvailable, Instant: at(6), Verified: now, Test: &Test{}},
		{ID: "shop-7", Application: "shop", Phase: v1alpha1.PointAvailable, Instant: at(7), Verified: now},
		{ID: "shop-8", Application: "shop", Phase: v1alpha1.PointAvailable, Instant: at(8), Verified: now},
		{ID: "pay-9", Application: "pay", Phase: v1alpha1.PointAvailable, Instant: at(9), Test: &Test{Passed: true}},
		{ID: "moved-2", Application: "moved", Phase: v1alpha1.PointAvailable, Instant: at(2), Epoch: 1}, // by a clock that was fast
		{ID: "moved-3", Application: "moved", Phase: v1alpha1.PointAvailable, Instant: at(3), Epoch: 2},
		{ID: "raw-1", Application: "raw", Phase: v1alpha1.PointAvailable, Instant: at(1), Consistency: "fuzzy"},
		{ID: "raw-2", Application: "raw", Phase: v1alpha1.PointAvailable, Instant: at(2), Consistency: "crash"},
		{ID: "new-1", Application: "new", Phase: v1alpha1.PointPending},
	}
	MarkNewest(points)
	want := map[string]string{"shop-4": "newest", "shop-7": "newest proven", "pay-9": "newest, proven", "moved-3": "newest", "raw-2": "newest"}
	for _, p := range points {
		if got := p.place(); got != want[p.ID] {
			t.Errorf("%s is marked %q, want %q", p.ID, got, want[p.ID])
		}
	}
	var b strings.Builder
	if err := output.NewPrinter("", "davit", &b).Print(Points{Points: points, Now: now}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "newest; 2 warnings") {
		t.Errorf("the mark of warnings is missing:\n%s", b.String())
	}
}

// TestPointsFitATerminal: what is usually shown fits into 120 columns.
func TestPointsFitATerminal(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	p := Point{
		ID: "bookshop-20260131-115500000-mmmmmm", Application: "bookshop", Phase: v1alpha1.PointAvailable, Instant: now.Add(-31 * time.Hour), Consistency: "application",
		Objects: 12345, Volumes: 12, Bytes: 1234567890, Warnings: 2, Verified: now.Add(-3 * time.Hour), VerifiedHow: "sample",
	}
	points := []Point{p}
	MarkNewest(points)
	for _, one := range []bool{true, false} {
		var b strings.Builder
		if err := output.NewPrinter("", "davit", &b).Print(Points{Points: points, Now: now, OneApp: one}); err != nil {
			t.Fatal(err)
		}
		const most = 132 // with the application beside its point
		for line := range strings.Lines(b.String()) {
			if n := len(strings.TrimRight(line, "\n ")); n > most || one && n > 120 {
				t.Errorf("%d columns: %s", n, line)
			}
		}
	}
}
