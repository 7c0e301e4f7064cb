package mover

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
)

// lingering is a cluster whose pods take long to go once they are told to, and
// whose quotas may not be read where that is said.
func lingering(c *cluster, unreadable bool, told *int) client.WithWatch {
	return interceptor.NewClient(c.WithWatch, interceptor.Funcs{
		Delete: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			if _, ok := o.(*corev1.Pod); !ok {
				return w.Delete(ctx, o, opts...)
			}
			*told++
			go func() {
				time.Sleep(7 * time.Second)                 // the bubble's clock
				_ = w.Delete(context.WithoutCancel(ctx), o) // the test looks whether it is gone
			}()
			return nil
		},
		List: func(ctx context.Context, w client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			if _, ok := l.(*corev1.ResourceQuotaList); ok && unreadable {
				return errors.New("no rights")
			}
			return w.List(ctx, l, opts...)
		},
	})
}

// TestAWorkloadWaitsForAHolderOnlyWhereItWouldBeRefused: what mounts the volume
// next may come while the holder is on its way out, unless that would refuse it.
func TestAWorkloadWaitsForAHolderOnlyWhereItWouldBeRefused(t *testing.T) {
	alone := bound()
	alone.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	quota := func(namespace string) client.Object {
		return &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "q"}}
	}
	for name, c := range map[string]struct {
		objects    []client.Object
		fails      bool // the node's work
		unreadable bool // quotas
		waits      bool
	}{
		"pods of a node share it":  {[]client.Object{bound(), quota("other")}, false, false, false},
		"one pod alone may use it": {[]client.Object{alone}, false, false, true},
		"a quota counts pods":      {[]client.Object{bound(), quota("shop")}, false, false, true},
		"nobody knows of quotas":   {[]client.Object{bound()}, false, true, true},
		"it could not be filled":   {[]client.Object{bound()}, true, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := newCluster(append(c.objects, volume(), daemon(), nodePod(corev1.ConditionTrue), node(corev1.ConditionTrue))...)
				if c.fails {
					cl.task = func(o *v1alpha1.VolumeTask) { o.Status.Phase = v1alpha1.TaskFailed }
				}
				told := 0
				w := lingering(cl, c.unreadable, &told)
				m := New(w, w, Options{})
				begun := m.opts.Now()
				_, err := m.Write(t.Context(), request(), point.Snapshot{ID: "s1", Repository: "east"})
				waited := m.opts.Now().Sub(begun) > 0 // the bubble's clock
				if waited != c.waits || told != 1 || (err != nil) != c.fails {
					t.Errorf("waited: %v, told to go: %d times, %v", waited, told, err)
				}
				time.Sleep(10 * time.Second) // the bubble's clock
				if left := cl.leftovers(t); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
			})
		})
	}
}
