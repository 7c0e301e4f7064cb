package surrender_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/standby/surrender"
)

// cluster has one Application, which others may change between a look and a change, and what
// nodes say.
type cluster struct {
	port.Cluster
	app     *unstructured.Unstructured
	meddles int
	nodes   func() ([]v1alpha1.NodeFence, error)
}

func (c *cluster) Serves(_ context.Context, kind schema.GroupKind) ([]port.Served, error) {
	return []port.Served{{GVK: kind.WithVersion("v1alpha1"), Namespaced: true}}, nil
}

func (c *cluster) Get(context.Context, port.Served, string, string) (*unstructured.Unstructured, error) {
	return c.app.DeepCopy(), nil
}

func (c *cluster) Patch(_ context.Context, _ port.Served, _, name string, patch []byte) (*unstructured.Unstructured, error) {
	if c.meddles > 0 {
		c.meddles--
		c.app.SetResourceVersion(c.app.GetResourceVersion() + "1")
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON([]byte(strings.Replace(string(patch), "{", `{"apiVersion":"v1","kind":"Application",`, 1))); err != nil {
		return nil, err
	}
	if u.GetResourceVersion() != c.app.GetResourceVersion() {
		return nil, apierrors.NewConflict(corev1.Resource("applications"), name, errors.New("changed"))
	}
	c.app.SetAnnotations(u.GetAnnotations())
	return c.app.DeepCopy(), nil
}

func (c *cluster) List(_ context.Context, _ port.Served, _, _ string, fn func(*unstructured.Unstructured) error) error {
	all, err := c.nodes()
	for i := range all {
		object, bad := runtime.DefaultUnstructuredConverter.ToUnstructured(&all[i])
		if err = errors.Join(err, bad); err == nil {
			err = fn(&unstructured.Unstructured{Object: object})
		}
	}
	return err
}

func application(returned string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Application"))
	u.SetName("shop")
	u.SetResourceVersion("7")
	if returned != "" {
		u.SetAnnotations(map[string]string{fence.AnnotationReturned: returned})
	}
	return u
}

func TestAHigherEpochStays(t *testing.T) {
	for was, want := range map[string]string{"": "3", "2": "3", "4": "4", "nonsense": "3"} {
		c := &cluster{app: application(was), meddles: 2}
		if err := surrender.Declare(t.Context(), c, c.app.DeepCopy(), 3); err != nil {
			t.Fatal(err)
		}
		if got := c.app.GetAnnotations()[fence.AnnotationReturned]; got != want {
			t.Errorf("%q became %q, want %q", was, got, want)
		}
	}
}

func says(name string, at time.Time, epoch int64, running int32) v1alpha1.NodeFence {
	seen := metav1.NewTime(at)
	return v1alpha1.NodeFence{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1alpha1.NodeFenceStatus{
		ObservedAt: &seen, Applications: []v1alpha1.FencedApplication{{Application: "shop", Epoch: epoch, Running: running}, {Application: "bank", Epoch: 9}},
	}}
}

// TestNodesAreWaitedFor until all that speak have noted it, and nothing runs there. Nobody waits for the
// silent, nor for ever.
func TestNodesAreWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		nodes func(since time.Duration, now time.Time) []v1alpha1.NodeFence
		err   error
		waits time.Duration
		warns string
	}{
		"noted": {nodes: func(_ time.Duration, now time.Time) []v1alpha1.NodeFence {
			return []v1alpha1.NodeFence{says("one", now, 4, 0)}
		}},
		"soon": {nodes: func(since time.Duration, now time.Time) []v1alpha1.NodeFence {
			if since < 2*time.Second {
				return []v1alpha1.NodeFence{says("one", now, 4, 0), says("two", now, 3, 0)}
			}
			return []v1alpha1.NodeFence{says("one", now, 4, 0), says("two", now, 5, 0)}
		}, waits: 2 * time.Second},
		"it runs": {nodes: func(_ time.Duration, now time.Time) []v1alpha1.NodeFence {
			return []v1alpha1.NodeFence{says("one", now, 4, 1)}
		}, waits: 10 * time.Second, warns: "node one"},
		"one is silent": {nodes: func(_ time.Duration, now time.Time) []v1alpha1.NodeFence {
			return []v1alpha1.NodeFence{says("one", now, 4, 0), says("two", now.Add(-time.Hour), 0, 0)}
		}},
		"all are":        {nodes: func(time.Duration, time.Time) []v1alpha1.NodeFence { return nil }, warns: "no node says anything"},
		"may not look":   {err: apierrors.NewForbidden(corev1.Resource("nodefences"), "", errors.New("no")), warns: "is not known"},
		"nobody answers": {err: errors.New("timeout"), waits: 10 * time.Second, warns: "is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				k := &cluster{app: application(""), nodes: func() ([]v1alpha1.NodeFence, error) {
					if c.err != nil {
						return nil, c.err
					}
					return c.nodes(time.Since(began), time.Now()), nil
				}}
				warning := surrender.Warning("shop", surrender.Await(t.Context(), k, port.WallClock{}, "shop", 3, 10*time.Second))
				if waited := time.Since(began); waited != c.waits || (warning != "") != (c.warns != "") || !strings.Contains(warning, c.warns) {
					t.Errorf("waited %s, want %s; %q, want %q", waited, c.waits, warning, c.warns)
				}
			})
		})
	}
}
