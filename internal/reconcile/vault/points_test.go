package vault

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/reconcile/project"
)

// calls counts what the cluster is asked to write of recovery points, and has the first so
// many wait for each other.
type calls struct {
	mu               sync.Mutex
	creates, patches int
	deletes          int
	running, most    int
	together         chan struct{}
	lost             string // the point that is gone when its status is written, once
	met              bool
}

func (c *calls) begin(ctx context.Context, n *int) {
	c.mu.Lock()
	*n++
	c.running++
	c.most = max(c.most, c.running)
	if c.running == beside {
		c.meet()
	}
	c.mu.Unlock()
	select {
	case <-c.together:
	case <-ctx.Done():
	case <-time.After(10 * time.Second): // one after the other: the test says so
		c.mu.Lock()
		defer c.mu.Unlock()
		c.meet()
	}
}

// meet lets those go on that wait for each other; none waits after that.
func (c *calls) meet() {
	if !c.met {
		c.met = true
		close(c.together)
	}
}

func (c *calls) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
}

// counted has the site's calls counted.
func (s *site) counted(c *calls) {
	c.together = make(chan struct{})
	s.Client = interceptor.NewClient(s.Client.(client.WithWatch), interceptor.Funcs{
		Create: func(ctx context.Context, next client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if _, ok := o.(*v1alpha1.RecoveryPoint); ok {
				c.begin(ctx, &c.creates)
				defer c.end()
			}
			return next.Create(ctx, o, opts...)
		},
		Delete: func(ctx context.Context, next client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			if _, ok := o.(*v1alpha1.RecoveryPoint); ok {
				c.begin(ctx, &c.deletes)
				defer c.end()
			}
			return next.Delete(ctx, o, opts...)
		},
		Patch: func(ctx context.Context, next client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if _, ok := o.(*v1alpha1.RecoveryPoint); ok {
				c.begin(ctx, &c.patches)
				defer c.end()
			}
			return next.Patch(ctx, o, p, opts...)
		},
		SubResourcePatch: func(ctx context.Context, next client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			if _, ok := o.(*v1alpha1.RecoveryPoint); ok {
				c.begin(ctx, &c.patches)
				defer c.end()
				c.mu.Lock()
				gone := o.GetName() == c.lost
				if gone {
					c.lost = ""
				}
				c.mu.Unlock()
				if gone { // somebody removed the object meanwhile
					if err := next.Delete(ctx, o); err != nil {
						return err
					}
					return apierrors.NewNotFound(schema.GroupResource{Resource: "recoverypoints"}, o.GetName())
				}
			}
			return next.SubResource(sub).Patch(ctx, o, p, opts...)
		},
	})
}

// TestManyPointsAreShown side by side, within a bound, with two calls for each; an object that
// is removed meanwhile keeps none of the others, and comes back.
func TestManyPointsAreShown(t *testing.T) {
	s := newSite(t)
	const n = 5 * beside
	for i := range n {
		s.publish(fmt.Sprintf("shop-%02d", i), 1)
	}
	c := &calls{lost: "shop-07"}
	s.counted(c)
	if v := s.look(); v.Annotations[project.AnnotationShown] != "" {
		t.Error("a list that lacks a point is said to be whole")
	}
	if got := s.shown(); len(got) != n-1 || c.creates != n || c.patches != n {
		t.Errorf("%d of %d are shown after %d creations and %d patches", len(got), n, c.creates, c.patches)
	}
	if c.most != beside {
		t.Errorf("%d calls at a time, want %d", c.most, beside)
	}
	if v := s.look(); v.Annotations[project.AnnotationShown] == "" || c.creates != n+1 || c.patches != n+1 {
		t.Errorf("the next look: %q, %d creations and %d patches in all", v.Annotations[project.AnnotationShown], c.creates, c.patches)
	}
	for key, rp := range s.shown() {
		if rp.Status.Phase != v1alpha1.PointAvailable || rp.Status.Site != "east" {
			t.Errorf("%s: %+v", key, rp.Status)
		}
	}
	s.look()
	if c.creates != n+1 || c.patches != n+1 || c.deletes != 0 {
		t.Errorf("a look at what is shown: %d creations, %d patches, %d removals in all", c.creates, c.patches, c.deletes)
	}
	for i := range n - 1 {
		if err := s.project.DeletePoint(t.Context(), "shop", fmt.Sprintf("shop-%02d", i)); err != nil {
			t.Fatal(err)
		}
	}
	c.most, c.together, c.met = 0, make(chan struct{}), false
	s.look()
	if len(s.shown()) != 1 || c.deletes != n-1 || c.most != beside {
		t.Errorf("%d are shown after %d removals, %d at a time", len(s.shown()), c.deletes, c.most)
	}
}

// TestShowingEndsWithItsContext: what waits begins no more.
func TestShowingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	began := 0
	err := sideBySide(ctx, 1000, func(int) error {
		mu.Lock()
		defer mu.Unlock()
		if began++; began == 20 {
			cancel()
		}
		return nil
	})
	if err == nil || began < 20 || began > 20+beside {
		t.Errorf("%d began: %v", began, err)
	}
}
