package console

import (
	"fmt"
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/consoletest"
)

// heaviest is what a page may weigh at the most, in bytes, before it is compressed.
const heaviest = 100 << 10

// A thousand applications, runs, points and documents are shown in parts, each of which
// is light. Their links lead through all of a list, and keep what it is sorted by and
// searched for.
func TestCrowdPages(t *testing.T) {
	w := newWorld(t)
	p, size := w.vault("acme"), consoletest.Size{Applications: 1000, Points: 1, Runs: 120, Open: 60, Sites: 40}
	if err := consoletest.Crowd(t.Context(), p, w.now, size); err != nil {
		t.Fatal(err)
	}
	many := consoletest.Name(7)
	for n := range 300 {
		if err := consoletest.AddPoint(t.Context(), p, many, w.now.Add(-time.Duration(n+2)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	anna := w.browse("anna")
	token := w.login("anna")
	for n := range 110 {
		name := fmt.Sprintf("hourly-%03d", n)
		body := strings.Replace(policyJSON, `"hourly"`, `"`+name+`"`, 1)
		if code, text := w.call(token, "PUT", "/projects/acme/documents/protectionpolicies/"+name, body); code != http.StatusOK {
			t.Fatalf("%d %s", code, text)
		}
	}
	w.shown(anna, "/p/acme/applications/"+many, "1 to 50 of 301")
	first := w.shown(anna, "/p/acme", "1 to 50 of 1002")
	w.shown(anna, "/p/acme/readiness", "1 to 20 of")
	if a, b := strings.Index(first, `applications/wiki"`), strings.Index(first, `applications/`+consoletest.Name(0)+`"`); a < 0 || b < 0 || a > b {
		t.Errorf("what lags is at %d, what is protected at %d", a, b)
	}
	for _, path := range []string{
		"/", "/p/acme", "/p/acme?sort=-level", "/p/acme?sort=drill", "/p/acme?tasks=3&sites=2&running=2&applications=9", "/p/acme/runs", "/p/acme/applications/" + many, "/p/acme/plans", "/p/acme/readiness",
		"/p/acme/documents", "/p/acme/documents?show=ProtectionPolicy/davit-system/hourly-003", "/p/acme/sites/site-003", "/p/acme/vaults", "/p/acme/events", "/p/acme/audit", "/p/acme/people", "/users", "/audit",
	} {
		code, page := w.do(anna, w.get(path))
		if code != http.StatusOK || len(page) > heaviest {
			t.Errorf("%s: %d, weighs %d bytes", path, code, len(page))
		}
	}
	for path, c := range map[string]struct {
		row  string
		want int
	}{
		"/p/acme":                           {`<td data-label="Application"><a href="[^"]*/applications/([^"]+)"`, 1002},
		"/p/acme?q=app-00&sort=-name":       {`<td data-label="Application"><a href="[^"]*/applications/([^"]+)"`, 100},
		"/p/acme?state=Lagging":             {`<td data-label="Application"><a href="[^"]*/applications/([^"]+)"`, 1},
		"/p/acme/runs":                      {`<td data-label="Run"><a href="[^"]*/runs/([^"]+)"`, 182},
		"/p/acme/runs?state=under+way":      {`<td data-label="Run"><a href="[^"]*/runs/([^"]+)"`, 61},
		"/p/acme/applications/" + many:      {`<td data-label="Instant"><code>([^<]+)<`, 301},
		"/p/acme/documents":                 {`<td data-label="Name"><a href="[^"]*">([^<]+)<`, 110},
		"/p/acme/documents?q=hourly-01":     {`<td data-label="Name"><a href="[^"]*">([^<]+)<`, 10},
		"/p/acme/sites/site-003?objects=99": {`/applications/(app-[0-9]+)"`, 25},
	} {
		seen := map[string]bool{}
		base, _, _ := strings.Cut(path, "?")
		for at, n := path, 0; at != "" && n < 30; n++ {
			_, page := w.do(anna, w.get(at))
			for _, found := range regexp.MustCompile(c.row).FindAllStringSubmatch(page, -1) {
				if seen[found[1]] {
					t.Errorf("%s: %s is listed twice", path, found[1])
				}
				seen[found[1]] = true
			}
			at = ""
			list := map[bool]string{true: "applications"}[base == "/p/acme"]
			for _, link := range regexp.MustCompile(`<a href="([^"]*)#([a-z]+)" rel="next">`).FindAllStringSubmatch(page, -1) {
				if list == "" || list == link[2] {
					at = base + html.UnescapeString(link[1])
				}
			}
		}
		if len(seen) != c.want {
			t.Errorf("%s: its parts list %d, want %d", path, len(seen), c.want)
		}
	}
	applied := w.shown(anna, "/p/acme/audit?by=anna&action=document.*&since=2026-01-01", "document.apply")
	if older := regexp.MustCompile(`<a href="([^"]*)">Older records`).FindStringSubmatch(applied); older == nil || strings.Contains(applied, "member.set") {
		t.Errorf("records of documents alone, and a link to more: %.3000s", applied)
	} else if page := w.shown(anna, "/p/acme/audit"+html.UnescapeString(older[1]), "document.apply"); strings.Count(page, "document.apply</td>") != 10 || strings.Contains(page, "Older records") {
		t.Errorf("the older records are %d", strings.Count(page, "document.apply</td>"))
	}
	// A part that is not there any more is the last; nothing else is taken for a number.
	for at, says := range map[string]string{"99999": "1001 to 1002 of 1002", "-3": "1 to 50 of 1002", "x": "1 to 50 of 1002"} {
		w.shown(anna, "/p/acme?applications="+at, says)
	}
}
