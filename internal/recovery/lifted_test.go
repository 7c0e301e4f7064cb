package recovery

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/port"
)

// turning is a clock whose time passes when somebody waits for nodes. Others sleep by the
// machine's.
type turning struct {
	port.WallClock
	mu     sync.Mutex
	now    time.Time
	waited time.Duration // for nodes
	after  func(waited time.Duration)
}

func (c *turning) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *turning) Sleep(ctx context.Context, d time.Duration) error {
	if d != liftedLook {
		return c.WallClock.Sleep(ctx, d)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.waited += d
	c.after(c.waited)
	return nil
}

// TestNothingStartsThatANodeWouldStop: at a site that was superseded and takes over, or gets
// an application back, it waits for the nodes to hear that. The controls are nodes for which
// nothing waits, and one that never hears of it: then it goes on, and people are told.
func TestNothingStartsThatANodeWouldStop(t *testing.T) {
	nodeFences := v1alpha1.GroupVersion.WithResource("nodefences")
	for name, c := range map[string]struct {
		mode  v1alpha1.RestoreMode
		app   string
		ago   time.Duration // when the node said it
		lifts time.Duration // after so long; 0: never
		waits time.Duration
		warns bool
	}{
		"take-over": {v1alpha1.RestoreTakeOver, "shop", 0, 2 * time.Second, 2 * time.Second, false},
		"in place":  {v1alpha1.RestoreInPlace, "shop", 0, time.Second, time.Second, false},
		"never":     {v1alpha1.RestoreTakeOver, "shop", 0, 0, liftedWithin, true},
		"another's": {v1alpha1.RestoreTakeOver, "bank", 0, 0, 0, false},
		"silent":    {v1alpha1.RestoreTakeOver, "shop", time.Hour, 0, 0, false},
		"a clone":   {v1alpha1.RestoreClone, "shop", 0, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.claim("west", 1)
			w.capture("shop-1", "west", 1, instant, point.Crash)
			clock := &turning{now: instant.Add(time.Minute)}
			w.deps.Clock = clock
			says := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{
				"observedAt":   clock.now.Add(-c.ago).Format(time.RFC3339),
				"applications": []any{map[string]any{"application": c.app, "reason": "superseded", "epoch": int64(2)}},
			}}}
			says.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("NodeFence"))
			says.SetName("one")
			nodes := w.dynamic.Resource(nodeFences).Namespace(v1alpha1.SystemNamespace)
			if _, err := nodes.Create(t.Context(), says, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			clock.after = func(waited time.Duration) {
				if c.lifts > 0 && waited == c.lifts {
					if err := nodes.Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
						t.Error(err)
					}
				}
			}
			opts := Options{Application: "shop", Mode: c.mode}
			if c.mode == v1alpha1.RestoreClone {
				opts.NamespaceMapping = map[string]string{"shop": "copy"}
			}
			rep, err := Recover(t.Context(), opts, w.deps)
			if err != nil {
				t.Fatal(err)
			}
			warned := false
			for _, p := range rep.Result.Warnings {
				warned = warned || strings.Contains(p.Message, "node one has not lifted its fence")
			}
			if clock.waited != c.waits || warned != c.warns {
				t.Errorf("waited %s, want %s; warned: %v, %+v", clock.waited, c.waits, warned, rep.Result.Warnings)
			}
		})
	}
}
