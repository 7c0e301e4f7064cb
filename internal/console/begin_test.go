package console

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/vault"
)

// The page of a plan leads to the form, which says at once that the site's agent is
// away and what begins the run without it; and neither a form without the plan's
// name, nor one that is complete, nor the API begins anything then.
func TestBeginPages(t *testing.T) {
	w := newWorld(t)
	p, err := vault.OpenProject(t.Context(), w.vaults["mem:acme"], "acme", w.keys["acme"])
	if err == nil {
		err = consoletest.Prepare(t.Context(), p, w.now)
	}
	if err != nil {
		t.Fatal(err)
	}
	anna, vera := w.browse("anna"), w.browse("vera")
	page := "/p/acme/plans/shop"
	w.shown(anna, "/p/acme/plans", page+`"`) // the vault was read again
	if text := w.shown(anna, page, "Begin from here"); !strings.Contains(text, page+"/begin?verb=failover") {
		t.Error("no way to begin a failover")
	}
	if text := w.shown(vera, page, "If you fail over now"); strings.Contains(text, "Begin from here") {
		t.Error("who may only look is shown how to begin")
	}
	if code, text := w.do(vera, w.get(page+"/begin?verb=drill")); code != http.StatusForbidden {
		t.Errorf("%d %s", code, text)
	}
	text := w.shown(anna, page+"/begin?verb=drill", "no agent of site west calls this console")
	if !strings.Contains(text, "davit drill shop --to west") || strings.Contains(text, "<button>Begin the") {
		t.Error(text)
	}
	form := regexp.MustCompile(`name="form" value="([0-9a-f]+)"`).FindStringSubmatch(text)[1]
	give := url.Values{"form": {form}, "id": {strings.Repeat("a", 32)}, "verb": {"switchover"}, "to": {"west"}, "reason": {"maintenance"}}
	for confirm, says := range map[string]string{"": "was not typed", "shopp": "was not typed", "shop": "Nothing was begun: refused: no agent of site west calls this console. Begin it there: `davit switchover shop --to west`"} {
		give.Set("confirm", confirm)
		if code, text := w.do(anna, w.post(page+"/begin", give, w.url)); code != http.StatusUnprocessableEntity || !strings.Contains(text, says) {
			t.Errorf("%q: %d %s", confirm, code, text)
		}
	}
	give.Del("form")
	if code, _ := w.do(anna, w.post(page+"/begin", give, w.url)); code != http.StatusForbidden {
		t.Errorf("without the session's secret: %d", code)
	}
	if code, text := w.do(anna, w.get("/p/acme/requests/"+strings.Repeat("a", 32))); code != http.StatusNotFound {
		t.Errorf("%d %s", code, text)
	}
}
