package vault_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
)

const idle = time.Hour

// start begins a point and writes one pack of it.
func start(t *testing.T, p *vault.Project, id string) (*vault.PointWriter, *point.Manifest) {
	t.Helper()
	w, err := p.NewWriter(t.Context(), "shop", id)
	if err != nil {
		t.Fatal(err)
	}
	r := w.Resource(point.Resource{Resource: "secrets", Version: "v1"})
	if err := r.Add(t.Context(), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	m := manifest()
	res, err := r.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.Resources = []point.Resource{res}
	return w, m
}

func sweep(t *testing.T, p *vault.Project) []string {
	t.Helper()
	orphans, err := p.Sweep(t.Context(), idle)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, o := range orphans {
		ids = append(ids, o.ID)
	}
	return ids
}

func TestSweepSparesTheLiving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := mem.New(nil)
		p, _ := project(t, store)
		publish(t, p, "shop", "published", 1)
		sweep(t, p) // leaves its clock object
		before := keys(t, store)
		start(t, p, "dead")
		alive, m := start(t, p, "alive")
		if swept := sweep(t, p); len(swept) != 0 {
			t.Errorf("swept %q at once", swept)
		}
		for range 4 {
			time.Sleep(idle / 2) // virtual time
			if err := alive.Touch(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if swept := sweep(t, p); !slices.Equal(swept, []string{"dead"}) {
			t.Errorf("swept %q, want the dead one", swept)
		}
		if err := alive.Publish(t.Context(), m, nil); err != nil {
			t.Fatal(err)
		}
		if err := p.DeletePoint(t.Context(), "shop", "alive"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, keys(t, store)); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
	})
}

// TestSweepBesidePublish runs a whole sweep between any two operations of a
// publication, and a whole publication between any two of a sweep. Whatever
// comes out, what is offered is whole, and who published knows whether it is.
func TestSweepBesidePublish(t *testing.T) {
	for name, swap := range map[string]bool{"sweep inside publish": false, "publish inside sweep": true} {
		t.Run(name, func(t *testing.T) {
			for at := 0; ; at++ {
				if !interleave(t, at, swap) {
					t.Logf("%d places", at)
					return
				}
			}
		})
	}
}

// interleave runs the inner action before the at-th operation of the outer
// one. It returns false if the outer one has no such operation.
func interleave(t *testing.T, at int, swap bool) bool {
	t.Helper()
	store := &hooked{Store: mem.New(nil)}
	p, _ := project(t, store)
	w, m := start(t, p, "late")
	var published error
	publish := func() { published = w.Publish(t.Context(), m, nil) }
	sweep := func() {
		if _, err := p.Sweep(t.Context(), -1); err != nil { // everything is old enough
			t.Errorf("Sweep: %v", err)
		}
	}
	outer, inner := publish, sweep
	if swap {
		outer, inner = sweep, publish
	}
	called := false
	store.left, store.hook = at, func() {
		called = true
		inner()
	}
	outer()
	if !called {
		return false
	}
	points, err := p.Points(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	offered := len(points) == 1 && points[0].Point().Good()
	if offered && p.VerifyObjects(t.Context(), points[0].Manifest, nil) != nil {
		t.Errorf("operation %d: a broken point is offered", at)
	}
	if (published == nil) != offered || published != nil && !errors.Is(published, vault.ErrSwept) {
		t.Errorf("operation %d: Publish = %v, offered: %v", at, published, offered)
	}
	return true
}

// hooked calls hook once, before the operation after left others.
type hooked struct {
	vault.Store
	left int
	hook func()
}

func (s *hooked) step() {
	if s.hook == nil {
		return
	}
	if s.left > 0 {
		s.left--
		return
	}
	hook := s.hook
	s.hook = nil
	hook()
}

func (s *hooked) Stat(ctx context.Context, key string) (vault.ObjectInfo, error) {
	s.step()
	return s.Store.Stat(ctx, key)
}

func (s *hooked) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	s.step()
	return s.Store.Put(ctx, key, r, size)
}

func (s *hooked) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	s.step()
	return s.Store.PutIfAbsent(ctx, key, r, size)
}

func (s *hooked) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	s.step()
	return s.Store.List(ctx, prefix, fn)
}

func (s *hooked) Delete(ctx context.Context, key string) error {
	s.step()
	return s.Store.Delete(ctx, key)
}

// TestAbortAfterLostAnswer loses the answer to the manifest's put.
func TestAbortAfterLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fault.New(mem.New(nil), 1, fault.Faults{})
		p, _ := project(t, store)
		before := keys(t, store)
		w, m := start(t, p, "unknown")
		err := w.Publish(t.Context(), m, func(context.Context) error {
			store.Set(fault.Faults{Lose: 1})
			return nil
		})
		store.Set(fault.Faults{})
		if !errors.Is(err, vault.ErrUnavailable) {
			t.Fatalf("Publish = %v, want ErrUnavailable", err)
		}
		if err := w.Abort(t.Context()); err != nil {
			t.Fatal(err)
		}
		if points, err := p.Points(t.Context(), "shop"); err != nil || len(points) != 0 {
			t.Errorf("Points = %+v, %v; want none", points, err)
		}
		time.Sleep(2 * idle) // virtual time
		sweep(t, p)
		if err := store.Delete(t.Context(), "projects/acme/clock"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, keys(t, store)); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
	})
}

func TestPublishAgainAfterLostAnswer(t *testing.T) {
	store := fault.New(mem.New(nil), 1, fault.Faults{})
	p, _ := project(t, store)
	w, m := start(t, p, "again")
	err := w.Publish(t.Context(), m, func(context.Context) error {
		store.Set(fault.Faults{Lose: 1})
		return nil
	})
	store.Set(fault.Faults{})
	if !errors.Is(err, vault.ErrUnavailable) {
		t.Fatalf("Publish = %v, want ErrUnavailable", err)
	}
	if err := w.Publish(t.Context(), m, nil); err != nil {
		t.Errorf("publishing again: %v", err)
	}
	if points, err := p.Points(t.Context(), "shop"); err != nil || len(points) != 1 || points[0].Err != nil {
		t.Errorf("Points = %+v, %v; want one", points, err)
	}
}

// TestDeleteResumes stops a deletion after every possible number of steps and
// starts it again.
func TestDeleteResumes(t *testing.T) {
	for steps := 0; ; steps++ {
		store := &stopping{Store: mem.New(nil), left: -1}
		p, _ := project(t, store)
		before := keys(t, store)
		publish(t, p, "shop", "shop-1", 1)
		m, err := p.Manifest(t.Context(), "shop", "shop-1")
		if err != nil {
			t.Fatal(err)
		}
		store.left = steps
		err = p.DeletePoint(t.Context(), "shop", "shop-1")
		store.left = -1
		points, listErr := p.Points(t.Context(), "shop")
		if listErr != nil {
			t.Fatal(listErr)
		}
		for _, left := range points {
			if left.Point().Good() && p.VerifyObjects(t.Context(), m, nil) != nil {
				t.Fatalf("after %d steps a broken point is offered", steps)
			}
		}
		if err == nil {
			return
		}
		if err := p.DeletePoint(t.Context(), "shop", "shop-1"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, keys(t, store)); diff != "" {
			t.Fatalf("after %d steps and again (-want +got):\n%s", steps, diff)
		}
	}
}

// stopping lets a number of deletions through and then no more; -1 lets all.
type stopping struct {
	vault.Store
	left int
}

func (s *stopping) Delete(ctx context.Context, key string) error {
	if s.left == 0 {
		return vault.ErrUnavailable
	}
	if s.left > 0 {
		s.left--
	}
	return s.Store.Delete(ctx, key)
}
