package console

import (
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/client"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/project"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/vault/fault"
)

// wanted is what is sent to have a project made, and its recovery key.
func wanted(t *testing.T, name, admin string) (string, vault.Identity) {
	t.Helper()
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"name":%q,"recoveryKey":%q,"admin":%q}`, name, key.Recipient(), admin), key
}

// refused is what is said to what is not done.
func (w *world) refused(token, method, path, body string, want int) (said client.Error) {
	w.t.Helper()
	code, text := w.call(token, method, path, body)
	if err := json.Unmarshal([]byte(text), &said); err != nil || code != want {
		w.t.Fatalf("%s %s: %d %s, %v", method, path, code, text, err)
	}
	return said
}

// standing is that of a project in the list of administrators.
func (w *world) standing(token, name string) (s project.State) {
	w.t.Helper()
	all := asked[api.ProjectStates](w, token, "GET", "/console/projects", "", 200).Items
	if i := slices.IndexFunc(all, func(s project.State) bool { return s.Name == name }); i >= 0 {
		return all[i]
	}
	return s
}

// databases are the files of projects in a console's directory.
func (w *world) databases() []string {
	w.t.Helper()
	all, err := filepath.Glob(filepath.Join(w.dir, "projects", "*"))
	if err != nil {
		w.t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(path string) bool { return !strings.HasSuffix(path, ".db") })
}

// An administrator makes a project that he sees nothing of, and removes it: nobody is let
// into it any more, its vault keeps all, and so do passive consoles and a restore see it.
func TestProjectsMadeAndRemoved(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.backup = time.Hour
	w.serve()
	anna, bob := w.login("anna"), w.login("bob")
	body, key := wanted(t, "shop", "bob")
	made := asked[project.Made](w, anna, "POST", "/console/projects", body, 201)
	if made.Admin != "bob" || made.Authority != 1 || made.Vault == "" {
		t.Errorf("%+v", made)
	}
	p, err := vault.OpenProject(t.Context(), w.vaults["mem:acme"], "shop", key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authority.Read(t.Context(), p, key); err != nil {
		t.Errorf("the recovery key does not open its authority: %v", err)
	}
	w.call(bob, "PUT", "/projects/shop/documents/protectionpolicies/hourly", policyJSON)
	asked[any](w, bob, "GET", "/projects/shop/documents/protectionpolicies/hourly", "", 200)
	asked[any](w, anna, "GET", "/projects/shop/fleet", "", 404) // who made it sees nothing of it
	robot, token := w.robot(bob, "shop", `"read"`), asked[api.Enrolment](w, bob, "POST", "/projects/shop/enrolments", `{"site":"east","minutes":5}`, 201)
	asked[any](w, robot, "GET", "/projects/shop/fleet", "", 200)
	if s := w.standing(anna, "shop"); s.Standing != "served" || s.Used.Members != 1 || s.Used.Documents != 1 || s.Home {
		t.Errorf("%+v", s)
	}
	if s := w.standing(anna, "acme"); !s.Home {
		t.Errorf("%+v", s)
	}
	// Who asks for the same again is told the same: the answer may have been lost. With another key
	// or admin it is another project, whose name is taken.
	if again := asked[project.Made](w, anna, "POST", "/console/projects", body, 201); again != made {
		t.Errorf("%+v, and before %+v", again, made)
	}
	other, _ := wanted(t, "shop", "bob")
	for taken, unused := range map[string]bool{other: true, strings.Replace(body, "bob", "anna", 1): false, strings.Replace(body, "shop", "acme", 1): false, strings.Replace(other, "shop", "acme", 1): true} {
		if said := w.refused(anna, "POST", "/console/projects", taken, 409); said.KeyUnused != unused {
			t.Errorf("%s: %+v", taken, said)
		}
	}
	for _, wrong := range []string{`{"name":"x","recoveryKey":"age1nothing"}`, strings.Replace(body, "shop", "../x", 1), strings.Replace(body, "bob", "nobody", 1)} {
		asked[any](w, anna, "POST", "/console/projects", wrong, 422)
	}
	w.shutOut(anna)
	// A passive console follows: it has the project by the time that it knows of it.
	asked[any](w, anna, "POST", "/backups", "", 200)
	b := w.second()
	b.start()
	consoletest.Until(t, "three databases at the passive console", func() (bool, string) { return len(b.databases()) == 3, b.logs.String() })

	for path, want := range map[string]int{"/console/projects/shop": 422, "/console/projects/shop?confirm=shop2": 422, "/console/projects/acme?confirm=acme": 422, "/console/projects/none?confirm=none": 404} {
		asked[any](w, anna, "DELETE", path, "", want)
	}
	asked[any](w, robot, "GET", "/projects/shop/fleet", "", 200) // the controls
	if !w.heard(token.Token) {
		t.Error("its agents are not heard")
	}
	before := w.objects(p)
	gone := asked[project.Gone](w, anna, "DELETE", "/console/projects/shop?confirm=shop", "", 200)
	if gone.Vault != "mem:acme" {
		t.Errorf("%+v", gone)
	}
	for _, key := range before {
		if _, err := p.Store().Stat(t.Context(), key); err != nil {
			t.Errorf("its vault lost %s: %v", key, err)
		}
	}
	if n := len(w.databases()); n != 2 {
		t.Errorf("%d databases are left", n)
	}
	consoletest.Until(t, "two databases at the passive console", func() (bool, string) { return len(b.databases()) == 2, b.logs.String() })
	out := func(w *world) {
		t.Helper()
		anna, bob := w.login("anna"), w.login("bob")
		asked[any](w, bob, "GET", "/projects/shop/fleet", "", 404)
		asked[any](w, robot, "GET", "/projects/shop/fleet", "", 401)
		asked[any](w, anna, "GET", "/projects/acme/fleet", "", 200)                          // others go on
		if said := w.refused(anna, "POST", "/console/projects", body, 409); said.KeyUnused { // its name stays taken
			t.Errorf("the key opens what its vault has: %+v", said)
		}
		if again := asked[project.Gone](w, anna, "DELETE", "/console/projects/shop?confirm=shop", "", 200); !again.Before || again.Vault != gone.Vault {
			t.Errorf("removed again: %+v, and before %+v", again, gone)
		}
		if s := w.standing(anna, "shop"); s.Standing != "removed" {
			t.Errorf("%+v", s)
		}
		if w.heard(token.Token) {
			t.Error("its agents are heard")
		}
	}
	out(w)
	if log := asked[api.Audit](w, anna, "GET", "/audit?action=project.*", "", 200); len(log.Items) < 3 || !slices.ContainsFunc(log.Items, func(r audit.Record) bool {
		return r.Action == "project.delete" && r.Object == "shop" && r.By == "user/anna" && strings.Contains(r.Detail, "mem:acme")
	}) {
		t.Errorf("%+v", log)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	b.active()
	out(b)
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	w.revived(key, robot)
}

// shutOut tries to make a project whose only admin could not log in.
func (w *world) shutOut(anna string) {
	w.t.Helper()
	body, _ := wanted(w.t, "late", "vera")
	w.ask(anna, "PATCH", "/users/vera", `{"disabled":true}`)
	if said := w.refused(anna, "POST", "/console/projects", body, 422); !strings.Contains(said.Message, "davit users enable vera") || !said.KeyUnused {
		w.t.Errorf("%+v", said)
	}
	if s := w.standing(anna, "late"); s.Name != "" {
		w.t.Errorf("%+v", s)
	}
	w.ask(anna, "PATCH", "/users/vera", `{"disabled":false}`)
}

// objects are the objects of a project in its vault.
func (w *world) objects(p *vault.Project) (all []string) {
	w.t.Helper()
	if err := p.Store().List(w.t.Context(), p.Root(), func(o vault.ObjectInfo) error { all = append(all, o.Key); return nil }); err != nil || len(all) == 0 {
		w.t.Fatal(all, err)
	}
	return all
}

// heard tells whether a console hears agents of the project of a token.
func (w *world) heard(text string) bool {
	w.t.Helper()
	token, err := uplink.ParseToken(text)
	if err != nil {
		w.t.Fatal(err)
	}
	d := tls.Dialer{Config: &tls.Config{ServerName: uplink.ServerName(token.Pin), InsecureSkipVerify: true, NextProtos: []string{uplink.Protocol}}}
	c, err := d.DialContext(w.t.Context(), "tcp", strings.TrimPrefix(w.url, "https://"))
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// revived restores the console on a bare machine, where the project that was removed is none,
// and then that project, which is one again, with all that it had.
func (w *world) revived(key vault.Identity, robot string) {
	t := w.t
	t.Helper()
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
	if r, err := w.restore("", "acme", false); err != nil || !r.Whole() || len(r.Databases) != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	w.serve()
	bob := w.login("bob")
	asked[any](w, bob, "GET", "/projects/shop/fleet", "", 404)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	back := Restore{
		Dir: w.dir, Only: "shop", Config: backend.Config{URL: "mem:acme"}, Vault: w.vaults["mem:acme"], Recovery: key,
		Open: w.options().Store, Act: audit.Act{By: "machine/root", At: w.now},
	}
	if r, err := back.Run(t.Context()); err != nil || !r.Whole() {
		t.Fatalf("%+v, %v", r, err)
	}
	w.serve()
	asked[any](w, bob, "GET", "/projects/shop/documents/protectionpolicies/hourly", "", 200)
	asked[any](w, robot, "GET", "/projects/shop/fleet", "", 200)
}

// failing is a store that fails from some write on of what is of a project, before the write or
// after it.
type failing struct {
	vault.Store
	left  *atomic.Int64 // writes until it fails; negative: it does not
	after bool
}

func (f failing) fail(key string, put func() error) error {
	if !strings.HasPrefix(key, "projects/shop/") || f.left.Load() < 0 {
		return put()
	}
	if n := f.left.Add(-1); n >= 0 {
		return put()
	}
	f.left.Store(0) // and so does each one after it
	if f.after {
		_ = put()
	}
	return fmt.Errorf("%w: as it was wanted", vault.ErrUnavailable)
}

func (f failing) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return f.fail(key, func() error { return f.Store.PutIfAbsent(ctx, key, r, size) })
}

func (f failing) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return f.fail(key, func() error { return f.Store.Put(ctx, key, r, size) })
}

// Whatever write of its vault is the last one before a console is lost that makes a project:
// the next active one says that it is being made, nobody is let into it, the same again makes
// it, and so is it removed.
func TestMakingThatBreaksOff(t *testing.T) {
	const most = 100
	broke := 0
	for n := int64(0); n < most; n += 2 {
		done := true
		t.Run(fmt.Sprintf("after %d", n), func(t *testing.T) {
			left := &atomic.Int64{}
			left.Store(-1)
			w := newWorldOf(t, func(o *Options) {
				open := o.Store
				o.Store = func(ctx context.Context, cfg backend.Config) (vault.Store, error) {
					s, err := open(ctx, cfg)
					return failing{s, left, n%4 == 2}, err
				}
			})
			anna, bob := w.login("anna"), w.login("bob")
			body, key := wanted(t, "shop", "bob")
			left.Store(n)
			if code, text := w.call(anna, "POST", "/console/projects", body); code == 201 {
				return
			} else if code != 504 && code != 503 {
				t.Fatalf("%d %s", code, text)
			}
			done = false
			broke++
			if err := w.stop(); err != nil {
				t.Fatal(err)
			}
			left.Store(-1)
			w.serve() // the next active one, which finds what was journaled
			asked[any](w, bob, "GET", "/projects/acme/fleet", "", 404)
			switch s := w.standing(anna, "shop"); s.Standing {
			case "served": // it was made, and what was lost is the word of it
				asked[project.Made](w, anna, "POST", "/console/projects", body, 201)
				other, _ := wanted(t, "shop", "bob")
				asked[any](w, anna, "POST", "/console/projects", other, 409)
			case "making":
				asked[any](w, bob, "GET", "/projects/shop/fleet", "", 404)
				other, _ := wanted(t, "shop", "bob")
				asked[any](w, anna, "POST", "/console/projects", other, 409)
				if n%6 == 4 {
					asked[any](w, anna, "DELETE", "/console/projects/shop?confirm=shop", "", 200)
					asked[any](w, bob, "GET", "/projects/shop/fleet", "", 404)
					return
				}
				asked[project.Made](w, anna, "POST", "/console/projects", body, 201)
			default:
				t.Fatalf("%+v", s)
			}
			w.ask(bob, "PUT", "/projects/shop/documents/protectionpolicies/hourly", policyJSON)
			p, err := vault.OpenProject(t.Context(), w.vaults["mem:acme"], "shop", key)
			if err == nil {
				_, err = authority.Read(t.Context(), p, key)
			}
			if err != nil {
				t.Errorf("the recovery key does not open it: %v", err)
			}
		})
		if done {
			break
		}
	}
	if broke < 4 {
		t.Errorf("it broke off %d times", broke)
	}
}

// A project whose console is lost the moment that it is made, before any backup of the console
// names it, is brought from its vault by whoever takes over.
func TestMadeAndLost(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.keep()
	w.serve() // which takes no backups
	known := w.databases()
	body, _ := wanted(t, "shop", "bob")
	asked[project.Made](w, w.login("anna"), "POST", "/console/projects", body, 201)
	bob := w.login("bob")
	w.ask(bob, "PUT", "/projects/shop/documents/protectionpolicies/hourly", policyJSON)
	b := w.second()
	if len(b.databases()) != 3 {
		t.Errorf("joined without it: %v", b.databases())
	}
	for _, path := range b.databases() { // as of one that followed and never had it
		if !slices.ContainsFunc(known, func(of string) bool { return filepath.Base(of) == filepath.Base(path) }) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(b.databases()) != 2 {
		t.Fatal(b.databases())
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	b.serve()
	b.active()
	asked[any](b, b.login("bob"), "GET", "/projects/shop/documents/protectionpolicies/hourly", "", 200)
}

// The page of projects lists them, takes no form without the name typed, and nobody's who is
// no administrator.
func TestProjectPages(t *testing.T) {
	w := newWorld(t)
	anna, bob := w.browse("anna"), w.browse("bob")
	text := w.shown(anna, "/projects", "acme")
	form := regexp.MustCompile(`name="form" value="([0-9a-f]+)"`).FindStringSubmatch(text)[1]
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	send := func(path, form string, more url.Values) (int, string) {
		values := url.Values{"form": {form}}
		for name, v := range more {
			values[name] = v
		}
		return w.do(anna, w.post(path, values, w.url))
	}
	shop := url.Values{"name": {"shop"}, "admin": {"bob"}, "recovery": {key.Recipient().String()}}
	if code, _ := send("/projects", "", shop); code != http.StatusForbidden {
		t.Errorf("without the session's secret: %d", code)
	}
	if code, text := send("/projects", form, shop); code != 200 || !strings.Contains(text, "Project shop was made") {
		t.Fatalf("%d %s", code, text)
	}
	if code, text := send("/projects/remove", form, url.Values{"name": {"shop"}, "confirm": {"shp"}}); code != 422 || !strings.Contains(text, "was not typed exactly") {
		t.Errorf("%d %s", code, text)
	}
	if code, text := send("/projects/remove", form, url.Values{"name": {"shop"}, "confirm": {"shop"}}); code != 200 || !strings.Contains(text, "Project shop was removed") {
		t.Errorf("%d %s", code, text)
	}
	if code, text := send("/projects/remove", form, url.Values{"name": {"shop"}, "confirm": {"shop"}}); code != 200 || !strings.Contains(text, "was removed before") {
		t.Errorf("once more: %d %s", code, text)
	}
	w.shown(anna, "/projects/restore?name=shop", "Bring it back")
	for _, no := range []struct {
		fields url.Values
		code   int
		says   string
	}{
		{url.Values{"name": {"shop"}, "confirm": {"shp"}}, 422, "was not typed exactly"},
		{url.Values{"name": {"shop"}}, 422, "was not typed exactly"},
		{url.Values{"name": {"none"}, "confirm": {"none"}}, 404, "not found"},
		{url.Values{"name": {"acme"}, "to": {"time"}, "at": {"yesterday"}, "dry": {"1"}}, 422, "write it such as"},
		{url.Values{"name": {"acme"}, "to": {"time"}, "at": {"2026-01-01 00:00"}}, 422, "was not typed exactly"},
	} {
		if code, text := send("/projects/restore", form, no.fields); code != no.code || !strings.Contains(text, no.says) {
			t.Errorf("%v: %d %s", no.fields, code, text)
		}
	}
	for _, none := range []string{"/projects/restore", "/projects/restore?name=none"} {
		if code, _ := w.do(anna, w.get(none)); code != http.StatusNotFound {
			t.Errorf("%s: %d", none, code)
		}
	}
	bobs := regexp.MustCompile(`name="form" value="([0-9a-f]+)"`).FindStringSubmatch(w.shown(bob, "/p/other/people", `name="form"`))[1]
	for _, path := range []string{"/projects", "/projects/remove", "/projects/restore"} {
		if code, text := w.do(bob, w.post(path, url.Values{"form": {bobs}, "name": {"acme"}, "confirm": {"acme"}, "recovery": shop["recovery"]}, w.url)); code != http.StatusForbidden {
			t.Errorf("%s by a user: %d %s", path, code, text)
		}
	}
	for _, path := range []string{"/projects", "/projects/restore?name=acme"} {
		if code, text := w.do(bob, w.get(path)); code != http.StatusForbidden || strings.Contains(text, "acme") {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
}

// What a hostile admin did in one project is undone while the console serves, by an administrator
// who sees nothing of what is in it; other projects go on, and whoever follows the console follows
// this too.
func TestProjectGoesBackWhileServed(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.keep()
	w.serve()
	const theirs = "/projects/other/documents/protectionpolicies/"
	bob := w.login("bob")
	w.ask(bob, "PUT", theirs+"hourly", policyJSON)
	before := w.robot(bob, "other", `"read"`)
	at := w.now.Add(time.Minute)
	w.later()
	anna, vera, bob := w.login("anna"), w.login("vera"), w.login("bob")
	w.ask(bob, "DELETE", theirs+"hourly", "")
	w.ask(bob, "PUT", theirs+"evil", policy("evil", "1m"))
	planted := w.robot(bob, "other", `"read"`)
	w.ask(anna, "PUT", acmePolicies+"hourly", policyJSON)
	client := w.client()
	code, end, text := w.watching(client, anna) // of another project
	defer end()
	if code != 200 {
		t.Fatal(code, text)
	}
	const path = "/console/projects/other/restore"
	body := func(at time.Time, more string) string {
		return fmt.Sprintf(`{"at":%q%s}`, at.UTC().Format(time.RFC3339Nano), more)
	}
	confirmed := `,"confirm":"other"`
	for _, c := range []struct {
		token, body string
		want        int
	}{
		{vera, body(at, confirmed), 403},
		{bob, body(at, confirmed), 403},
		{anna, body(at, ""), 422},
		{anna, body(w.now.Add(time.Hour), confirmed), 422},
		{anna, body(at.Add(-24*time.Hour), confirmed), 422},
		{anna, `{"dryRun":true}`, 422},
	} {
		asked[any](w, c.token, "POST", path, c.body, c.want)
	}
	asked[any](w, anna, "POST", "/console/projects/none/restore", body(at, `,"confirm":"none"`), 404)
	dry := asked[project.Restored](w, anna, "POST", path, body(at, `,"dryRun":true`), 201)
	if dry.Changes != 3 || len(dry.Back.Changes) > 0 || dry.Back.Short != "" {
		t.Errorf("%+v, %+v", dry, dry.Back)
	}
	asked[any](w, bob, "GET", theirs+"evil", "", 200) // nothing was changed
	did := asked[project.Restored](w, anna, "POST", path, body(at, confirmed), 201)
	if did.Changes != 3 || len(did.Back.Changes) > 0 {
		t.Errorf("%+v, %+v", did, did.Back)
	}
	asked[any](w, bob, "GET", theirs+"hourly", "", 200)
	asked[any](w, bob, "GET", theirs+"evil", "", 404)
	asked[any](w, planted, "GET", "/projects/other/fleet", "", 401)
	asked[any](w, before, "GET", "/projects/other/fleet", "", 200)
	asked[any](w, anna, "GET", acmePolicies+"hourly", "", 200) // others are as they were
	asked[any](w, anna, "GET", "/projects/other/fleet", "", 404)
	if again := asked[project.Restored](w, anna, "POST", path, body(at, confirmed), 201); again.Changes != 0 {
		t.Errorf("%+v", again)
	}
	for path, action := range map[string]string{"/audit": "project.restore", "/projects/other/audit": "goback"} {
		who := map[bool]string{true: anna, false: bob}[path == "/audit"]
		log := asked[api.Audit](w, who, "GET", path+"?action="+action, "", 200)
		if len(log.Items) < 2 || log.Items[0].By != "user/anna" {
			t.Errorf("%s: %+v", path, log)
		}
	}
	// In a project whose log she may read she is told what it is.
	if mine := asked[project.Restored](w, anna, "POST", "/console/projects/acme/restore", body(at, `,"dryRun":true`), 201); len(mine.Back.Changes) != 1 || mine.Back.Changes[0].Object != "ProtectionPolicy/davit-system/hourly" {
		t.Errorf("%+v, %+v", mine, mine.Back)
	}
	b := w.second()
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	b.serve()
	b.active()
	asked[any](b, b.login("bob"), "GET", theirs+"hourly", "", 200)
}

// The database of a project whose content was changed behind the console's back, so that it is
// one still, becomes what the vault has while all is served; and so does that of a project
// that was removed by mistake.
func TestProjectIsRenewedWhileServed(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.backup = time.Hour
	w.serve()
	anna, bob := w.login("anna"), w.login("bob")
	body, _ := wanted(t, "shop", "bob")
	known := w.databases()
	asked[project.Made](w, anna, "POST", "/console/projects", body, 201)
	const theirs = "/projects/shop/documents/protectionpolicies/"
	w.ask(bob, "PUT", theirs+"hourly", policyJSON)
	robot := w.robot(bob, "shop", `"read"`)
	file := slices.DeleteFunc(w.databases(), func(path string) bool { return slices.Contains(known, path) })[0]
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(60000)") // the console writes too
	if err == nil {
		_, err = db.ExecContext(t.Context(), "BEGIN IMMEDIATE; UPDATE journal_at SET quiet = 1; UPDATE document SET name = 'forged'; UPDATE journal_at SET quiet = 0; COMMIT")
	}
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	asked[any](w, bob, "GET", theirs+"hourly", "", 404) // the control
	code, end, text := w.watching(w.client(), anna)
	defer end()
	if code != 200 {
		t.Fatal(code, text)
	}
	const path, confirmed = "/console/projects/shop/restore", `{"confirm":"shop"}`
	if r := asked[project.Restored](w, anna, "POST", path, confirmed, 201); r.Revived {
		t.Errorf("%+v", r)
	}
	asked[any](w, bob, "GET", theirs+"hourly", "", 200)
	asked[any](w, bob, "GET", theirs+"forged", "", 404)
	w.ask(bob, "PUT", theirs+"daily", policy("daily", "24h")) // it goes on

	w.vaults["mem:other"].Set(fault.Faults{Refuse: 1})
	asked[any](w, anna, "POST", "/console/projects/other/restore", `{"confirm":"other"}`, 503)
	w.vaults["mem:other"].Set(fault.Faults{})
	asked[any](w, bob, "GET", "/projects/other/fleet", "", 200) // it is what it was

	asked[any](w, anna, "DELETE", "/console/projects/shop?confirm=shop", "", 200)
	asked[any](w, robot, "GET", "/projects/shop/fleet", "", 401)
	asked[any](w, anna, "POST", path, `{"at":"2026-01-01T00:00:00Z","confirm":"shop"}`, 422)
	if r := asked[project.Restored](w, anna, "POST", path, confirmed, 201); !r.Revived {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{"hourly", "daily"} {
		asked[any](w, bob, "GET", theirs+name, "", 200)
	}
	asked[any](w, robot, "GET", "/projects/shop/fleet", "", 200)
	w.ask(bob, "PUT", theirs+"weekly", policy("weekly", "168h"))
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.serve()
	asked[any](w, bob, "GET", theirs+"weekly", "", 200)
	asked[any](w, bob, "GET", "/projects/shop/audit?action=project.restore", "", 200)
}

// A directory that was restored beside an active console follows that: it is active at no time,
// changes nothing of it, and takes over with all that was acknowledged since. The directory that
// is served itself is not restored.
func TestRestoredBesideTheActive(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.keep()
	w.serve()
	anna := w.login("anna")
	w.ask(anna, "PUT", acmePolicies+"hourly", policyJSON)
	home, _ := w.home()
	if _, err := w.restore("", home, true); !errors.Is(err, ErrBusy) {
		t.Errorf("the directory that is served: %v", err)
	}
	b := *w
	b.dir, b.logs = filepath.Join(t.TempDir(), "restored"), &logs{}
	if r, err := b.restore("", home, false); err != nil || !r.Whole() {
		t.Fatalf("%+v, %v", r, err)
	}
	before := asked[api.Status](w, "", "GET", "/status", "", 200)
	w.ask(anna, "PUT", acmePolicies+"daily", policy("daily", "24h")) // what it does not know
	b.start()
	consoletest.Until(t, "that it follows", func() (bool, string) {
		code, text := b.page("/healthz/active")
		if code == http.StatusOK {
			t.Fatal("it says that it is active")
		}
		return strings.Contains(text, "the active one is at"), text
	})
	w.ask(anna, "PUT", acmePolicies+"weekly", policy("weekly", "168h"))
	if now := asked[api.Status](w, "", "GET", "/status", "", 200); now.Role != "active" || now.Epoch != before.Epoch {
		t.Errorf("the active one: %+v, and before %+v", now, before)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	b.active()
	anna = b.login("anna")
	for _, name := range []string{"hourly", "daily", "weekly"} {
		asked[any](&b, anna, "GET", acmePolicies+name, "", 200)
	}
}

// silent is a store that takes no record of the console's own journal while it is held.
type silent struct {
	vault.Store
	held *atomic.Bool
}

func (s silent) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if s.held.Load() && strings.Contains(key, "/journal/console/") {
		return fmt.Errorf("%w: as it was wanted", vault.ErrUnavailable)
	}
	return s.Store.PutIfAbsent(ctx, key, r, size)
}

// abandon sends a request, and goes away some time after the console says that a project stands so.
func (w *world) abandon(token, method, path, body, standing string, after time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, w.url+api.Prefix+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answered := make(chan int, 1)
	go func() {
		answer, err := w.client().Do(r)
		if err != nil {
			answered <- 0
			return
		}
		_ = answer.Body.Close()
		answered <- answer.StatusCode
	}()
	consoletest.Until(w.t, standing, func() (bool, string) {
		s := w.standing(token, "shop")
		return s.Standing == standing, fmt.Sprintf("%+v", s)
	})
	code := 0
	select {
	case code = <-answered: // too early
	case <-time.After(after):
		cancel()
		code = <-answered
	}
	if code/100 == 2 {
		w.t.Errorf("%s %s: %d, and the vault has no record of it", method, path, code)
	}
}

// What is to be made is in the vault before anything is made by it, also where whoever asked
// for it first did not wait. And a project whose removal nobody waited for is let go of.
func TestProjectsUnconfirmed(t *testing.T) {
	held := &atomic.Bool{}
	w := newWorldOf(t, func(o *Options) {
		open := o.Store
		o.Store = func(ctx context.Context, cfg backend.Config) (vault.Store, error) {
			s, err := open(ctx, cfg)
			return silent{s, held}, err
		}
	})
	anna, bob := w.login("anna"), w.login("bob")
	body, _ := wanted(t, "shop", "bob")
	held.Store(true)
	w.abandon(anna, "POST", "/console/projects", body, "making", 0)
	w.abandon(anna, "POST", "/console/projects", body, "making", time.Second) // what it made in that time would be there
	if err := w.vaults["mem:acme"].List(t.Context(), "projects/shop/", func(o vault.ObjectInfo) error { return fmt.Errorf("%s is there", o.Key) }); err != nil {
		t.Error(err)
	}
	held.Store(false)
	asked[project.Made](w, anna, "POST", "/console/projects", body, 201)
	token := asked[api.Enrolment](w, bob, "POST", "/projects/shop/enrolments", `{"site":"east","minutes":5}`, 201)
	if !w.heard(token.Token) {
		t.Error("its agents are not heard")
	}
	held.Store(true)
	w.abandon(anna, "DELETE", "/console/projects/shop?confirm=shop", "", "removed", 0)
	held.Store(false)
	consoletest.Until(t, "nobody hears its agents", func() (bool, string) { return !w.heard(token.Token), w.logs.String() })
	asked[any](w, bob, "GET", "/projects/shop/fleet", "", 404)
	consoletest.Until(t, "two databases", func() (bool, string) { return len(w.databases()) == 2, w.logs.String() })
}

// A project that the console has, and to whose vault no backup of it and no note of its own
// says the way, is said to be missing from what was restored.
func TestRestoreSaysWhatIsMissing(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.keep()
	c, err := store.Open(t.Context(), w.dir)
	if err == nil {
		_, err = c.CreateProject(t.Context(), audit.Act{By: "machine/root", At: w.now}, "late")
	}
	if err == nil {
		err = c.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	w.serve() // which has it in the journal
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
	r, err := w.restore("", "acme", false)
	if err != nil || r.Whole() || len(r.Databases) != 4 {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, d := range r.Databases {
		if missing := d.Database == "project late"; missing != (d.Fault != "") || missing && !strings.Contains(d.Fault, "no backup of the console names its vault") {
			t.Errorf("%+v", d)
		}
	}
}
