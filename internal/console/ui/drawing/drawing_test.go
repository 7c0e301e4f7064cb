package drawing

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/uplink"
)

// What stands in a vault cannot write into a page.
func TestDrawings(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const evil = `"><script>alert(1)</script>`
	line := Points([]fleet.Point{
		{ID: evil, Instant: now.Add(-time.Hour), Consistency: evil, Good: true},
		{ID: "a", Instant: now.Add(-time.Minute), Consistency: "crash", Good: true, Verified: now},
		{ID: "broken"},
	}, now)
	steps := Steps(&fleet.Run{Begun: now.Add(-time.Minute), Result: failover.Result{Steps: []failover.StepResult{{Name: evil, Status: failover.Doing, Begun: now.Add(-time.Second)}, {Name: "later"}}}}, now)
	sites := fleet.Snapshot{At: now, Applications: []fleet.Application{{Name: "shop", Site: "site-0", Points: []fleet.Point{{Good: true, Instant: now.Add(-time.Hour)}}}}}
	for n := range 20 {
		sites.Sites = append(sites.Sites, fleet.Site{Name: fmt.Sprint("site-", n), Seen: now})
	}
	sites.Sites[3].Name = evil
	moves := `{"apiVersion":"davit.dev/v1alpha1","kind":"RecoveryPlan","metadata":{"name":"` + "p" + `"},"spec":{"applications":[{"name":"shop"}],"sites":[{"name":"site-0"},{"name":"site-1"}]}}`
	sites.Ahead = &ahead.View{Plans: []ahead.Plan{{Name: evil, From: "site-0", To: "site-1", Document: []byte(moves)}}}
	reach := fleet.Agent{Site: "site-1", Objects: []fleet.Heard{{Object: uplink.Object{Key: uplink.Key{Kind: "Vault", Name: "main"}, Vault: &uplink.Reach{RoundTrip: 4200}}}}}
	drawn := string(Sites(fleet.Known{Snapshot: &sites, Agents: []fleet.Agent{reach}}, now))
	for _, says := range []string{"round trip 4.2 ms", "4 more sites below", "1 h behind"} {
		if !strings.Contains(drawn, says) {
			t.Errorf("no %q in %s", says, drawn)
		}
	}
	if n := strings.Count(drawn, `<rect class="box`); n != 17 {
		t.Errorf("%d boxes for 16 sites and the vault", n)
	}
	for _, drawn := range []string{string(line), string(steps), drawn} {
		if strings.Contains(drawn, "<script") || !strings.HasSuffix(drawn, "</svg>") || strings.Contains(drawn, "NaN") {
			t.Error(drawn)
		}
	}
	if strings.Count(string(line), "<circle") != 3 {
		t.Errorf("two points, one of them verified: %s", line)
	}
}

// A dot is as large as its data, says until when it is kept, and is hollow if it goes
// next. However many points there are, the line stays light, and hides none: those that
// there is no room between are one.
func TestPointLine(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	few := string(Points([]fleet.Point{
		{ID: "c", Instant: now.Add(-time.Hour), Consistency: "crash", Good: true, Kept: true, Bytes: 16 << 20, Until: now.Add(24 * time.Hour)},
		{ID: "b", Instant: now.Add(-9 * time.Hour), Consistency: "crash", Good: true, Bytes: 4 << 20, Verified: now},
		{ID: "a", Instant: now.Add(-10 * time.Hour), Consistency: "fuzzy", Good: true, Kept: true},
	}, now))
	for _, says := range []string{
		`class="crash" cx="894.0" cy="50" r="8.0"><title>c, crash, 16.0 MiB, kept until 2026-03-02 12:00:00 at least</title>`, `class="crash goes" cx="206.0" cy="50" r="5.5"><title>b, crash, 4.0 MiB, goes next</title>`,
		`<circle class="verified" cx="206.0" cy="50" r="8.5"/>`, `class="fuzzy" cx="120.0" cy="100" r="3.0"><title>a, fuzzy, 0 B</title>`,
	} {
		if !strings.Contains(few, says) {
			t.Errorf("no %q in %s", says, few)
		}
	}
	var many []fleet.Point
	for n := range 20_000 {
		p := fleet.Point{ID: fmt.Sprint("p", n), Instant: now.Add(-time.Duration(n) * time.Minute), Consistency: []string{"application", "crash", "per-volume", "fuzzy"}[n%4], Good: n%5 > 0, Kept: true}
		many = append(many, p)
	}
	drawn, sum := dots(many, many[len(many)-1].Instant, now), 0
	for _, d := range drawn {
		sum += d.count
	}
	if line := Points(many, now); len(drawn) > mostDots || len(drawn) < mostDots/3 || sum != len(many) || len(line) > 50<<10 {
		t.Errorf("%d dots are %d points, in %d bytes", len(drawn), sum, len(line))
	}
}
