package restore

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

// lossy is a target some of whose answers are lost: what was asked is done all the same.
type lossy struct {
	*fakeCluster
	lose func(verb string, u *unstructured.Unstructured) bool
}

func (c lossy) lost(verb string, at Served, got *unstructured.Unstructured, err error) (*unstructured.Unstructured, error) {
	if err == nil && c.lose(verb, got) {
		return nil, apierrors.NewServerTimeout(at.GVR.GroupResource(), verb, 1)
	}
	return got, err
}

func (c lossy) Create(ctx context.Context, at Served, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	got, err := c.fakeCluster.Create(ctx, at, obj)
	return c.lost("create", at, got, err)
}

func (c lossy) Update(ctx context.Context, at Served, obj *unstructured.Unstructured, sub string) (*unstructured.Unstructured, error) {
	got, err := c.fakeCluster.Update(ctx, at, obj, sub)
	return c.lost("update", at, got, err)
}

// once loses the answer to the first such write.
func once(verb, kind string) func(string, *unstructured.Unstructured) bool {
	lost := false
	return func(v string, u *unstructured.Unstructured) bool {
		if lost || v != verb || u.GetKind() != kind {
			return false
		}
		lost = true
		return true
	}
}

func (r *rig) lossy(opts Options, lose func(verb string, u *unstructured.Unstructured) bool) *Engine {
	opts.ID, opts.Holder = testID, "test"
	return New(r.m, opts, Deps{Source: r.s, Cluster: lossy{r.c, lose}, Volumes: r.v})
}

// TestLeaseWhoseAnswerIsLost: a restore does not take itself for another one, whether the
// lease was there or not.
func TestLeaseWhoseAnswerIsLost(t *testing.T) {
	for _, verb := range []string{"create", "update"} {
		t.Run(verb, func(t *testing.T) {
			r := newRig()
			if verb == "update" {
				run(t, r, Options{})
			}
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				res, err := r.lossy(Options{}, once(verb, "Lease")).Run(t.Context())
				if err != nil || len(res.Failures) > 0 || time.Since(began) > hold.Duration/2 {
					t.Errorf("after %s: %v: %v", time.Since(began), err, res.Failures)
				}
			})
		})
	}
}

// atRelease is a target at which something happens once before a lease is given back.
type atRelease struct {
	*fakeCluster
	happen func(live *unstructured.Unstructured) error
	done   *bool
	refuse *bool // the first look after that
}

func (c atRelease) Get(ctx context.Context, at Served, namespace, name string) (*unstructured.Unstructured, error) {
	if at.GVK.Kind == "Lease" && *c.done && *c.refuse {
		*c.refuse = false
		return nil, apierrors.NewServiceUnavailable("the API server restarts")
	}
	return c.fakeCluster.Get(ctx, at, namespace, name)
}

func (c atRelease) Update(ctx context.Context, at Served, obj *unstructured.Unstructured, sub string) (*unstructured.Unstructured, error) {
	if obj.GetKind() == "Lease" && shape.Text(obj.Object, "spec", "holderIdentity") == "" && !*c.done {
		*c.done = true
		c.mu.Lock()
		err := c.happen(c.objects[keyOf(obj)].DeepCopy())
		c.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	return c.fakeCluster.Update(ctx, at, obj, sub)
}

// TestRollBackAgainAfterALostRelease: that a restore ended whole is known, also where a
// renewal that it broke off arrives after all, or the first try to say so is refused. Given
// again, it rolls the volume back again, and does not take what was written since for the
// point's.
func TestRollBackAgainAfterALostRelease(t *testing.T) {
	for name, happen := range map[string]func(c *fakeCluster, live *unstructured.Unstructured) error{
		"nothing":                          func(*fakeCluster, *unstructured.Unstructured) error { return nil },
		"renewal":                          func(c *fakeCluster, live *unstructured.Unstructured) error { c.store(live); return nil },
		"renewal, and the look is refused": func(c *fakeCluster, live *unstructured.Unstructured) error { c.store(live); return nil },
		"refusal": func(*fakeCluster, *unstructured.Unstructured) error {
			return apierrors.NewServiceUnavailable("the API server restarts")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := lived(t)
			synctest.Test(t, func(t *testing.T) {
				for range 2 {
					time.Sleep(time.Second) // virtual time
					r.v.data["shop/data-db-0"], r.v.fills = "written since", 0
					c := atRelease{r.c, func(live *unstructured.Unstructured) error { return happen(r.c, live) }, new(bool), new(bool)}
					*c.refuse = name == "renewal, and the look is refused"
					e := New(r.m, Options{ID: testID, Holder: "test", KeepClaims: true, Existing: Replace}, Deps{Source: r.s, Cluster: c, Volumes: r.v})
					if res, err := e.Run(t.Context()); err != nil || len(res.Failures) > 0 {
						t.Fatal(err, res.Failures)
					}
					if r.v.fills != 1 || r.v.data["shop/data-db-0"] != "snap-data-db-0" {
						t.Fatalf("%d fills, data %q", r.v.fills, r.v.data["shop/data-db-0"])
					}
				}
			})
		})
	}
}

// busy is a target that refuses the first lists of each kind, as one that restarts.
type busy struct {
	*fakeCluster
	refused map[string]int
	after   int // objects that it hands on before it breaks off
}

func (c busy) List(ctx context.Context, at Served, namespace, selector string, fn func(*unstructured.Unstructured) error) error {
	c.mu.Lock()
	c.refused[at.GVK.Kind]++
	n := c.refused[at.GVK.Kind]
	c.mu.Unlock()
	if n > 2 {
		return c.fakeCluster.List(ctx, at, namespace, selector, fn)
	}
	given := 0
	broken := apierrors.NewServiceUnavailable("the API server restarts")
	err := c.fakeCluster.List(ctx, at, namespace, selector, func(u *unstructured.Unstructured) error {
		if given == c.after {
			return broken
		}
		given++
		return fn(u)
	})
	if err == nil {
		err = broken
	}
	return err
}

// TestListsAreTriedAgain: an API server that restarts costs a restore no volume. Of a list
// that breaks off in the middle nothing is given twice.
func TestListsAreTriedAgain(t *testing.T) {
	r := lived(t)
	synctest.Test(t, func(t *testing.T) {
		e := New(r.m, Options{ID: testID, Holder: "test", KeepClaims: true, ExistingKinds: rollsBack.ExistingKinds}, Deps{Source: r.s, Cluster: busy{r.c, map[string]int{}, 0}, Volumes: r.v})
		if res, err := e.Run(t.Context()); err != nil || len(res.Failures) > 0 {
			t.Errorf("%v: %v", err, res.Failures)
		}
		given := map[string]int{}
		c := port.Retry(busy{r.c, map[string]int{}, 1}, port.WallClock{})
		at := r.c.served[shape.KindSecret][0]
		err := c.List(t.Context(), at, "shop", "", func(u *unstructured.Unstructured) error { given[u.GetName()]++; return nil })
		if err == nil || len(given) != 1 {
			t.Errorf("a list that broke off after one: %v, %v", given, err)
		}
		for name, n := range given {
			if n > 1 {
				t.Errorf("%s was given %d times", name, n)
			}
		}
	})
}
