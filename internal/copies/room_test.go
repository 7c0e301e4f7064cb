package copies

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/reserve"
)

// slow is a way to a vault that takes its time: a second for each 64 KiB.
type slow struct {
	vault.Store
	r *rig

	mu    sync.Mutex // several write at once
	wrote []string   // keys
}

func (s *slow) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r.now
}

func (s *slow) took(key string, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.r.now = s.r.now.Add(time.Duration(size) * time.Second / (64 << 10))
	s.wrote = append(s.wrote, key)
}

func (s *slow) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	s.took(key, size)
	return s.Store.Put(ctx, key, r, size)
}

func (s *slow) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	s.took(key, size)
	return s.Store.PutIfAbsent(ctx, key, r, size)
}

// TestPointsComeBeforeTheirReserve: where the way is slow, the room for deleting
// takes longer than a point. A pass is over before, and the room is laid a piece at a
// time, so that newer points wait for no more than one.
func TestPointsComeBeforeTheirReserve(t *testing.T) {
	r := newRig(t)
	r.publish("p1", 1, true)
	way := &slow{Store: r.second, r: r}
	c := New(Options{First: r.p, Store: way, Volumes: options, Reserve: true, Now: way.clock})
	pass := func() time.Duration {
		t.Helper()
		began := r.now
		if _, err := c.Pass(t.Context(), []App{app()}); err != nil {
			t.Fatal(err)
		}
		return r.now.Sub(began)
	}
	const whole = reserve.Pieces * reserve.PieceSize / (64 << 10) * time.Second
	if took := pass(); took > whole/10 {
		t.Errorf("the first pass took %s of the %s that the whole reserve takes", took, whole)
	}
	if ids := r.whole(); !slices.Equal(ids, []string{"p1"}) {
		t.Errorf("the copy has %v", ids)
	}
	laid := func() (n int) {
		for _, key := range keys(t, r.second, "projects/default/reserve/") {
			if o, err := r.second.Stat(t.Context(), key); err == nil && o.Size == reserve.PieceSize {
				n++
			}
		}
		return n
	}
	for i := range reserve.Pieces {
		if laid() != i {
			t.Errorf("%d pieces are there, want %d", laid(), i)
		}
		c.MakeRoom(t.Context(), 20*time.Second)
		if took := pass(); took > time.Minute {
			t.Errorf("pass %d took %s", i+2, took)
		}
	}
	before := len(way.wrote)
	c.MakeRoom(t.Context(), 20*time.Second)
	if laid() != reserve.Pieces || len(way.wrote) != before {
		t.Errorf("%d pieces are there, and %q were written anew", laid(), way.wrote[before:])
	}
}

// TestACopyThatIsFullFromTheBeginning expires points all the same: the little that
// was laid first is enough for them. The control has none.
func TestACopyThatIsFullFromTheBeginning(t *testing.T) {
	for _, reserved := range []bool{true, false} {
		r := newRig(t)
		for _, id := range []string{"p1", "p2", "p3"} {
			r.publish(id, 1, false)
		}
		room := fault.NewBounded(r.second, 1<<40)
		c := New(Options{First: r.p, Store: room, Volumes: options, Reserve: reserved, Now: func() time.Time { return r.now }})
		if _, err := c.Pass(t.Context(), []App{app()}); err != nil {
			t.Fatal(err)
		}
		used, err := room.Used(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		room.Resize(used)
		c.MakeRoom(t.Context(), time.Hour) // there is none
		rules := app()
		rules.Rules, rules.Expire = point.Retention{KeepLast: 1}, true
		report, err := c.Pass(t.Context(), []App{rules})
		if err != nil {
			t.Fatal(err)
		}
		got := report.Apps["shop"]
		if reserved && (got.Err != nil || strings.Join(got.Deleted, " ") != "p2 p1") {
			t.Errorf("deleted %v: %v", got.Deleted, got.Err)
		}
		if !reserved && !errors.Is(got.Err, vault.ErrFull) {
			t.Errorf("control: without a reserve %v were deleted: %v", got.Deleted, got.Err)
		}
	}
}
