package journal

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"davit.dev/davit/internal/console/store"
)

// A database comes back as it was at a time: by the newest backup that is not younger, or where that
// is damaged by the one before, and by what was written up to then and no further.
func TestAt(t *testing.T) {
	w := newWorld(t, plain)
	ctx := t.Context()
	a, term := w.console(), w.term(1)
	w.must(term.Take(ctx, w.book, a))
	begun := time.Now()
	w.backup(a)
	var times []time.Time
	for i := range 6 {
		w.apply(a, fmt.Sprint("p", i))
		w.send(term, a)
		times = append(times, time.Now())
		for !time.Now().Truncate(time.Millisecond).After(times[i]) { // times of backups and audit records have no parts of that
			runtime.Gosched()
		}
		if i == 2 {
			w.backup(a) // the second
		}
	}
	at := func(when time.Time) (Past, string, error) {
		t.Helper()
		w.n++
		path := filepath.Join(w.dir, fmt.Sprint("past", w.n, ".db"))
		p, err := w.book.At(ctx, path, when)
		if err != nil {
			return p, "", err
		}
		db, err := store.OpenAlone(ctx, path, false)
		w.must(err)
		defer db.Close()
		return p, w.logged(db), nil
	}
	want := func(when time.Time, backup int64, records int, last string) Past {
		t.Helper()
		p, log, err := at(when)
		all := "ProtectionPolicy/p0 ProtectionPolicy/p1 ProtectionPolicy/p2 ProtectionPolicy/p3 ProtectionPolicy/p4 ProtectionPolicy/p5"
		n := len("ProtectionPolicy/p0 ") * (int(last[1]-'0') + 1)
		if err != nil || p.Backup != backup || p.Records != records || log != all[:n-1] || p.Audit.Sequence != int64(last[1]-'0')+1 {
			t.Errorf("as of %s: %+v, %q, %v", when, p, log, err)
		}
		return p
	}
	for i, backup := range []int64{1, 1, 0, 2, 2, 2} {
		if backup == 0 { // the second one's own time is about this
			continue
		}
		records := i + 1
		if backup == 2 {
			records = i - 2
		}
		if p := want(times[i], backup, records, fmt.Sprint("p", i)); p.Short != nil || len(p.Passed) > 0 {
			t.Errorf("%+v", p)
		}
	}
	if _, _, err := at(begun.Add(-time.Hour)); !errors.Is(err, ErrYounger) {
		t.Errorf("before all of it: %v", err)
	}

	// The second is damaged: the first, and more of the journal.
	w.must(w.store.Delete(ctx, w.book.Project.Root()+"console/c0ffee/backups/project/00000000000000000002/00000001"))
	if p := want(times[4], 1, 5, "p4"); len(p.Passed) != 1 || p.Short != nil {
		t.Errorf("%+v", p)
	}

	// A record is gone: what is known of then is older, and that is said. The negative control
	// is above, where there is no gap.
	w.must(w.store.Delete(ctx, w.book.key(4))) // of p2; the first is of the term
	if p := want(times[4], 1, 2, "p1"); !errors.Is(p.Short, ErrFork) || p.At.After(times[1]) {
		t.Errorf("%+v", p)
	}
}
