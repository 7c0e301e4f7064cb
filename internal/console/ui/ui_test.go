package ui

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/restoration"
	"davit.dev/davit/internal/console/ui/assets"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/uplink"
)

// Every text has a contrast of 4.5 or more against what it stands on, by day
// and by night (WCAG 2.2, AA).
func TestContrast(t *testing.T) {
	text, err := assets.Files.ReadFile("style.css")
	if err != nil {
		t.Fatal(err)
	}
	schemes := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(text), -1)
	if len(schemes) != 2 {
		t.Fatalf("%d schemes", len(schemes))
	}
	for n, scheme := range schemes {
		colour := map[string]float64{}
		for _, c := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6})`).FindAllStringSubmatch(scheme[1], -1) {
			colour[c[1]] = luminance(t, c[2])
		}
		for _, pair := range []string{
			"text ground", "text card", "quiet ground", "quiet card", "link ground", "link card", "good good-ground", "warn warn-ground", "bad bad-ground",
			"text good-ground", "text warn-ground", "text bad-ground", "link good-ground", "link warn-ground", "link bad-ground", "bad card", "bad ground", "button-text button", "focus ground",
		} {
			names := strings.Fields(pair)
			front, okFront := colour[names[0]]
			back, okBack := colour[names[1]]
			ratio := (max(front, back) + 0.05) / (min(front, back) + 0.05)
			if !okFront || !okBack || ratio < 4.5 {
				t.Errorf("scheme %d: %s has a contrast of %.2f", n+1, pair, ratio)
			}
		}
	}
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}

// Nobody is sent elsewhere by a link to the login.
func TestLocal(t *testing.T) {
	for next, want := range map[string]string{
		"/p/acme?live=1": "/p/acme?live=1", "": "/", "https://evil.example.com/": "/", "//evil.example.com": "/", `/\evil.example.com`: "/", "/\tx": "/", "p": "/", "javascript:x": "/",
	} {
		if got := local(next); got != want {
			t.Errorf("%q leads to %q", next, got)
		}
	}
}

// What stands in a vault cannot write into a page.
func TestDrawings(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const evil = `"><script>alert(1)</script>`
	line := pointLine([]fleet.Point{
		{ID: evil, Instant: now.Add(-time.Hour), Consistency: evil, Good: true},
		{ID: "a", Instant: now.Add(-time.Minute), Consistency: "crash", Good: true, Verified: now},
		{ID: "broken"},
	}, now)
	steps := stepLine(&fleet.Run{Begun: now.Add(-time.Minute), Result: failover.Result{Steps: []failover.StepResult{{Name: evil, Status: failover.Doing, Begun: now.Add(-time.Second)}, {Name: "later"}}}}, now)
	sites := fleet.Snapshot{At: now, Applications: []fleet.Application{{Name: "shop", Site: "site-0", Points: []fleet.Point{{Good: true, Instant: now.Add(-time.Hour)}}}}}
	for n := range 20 {
		sites.Sites = append(sites.Sites, fleet.Site{Name: fmt.Sprint("site-", n), Seen: now})
	}
	sites.Sites[3].Name = evil
	moves := `{"apiVersion":"davit.dev/v1alpha1","kind":"RecoveryPlan","metadata":{"name":"` + "p" + `"},"spec":{"applications":[{"name":"shop"}],"sites":[{"name":"site-0"},{"name":"site-1"}]}}`
	sites.Ahead = &ahead.View{Plans: []ahead.Plan{{Name: evil, From: "site-0", To: "site-1", Document: []byte(moves)}}}
	reach := fleet.Agent{Site: "site-1", Objects: []fleet.Heard{{Object: uplink.Object{Key: uplink.Key{Kind: "Vault", Name: "main"}, Vault: &uplink.Reach{RoundTrip: 4200}}}}}
	drawn := string(siteMap(fleet.Known{Snapshot: &sites, Agents: []fleet.Agent{reach}}, now))
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
	few := string(pointLine([]fleet.Point{
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
	if line := pointLine(many, now); len(drawn) > mostDots || len(drawn) < mostDots/3 || sum != len(many) || len(line) > 50<<10 {
		t.Errorf("%d dots are %d points, in %d bytes", len(drawn), sum, len(line))
	}
}

// What a dry run found is shown by what is lost first, with each difference, and none
// of it is taken for markup; without a check that fails it can be begun.
func TestRestorationPage(t *testing.T) {
	d := restorationData{May: true, Restore: restoration.Shown{ID: "one", Application: "shop", Site: "east", DryRun: true, State: uplink.Planned, Over: true, Existing: "exact", Command: "davit restore"}}
	d.Restore.Preview = &uplink.Preview{Counts: map[string]int{"prune": 1, "update": 1}, Account: "davit-restore", Left: 3, Cut: 2}
	d.Parts = []part{
		{Action: "prune", Says: "deleted", Tone: "bad", Count: 1, Objects: []uplink.Planning{{Object: "ConfigMap shop/new", Action: "prune"}}},
		{Action: "update", Says: "changed", Tone: "warn", Count: 1, Objects: []uplink.Planning{{Object: "ConfigMap shop/conf", Action: "update", Diff: "-  a: <b>\n+  a: c\n"}}},
	}
	render := func() string {
		var out strings.Builder
		if err := pages.ExecuteTemplate(&out, "restoration", page{Project: "acme", User: "rita", Form: "f", Data: d}); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	text := render()
	for _, says := range []string{"&lt;b&gt;", "ConfigMap shop/new", "3 are not shown", "2 differences are not shown", `name="confirm"`, "Restore it in its place", "/p/acme/restores/one/begin"} {
		if !strings.Contains(text, says) {
			t.Errorf("no %q in %s", says, text)
		}
	}
	if strings.Contains(text, "a: <b>") || strings.Index(text, "shop/new") > strings.Index(text, "shop/conf") {
		t.Error(text)
	}
	d.Restore.Preview.Checks = []uplink.Check{{Severity: "error", Message: "no room"}}
	if text := render(); strings.Contains(text, `name="confirm"`) || !strings.Contains(text, "no room") {
		t.Error(text)
	}
	d.Restore = restoration.Shown{State: uplink.Warned, Outcome: &uplink.Outcome{RTO: 90_000, Warnings: []string{"slow"}, More: 2}}
	if text := render(); !strings.Contains(text, "1 m 30 s") || !strings.Contains(text, "and 2 more") {
		t.Error(text)
	}
}
