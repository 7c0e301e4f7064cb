package hold_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/promise/hold"
	"davit.dev/davit/internal/restore/port"
)

// cluster remembers objects by name, with versions. Whatever else is asked of it panics.
type cluster struct {
	port.Cluster

	mu      sync.Mutex
	objects map[string]*unstructured.Unstructured
	version int
	bare    bool // it has no namespace yet
	lost    int  // so many answers to writes are lost
}

func (c *cluster) Serves(_ context.Context, kind schema.GroupKind) ([]port.Served, error) {
	return []port.Served{{GVK: kind.WithVersion("v1"), GVR: schema.GroupVersionResource{Version: "v1", Resource: kind.Kind}}}, nil
}

func (c *cluster) Get(_ context.Context, at port.Served, _, name string) (*unstructured.Unstructured, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if u := c.objects[name]; u != nil {
		return u.DeepCopy(), nil
	}
	return nil, apierrors.NewNotFound(at.GVR.GroupResource(), name)
}

func (c *cluster) put(u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	c.version++
	u = u.DeepCopy()
	u.SetResourceVersion(strconv.Itoa(c.version))
	c.objects[u.GetName()] = u
	if c.lost > 0 {
		c.lost--
		return nil, errors.New("no answer")
	}
	return u.DeepCopy(), nil
}

func (c *cluster) Create(_ context.Context, at port.Served, u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case u.GetKind() == "Namespace":
		c.bare = false
	case c.bare:
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, u.GetNamespace())
	case c.objects[u.GetName()] != nil:
		return nil, apierrors.NewAlreadyExists(at.GVR.GroupResource(), u.GetName())
	}
	return c.put(u)
}

func (c *cluster) Update(_ context.Context, at port.Served, u *unstructured.Unstructured, _ string) (*unstructured.Unstructured, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if live := c.objects[u.GetName()]; live == nil || live.GetResourceVersion() != u.GetResourceVersion() {
		return nil, apierrors.NewConflict(at.GVR.GroupResource(), u.GetName(), errors.New("changed"))
	}
	return c.put(u)
}

func (c *cluster) data(t *testing.T) map[string]string {
	t.Helper()
	u := c.objects[hold.Name("p")]
	if u == nil {
		return nil
	}
	data, _, err := unstructured.NestedStringMap(u.Object, "data")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestHoldsOnlyGrow: many write at once, and what is there in the end is the newest of each; a cluster that has no
// Davit yet is written to as well.
func TestHoldsOnlyGrow(t *testing.T) {
	c := &cluster{objects: map[string]*unstructured.Unstructured{}, bare: true}
	var all sync.WaitGroup
	for n := range int64(8) {
		all.Go(func() {
			if err := hold.Raise(t.Context(), c, "p", map[string]int64{"shop": n + 1, "db." + strconv.FormatInt(n, 10): 3}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := c.data(t); got["shop"] != "8" || len(got) != 9 {
		t.Fatalf("%v", got)
	}
	before := c.version
	if err := hold.Raise(t.Context(), c, "p", map[string]int64{"shop": 7}); err != nil || c.version != before || c.data(t)["shop"] != "8" {
		t.Errorf("a lower one: %v, %v", c.data(t), err)
	}
	for want, epochs := range map[bool]map[string]int64{true: {"shop": 8, "db.1": 2}, false: {"shop": 8, "new": 1}} {
		if held, err := hold.Held(t.Context(), c, "p", epochs); err != nil || held != want {
			t.Errorf("%v: %v, %v", epochs, held, err)
		}
	}
	if held, err := hold.Held(t.Context(), c, "another", map[string]int64{"shop": 1}); err != nil || held {
		t.Errorf("another project's: %v, %v", held, err)
	}
}

// TestAHoldIsNotGuessed: without an answer nobody says that it is there, and a number that cannot be read is not
// taken for a low one.
func TestAHoldIsNotGuessed(t *testing.T) {
	c := &cluster{objects: map[string]*unstructured.Unstructured{}, lost: 1}
	if err := hold.Raise(t.Context(), c, "p", map[string]int64{"shop": 2}); err == nil {
		t.Error("its answer was lost")
	}
	if held, err := hold.Held(t.Context(), c, "p", map[string]int64{"shop": 2}); err != nil || !held {
		t.Errorf("it is there: %v, %v", held, err)
	}
	for _, bad := range []string{"", "x", "-1", "0", "99999999999999999999"} {
		if err := unstructured.SetNestedField(c.objects[hold.Name("p")].Object, bad, "data", "shop"); err != nil {
			t.Fatal(err)
		}
		if err := hold.Raise(t.Context(), c, "p", map[string]int64{"shop": 3}); err == nil {
			t.Errorf("%q is overwritten", bad)
		}
		if _, err := hold.Of(map[string]string{"shop": bad}, "shop"); err == nil {
			t.Errorf("%q is a hold", bad)
		}
	}
}
