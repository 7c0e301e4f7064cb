package console

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/uplink/dial/dialtest"
	"davit.dev/davit/internal/uplink/outbox"
)

// says has the agent of a site call the console and say what objects are there.
func (w *world) says(token, project, site string, objects ...uplink.Object) *dial.Board {
	w.t.Helper()
	made := asked[api.Enrolment](w, token, "POST", "/projects/"+project+"/enrolments", `{"site":"`+site+`","minutes":60}`, 201)
	t, err := uplink.ParseToken(made.Token)
	if err != nil {
		w.t.Fatal(err)
	}
	box, err := outbox.Open(filepath.Join(w.t.TempDir(), "outbox"), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	ended, connected := make(chan struct{}), make(chan struct{}, 1)
	board := dial.NewBoard()
	board.Put(objects)
	tell := func(s dial.Status) {
		if s.Connected {
			select {
			case connected <- struct{}{}:
			default:
			}
		}
	}
	a := &dial.Client{Site: site, Version: "v1", Board: board, Outbox: box, Keep: dialtest.Keep(dial.Link{URLs: []string{w.url}, Token: t.String()}), Tell: tell, Now: w.options().Now}
	go func() {
		defer close(ended)
		a.Run(ctx)
	}()
	w.t.Cleanup(func() {
		end()
		<-ended
		_ = box.Close()
	})
	<-connected
	return board
}

func policyThere(name, every string) uplink.Object {
	return uplink.Object{Key: uplink.Key{Kind: "ProtectionPolicy", Namespace: "davit-system", Name: name}, Foreign: true, Spec: json.RawMessage(`{"schedule":{"every":"` + every + `"}}`)}
}

// What git and people make at sites is shown with what it says and who makes it, and is
// changed by no document of that name for that site; for another site there may be one.
func TestMadeAtSites(t *testing.T) {
	w := newWorld(t)
	anna, bob, page := w.login("anna"), w.login("bob"), w.browse("vera")
	git := policyThere("hourly", "1h")
	git.Git = "Argo CD application shops"
	w.says(anna, "acme", "west", policyThere("hourly", "4h"))
	board := w.says(anna, "acme", "east", git, policyThere("byhand", "7h"))
	const at = "/projects/acme/documents/protectionpolicies"
	w.await(anna, at+"/byhand?site=*", `"every":"7h"`)
	w.await(anna, at+"/hourly?site=west", `"every":"4h"`)
	policy := func(name, sites string) string {
		return `{"apiVersion":"davit.dev/v1alpha1","kind":"ProtectionPolicy","metadata":{"name":"` + name + `","annotations":{"davit.dev/sites":"` + sites + `"}},"spec":{"schedule":{"every":"3h"}}}`
	}
	for i, c := range []struct {
		who, method, path, body string
		want                    int
		says                    string
	}{
		{anna, "GET", at + "/hourly", "", 404, "NotFound"},
		{anna, "GET", at + "/hourly?site=east", "", 200, `"davit.dev/made-by":"Argo CD application shops from git"`},
		{anna, "GET", at + "/hourly?site=east", "", 200, `"every":"1h"`},
		{anna, "GET", at + "/hourly?site=*", "", 409, "sites east, west have different ones"},
		{anna, "GET", at + "/absent?site=*", "", 404, "NotFound"},
		{anna, "GET", at + "?site=west", "", 200, `"davit.dev/made-by":"people, by hand"`},
		{anna, "GET", at, "", 200, `"items":[]`},
		{bob, "GET", at + "?site=*", "", 404, "NotFound"},
		{bob, "GET", "/projects/other/documents/protectionpolicies?site=*", "", 200, `"items":[]`},
		{anna, "PUT", at + "/hourly", policy("hourly", "east"), 409, "at site east ProtectionPolicy/davit-system/hourly is made by Argo CD application shops from git: change it there"},
		{anna, "PUT", at + "/hourly?dryRun=true", policy("hourly", "east"), 409, "from git"},
		{anna, "PUT", at + "/byhand", policy("byhand", "east"), 409, "kubectl label protectionpolicy -n davit-system byhand davit.dev/console=acme"},
		{anna, "PUT", at + "/byhand", policy("byhand", "west"), 200, "byhand"},
		{anna, "PUT", at + "/byhand", policy("byhand", "west,east"), 409, "at site east"},
		{anna, "GET", at + "/byhand?site=east", "", 200, `"every":"7h"`},
		{anna, "PUT", at + "/late", policy("late", "west,east"), 200, "late"},
	} {
		if code, text := w.call(c.who, c.method, c.path, c.body); code != c.want || !strings.Contains(text, c.says) {
			t.Errorf("%d: %s %s: %d %s, want %d and %q", i, c.method, c.path, code, text, c.want, c.says)
		}
	}
	text := w.shown(page, "/p/acme/documents?show=at/east/ProtectionPolicy/davit-system/hourly", "Made at the sites")
	if !strings.Contains(text, "Argo CD application shops from git") || !strings.Contains(text, "&#34;every&#34;: &#34;1h&#34;") || strings.Contains(text, "4h") {
		t.Errorf("%s", text)
	}
	w.shown(page, "/p/acme/sites/east", "documents?q=hourly&amp;show=at/east/ProtectionPolicy/davit-system/hourly#there")
	// What people make of a name that the console had before keeps its document from no other site.
	late := policyThere("late", "9h")
	board.Put([]uplink.Object{git, policyThere("byhand", "7h"), late})
	w.await(anna, at+"?site=east", `"every":"9h"`)
	if code, text := w.call(anna, "PUT", at+"/late", strings.Replace(policy("late", "west,east"), "3h", "5h", 1)); code != http.StatusOK {
		t.Errorf("changed for the other site: %d %s", code, text)
	}
	// Git lets go of one, and a person hands the other one over.
	board.Put([]uplink.Object{{Key: policyThere("byhand", "").Key}})
	w.await(anna, at+"?site=east", `"items":[]`)
	for _, name := range []string{"hourly", "byhand"} {
		if code, text := w.call(anna, "PUT", at+"/"+name, policy(name, "east")); code != http.StatusOK {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
}

// await asks until the answer is as wanted: nothing tells when an agent's word counts.
func (w *world) await(token, path, says string) {
	w.t.Helper()
	for range 60_000 {
		if _, text := w.call(token, "GET", path, ""); strings.Contains(text, says) {
			return
		}
	}
	w.t.Fatalf("%s never says %s", path, says)
}
