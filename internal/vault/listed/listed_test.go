package listed

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/vault/vaulttest"
)

// counting counts the objects that were read.
type counting struct {
	vault.Store
	gets atomic.Int64
}

func (c *counting) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	c.gets.Add(1)
	return c.Store.Get(ctx, key, offset, length)
}

type rig struct {
	t     *testing.T
	below *counting
	store *Store
	now   time.Time
}

func newRig(t *testing.T, limit int64) *rig {
	r := &rig{t: t, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	r.below = &counting{Store: mem.New(func() time.Time { return r.now })}
	r.store = New(r.below, limit)
	return r
}

// put writes below the cache, as another site does.
func (r *rig) put(key, data string) {
	r.t.Helper()
	if err := r.below.Put(r.t.Context(), key, strings.NewReader(data), int64(len(data))); err != nil {
		r.t.Fatal(err)
	}
}

// look lists everything and reads it, and says how many objects that read.
func (r *rig) look() (all string, gets int64) {
	r.t.Helper()
	before := r.below.gets.Load()
	var keys []string
	if err := r.store.List(r.t.Context(), "p/", func(o vault.ObjectInfo) error { keys = append(keys, o.Key); return nil }); err != nil {
		r.t.Fatal(err)
	}
	for _, key := range keys {
		b, err := r.store.Get(r.t.Context(), key, 0, -1)
		if err != nil {
			r.t.Fatal(err)
		}
		data, err := io.ReadAll(b)
		if err != nil {
			r.t.Fatal(err)
		}
		all += string(data)
	}
	return all, r.below.gets.Load() - before
}

func TestContract(t *testing.T) {
	vaulttest.Run(t, func(*testing.T) vault.Store { return New(mem.New(nil), 1<<20) })
}

func TestOnlyNewAndChangedObjectsAreRead(t *testing.T) {
	r := newRig(t, 1<<20)
	step := func(name, want string, gets int64) {
		t.Helper()
		if all, n := r.look(); all != want || n != gets {
			t.Errorf("%s: %q with %d reads, want %q with %d", name, all, n, want, gets)
		}
	}
	for i := range 3 {
		r.put(fmt.Sprintf("p/manifests/shop/%d", i), fmt.Sprint(i))
	}
	step("first", "012", 3)
	step("again", "012", 0)
	r.put("p/manifests/shop/3", "3")
	step("a new one", "0123", 1)
	r.now = r.now.Add(time.Second)
	r.put("p/manifests/shop/1", "x")
	step("a changed one of the same size", "0x23", 1)
	if err := r.below.Delete(t.Context(), "p/manifests/shop/0"); err != nil {
		t.Fatal(err)
	}
	step("one is gone", "x23", 0)
	r.put("p/clock", "c")
	step("what is not written once", "cx23", 1)
	step("and again", "cx23", 1)
}

func TestLimitIsKept(t *testing.T) {
	r := newRig(t, 2)
	for i := range 4 {
		r.put(fmt.Sprintf("p/manifests/shop/%d", i), fmt.Sprint(i))
	}
	for range 2 {
		r.look()
	}
	if all, gets := r.look(); all != "0123" || gets != 2 || r.store.size != 2 {
		t.Errorf("%q with %d reads; %d bytes kept", all, gets, r.store.size)
	}
}
