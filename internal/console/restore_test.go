package console

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/console/store/directory"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
)

// keep backs the console up, which is not served, and returns what became of it.
func (w *world) keep() []backup.State {
	w.t.Helper()
	c, err := store.Open(w.t.Context(), w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	s := newServer(w.options(), c)
	s.keeper.Every = time.Hour
	s.keeper.Round(w.t.Context())
	states := s.keeper.States()
	w.show(s)
	if err := c.Close(); err != nil {
		w.t.Fatal(err)
	}
	return states
}

// show looks at the metric of backups.
func (w *world) show(s *server) {
	w.t.Helper()
	r := httptest.NewRecorder()
	s.handler(w.t.Context(), entry.NewDoor(s.console, cheap, s.Now, s.Log)).ServeHTTP(r, httptest.NewRequestWithContext(w.t.Context(), "GET", "/metrics", nil))
	if text := r.Body.String(); !strings.Contains(text, "\ndavit_console_databases 3\n") || strings.Contains(text, "acme") {
		w.t.Errorf("metrics: %s", text)
	}
}

func (w *world) restore(only, from string, replace bool) (*Restoration, error) {
	return Restore{
		Dir: w.dir, Only: only, Replace: replace, Config: backend.Config{URL: "mem:" + from, SecretKey: "new-secret"}, Vault: w.vaults["mem:"+from], Recovery: w.keys[from],
		Open: w.options().Store, Act: audit.Act{By: "machine/root", At: w.now},
	}.Run(w.t.Context())
}

// vault opens a project's part of its vault, as who has its key does.
func (w *world) vault(project string) *vault.Project {
	w.t.Helper()
	p, err := vault.OpenProject(w.t.Context(), w.vaults["mem:"+project], project, w.keys[project])
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// home is the project that the console had first.
func (w *world) home() (home, other string) {
	w.t.Helper()
	for _, name := range []string{"acme", "other"} {
		all, err := backup.Homes(w.t.Context(), w.vaults["mem:"+name])
		if err != nil {
			w.t.Fatal(err)
		}
		if len(all) == 1 {
			home = name
		} else {
			other = name
		}
	}
	if home == "" || other == "" {
		w.t.Fatalf("the console has no home: %s, %s", home, other)
	}
	return home, other
}

// A console that is lost with its machine comes back from the vaults: people,
// roles, documents, both projects. It overwrites nothing unless told.
func TestSpare(t *testing.T) {
	w := newWorld(t)
	if code, text := w.call(w.login("anna"), "PUT", "/projects/acme/documents/protectionpolicies/hourly", policyJSON); code != 200 {
		t.Fatal(code, text)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	states := w.keep()
	if len(states) != 3 {
		t.Fatalf("%+v", states)
	}
	for _, s := range states {
		if s.Number != 1 || s.Fault != "" || s.CheckedNumber != 1 || s.CheckFault != "" || s.Records == 0 {
			t.Errorf("%+v", s)
		}
	}
	home, _ := w.home()
	if _, err := w.restore("", home, false); !errors.Is(err, ErrThere) {
		t.Fatalf("it overwrites a console: %v", err)
	}
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
	r, err := w.restore("", home, false)
	if err != nil || !r.Whole() || len(r.Databases) != 3 || r.Aside != "" {
		t.Fatalf("%+v, %v", r, err)
	}
	w.serve()
	if _, err := w.restore("", home, true); !errors.Is(err, ErrBusy) {
		t.Errorf("it takes a console away that is served: %v", err)
	}
	anna, bob, vera := w.login("anna"), w.login("bob"), w.login("vera")
	for _, c := range []struct {
		token, path string
		code        int
	}{
		{anna, "/projects/acme/documents/protectionpolicies/hourly", 200},
		{vera, "/projects/acme/members", 200},
		{bob, "/projects/other/members", 200},
		{bob, "/projects/acme/members", 404},
		{anna, "/backups", 200},
		{bob, "/backups", 403},
	} {
		if code, text := w.call(c.token, "GET", c.path, ""); code != c.code {
			t.Errorf("%s: %d %s", c.path, code, text)
		}
	}
	w.shown(w.browse("anna"), "/backups", "Backups of the console")
	if _, text := w.call(anna, "GET", "/projects/acme/audit", ""); !strings.Contains(text, `"action":"restore"`) {
		t.Errorf("the audit log says nothing of the restore: %s", text)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	r, err = w.restore("", home, true)
	if err != nil || !r.Whole() || r.Aside == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := store.CheckConsole(t.Context(), directory.Console(r.Aside)); err != nil {
		t.Errorf("what was there is lost: %v", err)
	}
}

// A project whose database is gone comes back alone; the others are not touched.
func TestRestoreOneProject(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	var id string
	for _, s := range w.keep() {
		if s.Project == "other" {
			id = s.ID
		}
	}
	path := directory.Project(w.dir, id)
	if _, err := w.restore("other", "other", false); !errors.Is(err, ErrThere) {
		t.Fatalf("it overwrites a project: %v", err)
	}
	if err := os.WriteFile(path, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := w.restore("other", "other", true)
	if err != nil || len(r.Databases) != 1 || r.Databases[0].Number != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if torn, err := os.ReadFile(r.Aside); err != nil || string(torn) != "torn" {
		t.Errorf("%q, %v", torn, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if r, err = w.restore("other", "other", false); err != nil || r.Aside != "" {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := w.restore("nothing", "other", false); !errors.Is(err, backup.ErrNone) {
		t.Errorf("a project that never was: %v", err)
	}
	w.serve()
	for name, project := range map[string]string{"anna": "acme", "bob": "other"} {
		if code, text := w.call(w.login(name), "GET", "/projects/"+project+"/members", ""); code != 200 {
			t.Errorf("%s: %d %s", project, code, text)
		}
	}
}

// A backup that is damaged is passed over for the one before, and said. A
// project whose vault is silent does not keep the rest from coming back.
func TestRestoreOnABadDay(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.keep()
	home, other := w.home()
	w.now = w.now.Add(2 * time.Hour)
	for _, s := range w.keep() {
		if s.Number != 2 {
			t.Errorf("%+v", s)
		}
	}
	at := w.vaults["mem:"+home]
	damage(t, at, "/backups/console/00000000000000000002/00000001")
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
	gone := w.vaults["mem:"+other]
	delete(w.vaults, "mem:"+other)
	w.vaults["mem:"+other] = fault0(t)
	r, err := w.restore("", home, false)
	if err != nil || r.Whole() || len(r.Databases) != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	i := slices.IndexFunc(r.Databases, func(d Restored) bool { return d.Database == "project "+other })
	if c := r.Databases[0]; c.Number != 1 || len(c.Passed) != 1 || r.Databases[i].Fault == "" {
		t.Errorf("%+v", r)
	}
	w.vaults["mem:"+other] = gone
	if r, err := w.restore(other, other, false); err != nil || r.Databases[0].Number != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Sites open the project's data key, and not the console's backups.
func TestSitesCannotReadBackups(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.keep()
	home, _ := w.home()
	p := w.vault(home)
	site, err := vault.Admit(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := site.Open(t.Context(), w.vaults["mem:"+home])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authority.Read(t.Context(), opened, site.Identity); !errors.Is(err, vault.ErrKey) {
		t.Errorf("a site is let in: %v", err)
	}
	var keys []string
	err = opened.Store().List(t.Context(), p.Root()+"console/", func(o vault.ObjectInfo) error {
		keys = append(keys, o.Key)
		return nil
	})
	if err != nil || len(keys) == 0 {
		t.Fatal(keys, err)
	}
	for _, key := range keys {
		if strings.Contains(key, "/active/") { // who is active is for sites, and signed
			continue
		}
		within, err := opened.ReadSealed(t.Context(), key)
		if err != nil || strings.Contains(string(within), "SQLite") || strings.Contains(string(within), "formatVersion") {
			t.Errorf("%s is open to sites: %v", key, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, "scratch-*")); err != nil || len(left) > 0 {
		t.Errorf("it leaves %q, %v", left, err)
	}
}

// fault0 is a vault that holds nothing of what is looked for.
func fault0(t *testing.T) *fault.Store {
	t.Helper()
	return fault.New(mem.New(time.Now), 1, fault.Faults{})
}

// damage changes a byte of the only object whose key ends so.
func damage(t *testing.T, s vault.Store, tail string) {
	t.Helper()
	var key string
	err := s.List(t.Context(), "", func(o vault.ObjectInfo) error {
		if strings.HasSuffix(o.Key, tail) {
			key = o.Key
		}
		return nil
	})
	if err != nil || key == "" {
		t.Fatalf("no %s: %v", tail, err)
	}
	r, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := s.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

// A project that comes while the console is served is kept at once, not at the
// next look: else it would be lost with the console, for its journal alone has
// nothing to follow.
func TestProjectAddedIsKept(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	add := w.adds("late")
	served, err := store.Open(ctx, w.dir)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(w.options(), served)
	s.keeper.Every = time.Hour
	var running sync.WaitGroup
	keeping, stop := context.WithCancel(ctx)
	running.Go(func() { s.keeper.Run(keeping, time.Hour) })
	defer running.Wait()
	defer stop()
	kept := func(want int) {
		t.Helper()
		for {
			whole := 0
			for _, at := range s.keeper.States() {
				if at.Number > 0 && (at.ID != "" || at.Number == int64(want-2)) {
					whole++
				}
			}
			if whole == want {
				return
			}
			select {
			case <-ctx.Done():
				t.Fatalf("%+v", s.keeper.States())
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	kept(3)
	home, _ := w.home()
	add()
	kept(4)
	stop()
	running.Wait()
	if err := errors.Join(served.Close(), os.RemoveAll(w.dir)); err != nil {
		t.Fatal(err)
	}
	if r, err := w.restore("", home, false); err != nil || !r.Whole() || len(r.Databases) != 4 {
		t.Errorf("%+v, %v", r, err)
	}
}

// adds makes a vault with a project, and returns what gives it to the console, as a
// process beside the one that is served.
func (w *world) adds(name string) func() {
	w.t.Helper()
	ctx := w.t.Context()
	address := "mem:" + name
	w.vaults[address] = fault.New(mem.New(time.Now), 1, fault.Faults{})
	p, key, err := consoletest.New(ctx, w.vaults[address], name)
	if err != nil {
		w.t.Fatal(err)
	}
	b := Bind{
		Config: backend.Config{URL: address}, Store: w.vaults[address], Project: p, Recovery: key,
		Machine: "test", Act: audit.Act{By: "machine/root", At: w.now},
	}
	return func() {
		w.t.Helper()
		c, err := store.Open(ctx, w.dir)
		if err != nil {
			w.t.Fatal(err)
		}
		b.Admin, err = c.UserNamed(ctx, "anna")
		if err == nil {
			_, err = AddProject(ctx, c, b)
		}
		if err := errors.Join(err, c.Close()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// While a project cannot be read, the console's backup keeps the way into its vault.
func TestUnreadableKeepsItsWay(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.keep()
	home, other := w.home()
	_, file := w.files()
	if err := os.WriteFile(file, bytes.Repeat([]byte("torn"), 1<<12), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	c, err := store.Open(ctx, w.dir)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(w.options(), c)
	s.keeper.Every = 0 // due at once
	for range 2 {      // the second goes by a backup to which it was added
		s.keeper.Round(ctx)
	}
	broken := false
	for _, st := range s.keeper.States() {
		broken = broken || st.Project == other && st.Fault != ""
	}
	if !broken {
		t.Errorf("the project can be read: %+v", s.keeper.States())
	}
	p, err := vault.OpenProject(ctx, w.vaults["mem:"+home], home, w.keys[home])
	if err != nil {
		t.Fatal(err)
	}
	a, err := authority.Read(ctx, p, w.keys[home])
	if err != nil {
		t.Fatal(err)
	}
	shelf := backup.Shelf{Project: p, Authority: a, Console: c.ID()}
	entries, err := shelf.List(ctx, backup.ConsoleDatabase)
	if err != nil || len(entries) < 3 {
		t.Fatal(entries, err)
	}
	d, err := shelf.Document(ctx, backup.ConsoleDatabase, entries[len(entries)-1].Number)
	if err != nil || len(d.Projects) != 2 {
		t.Errorf("it has %d ways, %v", len(d.Projects), err)
	}
	for _, b := range d.Projects {
		if b.Binding.URL != "mem:"+b.Name {
			t.Errorf("the way of %s is %q", b.Name, b.Binding.URL)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}
