package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
)

// busy is a store beside which something happens whenever a journal is listed, or
// read.
type busy struct {
	vault.Store
	listed func()
	read   func()
}

func (b *busy) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	if b.listed != nil && strings.Contains(prefix, "/journal/") {
		b.listed()
	}
	return b.Store.List(ctx, prefix, fn)
}

func (b *busy) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if b.read != nil && strings.Contains(key, "/journal/") {
		b.read()
	}
	return b.Store.Get(ctx, key, offset, length)
}

// written is a journal of so many records, and a database that has the first alone.
func written(w *world, n int) (a *store.Project, term Term, passive *store.Alone) {
	w.t.Helper()
	a, term = w.console(), w.term(1)
	w.must(term.Take(w.t.Context(), w.book, a))
	passive = w.copy(a)
	for i := range n {
		w.apply(a, fmt.Sprint("p", i))
		w.send(term, a)
	}
	return a, term, passive
}

// follows fails unless a database has all that another has.
func (w *world) follows(db, active store.Journaled) {
	w.t.Helper()
	_, err := CatchUp(w.t.Context(), w.book, db)
	w.must(err)
	if got, want := w.logged(db), w.logged(active); got != want {
		w.t.Errorf("it has %q, and the active one %q", got, want)
	}
}

// Who is followed writes between any two looks of who follows. That is no fork: the
// database is not made anew, and where it must be, it becomes what the vault holds.
func TestWrittenMeanwhile(t *testing.T) {
	b := &busy{}
	w := newWorld(t, func(s vault.Store) vault.Store { b.Store = s; return b })
	ctx := t.Context()
	a, term, passive := written(w, 3)
	w.backup(a)
	n := 0
	b.listed = func() {
		n++
		w.apply(a, fmt.Sprint("meanwhile", n))
		w.send(term, a)
	}
	_, err := CatchUp(ctx, w.book, passive)
	w.must(err)
	if err := Reached(ctx, w.book, passive); err != nil {
		t.Errorf("what is written since is taken for a gap: %v", err)
	}
	w.must(w.book.Rebuild(ctx, passive, w.dir))
	if n < 2 {
		t.Fatalf("it was written %d times: it proves nothing", n)
	}
	c, err := w.book.Newest(ctx, filepath.Join(w.dir, "spare.db"))
	if err != nil || c.Lost != nil {
		t.Errorf("%+v, %v", c, err)
	}
	b.listed = nil
	w.follows(passive, a)
	// The negative control: a gap is a fork all the same.
	w.apply(a, "gone")
	w.send(term, a)
	at, err := passive.Position(ctx)
	w.must(err)
	w.apply(a, "after")
	w.send(term, a)
	w.must(w.store.Delete(ctx, w.book.key(at.Number+1)))
	if err := Reached(ctx, w.book, passive); !errors.Is(err, ErrFork) {
		t.Errorf("a gap: %v", err)
	}
	if err := w.book.Rebuild(ctx, passive, w.dir); err == nil {
		t.Error("a journal with a gap goes on from a backup before it")
	}
}

// A backup is made while changes wait, and the next record holds more than those.
// The journal goes on from it.
func TestBackupWhileWritten(t *testing.T) {
	w := newWorld(t, plain)
	ctx := t.Context()
	a, term, passive := written(w, 1)
	w.apply(a, "waits")
	w.backup(a)
	w.apply(a, "later")
	w.send(term, a)
	w.apply(a, "last")
	w.send(term, a)
	c, err := w.book.Newest(ctx, filepath.Join(w.dir, "spare.db"))
	if err != nil || c.Lost != nil || c.Records != 2 {
		t.Fatalf("%+v, %v", c, err)
	}
	w.must(w.book.Rebuild(ctx, passive, w.dir))
	w.follows(passive, a)
	// The negative control: what waits must be what the record begins with.
	here := w.copy(a)
	w.must(here.Note(ctx, audit.Act{By: "x", At: time.Now()}, audit.Record{Action: "note", Object: "one"}))
	w.apply(a, "two")
	w.send(term, a)
	if _, err := CatchUp(ctx, w.book, here); !errors.Is(err, ErrFork) {
		t.Errorf("others wait: %v", err)
	}
}

// However often backups are made, records of late stay for who follows from far, and
// there is a bound to that. Who is outrun all the same is made anew once, and what he
// has carried out since stays when he is interrupted.
func TestOutrun(t *testing.T) {
	b := &busy{}
	w := newWorld(t, func(s vault.Store) vault.Store { b.Store = s; return b })
	ctx := t.Context()
	a, term, passive := written(w, 1)
	documents := 0
	write := func(n int) {
		t.Helper()
		for range n {
			documents++
			w.apply(a, fmt.Sprint("q", documents))
			w.send(term, a)
			w.backup(a)
			w.must(w.book.Trim(ctx))
		}
	}
	write(4)
	_, err := CatchUp(ctx, w.book, passive)
	w.must(err)
	w.must(Reached(ctx, w.book, passive)) // without the hour it would be outrun here

	write(1)
	w.later.Add(int64(keepFor))
	write(3)
	if _, err := CatchUp(ctx, w.book, passive); err != nil {
		t.Fatal(err)
	}
	if err := Reached(ctx, w.book, passive); !errors.Is(err, ErrFork) {
		at, _ := passive.Position(ctx)
		t.Fatalf("it is not outrun at %+v of %v, so this proves nothing: %v", at, w.left(), err)
	}
	for i := range ahead { // after the newest backup
		w.apply(a, fmt.Sprint("r", i))
		w.send(term, a)
	}
	w.must(w.book.Rebuild(ctx, passive, w.dir))
	from, err := passive.Position(ctx)
	w.must(err)
	short, stop := context.WithCancel(ctx)
	var reads atomic.Int64
	b.read = func() {
		if reads.Add(1) > ahead/2 {
			stop()
		}
	}
	if _, err := CatchUp(short, w.book, passive); err == nil {
		t.Fatal("it was not interrupted")
	}
	b.read = nil
	if at, err := passive.Position(ctx); err != nil || at.Number <= from.Number {
		t.Errorf("it was at %d and is at %d, %v", from.Number, at.Number, err)
	}
	w.follows(passive, a)
	w.must(Reached(ctx, w.book, passive))
}

// What stays of the journal although backups hold it is bounded, and has no gap.
func TestSurplus(t *testing.T) {
	now := time.Now()
	var all []kept
	for i := range keepMost + 10 {
		since := now
		if i < 5 {
			since = now.Add(-keepFor)
		}
		all = append(all, kept{int64(i + 1), since})
	}
	for name, c := range map[string]struct {
		all  []kept
		upto int64
		gone int
	}{
		"none":             {nil, 10, 0},
		"one":              {all[:1], 10, 0},
		"old":              {all[:100], 100, 5},
		"in no backup":     {all[:100], 3, 3},
		"too many":         {all, 1 << 40, 10},
		"many, no backup":  {all, 7, 7},
		"an old one after": {[]kept{{1, now}, {2, now.Add(-2 * keepFor)}, {3, now}}, 3, 0},
		"all old":          {[]kept{{1, now.Add(-keepFor)}, {2, now.Add(-keepFor)}}, 2, 1},
	} {
		if gone := surplus(c.all, c.upto, now); len(gone) != c.gone || len(gone) > 0 && gone[0] != c.all[0].number {
			t.Errorf("%s: %d go, want %d", name, len(gone), c.gone)
		}
	}
}
