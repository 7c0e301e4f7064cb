package console

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/ui"
)

// guessed are names and ids of what is in acme, for each part of an address; a part that
// has none here makes the test fail, so that no new route is left out.
func (w *world) guessed(anna string) map[string][]string {
	w.t.Helper()
	w.robot(anna, "acme", `"read"`)
	_, text := w.call(anna, "GET", "/projects/acme/tokens", "")
	token := regexp.MustCompile(`"id":"([0-9a-f]+)"`).FindStringSubmatch(text)
	_, text = w.call(anna, "GET", "/projects/acme/fleet", "")
	point := regexp.MustCompile(`"(shop-[0-9][^"]+)"`).FindStringSubmatch(text)
	if token == nil || point == nil {
		w.t.Fatalf("no token or point to guess: %s", text)
	}
	return map[string][]string{
		"kind": {"applications", "summary"}, "name": {"shop", "hourly", "drill-shop-2", "anna"}, "id": {token[1]}, "run": {"drill-shop-2"}, "number": {"1"}, "site": {"east"}, "point": {point[1]},
	}
}

var part = regexp.MustCompile(`\{([a-z]+)\}`)

// addresses are all that a pattern makes of guesses, but for the project.
func addresses(t *testing.T, pattern string, guesses map[string][]string) []string {
	t.Helper()
	all := []string{pattern}
	for _, found := range part.FindAllStringSubmatch(pattern, -1) {
		if found[1] == "project" {
			continue
		}
		if len(guesses[found[1]]) == 0 {
			t.Fatalf("nothing is guessed for %s of %s", found[0], pattern)
		}
		var next []string
		for _, address := range all {
			for _, guess := range guesses[found[1]] {
				next = append(next, strings.Replace(address, found[0], guess, 1))
			}
		}
		all = next
	}
	return all
}

// Whoever has all rights in one project is answered on every route of the API and every
// page, with names and ids guessed, as if the other project did not exist. The routes
// are those that the console has, so that a new one is asked, too.
func TestCompartmentsOnEveryRoute(t *testing.T) {
	w := newWorld(t)
	anna, bob := w.login("anna"), w.login("bob")
	if code, text := w.call(anna, "PUT", "/projects/acme/documents/protectionpolicies/hourly", policyJSON); code != http.StatusOK {
		t.Fatal(code, text)
	}
	w.shown(w.browse("anna"), "/p/acme", "shop") // the vault was read
	guesses := w.guessed(anna)
	robots := map[string]string{"bob": bob, "bob's robot": w.robot(bob, "other", `"read","protect","recover","audit"`)}
	d, err := api.Describe()
	if err != nil {
		t.Fatal(err)
	}
	asked, mine := 0, 0
	for pattern, operations := range d["paths"].(map[string]any) {
		if !strings.Contains(pattern, "{project}") {
			continue
		}
		for method := range operations.(map[string]any) {
			method = strings.ToUpper(method)
			for _, path := range addresses(t, strings.TrimPrefix(pattern, api.Prefix), guesses) {
				for who, token := range robots {
					w.stranger(who+": "+method, path, func(path string) (int, string) { return w.call(token, method, path, "{}") })
					asked++
				}
				if method == http.MethodGet { // the control: it is there for who belongs to it
					if code, _ := w.call(anna, method, strings.Replace(path, "{project}", "acme", 1), ""); code == http.StatusOK {
						mine++
					}
				}
			}
		}
	}
	if asked < 60 || mine < 10 {
		t.Errorf("%d were asked, and %d answered who may", asked, mine)
	}
	w.pages(guesses)
	w.above(d["paths"].(map[string]any), robots, anna)
}

// above asks all that is above projects, which takes a session, or an administrator's: a name
// that is there is answered as one that is not.
func (w *world) above(paths map[string]any, others map[string]string, administrator string) {
	w.t.Helper()
	asked := 0
	for pattern, operations := range paths {
		if !strings.Contains(pattern, "/console/") {
			continue
		}
		for method := range operations.(map[string]any) {
			method = strings.ToUpper(method)
			path := strings.TrimPrefix(pattern, api.Prefix)
			path = strings.ReplaceAll(path, "{name}", "{project}") + "?confirm={project}"
			for who, token := range others {
				w.stranger(who+": "+method, path, func(path string) (int, string) { return w.call(token, method, path, "{}") })
				asked++
			}
		}
	}
	if asked < 6 {
		w.t.Errorf("%d were asked", asked)
	}
	if code, _ := w.call(administrator, "GET", "/console/projects", ""); code != http.StatusOK { // the control
		w.t.Errorf("the administrator: %d", code)
	}
}

// stranger asks for something of acme and of a project that is not there: the answers are one.
func (w *world) stranger(what, path string, ask func(path string) (int, string)) {
	w.t.Helper()
	const absent = "zzz-absent"
	code, text := ask(strings.ReplaceAll(path, "{project}", "acme"))
	none, missing := ask(strings.ReplaceAll(path, "{project}", absent))
	if code/100 == 2 || code != none || text != strings.ReplaceAll(missing, absent, "acme") {
		w.t.Errorf("%s %s is answered with %d %.200s, where nothing is with %d %.200s", what, path, code, text, none, missing)
	}
}

func (w *world) pages(guesses map[string][]string) {
	w.t.Helper()
	bob := w.browse("bob")
	secret := regexp.MustCompile(`name="form" value="([0-9a-f]+)"`)
	form := secret.FindStringSubmatch(w.shown(bob, "/p/other/people", `name="form"`))[1]
	for _, pattern := range ui.InProject() {
		method, address, _ := strings.Cut(pattern, " ")
		for _, path := range addresses(w.t, address, guesses) {
			w.stranger("bob's browser: "+method, path, func(path string) (int, string) {
				r := w.get(path)
				if method == http.MethodPost {
					r = w.post(path, url.Values{"form": {form}, "name": {"bob"}, "role": {"admin"}}, w.url)
				}
				code, text := w.do(bob, r)
				return code, secret.ReplaceAllString(text, "") // it is another text in each answer
			})
		}
	}
	// The control: what is his own he sees, and a page that others have he is not let to by its form alone.
	if code, _ := w.do(bob, w.get("/p/other")); code != http.StatusOK {
		w.t.Errorf("his own project: %d", code)
	}
}
