package control

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/failover"
)

// Of a large fleet whoever is called at night sees on the first lines what needs him, and not two
// hundred sites that live; all of it where he asks for it.
func TestLargeFleet(t *testing.T) {
	now := time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
	s := &fleet.Snapshot{Project: "acme", Vault: "s3://acme", At: now}
	for i := range 200 {
		site := fleet.Site{Name: fmt.Sprintf("site-%03d", i), Seen: now, Holds: []string{fmt.Sprintf("app-%03d", i)}}
		app := fleet.Application{Name: site.Holds[0], Site: site.Name, Points: []fleet.Point{{ID: "p", Good: true, Instant: now, Verified: now}}}
		switch i {
		case 150:
			site.Seen = now.Add(-time.Hour)
		case 160:
			site.Seen, site.Holds = now.Add(-time.Hour), nil
		case 170:
			app.Points = nil
		}
		s.Sites, s.Applications = append(s.Sites, site), append(s.Applications, app)
	}
	s.Runs = []fleet.Run{{Result: failover.Result{Run: "failover-1"}, Fault: "damaged"}}
	shown := func(all bool) string {
		t.Helper()
		var out bytes.Buffer
		o := overview("acme", api.Fleet{Known: s}, now)
		o.all = all
		if err := output.NewPrinter(output.Table, "davit", &out).Print(o); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	brief := shown(false)
	last := -1
	for _, part := range []string{"run failover-1:", "site site-150: no sign of life", "application app-170: no recovery point", "200 sites, of which 2 are silent", "site-150  1h ago, SILENT", "site-160  1h ago, SILENT", "200 applications, of which 1 are not protected", "app-170"} {
		at := strings.Index(brief[last+1:], part)
		if at < 0 {
			t.Fatalf("%q is not there, or not in its place:\n%s", part, brief)
		}
		last += 1 + at
	}
	if n := strings.Count(brief, "\n"); n > 24 {
		t.Errorf("%d lines:\n%s", n, brief)
	}
	if strings.Contains(brief, "site-000") || !strings.Contains(shown(true), "site-000") || !strings.Contains(shown(true), "app-199") {
		t.Errorf("what lives is listed, or not where all is asked for:\n%s", brief)
	}
}
