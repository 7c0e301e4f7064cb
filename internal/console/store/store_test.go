package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store/directory"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func by(name string) audit.Act { return audit.Act{By: "user/" + name, From: "192.0.2.1", At: now} }

func newConsole(t *testing.T) *Console {
	t.Helper()
	c, err := Create(t.Context(), filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func newProject(t *testing.T, c *Console, name string) *Project {
	t.Helper()
	p, err := c.CreateProject(t.Context(), by("anna"), name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newUser(t *testing.T, c *Console, name string, administrator bool) User {
	t.Helper()
	u, err := c.CreateUser(t.Context(), by("anna"), User{Name: name, Password: "hash of " + name, Administrator: administrator})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A console is made once, opened again with all that was in it, and only with a
// key that nobody else may read.
func TestCreateAndOpen(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "console")
	if _, err := Open(ctx, dir); !errors.Is(err, ErrNotFound) {
		t.Errorf("an empty directory: %v", err)
	}
	c, err := Create(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	newUser(t, c, "anna", true)
	p := newProject(t, c, "shop")
	if err := p.KeepSecret(ctx, by("anna"), "binding", map[string]string{"key": "planted-secret"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(ctx, dir); !errors.Is(err, ErrExists) {
		t.Errorf("a second Create: %v", err)
	}
	mustNotHold(t, dir, "planted-secret")
	c, err = Open(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err = c.Project(ctx, "shop")
	if err != nil {
		t.Fatal(err)
	}
	var secret map[string]string
	if err := p.Secret(ctx, "binding", &secret); err != nil || secret["key"] != "planted-secret" {
		t.Errorf("%v, %v", secret, err)
	}
	if _, err := c.UserNamed(ctx, "anna"); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, directory.Moved()[0]), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, dir); !errors.Is(err, ErrRefused) {
		t.Errorf("a key that others may read: %v", err)
	}
}

// mustNotHold looks for a text in all files below a directory, all of which
// nobody else may read.
func mustNotHold(t *testing.T, dir, text string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		if d.IsDir() {
			return nil
		}
		files++
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), text) {
			t.Errorf("%s holds %q", path, text)
		}
		return err
	})
	if err != nil || files < 3 {
		t.Errorf("%d files, %v", files, err)
	}
}

// A file of a newer davit is refused, a damaged one too, and then only the
// project that it is of.
func TestDamageAndVersions(t *testing.T) {
	ctx := t.Context()
	c := newConsole(t)
	for _, name := range []string{"newer", "torn", "gone", "good"} {
		p := newProject(t, c, name)
		if name == "newer" {
			if _, err := p.poke(ctx, "PRAGMA user_version = 99"); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir := c.Dir()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c2, err := Open(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	all, err := c2.Projects(ctx)
	if err != nil || len(all) != 4 {
		t.Fatal(all, err)
	}
	for _, l := range all {
		path := c2.projectPath(l.ID)
		switch l.Name {
		case "torn":
			if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		case "gone":
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, want := range map[string]error{"newer": ErrNewer, "torn": ErrDamaged, "gone": os.ErrNotExist, "good": nil, "other": ErrNotFound} {
		if _, err := c2.Project(ctx, name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

// poke writes past everything that Davit checks.
func (f *file) poke(ctx context.Context, text string) (sql.Result, error) {
	return f.write.ExecContext(ctx, text)
}

// Every change is in the log, what failed is not, and nobody changes the log.
func TestAuditLog(t *testing.T) {
	ctx := t.Context()
	c := newConsole(t)
	newUser(t, c, "anna", true)
	if _, err := c.CreateUser(ctx, by("anna"), User{Name: "anna"}); !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	newProject(t, c, "shop")
	if err := c.Note(ctx, audit.Act{By: "user/bob", At: now}, audit.Record{Action: "login", Refused: "wrong password"}); err != nil {
		t.Fatal(err)
	}
	all, err := c.Audit(ctx, 0, 10)
	if err != nil || len(all) != 3 || all[0].Refused == "" || all[2].Action != "user.create" || all[2].From != "192.0.2.1" {
		t.Fatalf("%+v, %v", all, err)
	}
	if older, err := c.Audit(ctx, all[1].Sequence, 10); err != nil || len(older) != 1 {
		t.Errorf("%+v, %v", older, err)
	}
	if tail, err := c.VerifyAudit(ctx); err != nil || tail != all[0].Tail() {
		t.Error(tail, err)
	}
	for _, text := range []string{"UPDATE audit SET record = '{}'", "DELETE FROM audit"} {
		if _, err := c.poke(ctx, text); err == nil {
			t.Errorf("%s was done", text)
		}
	}
	// Whoever has the file can still do it. The log says so.
	for _, text := range []string{"DROP TRIGGER audit_stays", "UPDATE audit SET record = replace(record, 'anna', 'eve') WHERE sequence = 1"} {
		if _, err := c.poke(ctx, text); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.VerifyAudit(ctx); !errors.Is(err, audit.ErrBroken) {
		t.Errorf("a changed log: %v", err)
	}
}

func TestSessions(t *testing.T) {
	ctx := t.Context()
	c := newConsole(t)
	anna, bob := newUser(t, c, "anna", true), newUser(t, c, "bob", false)
	login := func(u User) []byte {
		_, hash, err := account.NewSession()
		if err == nil {
			err = c.CreateSession(ctx, by(u.Name), Session{Hash: hash, User: u, Form: "f", Source: "browser"})
		}
		if err != nil {
			t.Fatal(err)
		}
		return hash
	}
	valid := func(hash []byte, at time.Time) bool {
		s, err := c.Session(ctx, hash, at)
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil && s.User.ID != ""
	}
	one := login(anna)
	if s, err := c.Session(ctx, one, now); err != nil || s.User != anna || s.Form != "f" {
		t.Fatalf("%+v, %v", s, err)
	}
	if valid([]byte("guessed"), now) {
		t.Error("a guessed session is valid")
	}
	if valid(one, now.Add(SessionIdle+time.Minute)) {
		t.Error("an idle session lives")
	}
	for at := time.Duration(0); at < SessionLife; at += SessionIdle {
		if !valid(one, now.Add(at)) {
			t.Fatalf("a session in use is over after %s", at)
		}
	}
	if valid(one, now.Add(SessionLife+time.Minute)) {
		t.Error("a session lives for ever")
	}
	if valid(one, now.Add(-2*time.Hour)) || !valid(one, now.Add(-Ahead/2)) {
		t.Error("a session that began when the clock was hours ahead lives as much longer, or one of minutes ahead not at all")
	}
	two, three := login(bob), login(bob)
	if err := c.EndSession(ctx, by("bob"), Session{Hash: two, User: bob}); err != nil || valid(two, now) || !valid(three, now) {
		t.Error("a logout ends nothing, or too much", err)
	}
	if err := c.SetPassword(ctx, by("bob"), bob, "new"); err != nil || valid(three, now) {
		t.Error("a new password leaves sessions", err)
	}
	if err := c.CreateSession(ctx, by("bob"), Session{Hash: []byte("late"), User: bob, Form: "f", Source: "browser"}); !errors.Is(err, ErrConflict) || valid([]byte("late"), now) {
		t.Errorf("a login under way survives a new password: %v", err)
	}
	var err error
	if bob, err = c.UserNamed(ctx, "bob"); err != nil {
		t.Fatal(err)
	}
	four := login(bob)
	if err := c.SetDisabled(ctx, by("anna"), bob, true); err != nil || valid(four, now) {
		t.Error("a user who is shut out is in", err)
	}
	if err := c.SetDisabled(ctx, by("anna"), anna, true); !errors.Is(err, ErrRefused) {
		t.Errorf("the last administrator: %v", err)
	}
}

// A code is used once, also by two at a time.
func TestOneTimeCodes(t *testing.T) {
	ctx := t.Context()
	c := newConsole(t)
	anna := newUser(t, c, "anna", true)
	if err := c.WantCodes(ctx, anna, "SECRET"); err != nil {
		t.Fatal(err)
	}
	if s, err := c.WantedCodes(ctx, anna); err != nil || s != "SECRET" {
		t.Fatal(s, err)
	}
	if s, err := c.CodeSecret(ctx, anna); err != nil || s != "" {
		t.Fatal("codes are asked for before the first was right", s, err)
	}
	if err := c.StartCodes(ctx, by("anna"), anna, "SECRET", 100); err != nil {
		t.Fatal(err)
	}
	if s, err := c.CodeSecret(ctx, anna); err != nil || s != "SECRET" {
		t.Fatal(s, err)
	}
	var wins sync.Map
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if err := c.UseCode(ctx, anna, 101); err == nil {
				wins.Store(i, true)
			} else if !errors.Is(err, ErrConflict) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	n := 0
	wins.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d of 8 used one code", n)
	}
	if err := c.StopCodes(ctx, by("anna"), anna); err != nil {
		t.Fatal(err)
	}
	if u, err := c.UserNamed(ctx, "anna"); err != nil || u.Codes {
		t.Error(u, err)
	}
}

func TestMembersAndTokens(t *testing.T) {
	ctx := t.Context()
	c := newConsole(t)
	anna, bob := newUser(t, c, "anna", true), newUser(t, c, "bob", false)
	p, other := newProject(t, c, "shop"), newProject(t, c, "other")
	set := func(u User, role account.Role) error {
		return p.SetMember(ctx, by("anna"), Member{User: u.ID, Name: u.Name, Role: role})
	}
	if err := set(bob, account.Viewer); !errors.Is(err, ErrRefused) {
		t.Errorf("a project without an admin: %v", err)
	}
	if err := errors.Join(set(anna, account.Admin), set(bob, account.Operator)); err != nil {
		t.Fatal(err)
	}
	if role, err := p.Role(ctx, bob.ID); err != nil || role != account.Operator {
		t.Error(role, err)
	}
	if _, err := other.Role(ctx, anna.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("a role counts in another project: %v", err)
	}
	if err := set(bob, "root"); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	if err := p.RemoveMember(ctx, by("anna"), "anna"); !errors.Is(err, ErrRefused) {
		t.Errorf("the last admin goes: %v", err)
	}
	id, _, hash, err := account.NewRobot()
	if err != nil {
		t.Fatal(err)
	}
	token := Token{ID: id, Name: "ci", Hash: hash, Scopes: []account.Permission{account.Read, account.Audit}, Expires: now.Add(time.Hour)}
	for _, spoil := range []func(*Token){
		func(t *Token) { t.Scopes = nil },
		func(t *Token) { t.Scopes = []account.Permission{account.Manage} },
		func(t *Token) { t.Scopes = []account.Permission{"all"} },
		func(t *Token) { t.Expires = now },
		func(t *Token) { t.Expires = now.Add(2 * MaxTokenLife) },
		func(t *Token) { t.Name = "CI\n" },
	} {
		bad := token
		spoil(&bad)
		if err := p.CreateToken(ctx, by("anna"), bad); !errors.Is(err, ErrRefused) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := p.CreateToken(ctx, by("anna"), token); err != nil {
		t.Fatal(err)
	}
	counts := func(in *Project, hash []byte, at time.Time) bool {
		_, err := in.Token(ctx, id, hash, at)
		return err == nil
	}
	if !counts(p, hash, now) || counts(p, hash, now.Add(time.Hour)) || counts(p, []byte("guessed"), now) || counts(other, hash, now) {
		t.Error("a token counts where it should not, or does not where it should")
	}
	if err := p.RevokeToken(ctx, by("anna"), id); err != nil || counts(p, hash, now) {
		t.Error("a revoked token counts", err)
	}
	if err := p.RevokeToken(ctx, by("anna"), id); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestDocuments(t *testing.T) {
	ctx := t.Context()
	p := newProject(t, newConsole(t), "shop")
	key := Key{Kind: "ProtectionPolicy", Namespace: "davit-system", Name: "hourly"}
	body := func(n int) json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"spec": {"n": %d}}`, n)) }
	first, err := p.Apply(ctx, by("anna"), key, body(1), Expect{Absent: true})
	if err != nil || first.Revision != 1 || first.Generation != 1 || first.UID == "" || first.By != "user/anna" {
		t.Fatalf("%+v, %v", first, err)
	}
	if again, err := p.Apply(ctx, by("bob"), key, json.RawMessage(`{"spec":{"n":1}}`), Expect{}); err != nil || again.Revision != 1 || again.By != "user/anna" {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	second, err := p.Apply(ctx, by("bob"), key, body(2), Expect{Revision: 1})
	if err != nil || second.Revision != 2 || second.Generation != 2 || second.UID != first.UID || !second.Created.Equal(first.Created) {
		t.Fatalf("%+v, %v", second, err)
	}
	labelled, err := p.Apply(ctx, by("bob"), key, json.RawMessage(`{"metadata":{"labels":{"a":"b"}},"spec":{"n":2}}`), Expect{})
	if err != nil || labelled.Revision != 3 || labelled.Generation != 2 {
		t.Fatalf("%+v, %v", labelled, err)
	}
	for name, try := range map[string]error{
		"stale":   errOf(p.Apply(ctx, by("bob"), key, body(3), Expect{Revision: 1})),
		"deleted": errOf(p.Delete(ctx, by("bob"), key, Expect{Revision: 1})),
		"missing": errOf(p.Apply(ctx, by("bob"), Key{Kind: "X", Name: "y"}, body(3), Expect{Revision: 1})),
	} {
		if !errors.Is(try, ErrConflict) {
			t.Errorf("%s: %v", name, try)
		}
	}
	if _, err := p.Apply(ctx, by("bob"), key, body(3), Expect{Absent: true}); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	all, revision, err := p.Documents(ctx, key.Kind, "")
	if err != nil || len(all) != 1 || revision != 3 || all[0].Revision != 3 {
		t.Errorf("%+v at %d, %v", all, revision, err)
	}
	if none, _, err := p.Documents(ctx, key.Kind, "elsewhere"); err != nil || len(none) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
	changed := p.Changed()
	if _, err := p.Delete(ctx, by("anna"), key, Expect{Revision: 3}); err != nil {
		t.Fatal(err)
	}
	<-changed
	if _, err := p.Document(ctx, key); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	changes, next, err := p.Changes(ctx, key.Kind, 1)
	if err != nil || next != 4 || len(changes) != 3 || changes[0].Type != Modified || changes[2].Type != Deleted || changes[2].Document.Name != "hourly" {
		t.Errorf("%+v to %d, %v", changes, next, err)
	}
	if none, next, err := p.Changes(ctx, "Application", 1); err != nil || len(none) != 0 || next != 4 {
		t.Errorf("%+v to %d, %v", none, next, err)
	}
	if _, _, err := p.Changes(ctx, key.Kind, 5); !errors.Is(err, ErrGone) {
		t.Errorf("a revision of the future: %v", err)
	}
	if tail, err := p.VerifyAudit(ctx); err != nil || tail.Sequence != 4 {
		t.Errorf("%+v, %v: four changes were made", tail, err)
	}
}

func errOf[T any](_ T, err error) error { return err }

// Of many who change a document as they saw it, one at a time succeeds, and no
// change is lost.
func TestConcurrentApply(t *testing.T) {
	ctx := t.Context()
	p := newProject(t, newConsole(t), "shop")
	key := Key{Kind: "RecoveryPlan", Name: "east"}
	if _, err := p.Apply(ctx, by("anna"), key, json.RawMessage(`{"spec":0}`), Expect{}); err != nil {
		t.Fatal(err)
	}
	const people, each = 4, 5
	var all sync.WaitGroup
	for range people {
		all.Go(func() {
			for done := 0; done < each; {
				d, err := p.Document(ctx, key)
				if err != nil {
					t.Error(err)
					return
				}
				var body struct{ Spec int }
				if err := json.Unmarshal(d.Body, &body); err != nil {
					t.Error(err)
					return
				}
				_, err = p.Apply(ctx, by("anna"), key, json.RawMessage(fmt.Sprintf(`{"spec":%d}`, body.Spec+1)), Expect{Revision: d.Revision})
				if errors.Is(err, ErrConflict) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				done++
			}
		})
	}
	all.Wait()
	d, err := p.Document(ctx, key)
	if want := fmt.Sprintf(`{"spec":%d}`, people*each); err != nil || string(d.Body) != want || d.Revision != people*each+1 {
		t.Errorf("%s at %d, want %s: %v", d.Body, d.Revision, want, err)
	}
	if tail, err := p.VerifyAudit(ctx); err != nil || tail.Sequence != people*each+1 {
		t.Errorf("%+v, %v", tail, err)
	}
}

func TestUserNames(t *testing.T) {
	for _, good := range []string{"anna", "a", "anna.b@example.com", "x-1_2"} {
		if err := CheckUserName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "Anna", "-a", "../x", "a b", "a\n", strings.Repeat("a", 64), "ånna"} {
		if CheckUserName(bad) == nil {
			t.Errorf("%q is a name", bad)
		}
	}
}

// What sites say counts only of what they were asked for; after a restore all is
// asked again, and no number of the lost console is used a second time.
func TestHanded(t *testing.T) {
	ctx := t.Context()
	p := newProject(t, newConsole(t), "shop")
	if _, err := p.Apply(ctx, by("anna"), Key{Kind: "Application", Namespace: "davit-system", Name: "a"}, json.RawMessage(`{"spec":1}`), Expect{}); err != nil {
		t.Fatal(err)
	}
	a := Handed{Site: "east", Key: Key{Kind: "Application", Namespace: "davit-system", Name: "a"}, UID: "1", Revision: 5, Generation: 2}
	b := Handed{Site: "west", Key: a.Key, UID: "1", Revision: 5, Generation: 2}
	if err := p.Hand(ctx, []Handed{a, b}); err != nil {
		t.Fatal(err)
	}
	say := func(site string, h Handed, state string) {
		t.Helper()
		h.State, h.Why = state, "because"
		if err := p.HearAgents(ctx, []Word{{Site: site, At: now, Told: []Handed{h}}}); err != nil {
			t.Fatal(err)
		}
	}
	states := func() (all []string) {
		t.Helper()
		handed, err := p.Handed(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range handed {
			all = append(all, h.Site+"="+h.State)
		}
		return all
	}
	older, other := a, a
	older.Revision, other.UID = 4, "2"
	say("east", older, "applied")
	say("east", other, "applied")
	say("north", a, "applied")
	if got := fmt.Sprint(states()); got != "[east= west=]" {
		t.Errorf("who was not asked has answered: %s", got)
	}
	say("east", a, "applied")
	if got := fmt.Sprint(states()); got != "[east=applied west=]" {
		t.Error(got)
	}
	if err := p.Leap(ctx); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(states()); got != "[east= west=]" {
		t.Errorf("after a restore: %s", got)
	}
	d, err := p.Apply(ctx, by("anna"), a.Key, json.RawMessage(`{"spec":2}`), Expect{})
	if err != nil || d.Revision != 2+leap {
		t.Errorf("%d, %v", d.Revision, err)
	}
	gone := a
	gone.Gone, gone.Revision = true, 6
	if err := p.Hand(ctx, []Handed{gone}); err != nil {
		t.Fatal(err)
	}
	say("east", gone, Over)
	if got := fmt.Sprint(states()); got != "[west=]" {
		t.Error(got)
	}
}

// A file that is lost while it is open is not made anew, and one that is empty is none:
// either would be taken for a console, or a project, with nothing in it.
func TestNothingInPlaceOfAFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "console")
	c, err := Create(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	path := directory.Console(dir)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", source(path, "deferred")) // as the pools do when more is asked of them
	if err != nil {
		t.Fatal(err)
	}
	if err := db.PingContext(t.Context()); err == nil {
		t.Error("a connection was made to a file that is gone")
	}
	_ = errors.Join(db.Close(), c.Close())
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made anew: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Open(t.Context(), dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("an empty file is opened: %v, %v", c, err)
	}
}

// Which project was first stays so when others are added by a clock that is behind: in its
// vault the console's own database is.
func TestFirstProjectStaysFirst(t *testing.T) {
	c := newConsole(t)
	first := newProject(t, c, "m")
	for i, name := range []string{"a", "z"} {
		act := by("anna")
		act.At = now.Add(-time.Duration(i+1) * 240 * time.Hour)
		if _, err := c.CreateProject(t.Context(), act, name); err != nil {
			t.Fatal(err)
		}
	}
	all, err := c.Projects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b Listing) int { return a.Created.Compare(b.Created) })
	var names []string
	for _, l := range all {
		names = append(names, l.Name)
	}
	if got := strings.Join(names, " "); got != "m a z" || !first.Created.Equal(now) {
		t.Errorf("%s, the first at %s", got, first.Created)
	}
}
