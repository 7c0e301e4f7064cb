package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/client"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/lead"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/console/store/directory"
	"davit.dev/davit/internal/uplink/beacon"
	"davit.dev/davit/internal/vault"
)

// second is another directory of the same console, which was joined.
func (w *world) second() *world {
	w.t.Helper()
	home, _ := w.home()
	b := *w
	b.dir, b.logs = filepath.Join(w.t.TempDir(), "second"), &logs{}
	r := Restore{Dir: b.dir, Join: true, Vault: w.vaults["mem:"+home], Recovery: w.keys[home], Open: w.options().Store}
	r.Config.URL = "mem:" + home
	if got, err := r.Run(w.t.Context()); err != nil || !got.Whole() {
		w.t.Fatalf("%+v, %v", got, err)
	}
	return &b
}

// What broke off while it was joined is no console, or one that follows: never one that
// would go on from an old state.
func TestAJoinThatBreaksOff(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.keep()
	home, _ := w.home()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, passiveFile), 0o700); err != nil { // so that it cannot be written
		t.Fatal(err)
	}
	r := Restore{Dir: dir, Join: true, Vault: w.vaults["mem:"+home], Recovery: w.keys[home], Open: w.options().Store}
	r.Config.URL = "mem:" + home
	if _, err := r.Run(t.Context()); err == nil {
		t.Error("it was joined")
	}
	if is, err := directory.Holds(dir); err != nil || is {
		t.Errorf("a console that does not know that it follows: %t, %v", is, err)
	}
	if err := os.Remove(filepath.Join(dir, passiveFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(t.Context()); err != nil { // the control
		t.Fatal(err)
	}
	if is, err := directory.Holds(dir); err != nil || !is || !Passive(dir) {
		t.Errorf("after it was joined: %t, %v", is, err)
	}
}

func (w *world) page(path string) (int, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), "GET", w.url+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.do(w.client(), r)
}

// Of two consoles one is active. The other sends people there, takes over with
// all that was acknowledged, and the first follows it when it is back.
func TestTwoConsoles(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.keep()
	w.serve()
	b := w.second()
	files, err := filepath.Glob(filepath.Join(b.dir, "projects", "*.db"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	home, lost := b.files()
	for _, path := range []string{lost, home} { // the way into the home's vault is kept beside
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		b.serve()
		consoletest.Until(t, path+" brought again", func() (bool, string) {
			_, err := os.Stat(path)
			return err == nil, b.logs.String()
		})
		if path == lost {
			if err := b.stop(); err != nil {
				t.Fatal(err)
			}
		}
	}
	anna := w.login("anna")
	if code, text := w.call(anna, "PUT", "/projects/acme/documents/protectionpolicies/hourly", policyJSON); code != 200 {
		t.Fatal(code, text)
	}
	for path, says := range map[string]string{"/": `href="https://console.example.com"`, "/healthz/active": "https://console.example.com", "/api/v1/login": "NotActive"} {
		if code, text := b.page(path); code != 503 || !strings.Contains(text, says) {
			t.Errorf("the passive one answers %s with %d %s", path, code, text)
		}
	}
	if code, text := b.call("", "POST", "/login", `{"name":"anna","password":"`+password+`"}`); code != 503 || !strings.Contains(text, "https://console.example.com") {
		t.Errorf("the passive one lets people in: %d %s", code, text)
	}
	if got := b.sent(); got != "https://console.example.com" {
		t.Errorf("the passive one sends clients to %q", got)
	}
	if st := asked[api.Status](b, "", "GET", "/status", "", 200); st.Role != "passive" || st.Active != "https://console.example.com" || st.Epoch < 1 || st.Why == "" {
		t.Errorf("%+v", st)
	}
	if code, text := b.page("/healthz"); code != 200 {
		t.Errorf("%d %s", code, text)
	}
	if _, text := b.page("/metrics"); !strings.Contains(text, "\ndavit_console_active 0\n") {
		t.Errorf("metrics: %s", text)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	b.active()
	if code, text := b.call(anna, "GET", "/projects/acme/documents/protectionpolicies/hourly", ""); code != 200 {
		t.Errorf("what was acknowledged is lost, or the session: %d %s", code, text)
	}
	if code, text := b.call(b.login("bob"), "GET", "/projects/other/members", ""); code != 200 {
		t.Errorf("a project is lost: %d %s", code, text)
	}
	b.signed()
	for dir, want := range map[string]bool{w.dir: true, b.dir: false} { // the directory alone does not know
		by, overtaken, err := overtaken(t, w, dir)
		if err != nil || overtaken != want || by.URL != b.options().URL {
			t.Errorf("%s is overtaken: %v by %+v, %v", dir, overtaken, by, err)
		}
	}
	w.wake(b)
	if code, text := b.call(anna, "PUT", "/projects/acme/documents/protectionpolicies/daily", strings.ReplaceAll(policyJSON, "hourly", "daily")); code != 200 {
		t.Fatal(code, text)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	w.active()
	for _, name := range []string{"hourly", "daily"} {
		if code, text := w.call(anna, "GET", "/projects/acme/documents/protectionpolicies/"+name, ""); code != 200 {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	if _, text := w.call(anna, "GET", "/projects/acme/audit", ""); strings.Contains(text, "broken") {
		t.Errorf("the audit log: %s", text)
	}
}

func overtaken(t *testing.T, w *world, dir string) (lead.Claim, bool, error) {
	t.Helper()
	c, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	by, overtaken, err := Overtaken(t.Context(), dir, c, w.options().Store)
	return by, overtaken, errors.Join(err, c.Close())
}

// signed waits until each project's vault says to agents that this is the active console.
func (w *world) signed() {
	w.t.Helper()
	ctx := w.t.Context()
	home, _ := w.home()
	all, err := backup.Homes(ctx, w.vaults["mem:"+home])
	if err != nil || len(all) != 1 {
		w.t.Fatal(all, err)
	}
	for name, key := range w.keys {
		p, err := vault.OpenProject(ctx, w.vaults["mem:"+name], name, key)
		if err != nil {
			w.t.Fatal(err)
		}
		a, err := authority.Read(ctx, p, key)
		if err != nil {
			w.t.Fatal(err)
		}
		consoletest.Until(w.t, "in the vault of "+name, func() (bool, string) {
			r, err := beacon.Find(ctx, p, all[0].Console, [][]byte{a.Certificate.Raw}, 0)
			return err == nil && r.URL == w.options().URL && r.Epoch > 1, fmt.Sprintf("%+v, %v", r, err)
		})
	}
}

// files are those of the project that is the console's home and of the other: only the
// home says where the others are.
func (w *world) files() (home, other string) {
	w.t.Helper()
	c, err := store.Open(w.t.Context(), w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	name, _ := w.home()
	all, err := c.Projects(w.t.Context())
	if err := errors.Join(err, c.Close()); err != nil {
		w.t.Fatal(err)
	}
	for _, l := range all {
		if l.Name == name {
			home = directory.Project(w.dir, l.ID)
		} else {
			other = directory.Project(w.dir, l.ID)
		}
	}
	return home, other
}

// sent is where the console sends a client that asks for something.
func (w *world) sent() (active string) {
	w.t.Helper()
	ca, err := os.ReadFile(CAFile(w.dir))
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := client.New(w.url, "", client.Trust{CA: string(ca)})
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { c.Close() }()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	c.Moved = func(to string) { active = to; cancel() } // nobody is there
	if _, err := c.Whoami(ctx); err == nil {
		w.t.Error("it answers")
	}
	return active
}

// wake serves a console that was active before, beside one that is now.
func (w *world) wake(active *world) {
	w.t.Helper()
	if err := markPassive(w.dir, true); err != nil { // it is not waited for
		w.t.Fatal(err)
	}
	w.serve()
	if code, text := w.page("/healthz/active"); code != 503 || !strings.Contains(text, filepath.Base(active.dir)) {
		w.t.Errorf("two are active: %d %s", code, text)
	}
}
