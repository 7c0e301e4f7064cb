package console

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/journal"
	"davit.dev/davit/internal/console/past"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/console/store/directory"
	"davit.dev/davit/internal/vault/backend"
)

// backTo is a restore of the world's console to a time.
func (w *world) backTo(dir, only, from string, at time.Time, dry bool) Restore {
	return Restore{
		Dir: dir, Only: only, Replace: true, At: at, Dry: dry, Config: backend.Config{URL: "mem:" + from, SecretKey: "new-secret"}, Vault: w.vaults["mem:"+from], Recovery: w.keys[from],
		Open: w.options().Store, Act: audit.Act{By: "machine/root", At: w.now},
	}
}

// goBack is that, and does not wait to see whether a console is active.
func (w *world) goBack(dir, only, from string, at time.Time, dry bool) (*Restoration, error) {
	o := w.backTo(dir, only, from, at, dry)
	o.patience = time.Nanosecond
	return o.Run(w.t.Context())
}

// ask calls, and wants it to be done.
func (w *world) ask(token, method, path, body string) string {
	w.t.Helper()
	code, text := w.call(token, method, path, body)
	if code/100 != 2 {
		w.t.Fatalf("%s %s: %d %s", method, path, code, text)
	}
	return text
}

const acmePolicies = "/projects/acme/documents/protectionpolicies/"

func policy(name, every string) string {
	return strings.NewReplacer("hourly", name, "1h", every).Replace(policyJSON)
}

// spoil is what a hostile admin of a project does, and what was there before; w.now is moved on
// between, while nothing is served. It returns a time between.
func (w *world) spoil() (at time.Time, revoked, planted string) {
	w.t.Helper()
	anna := w.login("anna")
	w.ask(anna, "PUT", acmePolicies+"hourly", policyJSON)
	revoked = w.robot(anna, "acme", `"read"`)
	if err := w.stop(); err != nil {
		w.t.Fatal(err)
	}
	w.keep()
	w.later()
	anna = w.login("anna")
	w.ask(anna, "PUT", acmePolicies+"daily", policy("daily", "24h")) // in the journal alone
	at = w.now.Add(time.Minute)
	w.later()
	anna = w.login("anna")
	w.ask(anna, "DELETE", acmePolicies+"hourly", "")
	w.ask(anna, "PUT", acmePolicies+"daily", policy("daily", "48h"))
	w.ask(anna, "PUT", acmePolicies+"evil", policy("evil", "1m"))
	w.ask(anna, "DELETE", "/projects/acme/members/vera", "")
	w.ask(anna, "PUT", "/projects/acme/members/bob", `{"role":"admin"}`)
	planted = w.robot(anna, "acme", `"read"`)
	id, _ := account.RobotID(revoked)
	w.ask(anna, "DELETE", "/projects/acme/tokens/"+id, "")
	return at, revoked, planted
}

// later ends the console and begins it anew some time later.
func (w *world) later() {
	w.t.Helper()
	if err := w.stop(); err != nil {
		w.t.Fatal(err)
	}
	w.now = w.now.Add(10 * time.Minute)
	w.serve()
}

// log is a project's audit log in a directory, newest first, which is whole.
func (w *world) log(dir string) []audit.Record {
	w.t.Helper()
	c, err := store.Open(w.t.Context(), dir)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	p, err := c.Project(w.t.Context(), "acme")
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = p.VerifyAudit(w.t.Context())
	all, err2 := p.Audit(w.t.Context(), 0, 1000)
	if err := errors.Join(err, err2); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// undone fails unless a console that is served has what it had before it was spoiled.
func (w *world) undone(revoked, planted string) {
	w.t.Helper()
	anna, vera, bob := w.login("anna"), w.login("vera"), w.login("bob")
	for _, c := range []struct {
		who, token, path string
		code             int
	}{
		{"anna", anna, acmePolicies + "hourly", 200},
		{"anna", anna, acmePolicies + "daily", 200},
		{"anna", anna, acmePolicies + "evil", 404},
		{"vera", vera, "/projects/acme/members", 200},
		{"bob", bob, "/projects/acme/members", 404},
		{"a token that was made since", planted, acmePolicies + "hourly", 401},
		{"a token that was revoked since", revoked, acmePolicies + "hourly", 401},
	} {
		if code, text := w.call(c.token, "GET", c.path, ""); code != c.code {
			w.t.Errorf("%s of %s: %d %s", c.path, c.who, code, text)
		}
	}
	if text := w.ask(anna, "GET", acmePolicies+"daily", ""); !strings.Contains(text, `"24h"`) {
		w.t.Errorf("daily is %s", text)
	}
}

// What a hostile admin of a project changed, and a wrong bulk delete, is undone: what people had
// defined is there again as of a time. The audit log has it all, also what is undone. What is
// changed back is a change for who follows.
func TestGoBack(t *testing.T) {
	w := newWorld(t)
	at, revoked, planted := w.spoil()
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	spoiled := w.log(w.dir)
	w.now = w.now.Add(10 * time.Minute)

	r, err := w.goBack(w.dir, "acme", "acme", at, true)
	if err != nil || len(r.Databases) != 1 || r.Databases[0].Back == nil || !r.Dry {
		t.Fatalf("%+v, %v", r, err)
	}
	var would []string
	for _, c := range r.Databases[0].Back.Changes {
		would = append(would, c.Object+": "+c.Do)
	}
	for _, text := range []string{"ProtectionPolicy/davit-system/hourly: made again", "ProtectionPolicy/davit-system/daily: changed back", "ProtectionPolicy/davit-system/evil: removed", "member vera: has", "member bob: has no", "token ci: revoked"} {
		if !strings.Contains(strings.Join(would, "\n"), text) {
			t.Errorf("%q is not among %q", text, would)
		}
	}
	if left := w.log(w.dir); len(would) != 6 || left[0].Hash != spoiled[0].Hash {
		t.Errorf("a dry run writes %+v, and says %q", left[0], would)
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, "restoring*")); err != nil || len(left) > 0 {
		t.Errorf("it leaves %q, %v", left, err)
	}

	if r, err = w.goBack(w.dir, "acme", "acme", at, false); err != nil || r.Databases[0].Back.Short != "" || r.Aside == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	log := w.log(w.dir)
	i := slices.IndexFunc(log, func(r audit.Record) bool { return r.Action == "goback" })
	if i < 0 || log[i+1].Hash != spoiled[0].Hash || !strings.Contains(log[i].Detail, "stay") {
		t.Fatalf("the audit log is cut: %+v", log)
	}
	w.serve()
	w.undone(revoked, planted)
	second := w.second() // it has what the vault has
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	second.serve()
	second.active()
	second.undone(revoked, planted)
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	if all := second.log(second.dir); !slices.ContainsFunc(all, func(r audit.Record) bool { return r.Hash == spoiled[0].Hash }) {
		t.Error("the audit log of the second console is cut")
	}
}

// A console that is lost comes back on a bare machine as it was at a time, people too. What is not
// possible is refused before anything is changed.
func TestGoBackOfAll(t *testing.T) {
	w := newWorld(t)
	begun := w.now
	at, revoked, planted := w.spoil()
	anna := w.login("anna")
	w.ask(anna, "PATCH", "/users/vera", `{"disabled":true}`)
	home, other := w.home()
	bare := filepath.Join(t.TempDir(), "bare")
	for name, c := range map[string]struct {
		at  time.Time
		dry bool
		err error
	}{
		"before it was":             {begun.Add(-time.Hour), true, journal.ErrYounger},
		"in the future":             {w.now.Add(time.Hour), false, store.ErrRefused},
		"while a console is active": {at, false, past.ErrServed},
	} {
		o := w.backTo(bare, "", home, c.at, c.dry)
		if r, err := o.Run(t.Context()); !errors.Is(err, c.err) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if held, err := directory.Holds(bare); held || err != nil {
			t.Errorf("%s: it was restored, %v", name, err)
		}
	}

	// The negative control: it does not look whether a console is active, and what it changed is
	// dropped where it is served then.
	if _, err := w.goBack(bare, "", home, at, false); err != nil {
		t.Fatal(err)
	}
	b := *w
	b.dir, b.logs = bare, &logs{}
	gone := func() bool {
		return !slices.ContainsFunc(b.log(bare), func(r audit.Record) bool { return r.Action == "goback" })
	}
	if gone() {
		t.Fatal("it did not go back, so this proves nothing")
	}
	b.start()
	w.ask(anna, "PUT", acmePolicies+"later", policy("later", "2h"))
	consoletest.Until(t, "what it changed is dropped", func() (bool, string) { return gone(), b.logs.String() })
	if err := errors.Join(b.stop(), w.stop(), os.RemoveAll(bare), os.RemoveAll(w.dir)); err != nil {
		t.Fatal(err)
	}

	r, err := w.goBack(bare, "", home, at, false)
	if err != nil || !r.Whole() || len(r.Databases) != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, d := range r.Databases {
		if d.Back == nil || d.Back.Number != 1 || d.Back.Short != "" {
			t.Errorf("%+v", d)
		}
	}
	b.logs = &logs{}
	b.serve()
	b.undone(revoked, planted)
	all, err := w.backTo(bare, "", home, time.Time{}, false).List(t.Context())
	if err != nil || len(all) != 3 || len(all[0].Backups) != 1 || all[1].Fault != "" || all[2].Backups[0].Number != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	all, err = w.backTo(bare, other, other, time.Time{}, false).List(t.Context())
	if err != nil || len(all) != 1 || len(all[0].Backups) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
}
