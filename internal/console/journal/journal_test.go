package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
)

// world is a vault with the journal of one project.
type world struct {
	t     *testing.T
	store *fault.Store
	book  Book
	dir   string
	n     int
	later atomic.Int64 // by so much the vault's clock is ahead
}

func newWorld(t *testing.T, under func(vault.Store) vault.Store) *world {
	t.Helper()
	t.Parallel()
	return makeWorld(t, under)
}

func makeWorld(t *testing.T, under func(vault.Store) vault.Store) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	w.store = fault.New(under(mem.New(func() time.Time { return time.Now().Add(time.Duration(w.later.Load())) })), 1, fault.Faults{})
	p, key, err := consoletest.New(t.Context(), w.store, "acme")
	if err != nil {
		t.Fatal(err)
	}
	a, err := authority.Ensure(t.Context(), p, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.book = Book{Shelf: backup.Shelf{Project: p, Authority: a, Console: "c0ffee"}, Database: backup.ProjectDatabase}
	return w
}

func plain(s vault.Store) vault.Store { return s }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) term(epoch int64) Term {
	return Term{Epoch: epoch, Holder: fmt.Sprint("holder", epoch), Now: time.Now}
}

// console makes a console with a project.
func (w *world) console() *store.Project {
	w.t.Helper()
	w.n++
	c, err := store.Create(w.t.Context(), filepath.Join(w.dir, fmt.Sprint("console", w.n)))
	w.must(err)
	w.t.Cleanup(func() { _ = c.Close() })
	p, err := c.CreateProject(w.t.Context(), audit.Act{By: "x", At: time.Now()}, "acme")
	w.must(err)
	return p
}

// copy is a database with what another has.
func (w *world) copy(from store.Journaled) *store.Alone {
	w.t.Helper()
	w.n++
	path := filepath.Join(w.dir, fmt.Sprint("copy", w.n, ".db"))
	w.must(from.Snapshot(w.t.Context(), path))
	db, err := store.OpenAlone(w.t.Context(), path, false)
	w.must(err)
	w.t.Cleanup(func() { _ = db.Close() })
	return db
}

func (w *world) backup(from store.Journaled) int64 {
	w.t.Helper()
	w.n++
	path := filepath.Join(w.dir, fmt.Sprint("backup", w.n, ".db"))
	w.must(from.Snapshot(w.t.Context(), path))
	at, err := from.Position(w.t.Context())
	w.must(err)
	tail, err := from.VerifyAudit(w.t.Context())
	w.must(err)
	d, err := w.book.Write(w.t.Context(), path, backup.Document{
		Database: backup.ProjectDatabase, At: time.Now(), Journal: &at.Number, Audit: backup.Tail{Sequence: tail.Sequence, Hash: tail.Hash},
	}, nil)
	w.must(err)
	return d.Number
}

func (w *world) apply(p *store.Project, name string) {
	w.t.Helper()
	_, err := p.Apply(w.t.Context(), audit.Act{By: "user/anna", At: time.Now()}, store.Key{Kind: "ProtectionPolicy", Name: name}, json.RawMessage(`{"spec":{}}`), store.Expect{})
	w.must(err)
}

// left are the numbers of the records that are there.
func (w *world) left() (all []int64) {
	w.t.Helper()
	numbers, err := w.book.numbers(w.t.Context())
	w.must(err)
	for _, k := range numbers {
		all = append(all, k.number)
	}
	return all
}

// logged are the actions in an audit log, oldest first.
func (w *world) logged(db store.Journaled) string {
	w.t.Helper()
	all, err := db.Audit(w.t.Context(), 0, 1000)
	w.must(err)
	var text []string
	for _, r := range all {
		text = append([]string{r.Object}, text...)
	}
	return strings.Join(text, " ")
}

// send takes over if that was not done, and sends what waits.
func (w *world) send(term Term, db store.Journaled) {
	w.t.Helper()
	_, err := term.Send(w.t.Context(), w.book, db)
	w.must(err)
}

// What one writes another has, and goes on from there; who was active before is
// told that he was overtaken, and joins with what was never acknowledged gone.
func TestTakeOver(t *testing.T) {
	w := newWorld(t, plain)
	ctx := t.Context()
	a := w.console()
	first, second := w.term(1), w.term(2)
	w.must(first.Take(ctx, w.book, a))
	b := w.copy(a)
	w.apply(a, "one")
	w.send(first, a)
	w.backup(a)
	_, err := CatchUp(ctx, w.book, b)
	w.must(err)
	w.apply(a, "two")
	w.send(first, a)
	w.must(second.Take(ctx, w.book, b)) // reads "two" first
	if got := w.logged(b); got != "ProtectionPolicy/one ProtectionPolicy/two" {
		t.Fatalf("it took over with %q", got)
	}
	w.apply(a, "never-acknowledged")
	if upto, err := first.Send(ctx, w.book, a); !errors.Is(err, ErrOvertaken) || upto != 0 {
		t.Fatalf("%d, %v", upto, err)
	}
	if _, err := CatchUp(ctx, w.book, a); !errors.Is(err, ErrFork) {
		t.Fatalf("its own change is passed over: %v", err)
	}
	w.must(w.book.Rebuild(ctx, a, w.dir))
	if got, want := w.logged(a), w.logged(b); got != want {
		t.Errorf("%q, and the active one has %q", got, want)
	}
	third := w.term(3)
	w.must(third.Take(ctx, w.book, a))
	w.apply(a, "three")
	w.send(third, a)
	_, err = CatchUp(ctx, w.book, b)
	w.must(err)
	if got := w.logged(b); got != w.logged(a) || !strings.HasSuffix(got, "three") {
		t.Errorf("it follows with %q", got)
	}
}

// overwriting is a store that does not refuse what is there already.
type overwriting struct{ vault.Store }

func (o overwriting) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if strings.Contains(key, "/journal/") {
		return o.Put(ctx, key, r, size)
	}
	return o.Store.PutIfAbsent(ctx, key, r, size)
}

// The negative control: where a number may be written twice, one that was
// overtaken is not told so, and what the active one acknowledged is gone.
func TestWithoutPutIfAbsent(t *testing.T) {
	w := newWorld(t, func(s vault.Store) vault.Store { return overwriting{s} })
	ctx := t.Context()
	a := w.console()
	first, second := w.term(1), w.term(2)
	w.must(first.Take(ctx, w.book, a))
	w.apply(a, "one")
	w.send(first, a)
	b := w.copy(a)
	w.must(second.Take(ctx, w.book, b))
	w.apply(a, "late")
	w.send(first, a) // it believes that this counts
	r, _, err := w.book.Read(ctx, 3)
	if err != nil || r.Epoch != 1 {
		t.Errorf("the record of the active one is there: %+v, %v", r, err)
	}
}

// A record of a lower epoch after one of a higher is not carried out.
func TestLowerEpoch(t *testing.T) {
	w := newWorld(t, plain)
	ctx := t.Context()
	a := w.console()
	second := w.term(2)
	w.must(second.Take(ctx, w.book, a))
	b := w.copy(a)
	first := w.term(1) // it has the right hash, by whatever way
	w.apply(a, "late")
	w.send(first, a)
	if _, err := CatchUp(ctx, w.book, b); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("%v", err)
	}
	if got := w.logged(b); got != "" {
		t.Errorf("it was carried out: %s", got)
	}
}

// A number may be free because it was trimmed: what is put there is found by
// nobody, so that it counts only once Confirm has said so.
func TestTrimmedNumber(t *testing.T) {
	w := newWorld(t, plain)
	ctx := t.Context()
	a := w.console()
	first, second := w.term(1), w.term(2)
	w.must(first.Take(ctx, w.book, a))
	b := w.copy(a)
	w.must(second.Take(ctx, w.book, b))
	for i := range 4 {
		w.must(b.Note(ctx, audit.Act{By: "x", At: time.Now()}, audit.Record{Action: "note", Object: fmt.Sprint(i)}))
		w.send(second, b)
		w.backup(b)
		w.later.Add(int64(keepFor))
		w.must(w.book.Trim(ctx))
	}
	if left := w.left(); fmt.Sprint(left) != "[5 6]" {
		t.Fatalf("left are %v", left)
	}
	w.apply(a, "late")
	confirmed := errors.New("a newer epoch was claimed")
	s := &Sender{
		Term: first, DB: a, Allowed: func() error { return nil }, Confirm: func(context.Context) error { return confirmed }, Dir: w.dir, Log: slog.New(slog.DiscardHandler),
		Open: func(context.Context, bool) (Book, error) { return w.book, nil }, taken: true,
	}
	s.init()
	waiting, err := a.Waiting(ctx, 10)
	w.must(err)
	s.Round(ctx)
	if _, _, err := w.book.Read(ctx, 2); err != nil {
		t.Fatalf("the number was not free: %v", err)
	}
	if s.counted != 0 || !errors.Is(s.fault, confirmed) {
		t.Errorf("it counts up to %d: %v", s.counted, s.fault)
	}
	c, err := w.book.Newest(ctx, filepath.Join(w.dir, "spare.db"))
	if err != nil || c.Lost != nil || c.Position.Number != 6 {
		t.Fatalf("%+v, %v", c, err)
	}
	confirmed = nil // the negative control: by its put alone, it would be acknowledged
	s.Round(ctx)
	if s.counted != waiting[len(waiting)-1].Number {
		t.Errorf("it counts up to %d: %v", s.counted, s.fault)
	}
}

// A record whose answer was lost is the writer's, also after it was killed
// before it could note that.
func TestLostAnswer(t *testing.T) {
	w := newWorld(t, plain)
	ctx := t.Context()
	a := w.console()
	term := w.term(1)
	w.must(term.Take(ctx, w.book, a))
	b, killed := w.copy(a), w.copy(a)
	w.apply(a, "one")
	unsent := w.copy(a)
	w.store.Set(fault.Faults{Lose: 1})
	if _, err := term.Send(ctx, w.book, a); !errors.Is(err, vault.ErrUnavailable) {
		t.Fatal(err)
	}
	w.store.Set(fault.Faults{})
	w.apply(a, "two")
	w.send(term, a)
	_, err := CatchUp(ctx, w.book, b)
	w.must(err)
	if got := w.logged(b); got != "ProtectionPolicy/one ProtectionPolicy/two" {
		t.Errorf("%q", got)
	}
	next := w.term(2)
	w.must(next.Take(ctx, w.book, unsent)) // it holds "one" as not sent
	if left, err := unsent.Waiting(ctx, 10); err != nil || len(left) > 0 || w.logged(unsent) != w.logged(b) {
		t.Errorf("%d wait, %q, %v", len(left), w.logged(unsent), err)
	}
	_, err = CatchUp(ctx, w.book, killed)
	w.must(err)
	if w.logged(killed) != w.logged(b) {
		t.Errorf("%q", w.logged(killed))
	}
}

// A damaged backup is passed over, and the journal goes on from the one before.
// If a record is damaged, what there is comes back, and it is said what is not.
func TestNewest(t *testing.T) {
	w := newWorld(t, plain)
	ctx := t.Context()
	a := w.console()
	term := w.term(1)
	w.must(term.Take(ctx, w.book, a))
	for _, name := range []string{"one", "two", "three"} {
		w.apply(a, name)
		w.send(term, a)
		if name != "three" {
			w.backup(a)
		}
	}
	newest := func(name string) Copy {
		t.Helper()
		c, err := w.book.Newest(ctx, filepath.Join(w.dir, name))
		w.must(err)
		return c
	}
	if c := newest("whole.db"); c.Lost != nil || c.Number != 2 || c.Records != 1 || c.Audit.Sequence != 3 {
		t.Errorf("%+v", c)
	}
	w.must(w.store.Delete(ctx, w.book.Project.Root()+"console/c0ffee/backups/project/00000000000000000002/00000001"))
	if c := newest("passed.db"); c.Lost != nil || c.Number != 1 || c.Records != 2 || len(c.Passed) != 1 || c.Audit.Sequence != 3 {
		t.Errorf("%+v", c)
	}
	w.must(w.store.Put(ctx, w.book.key(3), strings.NewReader("torn"), 4))
	c := newest("torn.db")
	if c.Lost == nil || c.Number != 1 || c.Records != 0 || c.Audit.Sequence != 1 {
		t.Fatalf("%+v", c)
	}
	db, err := store.OpenAlone(ctx, filepath.Join(w.dir, "torn.db"), false)
	w.must(err)
	defer db.Close()
	after := w.term(2)
	if err := after.Take(ctx, w.book, db); err == nil {
		t.Error("it goes on as if nothing were lost")
	}
	w.must(w.book.Skip(ctx, db))
	w.must(after.Take(ctx, w.book, db))
	w.backup(db)
	if c := newest("after.db"); c.Lost != nil || c.Number != 3 {
		t.Errorf("%+v", c)
	}
}

// Whoever has the key of a retired authority, and what it takes to write to the vault, has
// no database of his own be brought back in the place of the console's.
func TestForgedBackup(t *testing.T) {
	for _, retired := range []bool{false, true} { // false is the control: it is trusted still
		t.Run(fmt.Sprint("retired ", retired), func(t *testing.T) {
			w := newWorld(t, plain)
			ctx := t.Context()
			p, key, err := consoletest.New(ctx, w.store, "shop")
			w.must(err)
			stolen, err := authority.Ensure(ctx, p, key, time.Now())
			w.must(err)
			w.book.Project, w.book.Authority = p, stolen
			a, term := w.console(), w.term(1)
			w.must(term.Take(ctx, w.book, a))
			w.apply(a, "one")
			w.send(term, a)
			w.backup(a) // by the authority that is retired then
			w.book.Authority, err = authority.Rotate(ctx, p, key, time.Now())
			w.must(err)
			w.apply(a, "two")
			w.send(term, a)
			if retired {
				w.book.Authority, err = authority.Retire(ctx, p, key, time.Now(), w.book.Console)
				w.must(err)
			}
			head, err := w.book.Head(ctx)
			w.must(err)
			thief := w.console()
			w.apply(thief, "of the thief")
			w.must(thief.Restart(ctx, head, 1)) // as if it had all
			reads := w.book.Authority
			w.book.Authority = stolen
			w.backup(thief)
			w.book.Authority = reads
			c, err := w.book.Newest(ctx, filepath.Join(w.dir, "newest.db"))
			w.must(err)
			if retired && (c.Lost != nil || c.Number != 1 || c.Records != 1 || len(c.Passed) != 1 || !errors.Is(c.Passed[0], authority.ErrRetired)) {
				t.Errorf("%+v", c)
			}
			if !retired && (c.Lost != nil || c.Number != 2) {
				t.Errorf("the thief's is not there without: %+v", c)
			}
		})
	}
}

// settled is the guard of files that no process serves.
type settled struct{}

func (settled) Ready() error                       { return nil }
func (settled) Wake()                              {}
func (settled) Await(context.Context, int64) error { return nil }

// A vault that takes nothing acknowledges nothing, and what waited is
// acknowledged when it does again.
func TestSilentVault(t *testing.T) {
	w := newWorld(t, plain)
	a := w.console()
	s := &Sender{
		Term: w.term(1), DB: a, Allowed: func() error { return nil }, Confirm: func(context.Context) error { return nil }, Dir: w.dir, Log: slog.New(slog.DiscardHandler),
		Open: func(context.Context, bool) (Book, error) { return w.book, nil },
	}
	if err := s.Ready(); !errors.Is(err, store.ErrPassive) {
		t.Errorf("before it has taken over: %v", err)
	}
	a.Guard(s)
	early, stopped := context.WithTimeout(t.Context(), 10*time.Millisecond)
	if err := a.Settle(early); err == nil { // the vault may hold more than the file
		t.Error("what was not taken over counts")
	}
	stopped()
	a.Guard(settled{})
	w.apply(a, "zero") // of before
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	<-s.Taken()
	w.must(s.Ready())
	a.Guard(s)
	w.must(a.Settle(ctx)) // what was taken over counts
	w.apply(a, "one")
	w.store.Set(fault.Faults{Refuse: 1})
	act := audit.Act{By: "x", At: time.Now()}
	gone, over := context.WithCancel(t.Context())
	answered := make(chan error, 1)
	go func() {
		_, err := a.Apply(gone, act, store.Key{Kind: "ProtectionPolicy", Name: "two"}, json.RawMessage(`{}`), store.Expect{})
		answered <- err
	}()
	for s.Fault() == nil {
		select {
		case err := <-answered:
			t.Fatalf("it was answered: %v", err)
		default:
		}
	}
	short, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	if err := a.Settle(short); err == nil {
		t.Error("what waits counts")
	}
	stop()
	over()
	if err := <-answered; !errors.Is(err, store.ErrUnconfirmed) && !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	w.store.Set(fault.Faults{})
	w.apply(a, "three")
	w.must(a.Settle(ctx))
	cancel()
	<-ended
	r, _, err := w.book.Read(t.Context(), 2)
	if err != nil || r.Epoch != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := a.Apply(t.Context(), act, store.Key{Kind: "ProtectionPolicy", Name: "four"}, json.RawMessage(`{}`), store.Expect{}); !errors.Is(err, store.ErrUnconfirmed) {
		t.Errorf("after its end: %v", err)
	}
}

// FuzzParse reads any bytes as a record: never a crash.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"formatVersion":1,"console":"c","database":"project","number":1,"epoch":1,"holder":"h","previous":"x","changes":["{}"]}`))
	f.Add([]byte(`{"formatVersion":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parse(data); err == nil && (r.Number < 1 || r.Epoch < 1) {
			t.Errorf("%+v", r)
		}
	})
}
