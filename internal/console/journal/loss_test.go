package journal

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
)

// mortal is the vault of a console that is killed: each write takes some time, and one that
// is under way when the console dies, or the vault stops to answer, was not.
type mortal struct {
	vault.Store
	dead *atomic.Bool
	last *atomic.Int64 // when the last write succeeded
}

// takes is how long a write of the vault takes, in the context of whoever lives in virtual time.
type takes struct{}

func (m mortal) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	select {
	case <-time.After(took(ctx)): // virtual time
	case <-ctx.Done():
		return ctx.Err()
	}
	if m.dead.Load() {
		return vault.ErrUnavailable
	}
	err := m.Store.PutIfAbsent(ctx, key, r, size)
	if err == nil {
		m.last.Store(time.Now().UnixNano())
	}
	return err
}

func took(ctx context.Context) time.Duration {
	d, _ := ctx.Value(takes{}).(time.Duration)
	return d
}

// loss is what a console that is killed takes with it.
type loss struct {
	wrote, kept, decisions int
	lost                   []audit.Record // oldest first
	unkept                 []string       // decisions that were acknowledged, and are not in the vault
	last                   time.Time      // when the vault took the last write
}

// killed has a console write what is not waited for, and decisions, until it is killed, and
// a while before that the vault may stop to answer. slow is how long each write of the vault takes.
//
// Time is virtual while the console lives. The vault is made and read outside of that: what
// decompresses is shared by all tests, and belongs to no bubble.
func killed(t *testing.T, seed uint64, slow time.Duration) (l loss) {
	t.Helper()
	dead, last := &atomic.Bool{}, &atomic.Int64{}
	w := makeWorld(t, func(s vault.Store) vault.Store { return mortal{s, dead, last} })
	path := filepath.Join(w.dir, "began.db")
	var all []audit.Record
	var acked []string
	synctest.Test(t, func(t *testing.T) { all, acked = live(t, w, seed, slow, dead, last, path, &l) })
	began, err := store.OpenAlone(t.Context(), path, false)
	w.must(err)
	defer began.Close()
	_, err = CatchUp(t.Context(), w.book, began)
	w.must(err)
	kept, err := began.AuditAfter(t.Context(), 0, 10_000)
	w.must(err)
	l.last, l.decisions, l.kept = time.Unix(0, last.Load()), len(acked), len(kept)
	there := map[string]bool{}
	for _, r := range kept {
		there[r.Hash] = true
	}
	for _, r := range all {
		if there[r.Hash] {
			continue
		}
		l.lost = append(l.lost, r)
		if slices.Contains(acked, r.Object) {
			l.unkept = append(l.unkept, r.Object)
		}
	}
	return l
}

// live is the console's life: all that it had, and what it acknowledged.
func live(t *testing.T, w *world, seed uint64, slow time.Duration, dead *atomic.Bool, last *atomic.Int64, path string, l *loss) (all []audit.Record, acked []string) {
	random := rand.New(rand.NewPCG(seed, 0))
	last.Store(time.Now().UnixNano())
	c, err := store.Create(t.Context(), filepath.Join(w.dir, "console"))
	w.must(err)
	defer c.Close()
	p, err := c.CreateProject(t.Context(), audit.Act{By: "x", At: time.Now()}, "acme")
	w.must(err)
	w.must(p.Snapshot(t.Context(), path))
	s := &Sender{
		Term: w.term(1), DB: p, Dir: w.dir, Log: slog.New(slog.DiscardHandler),
		Open:    func(context.Context, bool) (Book, error) { return w.book, nil },
		Confirm: func(context.Context) error { return nil }, Allowed: func() error { return nil },
	}
	p.Guard(s)
	ctx, kill := context.WithCancel(context.WithValue(t.Context(), takes{}, slow))
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	select {
	case <-s.Taken():
	case <-time.After(time.Minute): // virtual time
		t.Fatal("it is not taken over")
	}
	wrote := make(chan struct{})
	go func() { // what nobody waits for
		defer close(wrote)
		for n := 0; ctx.Err() == nil; n++ {
			if p.Note(ctx, audit.Act{By: "stranger", At: time.Now()}, audit.Record{Action: "login", Object: fmt.Sprint("n", n)}) == nil {
				l.wrote++
			}
			time.Sleep(time.Duration(1+random.IntN(150)) * time.Millisecond) // virtual time
		}
	}()
	decided := make(chan struct{})
	go func() { // what is acknowledged
		defer close(decided)
		for n := 0; ctx.Err() == nil; n++ {
			name := fmt.Sprint("d", n)
			if p.Witness(ctx, audit.Act{By: "user/anna", At: time.Now()}, audit.Record{Action: "run.approve", Object: name}) == nil {
				acked = append(acked, name)
			}
			time.Sleep(700 * time.Millisecond) // virtual time
		}
	}()
	time.Sleep(time.Duration(2000+seed*137%5000) * time.Millisecond) // virtual time
	dead.Store(true)
	if seed%3 == 0 { // the vault alone is gone at first
		time.Sleep(1500 * time.Millisecond) // virtual time
	}
	kill()
	<-ended
	<-wrote
	<-decided
	dead.Store(false) // for who takes over
	all, err = p.AuditAfter(t.Context(), 0, 10_000)
	w.must(err)
	return all, acked
}

// oldest is how long before the vault's last write the oldest was stamped of what was lost.
func (l *loss) oldest() time.Duration {
	if len(l.lost) == 0 {
		return 0
	}
	return l.last.Sub(l.lost[0].At)
}

// A console that is killed takes with it at most what was stamped within a second before the
// last write that its vault took, and what came after that; and nothing that was acknowledged.
// By the console's own clock, which in here nothing but the console moves.
func TestAtMostASecondIsLost(t *testing.T) {
	lost, decisions := 0, 0
	for seed := range uint64(30) {
		slow := time.Duration(10+seed*13) * time.Millisecond // up to 400 ms
		l := killed(t, seed, slow)
		lost, decisions = lost+len(l.lost), decisions+l.decisions
		if l.wrote < 10 || l.kept < 10 || len(l.unkept) > 0 {
			t.Errorf("seed %d: %d were written and %d kept; acknowledged and lost: %s", seed, l.wrote, l.kept, strings.Join(l.unkept, " "))
		}
		if l.oldest() > time.Second {
			t.Errorf("seed %d: what was stamped %s before the vault's last write is lost", seed, l.oldest())
		}
	}
	if lost == 0 || decisions < 50 { // else nothing was tried
		t.Errorf("%d were lost in all, and %d acknowledged", lost, decisions)
	}
}

// The control: with a vault that takes two seconds for each write more than a second of the
// rest is lost, which is seen, and still nothing that was acknowledged.
func TestMoreIsLostWithASlowVault(t *testing.T) {
	most := time.Duration(0)
	for seed := range uint64(6) {
		l := killed(t, seed, 2*time.Second)
		most = max(most, l.oldest())
		if len(l.unkept) > 0 {
			t.Errorf("seed %d: acknowledged and lost: %s", seed, strings.Join(l.unkept, " "))
		}
	}
	if most <= time.Second {
		t.Errorf("at most %s before the vault's last write", most)
	}
}
