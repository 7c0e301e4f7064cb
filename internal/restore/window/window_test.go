package window

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/restore/port"
)

// cluster lists and gets names, and counts the looks.
type cluster struct {
	port.Cluster
	names   []string
	gets    atomic.Int64
	failAt  int // the listing fails there; 0 does not
	listing atomic.Int64
}

func object(name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetName(name)
	return u
}

func (c *cluster) Get(_ context.Context, at port.Served, _, name string) (*unstructured.Unstructured, error) {
	c.gets.Add(1)
	if !slices.Contains(c.names, name) {
		return nil, apierrors.NewNotFound(at.GVR.GroupResource(), name)
	}
	return object(name), nil
}

func (c *cluster) List(ctx context.Context, _ port.Served, _, _ string, fn func(*unstructured.Unstructured) error) error {
	c.listing.Add(1)
	for i, name := range c.names {
		if c.failAt > 0 && i == c.failAt {
			return errors.New("expired")
		}
		if err := errors.Join(ctx.Err(), fn(object(name))); err != nil {
			return err
		}
	}
	return nil
}

func names(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("n%06d", i))
	}
	return all
}

// Every object is found, in whatever order they are listed and asked for, and
// whatever becomes of the listing; and in the usual order one listing does.
func TestGet(t *testing.T) {
	const n = 5 * width
	backwards := names(n)
	slices.Reverse(backwards)
	shuffled := names(n)
	rand.Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for _, c := range []struct {
		name          string
		listed, asked []string
		failAt        int
		most          int64 // looks
	}{
		{"in order", names(n), names(n), 0, 0},
		{"only the last ones", names(n), names(n)[n-10:], 0, 0},
		{"listed in no order", shuffled, names(n), 0, n},
		{"asked backwards", names(n), backwards, 0, n},
		{"asked in no order", names(n), shuffled, 0, n},
		{"the listing fails", names(n), names(n), n / 2, n/2 + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := &cluster{names: c.listed, failAt: c.failAt}
				w := New(t.Context(), fake)
				defer w.Close()
				// Eight ask at once, and none is left behind by more: how long a
				// goroutine may be put off is the scheduler's affair.
				for asked := range slices.Chunk(c.asked, 8) {
					var group sync.WaitGroup
					for _, name := range asked {
						group.Go(func() {
							u, err := w.Get(t.Context(), port.Served{}, "ns", name)
							if err != nil || u.GetName() != name {
								t.Errorf("%s: %v %v", name, u, err)
							}
						})
					}
					group.Wait()
				}
				if gets := fake.gets.Load(); gets > c.most || fake.listing.Load() != 1 {
					t.Errorf("%d looks, want %d at most; %d listings", gets, c.most, fake.listing.Load())
				}
			})
		})
	}
}

func TestWhatIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(t.Context(), &cluster{names: []string{"a", "c"}})
		defer w.Close()
		for _, name := range []string{"b", "d", "0"} {
			if _, err := w.Get(t.Context(), port.Served{}, "ns", name); !apierrors.IsNotFound(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := w.Get(t.Context(), port.Served{}, "ns", "c"); err != nil {
			t.Error(err)
		}
	})
}
