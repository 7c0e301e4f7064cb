package lock_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/lock"
	"davit.dev/davit/internal/vault/mem"
)

func TestCovers(t *testing.T) {
	for key, want := range map[string]bool{
		"davit.json": true, "copy.json": true, "promotion.json": true, "selftest/x": false,
		"projects/p/project.json": true, "projects/p/keys/a/b": true, "projects/p/keyring/00000000000000000002": true,
		"projects/p/objects/shop/shop-1/00000001": true, "projects/p/objects/shop/shop-1/log": true, "projects/p/objects/shop/shop-1/begin": false,
		"projects/p/manifests/shop/shop-1": true, "projects/p/epochs/shop/00000000000000000001": true, "projects/p/apps/shop/00000000000000000001": true,
		"projects/p/marks/shop/shop-1/verified-0": true, "projects/p/marks/shop/shop-1/deleting-0": false, "projects/p/marks/shop/shop-1/undeleted-0": false,
		"projects/p/sites/east": false, "projects/p/clock": false, "projects/p/reserve/0": false,
		"projects/p/volumes/east/p123": true, "projects/p/volumes/east/q123": true, "projects/p/volumes/east/xn0_1": true,
		"projects/p/volumes/east/kopia.repository": true, "projects/p/volumes/east/kopia.maintenance": false, "projects/p/volumes/east/_log_1": false,
		"projects/p/volumes/east/s123": false, "projects/p/volumes/east_2-inventory/2026-000001": true,
	} {
		if got := lock.Covers(key); got != want {
			t.Errorf("Covers(%s) = %v, want %v", key, got, want)
		}
	}
}

// locking is a store that remembers locks.
type locking struct {
	vault.Store
	mu     sync.Mutex
	locks  map[string]time.Time
	refuse map[string]error
}

func (l *locking) CheckLock(context.Context) error { return nil }

func (l *locking) Lock(_ context.Context, key string, _ lock.Mode, until time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refuse[key]; err != nil {
		return err
	}
	l.locks[key] = until
	return nil
}

func (l *locking) LockedUntil(_ context.Context, key string) (time.Time, error) {
	return l.locks[key], nil
}

// wrapped hides what is below, but for Unwrap.
type wrapped struct{ vault.Store }

func (w wrapped) Unwrap() vault.Store { return w.Store }

func TestOf(t *testing.T) {
	below := &locking{Store: mem.New(nil), locks: map[string]time.Time{}}
	if got, ok := lock.Of(wrapped{wrapped{below}}); !ok || got != lock.Locker(below) {
		t.Errorf("Of = %v, %v", got, ok)
	}
	if _, ok := lock.Of(wrapped{mem.New(nil)}); ok {
		t.Error("memory does not lock")
	}
}

func TestSpanReachesBeyondTheDays(t *testing.T) {
	p := lock.Policy{Mode: lock.Compliance, Days: 8}
	// Whenever a lock is looked at, one pass may have been missed.
	if left := p.Span() - 2*p.Every(); left < 8*24*time.Hour {
		t.Errorf("locks of %s prolonged every %s leave %s", p.Span(), p.Every(), left)
	}
	if (lock.Policy{}).On() || (lock.Policy{}).Span() != 0 {
		t.Error("no policy locks nothing")
	}
}

// TestOneRefusalKeepsNoOtherLockFromBeingProlonged; a store that gives no answer ends the pass.
func TestOneRefusalKeepsNoOtherLockFromBeingProlonged(t *testing.T) {
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	below := &locking{Store: mem.New(nil), locks: map[string]time.Time{}, refuse: map[string]error{}}
	p, err := vault.CreateProject(t.Context(), below, "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range []string{"a", "b", "c"} {
		if err := p.WriteSealed(t.Context(), p.Root()+"runs/"+run+"/1", []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	policy, now := lock.Policy{Mode: lock.Compliance, Days: 8}, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	all, err := lock.Extend(t.Context(), p, below, policy, now)
	if err != nil || all.Objects < 4 || len(below.locks) != all.Objects {
		t.Fatalf("%+v, %v, %d locked", all, err, len(below.locks))
	}
	below.refuse[p.Root()+"runs/b/1"] = vault.ErrDenied
	clear(below.locks)
	report, err := lock.Extend(t.Context(), p, below, policy, now)
	if !errors.Is(err, vault.ErrDenied) || len(below.locks) != all.Objects-1 || report.Objects != all.Objects-1 {
		t.Errorf("one refused: %+v, %v, %d locked of %d", report, err, len(below.locks), all.Objects)
	}
	below.refuse[p.Root()+"runs/b/1"] = vault.ErrUnavailable
	if _, err := lock.Extend(t.Context(), p, below, policy, now); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("no answer: %v", err)
	}
}
