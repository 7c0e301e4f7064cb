package mover

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
)

// dozing is a process that stands still before it lets a task begin.
type dozing struct {
	client.WithWatch
	doze func()
}

func (d dozing) Patch(ctx context.Context, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
	if _, is := o.(*v1alpha1.VolumeTask); is && d.doze != nil {
		d.doze()
	}
	return d.WithWatch.Patch(ctx, o, patch, opts...)
}

func writing(t *testing.T, owner string) *v1alpha1.VolumeTask {
	t.Helper()
	req := request()
	req.Owner = owner
	task, err := req.task(v1alpha1.VolumeWrite, &point.Snapshot{ID: "s"}, place{node: "n1", hostPath: "/data"})
	if err != nil {
		t.Fatal(err)
	}
	prepare(task)
	return task
}

func (c *cluster) tasks(t *testing.T) (all []v1alpha1.VolumeTask) {
	t.Helper()
	var list v1alpha1.VolumeTaskList
	if err := c.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// TestWhoStoodStillFillsNothing: a process stands still before its task begins. Meanwhile
// another one carries the restore on, or another restore fills the volume; what runs on it has
// started when the first goes on. The control: nobody has, and its task begins.
func TestWhoStoodStillFillsNothing(t *testing.T) {
	for name, successor := range map[string]string{"alone": "", "the same restore": "point-1", "another restore": "point-2"} {
		t.Run(name, func(t *testing.T) {
			c := newCluster()
			c.task = func(*v1alpha1.VolumeTask) {}
			meanwhile := func() {
				if successor == "" {
					return
				}
				m := New(c, c, Options{})
				req, task := request(), writing(t, successor)
				req.Owner = successor
				if err := m.createTask(t.Context(), req, task); err != nil {
					t.Error(err)
				}
				for _, other := range c.tasks(t) {
					if Prepared(&other) {
						t.Errorf("%s may begin yet", other.Name)
					}
				}
				if err := m.removeTask(t.Context(), task); err != nil { // it is done
					t.Error(err)
				}
			}
			d := dozing{WithWatch: c, doze: meanwhile}
			err := New(d, d, Options{}).createTask(t.Context(), request(), writing(t, "point-1"))
			begun := 0
			for _, task := range c.tasks(t) {
				if !Prepared(&task) {
					begun++
				}
			}
			if alone := successor == ""; (err == nil) != alone || (begun == 1) != alone {
				t.Errorf("%v, %d tasks began", err, begun)
			}
		})
	}
}

// TestATaskOfALostRestoreDoesNotBegin: whoever finds that the restore is another's, by a look
// after the task was made, leaves it as it is, and no node begins it.
func TestATaskOfALostRestoreDoesNotBegin(t *testing.T) {
	c := newCluster()
	c.task = func(*v1alpha1.VolumeTask) {}
	req, lost := request(), errors.New("lost")
	req.Still = func(context.Context) error {
		if all := c.tasks(t); len(all) != 1 || !Prepared(&all[0]) {
			t.Errorf("asked with %v", all)
		}
		return lost
	}
	if err := New(c, c, Options{}).createTask(t.Context(), req, writing(t, "point-1")); !errors.Is(err, lost) {
		t.Errorf("%v", err)
	}
	if all := c.tasks(t); len(all) != 1 || !Prepared(&all[0]) {
		t.Errorf("left: %v", all)
	}
	req.Still = nil
	if err := New(c, c, Options{}).createTask(t.Context(), req, writing(t, "point-1")); err != nil { // given again, it goes on with it
		t.Error(err)
	}
	if all := c.tasks(t); len(all) != 1 || Prepared(&all[0]) {
		t.Errorf("given again: %v", all)
	}
}

// TestWhoMayNotLetATaskBegin is told so.
func TestWhoMayNotLetATaskBegin(t *testing.T) {
	c := newCluster()
	c.task = func(*v1alpha1.VolumeTask) {}
	d := refusing{c}
	if err := New(d, d, Options{}).createTask(t.Context(), request(), writing(t, "point-1")); !apierrors.IsForbidden(err) {
		t.Errorf("%v", err)
	}
}

type refusing struct{ client.WithWatch }

func (refusing) Patch(context.Context, client.Object, client.Patch, ...client.PatchOption) error {
	return apierrors.NewForbidden(corev1.Resource("volumetasks"), "x", errors.New("it may not patch"))
}

// TestReadsBeginAtOnce: what only reads hurts nobody who comes late.
func TestReadsBeginAtOnce(t *testing.T) {
	task, err := request().task(v1alpha1.VolumeRead, nil, place{node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	if prepare(task); Prepared(task) {
		t.Error("a task that reads waits")
	}
}
