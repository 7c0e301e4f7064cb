package console

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// Every site and the vaults have a page, which the fleet's leads to; what is not there
// has none, and no credential is on any.
func TestSitePages(t *testing.T) {
	w := newWorld(t)
	vera := w.browse("vera")
	text := w.shown(vera, "/p/acme", "/p/acme/sites/east")
	if !strings.Contains(text, `href="/p/acme/vaults"`) || !strings.Contains(text, "Last drill") {
		t.Errorf("%s", text)
	}
	w.shown(vera, "/p/acme/sites/east", "No agent of it was let in here")
	w.shown(vera, "/p/acme/vaults", "As the sites reach them")
	if code, text := w.do(vera, w.get("/p/acme/sites/nowhere")); code != http.StatusNotFound {
		t.Errorf("%d %s", code, text)
	}
}

// Who administers the console bounds a project, and nobody else; the refusal says use and
// limit.
func TestQuotaPage(t *testing.T) {
	w := newWorld(t)
	anna, vera := w.browse("anna"), w.browse("vera")
	form := func(text string) string {
		return regexp.MustCompile(`name="form" value="([0-9a-f]+)"`).FindStringSubmatch(text)[1]
	}
	give := func(text string) url.Values {
		all := url.Values{"form": {form(text)}, "documents": {"0"}, "agents": {"1"}, "members": {"1"}, "tokens": {"1"}, "restores": {"0"}, "bytes": {"0"}}
		for _, seen := range regexp.MustCompile(`name="(seen-[a-z]+)" value="([0-9]+)"`).FindAllStringSubmatch(text, -1) {
			all.Set(seen[1], seen[2])
		}
		return all
	}
	text := w.shown(vera, "/p/acme/people", "Quota")
	if strings.Contains(text, "Set the quota") {
		t.Error("a viewer is offered to set it")
	}
	if code, text := w.do(vera, w.post("/p/acme/quota", give(text), w.url)); code != http.StatusForbidden {
		t.Errorf("%d %s", code, text)
	}
	text = w.shown(anna, "/p/acme/people", "Set the quota")
	if code, text := w.do(anna, w.post("/p/acme/quota", give(text), w.url)); code >= 400 {
		t.Fatalf("%d %s", code, text)
	}
	if code, text := w.do(anna, w.post("/p/acme/quota", give(text), w.url)); code != http.StatusConflict { // from a page of before
		t.Errorf("%d %s", code, text)
	}
	token := func(name string) (int, string) {
		text := w.shown(anna, "/p/acme/people", "Make a token")
		return w.do(anna, w.post("/p/acme/tokens", url.Values{"form": {form(text)}, "name": {name}, "days": {"1"}, "scope": {"read"}}, w.url))
	}
	if code, text := token("ci-one"); code != http.StatusOK {
		t.Fatalf("%d %s", code, text)
	}
	if code, text := token("ci-two"); code != http.StatusUnprocessableEntity || !strings.Contains(text, "it has 1 tokens, and may have 1") {
		t.Errorf("%d %s", code, text)
	}
}
