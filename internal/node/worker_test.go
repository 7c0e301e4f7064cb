package node

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume"
)

var testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newTask(name string, status v1alpha1.VolumeTaskStatus) *v1alpha1.VolumeTask {
	return &v1alpha1.VolumeTask{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name, UID: types.UID(name)},
		Spec:       v1alpha1.VolumeTaskSpec{Node: "n1", Operation: v1alpha1.VolumeRead},
		Status:     status,
	}
}

type job = func(ctx context.Context, task *v1alpha1.VolumeTask, repo *opening, r *report) error

func newTestWorker(t *testing.T, do job, tasks ...client.Object) *worker {
	t.Helper()
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(tasks...).WithStatusSubresource(&v1alpha1.VolumeTask{}).Build()
	w := newWorker(c, c, Options{Node: "n1", Concurrency: 1, Now: func() time.Time { return testNow }})
	w.open = func(context.Context, v1alpha1.VolumeTaskSpec, int) (*volume.Repository, error) { return nil, nil }
	w.job = do
	t.Cleanup(w.stop)
	return w
}

func (w *worker) reconcile(t *testing.T, name string) ctrl.Result {
	t.Helper()
	res, err := w.Reconcile(context.Background(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: v1alpha1.SystemNamespace, Name: name}})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func (w *worker) status(t *testing.T, name string) v1alpha1.VolumeTaskStatus {
	t.Helper()
	var task v1alpha1.VolumeTask
	if err := w.client.Get(context.Background(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: name}, &task); err != nil {
		t.Fatal(err)
	}
	return task.Status
}

func TestTaskRunsToItsEnd(t *testing.T) {
	w := newTestWorker(t, func(_ context.Context, _ *v1alpha1.VolumeTask, _ *opening, r *report) error {
		r.advance(volume.Progress{Files: 2, Bytes: 10, TotalBytes: 10})
		for range 150 {
			r.warn("odd")
		}
		r.result(`{"id":"s"}`)
		return nil
	}, newTask("a", v1alpha1.VolumeTaskStatus{}))
	w.reconcile(t, "a")
	w.running.Wait()
	s := w.status(t, "a")
	if s.Phase != v1alpha1.TaskSucceeded || s.Snapshot != `{"id":"s"}` || s.BytesDone != 10 || s.FilesDone != 2 || len(s.Warnings) != maxWarnings {
		t.Errorf("status is %+v", s)
	}
	w.job = func(context.Context, *v1alpha1.VolumeTask, *opening, *report) error {
		t.Error("done twice")
		return nil
	}
	w.reconcile(t, "a")
	w.running.Wait()
}

// TestAPreparedTaskIsNotBegun until whoever made it lets it.
func TestAPreparedTaskIsNotBegun(t *testing.T) {
	var ran atomic.Int32
	task := newTask("a", v1alpha1.VolumeTaskStatus{})
	task.Annotations = map[string]string{mover.AnnotationState: mover.AwaitsBegin}
	w := newTestWorker(t, func(context.Context, *v1alpha1.VolumeTask, *opening, *report) error { ran.Add(1); return nil }, task)
	w.reconcile(t, "a")
	w.running.Wait()
	if ran.Load() != 0 {
		t.Error("begun while it is prepared")
	}
	if err := w.client.Get(t.Context(), client.ObjectKeyFromObject(task), task); err != nil {
		t.Fatal(err)
	}
	task.Annotations = nil
	if err := w.client.Update(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	w.reconcile(t, "a")
	w.running.Wait()
	if ran.Load() != 1 {
		t.Errorf("ran %d times once it may", ran.Load())
	}
}

func TestTaskFailureIsTold(t *testing.T) {
	for _, silent := range []bool{false, true} {
		outcome := errors.New("disk on fire")
		if silent {
			outcome = fmt.Errorf("read blob: %w", vault.ErrUnavailable)
		}
		w := newTestWorker(t, func(context.Context, *v1alpha1.VolumeTask, *opening, *report) error { return outcome },
			newTask("a", v1alpha1.VolumeTaskStatus{}))
		w.reconcile(t, "a")
		w.running.Wait()
		if s := w.status(t, "a"); s.Phase != v1alpha1.TaskFailed || s.Message != outcome.Error() || s.NoAnswer != silent {
			t.Errorf("status is %+v", s)
		}
	}
}

func TestTaskOfADeadProcessIsTakenUp(t *testing.T) {
	for name, test := range map[string]struct {
		silent time.Duration
		taken  bool
	}{
		"beats still": {10 * time.Second, false},
		"silent":      {staleAfter, true},
	} {
		beat := metav1.NewTime(testNow.Add(-test.silent))
		ran := make(chan struct{}, 1)
		w := newTestWorker(t, func(context.Context, *v1alpha1.VolumeTask, *opening, *report) error { ran <- struct{}{}; return nil },
			newTask("a", v1alpha1.VolumeTaskStatus{Phase: v1alpha1.TaskRunning, Heartbeat: &beat, Distrusted: "db"}))
		res := w.reconcile(t, "a")
		w.running.Wait()
		if s := w.status(t, "a"); s.Distrusted != "db" {
			t.Errorf("%s: what was found before is forgotten: %+v", name, s)
		}
		if taken := len(ran) == 1; taken != test.taken || !taken && res.RequeueAfter != staleAfter-test.silent {
			t.Errorf("%s: taken %v, looked at again in %s", name, taken, res.RequeueAfter)
		}
	}
}

func TestRemovedTaskIsCancelled(t *testing.T) {
	began := make(chan struct{})
	w := newTestWorker(t, func(ctx context.Context, _ *v1alpha1.VolumeTask, _ *opening, _ *report) error {
		close(began)
		<-ctx.Done()
		return ctx.Err()
	}, newTask("a", v1alpha1.VolumeTaskStatus{}))
	w.reconcile(t, "a")
	<-began
	w.reconcile(t, "a") // again: it runs once
	if err := w.client.Delete(context.Background(), newTask("a", v1alpha1.VolumeTaskStatus{})); err != nil {
		t.Fatal(err)
	}
	w.reconcile(t, "a")
	w.running.Wait()
}

// TestAWaitingTaskShowsThatItLives: whoever gave it would take it for lost, and no
// second process may take it up.
func TestAWaitingTaskShowsThatItLives(t *testing.T) {
	for _, waits := range []string{"for a slot", "for its mount"} {
		t.Run(waits, func(t *testing.T) {
			release := make(chan struct{})
			var once sync.Once
			w := newTestWorker(t, func(context.Context, *v1alpha1.VolumeTask, *opening, *report) error { return nil },
				newTask("a", v1alpha1.VolumeTaskStatus{}))
			slot := -1
			if waits == "for a slot" {
				slot = <-w.slots
			} else {
				w.await = func(context.Context, *v1alpha1.VolumeTask) { <-release }
			}
			let := func() {
				once.Do(func() {
					close(release)
					if slot >= 0 {
						w.slots <- slot
					}
				})
			}
			t.Cleanup(let)
			w.reconcile(t, "a")
			var s v1alpha1.VolumeTaskStatus
			for s = w.status(t, "a"); s.Heartbeat == nil; s = w.status(t, "a") {
				runtime.Gosched()
			}
			if s.Phase != v1alpha1.TaskPending || s.StartedAt != nil {
				t.Errorf("status is %+v", s)
			}
			other := newWorker(w.client, w.client, w.opts)
			other.job = func(context.Context, *v1alpha1.VolumeTask, *opening, *report) error {
				t.Error("taken up by another")
				return nil
			}
			if res := other.reconcile(t, "a"); res.RequeueAfter != staleAfter {
				t.Errorf("another looks again in %s", res.RequeueAfter)
			}
			other.running.Wait()
			let()
			w.running.Wait()
			if s := w.status(t, "a"); s.Phase != v1alpha1.TaskSucceeded || s.StartedAt == nil {
				t.Errorf("status is %+v", s)
			}
		})
	}
}

// TestARepositoryIsOpenedWhileItsMountIsAwaited hangs where one comes after the other.
func TestARepositoryIsOpenedWhileItsMountIsAwaited(t *testing.T) {
	sealed := errors.New("sealed")
	began := make(chan struct{})
	w := newTestWorker(t, func(_ context.Context, _ *v1alpha1.VolumeTask, repo *opening, _ *report) error {
		_, err := repo.opened()
		return err
	}, newTask("a", v1alpha1.VolumeTaskStatus{}))
	w.open = func(context.Context, v1alpha1.VolumeTaskSpec, int) (*volume.Repository, error) {
		close(began)
		return nil, sealed
	}
	w.await = func(context.Context, *v1alpha1.VolumeTask) { <-began }
	w.reconcile(t, "a")
	w.running.Wait()
	if s := w.status(t, "a"); s.Phase != v1alpha1.TaskFailed || s.Message != sealed.Error() {
		t.Errorf("status is %+v", s)
	}
}

// TestAMountThatDoesNotComeHoldsNoSlot: of two tasks and one slot, the first waits
// for a volume that is mounted only when the second is done.
func TestAMountThatDoesNotComeHoldsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		var opened, closed int
		mounted := make(chan struct{})
		w := newTestWorker(t, func(_ context.Context, task *v1alpha1.VolumeTask, _ *opening, _ *report) error {
			order = append(order, task.Name)
			if task.Name == "b" {
				close(mounted)
			}
			return nil
		}, newTask("a", v1alpha1.VolumeTaskStatus{}), newTask("b", v1alpha1.VolumeTaskStatus{}))
		w.open = func(ctx context.Context, _ v1alpha1.VolumeTaskSpec, _ int) (*volume.Repository, error) {
			opened++
			context.AfterFunc(ctx, func() { closed++ })
			return nil, nil
		}
		w.await = func(ctx context.Context, task *v1alpha1.VolumeTask) {
			if task.Name == "a" {
				select {
				case <-ctx.Done():
				case <-mounted:
				}
			}
		}
		w.reconcile(t, "a")
		synctest.Wait()
		w.reconcile(t, "b")
		w.running.Wait()
		synctest.Wait()
		if !slices.Equal(order, []string{"b", "a"}) || opened != 3 || closed != opened {
			t.Errorf("run in the order %q; %d were opened, %d let go", order, opened, closed)
		}
	})
}
