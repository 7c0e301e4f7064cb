package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
)

// dump is all that goes to the vault of a file, as text.
func dump(t *testing.T, f *file) string {
	t.Helper()
	ctx := t.Context()
	tables, err := f.tables(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, table := range tables {
		object, which := table.Told(table.Name)
		rows, err := query(ctx, f.write, func(row scanner) (s string, err error) { return s, row.Scan(&s) },
			"SELECT "+object+" AS row FROM "+table.Name+" WHERE "+which+" ORDER BY row")
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, table.Name+":\n"+strings.Join(rows, "\n"))
	}
	slices.Sort(text)
	return strings.Join(text, "\n")
}

// pass has all that waits in one file be carried out in another.
func pass(t *testing.T, from, to Journaled) {
	t.Helper()
	ctx := t.Context()
	for n := int64(1); ; n++ {
		waiting, err := from.Waiting(ctx, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(waiting) == 0 {
			return
		}
		var changes []string
		for _, w := range waiting {
			changes = append(changes, w.Change)
		}
		at := Position{Number: n, Epoch: 1, Hash: "x"}
		if err := errors.Join(to.Follow(ctx, changes, at), from.Sent(ctx, waiting[len(waiting)-1].Number, at)); err != nil {
			t.Fatal(err)
		}
		if got, err := to.Position(ctx); err != nil || got != at {
			t.Fatal(got, err)
		}
	}
}

// deeds does a bit of everything to a console and its project.
func deeds(t *testing.T, c *Console, p *Project) {
	t.Helper()
	ctx, now := t.Context(), time.Now()
	act := audit.Act{By: "user/anna", From: "192.0.2.1", At: now}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	anna, err := c.CreateUser(ctx, act, User{Name: "anna", Password: "hash", Administrator: true})
	must(err)
	bob, err := c.CreateUser(ctx, act, User{Name: "bob", Password: "hash"})
	must(err)
	must(c.CreateSession(ctx, act, Session{Hash: []byte{0, 255}, User: anna, Form: "f", Source: "browser"}))
	must(c.CreateSession(ctx, act, Session{Hash: []byte{1}, User: bob, Form: "f", Source: "browser"}))
	must(c.SetPassword(ctx, act, bob, "other"))
	must(c.Note(ctx, act, audit.Record{Action: "login", Refused: `"wrong" & <odd> é`}))
	must(p.SetMember(ctx, act, Member{User: anna.ID, Name: "anna", Role: account.Admin}))
	must(p.SetMember(ctx, act, Member{User: bob.ID, Name: "bob", Role: account.Viewer}))
	must(p.RemoveMember(ctx, act, "bob"))
	key := Key{Kind: "ProtectionPolicy", Name: "hourly"}
	for i := range 3 {
		_, err = p.Apply(ctx, act, key, json.RawMessage(fmt.Sprintf(`{"spec":{"n":%d,"text":"<\u00e9>"}}`, i)), Expect{})
		must(err)
	}
	_, err = p.Apply(ctx, act, Key{Kind: "ProtectionPolicy", Name: "gone"}, json.RawMessage(`{"spec":{}}`), Expect{})
	must(err)
	_, err = p.Delete(ctx, act, Key{Kind: "ProtectionPolicy", Name: "gone"}, Expect{})
	must(err)
	must(p.KeepSecret(ctx, act, "s", "secret"))
	must(p.Keep(ctx, now, map[string][]byte{"fleet": []byte("much")}))
	must(p.CreateToken(ctx, act, Token{ID: "t", Name: "ci", Hash: []byte{7}, Scopes: []account.Permission{account.Read}, Expires: now.Add(time.Hour)}))
	must(p.RevokeToken(ctx, act, "t"))
	must(p.AdmitAgent(ctx, act, "east", "0001"))
	must(p.HearAgents(ctx, []Word{{Site: "east", At: now, Version: "v", Said: []byte("much"), Outbox: "o", Events: []SentEvent{{1, []byte(`{}`)}, {2, []byte(`{}`)}}}}))
}

// Whatever is changed in one file is the same in one that follows, and nothing
// that the follower carries out waits there again.
func TestFollow(t *testing.T) {
	ctx := t.Context()
	c := newConsole(t)
	p := newProject(t, c, "acme")
	dir := t.TempDir()
	own, project := filepath.Join(dir, "own.db"), filepath.Join(dir, "project.db")
	if err := errors.Join(c.Snapshot(ctx, own), p.Snapshot(ctx, project)); err != nil {
		t.Fatal(err)
	}
	deeds(t, c, p)
	for _, pair := range []struct {
		from Journaled
		file *file
		path string
		own  bool
	}{{c, c.file, own, true}, {p, p.file, project, false}} {
		to, err := OpenAlone(ctx, pair.path, pair.own)
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		if dump(t, pair.file) == dump(t, to.file) {
			t.Fatal("the deeds did nothing")
		}
		before, err := to.Waiting(ctx, 1000) // the snapshot has what waited then
		if err != nil {
			t.Fatal(err)
		}
		if n := len(before); n > 0 {
			if err := errors.Join(pair.from.Sent(ctx, before[n-1].Number, Position{}), to.Sent(ctx, before[n-1].Number, Position{})); err != nil {
				t.Fatal(err)
			}
		}
		pass(t, pair.from, to)
		if a, b := dump(t, pair.file), dump(t, to.file); a != b {
			t.Errorf("it is\n%s\nand where it follows\n%s", a, b)
		}
		if left, err := to.Waiting(ctx, 1000); err != nil || len(left) != 0 {
			t.Errorf("%d wait where it follows: %v", len(left), err)
		}
		if _, err := to.VerifyAudit(ctx); err != nil {
			t.Error(err)
		}
	}
}

// A file becomes another as a whole, while it is read, and its audit log stays
// append-only.
func TestBecome(t *testing.T) {
	ctx := t.Context()
	c := newConsole(t)
	p := newProject(t, c, "acme")
	deeds(t, c, p)
	path := filepath.Join(t.TempDir(), "other.db")
	if err := c.Snapshot(ctx, path); err != nil {
		t.Fatal(err)
	}
	want := dump(t, c.file)
	if _, err := c.CreateUser(ctx, audit.Act{By: "x", At: time.Now()}, User{Name: "eve", Password: "h"}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again, too
		if err := c.Become(ctx, path); err != nil {
			t.Fatal(err)
		}
		if got := dump(t, c.file); got != want {
			t.Errorf("it became\n%s\nnot\n%s", got, want)
		}
	}
	if err := c.Become(ctx, path+"-none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it becomes nothing: %v", err)
	}
	if _, err := c.write.ExecContext(ctx, "DELETE FROM audit"); err == nil {
		t.Error("the audit log can be deleted")
	}
	at, err := c.Waiting(ctx, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateUser(ctx, audit.Act{By: "x", At: time.Now()}, User{Name: "eve", Password: "h"}); err != nil {
		t.Fatal(err)
	}
	if after, err := c.Waiting(ctx, 1000); err != nil || len(after) != len(at)+2 {
		t.Errorf("%d waited, and %d after a change: %v", len(at), len(after), err)
	}
}

// Those of one transaction go together, however many are asked for.
func TestWaitingIsWhole(t *testing.T) {
	ctx := t.Context()
	p := newProject(t, newConsole(t), "acme")
	if err := p.update(ctx, func(tx *sql.Tx) error {
		for i := range 10 {
			if _, err := exec(ctx, tx, "INSERT INTO member (user, name, role) VALUES (?, ?, 'viewer')", fmt.Sprint(i), fmt.Sprint("m", i)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	all, err := p.Waiting(ctx, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for most := 1; most < len(all)+2; most++ {
		got, err := p.Waiting(ctx, most)
		if err != nil || len(got) == 0 {
			t.Fatal(len(got), err)
		}
		if len(got) < len(all) && got[len(got)-1].batch == all[len(got)].batch {
			t.Errorf("of %d that wait, %d were given, in the middle of a transaction", len(all), len(got))
		}
	}
}

// guard counts, and refuses when told.
type guard struct {
	refuse, fail error
	awaited      int64
}

func (g *guard) Ready() error { return g.refuse }
func (g *guard) Wake()        {}
func (g *guard) Await(_ context.Context, upto int64) error {
	g.awaited = upto
	return g.fail
}

// A change is acknowledged by the guard, and not begun against it.
func TestGuard(t *testing.T) {
	ctx := t.Context()
	c := newConsole(t)
	p := newProject(t, c, "acme")
	g := &guard{}
	c.Guards(func(*Project) Guard { return g })
	act := audit.Act{By: "x", At: time.Now()}
	apply := func(name string) error {
		_, err := p.Apply(ctx, act, Key{Kind: "ProtectionPolicy", Name: name}, json.RawMessage(`{}`), Expect{})
		return err
	}
	if err := apply("a"); err != nil || g.awaited == 0 {
		t.Errorf("awaited %d, %v", g.awaited, err)
	}
	g.fail = ErrUnconfirmed
	if err := apply("b"); !errors.Is(err, ErrUnconfirmed) {
		t.Error(err)
	}
	if err := apply("b"); !errors.Is(err, ErrUnconfirmed) { // it is there already, and yet may not come to count
		t.Errorf("the same again is acknowledged: %v", err)
	}
	g.refuse = ErrPassive
	before := dump(t, p.file)
	if err := apply("c"); !errors.Is(err, ErrPassive) {
		t.Error(err)
	}
	if err := p.HearAgents(ctx, []Word{{Site: "east", Events: []SentEvent{{1, []byte(`{}`)}}}}); !errors.Is(err, ErrPassive) {
		t.Errorf("events are taken: %v", err)
	}
	if dump(t, p.file) != before {
		t.Error("what was refused is there")
	}
}

// FuzzFollow carries any text out as a change: never a crash, and never a
// statement of its own.
func FuzzFollow(f *testing.F) {
	f.Add(`{"table":"member","put":{"user":"u","name":"n","role":"viewer"}}`)
	f.Add(`{"table":"member","delete":{"user":"u"}}`)
	f.Add(`{"table":"agent","put":{"site":"s","said":"00","since":1}}`)
	f.Add(`{"table":"member; DROP TABLE audit","delete":{"user":"u"}}`)
	f.Add(`{"table":"sqlite_master","delete":{"name":"u"}}`)
	ctx := context.Background()
	c, err := Create(ctx, f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	p, err := c.CreateProject(ctx, audit.Act{By: "x", At: time.Now()}, "acme")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = c.Close() })
	tables, err := p.tables(ctx)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		roll := errors.New("roll back")
		err := p.quietly(ctx, func(tx *sql.Tx) error { return errors.Join(follow(ctx, tx, tables, text), roll) })
		if !errors.Is(err, roll) {
			t.Errorf("%q: %v", text, err)
		}
		if now, err := p.tables(ctx); err != nil || len(now) != len(tables) {
			t.Errorf("%q changed the tables: %v", text, err)
		}
	})
}
