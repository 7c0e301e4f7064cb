package console

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/console/store/directory"
	"davit.dev/davit/internal/vault/fault"
)

// How a file is lost.
var losses = map[string]func(path string) error{
	"gone": func(path string) error {
		return errors.Join(os.Remove(path), unless(fs.ErrNotExist, os.Remove(path+"-wal")), unless(fs.ErrNotExist, os.Remove(path+"-shm")))
	},
	"torn": func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("no database "), 4000), 0o600) },
	"flipped": func(path string) error { // the head of each page but the first
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for at := 4096; at < len(data); at += 4096 {
			for i := range 16 {
				data[at+i] ^= 0xff
			}
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0) // the same file, as a disk would have it
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		return errors.Join(err, f.Close())
	},
}

func unless(is, err error) error {
	if errors.Is(err, is) {
		return nil
	}
	return err
}

// acknowledged writes a document that has to be there whatever is lost, once the
// console has read what the project's vault holds.
func (w *world) acknowledged(token, project, name string) {
	w.t.Helper()
	consoletest.Until(w.t, project+" takes "+name, func() (bool, string) {
		code, text := w.call(token, "PUT", "/projects/"+project+"/documents/protectionpolicies/"+name, strings.ReplaceAll(policyJSON, "hourly", name))
		if code != http.StatusOK && code != http.StatusServiceUnavailable {
			w.t.Fatalf("%s in %s: %d %s", name, project, code, text)
		}
		return code == http.StatusOK, text
	})
}

// there waits until a project has documents: a console that begins anew is away for a moment.
func (w *world) there(token, project string, names ...string) {
	w.t.Helper()
	for _, name := range names {
		consoletest.Until(w.t, project+" has "+name, func() (bool, string) {
			return w.answers(token, "/api/v1/projects/"+project+"/documents/protectionpolicies/"+name), w.logs.String()
		})
	}
}

// answers tells whether something can be read now.
func (w *world) answers(token, path string) bool {
	w.t.Helper()
	r := w.get(path)
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := w.client().Do(r)
	if err != nil {
		return false
	}
	return answer.Body.Close() == nil && answer.StatusCode == 200
}

// A console that is alone finds any of its databases lost when it starts: that of its
// home, that of another project, its own. Each comes from its vault with all that was
// acknowledged, by nobody's hand.
func TestLostAtStart(t *testing.T) {
	w := newWorld(t)
	w.kept()
	anna, bob := w.login("anna"), w.login("bob")
	home, other := w.files()
	var names []string
	all := maps.Clone(losses)
	all["empty"] = func(path string) error { return os.WriteFile(path, nil, 0o600) } // what a power failure leaves of a file
	for how, lose := range all {
		for _, path := range []string{home, other, directory.Console(w.dir)} {
			names = append(names, how+"-"+strings.TrimSuffix(filepath.Base(path), ".db"))
			w.acknowledged(anna, "acme", names[len(names)-1])
			w.acknowledged(bob, "other", names[len(names)-1])
			if err := errors.Join(w.stop(), lose(path)); err != nil {
				t.Fatal(err)
			}
			w.serve()
			w.there(anna, "acme", names...)
			w.there(bob, "other", names...)
		}
	}
	if text := w.logs.String(); strings.Count(text, "was brought from") < len(names) {
		t.Errorf("it was not said: %s", text)
	}
}

// The same while it is served.
func TestLostWhileServed(t *testing.T) {
	w := newWorld(t)
	w.kept()
	anna, bob := w.login("anna"), w.login("bob")
	home, other := w.files()
	var names []string
	// A damage inside is found once somebody reads the page: that is tried on processes.
	for _, path := range []string{home, other, directory.Console(w.dir)} {
		names = append(names, "gone-"+strings.TrimSuffix(filepath.Base(path), ".db"))
		w.acknowledged(anna, "acme", names[len(names)-1])
		w.acknowledged(bob, "other", names[len(names)-1])
		before := strings.Count(w.logs.String(), "was brought from")
		if err := losses["gone"](path); err != nil {
			t.Fatal(err)
		}
		consoletest.Until(t, names[len(names)-1]+": brought", func() (bool, string) {
			w.answers(anna, "/api/v1/projects/acme/documents/protectionpolicies") // somebody has to come upon it
			w.answers(bob, "/api/v1/projects/other/documents/protectionpolicies")
			return strings.Count(w.logs.String(), "was brought from") > before, w.logs.String()
		})
		consoletest.Until(t, "active again", func() (bool, string) { return w.answers("", "/healthz/active"), w.logs.String() })
		w.there(anna, "acme", names...)
		w.there(bob, "other", names...)
	}
}

// kept has the console have a backup of each database, and be served.
func (w *world) kept() {
	w.t.Helper()
	if err := w.stop(); err != nil {
		w.t.Fatal(err)
	}
	w.keep()
	w.serve()
}

// A database that is lost while its vault is silent is that project's alone: the others
// are read and written, also if it is lost before the console starts. It comes when the
// vault answers.
func TestLostAndSilent(t *testing.T) {
	w := newWorld(t)
	w.kept()
	anna, bob := w.login("anna"), w.login("bob")
	_, other := w.files()
	w.acknowledged(bob, "other", "before")
	if err := errors.Join(w.stop(), os.Remove(other)); err != nil {
		t.Fatal(err)
	}
	vault := w.vaults["mem:other"]
	vault.Set(fault.Faults{Refuse: 1})
	w.serve()
	w.acknowledged(anna, "acme", "meanwhile")
	if code, _ := w.call(bob, "GET", "/projects/other/members", ""); code == 200 {
		t.Error("a database that is not there is read")
	}
	vault.Set(fault.Faults{})
	w.there(bob, "other", "before")
	w.acknowledged(bob, "other", "after")

	vault.Set(fault.Faults{Stall: 1}) // while it is served, and nothing is lost
	for _, name := range []string{"one", "two"} {
		w.acknowledged(anna, "acme", name)
	}
	if code, text := w.page("/healthz/active"); code != 200 {
		t.Errorf("the vault of another project makes the console passive: %d %s", code, text)
	}
	vault.Set(fault.Faults{})
	w.acknowledged(bob, "other", "last")
}

// The console's own database, brought as a backup has it, is not served before its journal
// was carried out: sessions and users that ended since would be let in.
func TestBroughtIsServedWhenWhole(t *testing.T) {
	w := newWorld(t)
	w.kept()
	if err := errors.Join(w.stop(), losses["gone"](directory.Console(w.dir))); err != nil {
		t.Fatal(err)
	}
	c, err := open(t.Context(), w.options())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil || !Passive(w.dir) {
		t.Errorf("it would be served as it is: %v", err)
	}
	w.start()
	w.active()
	if Passive(w.dir) {
		t.Error("it is active, and not served when it is started again")
	}
}

// A project's database that is brought has at once what was acknowledged since the backup:
// whoever lost his role since does not read it again.
func TestBroughtProjectHasAll(t *testing.T) {
	w := newWorld(t)
	w.kept()
	_, other := w.files()
	w.acknowledged(w.login("bob"), "other", "since")
	if err := errors.Join(w.stop(), losses["gone"](other)); err != nil {
		t.Fatal(err)
	}
	c, err := store.Open(t.Context(), w.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.Projects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(l store.Listing) bool { return l.Name == "other" })
	p, err := newShelves(w.options(), c).project(t.Context(), all[i])
	if err != nil {
		t.Fatal(err)
	}
	if docs, _, err := p.Documents(t.Context(), "", ""); err != nil || !slices.ContainsFunc(docs, func(d store.Document) bool { return d.Name == "since" }) {
		t.Errorf("it is as the backup has it: %v, %v", docs, err)
	}
}
