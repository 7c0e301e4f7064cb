package mover

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
)

// TestWorkBeginsAtTheMount: a node that waits for the mount is given the task as
// soon as the pod has a node; an earlier version of it only when the pod runs.
func TestWorkBeginsAtTheMount(t *testing.T) {
	waiting := func(reason string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.NodeName, p.Status.Phase = "n1", corev1.PodPending
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "why"}}}}
		}
	}
	starts := waiting("ContainerCreating")
	const runsAlready = "the pod runs already"
	for name, test := range map[string]struct {
		waits   string // what the node's process says of itself
		claim   *corev1.PersistentVolumeClaim
		pod     func(*corev1.Pod)
		task    func(*v1alpha1.VolumeTask)
		ordered bool
		text    string // of the error
	}{
		"it waits":                    {"true", bound(), starts, succeeds, true, ""},
		"it is of an earlier version": {"", bound(), starts, succeeds, false, "holder pod is on node n1"},
		"the kubelet changes owners": {"true", bound(), func(p *corev1.Pod) {
			starts(p)
			p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr.To[int64](1000)} // by an admission
		}, succeeds, false, "holder pod is on node n1"},
		"the claim is not bound":     {"true", unbound(), starts, succeeds, false, "claim is not bound"},
		"the pod has no node":        {"true", bound(), func(*corev1.Pod) {}, succeeds, false, "does not run"},
		"the mount does not come":    {"true", bound(), starts, func(*v1alpha1.VolumeTask) {}, true, "holder pod is on node n1"},
		"the container cannot start": {"true", bound(), waiting("CreateContainerError"), succeeds, false, "CreateContainerError: why"},
		runsAlready:                  {"true", bound(), runs, succeeds, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pod := nodePod(corev1.ConditionTrue)
				pod.Annotations = map[string]string{AwaitsMounts: test.waits}
				c := newCluster(test.claim, volume(), daemon(), pod, node(corev1.ConditionTrue))
				c.pod = test.pod
				ordered := false
				c.task = func(o *v1alpha1.VolumeTask) {
					ordered = true
					if says := o.Annotations[AwaitsMounts] == "true"; says != (name != runsAlready) {
						t.Errorf("the task says that the mount is to come: %v", says)
					}
					test.task(o)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				stop := beats(ctx, c) // else the task would be given up for its silence
				_, err := New(c, c, Options{}).Read(ctx, request())
				stop()
				if ordered != test.ordered || (err == nil) != (test.text == "") || err != nil && !strings.Contains(err.Error(), test.text) {
					t.Errorf("ordered: %v, %v; want %v, %q", ordered, err, test.ordered, test.text)
				}
				if err != nil && !errors.Is(err, ErrNotMounted) {
					t.Errorf("%v is not ErrNotMounted", err)
				}
				if left := c.leftovers(t); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
			})
		})
	}
}

// beats shows life in every task, as a node does that waits.
func beats(ctx context.Context, c *cluster) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			var tasks v1alpha1.VolumeTaskList
			if c.List(ctx, &tasks) == nil {
				for i := range tasks.Items {
					if o := &tasks.Items[i]; o.Status.Phase == "" || o.Status.Phase == v1alpha1.TaskPending {
						old := o.DeepCopy()
						o.Status.Phase = v1alpha1.TaskPending
						o.Status.BytesDone++
						_ = c.Patch(ctx, o, client.MergeFrom(old)) // it may be gone
					}
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Second): // the bubble's clock
			}
		}
	}()
	return func() { cancel(); <-done }
}
