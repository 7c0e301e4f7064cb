package console

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

var restoreLink = regexp.MustCompile(`/p/acme/applications/shop/restore\?point=([a-z0-9-]+)`)

// An application's page leads to what each of its points contains and to the form of
// its restore, for those who may; and neither that nor the API restores anything while
// no agent is there, nor shows a viewer what is in a cluster.
func TestRestorePages(t *testing.T) {
	w := newWorld(t)
	anna, vera := w.browse("anna"), w.browse("vera")
	found := restoreLink.FindStringSubmatch(w.shown(anna, "/p/acme/applications/shop", "Restore…"))
	if found == nil {
		t.Fatal("no point leads to its restore")
	}
	page, point := strings.Split(found[0], "?")[0], found[1]
	if text := w.shown(vera, "/p/acme/applications/shop", "Recovery points"); restoreLink.MatchString(text) {
		t.Error("who may only look is shown how to restore")
	}
	if code, text := w.do(vera, w.get(found[0])); code != http.StatusForbidden {
		t.Errorf("%d %s", code, text)
	}
	text := w.shown(anna, found[0], "What the point contains")
	for _, says := range []string{point, "1 ConfigMap", "no agent of site east calls this console", "davit restore " + point + " --as-clone --map-namespace shop=shop-copy"} {
		if !strings.Contains(text, says) {
			t.Errorf("no %q in %s", says, text)
		}
	}
	form := regexp.MustCompile(`name="form" value="([0-9a-f]+)"`).FindStringSubmatch(text)[1]
	give := url.Values{"form": {form}, "id": {strings.Repeat("a", 32)}, "point": {point}, "as": {"copy"}, "to.shop": {"shop-2"}, "site": {"east"}}
	if code, text := w.do(anna, w.post(page, give, w.url)); code != http.StatusUnprocessableEntity || !strings.Contains(text, "Nothing was asked: refused: no agent of site east") || !strings.Contains(text, "shop=shop-2") {
		t.Errorf("%d %s", code, text)
	}
	if code, _ := w.do(vera, w.post(page, give, w.url)); code != http.StatusForbidden {
		t.Errorf("a viewer: %d", code)
	}
	give.Del("form")
	if code, _ := w.do(anna, w.post(page, give, w.url)); code != http.StatusForbidden {
		t.Errorf("without the session's secret: %d", code)
	}
	for _, path := range []string{"/p/acme/applications/shop/restore?point=shop-1", "/p/acme/restores/" + strings.Repeat("a", 32)} {
		if code, text := w.do(anna, w.get(path)); code != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
}
