package listed

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// counted counts what a store is asked.
type counted struct {
	vault.Store
	gets, lists, others atomic.Int64
}

func (c *counted) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	c.gets.Add(1)
	return c.Store.Get(ctx, key, offset, length)
}

func (c *counted) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	c.lists.Add(1)
	return c.Store.List(ctx, prefix, fn)
}

func (c *counted) Stat(ctx context.Context, key string) (vault.ObjectInfo, error) {
	c.others.Add(1)
	return c.Store.Stat(ctx, key)
}

func (c *counted) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	c.others.Add(1)
	return c.Store.Put(ctx, key, r, size)
}

// TestManyPoints, 10,000 of them in the long run: the first look reads each manifest once; every look
// after that costs a few lists and reads what is new.
func TestManyPoints(t *testing.T) {
	points := 300
	if os.Getenv("DAVIT_SOAK") != "" {
		points = 10_000
	}
	below := &counted{Store: mem.New(nil)}
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), below, "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	for i := range points {
		publish(t, p, i)
	}
	listing := p.Over(func(s vault.Store) vault.Store { return New(s, 64<<20) })
	look := func() (got int, gets, lists, others int64) {
		below.gets.Store(0)
		below.lists.Store(0)
		below.others.Store(0)
		infos, err := listing.Points(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		return len(infos), below.gets.Load(), below.lists.Load(), below.others.Load()
	}
	if got, gets, lists, others := look(); got != points || gets != int64(points) || lists != 2 || others != 0 {
		t.Errorf("the first look: %d points, %d gets, %d lists, %d others", got, gets, lists, others)
	}
	before := heap()
	for range 3 {
		if got, gets, lists, others := look(); got != points || gets != 0 || lists != 2 || others != 0 {
			t.Errorf("another look: %d points, %d gets, %d lists, %d others", got, gets, lists, others)
		}
	}
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("three looks left %d more bytes in memory", grown)
	}
	publish(t, p, points)
	if err := p.Mark(t.Context(), "shop", id(7), vault.Mark{Kind: vault.MarkPinned}); err != nil {
		t.Fatal(err)
	}
	if got, gets, _, _ := look(); got != points+1 || gets != 2 {
		t.Errorf("after one point and one mark: %d points, %d gets", got, gets)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func id(i int) string { return fmt.Sprintf("shop-%06d", i) }

// publish writes a manifest as a capture would, without its other requests:
// 10,000 captures take long.
func publish(t *testing.T, p *vault.Project, i int) {
	t.Helper()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Minute)
	m := point.Manifest{
		FormatVersion: vault.FormatVersion, Project: p.Name(), Application: "shop", ID: id(i),
		Site: "east", Epoch: 1, Trigger: "schedule", Instant: at, CutBy: at, Consistency: point.Crash,
	}
	plain, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WriteSealedOnce(t.Context(), p.Root()+"manifests/shop/"+id(i), plain); err != nil {
		t.Fatal(err)
	}
}
