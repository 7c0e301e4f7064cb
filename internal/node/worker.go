package node

import (
	"context"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/volume"
)

const (
	// beatEvery is how often a running task shows that it lives.
	beatEvery = 3 * time.Second
	// mountSoon is how long a task holds a slot while it waits for its mount: what it
	// needs besides is made ready meanwhile. One that waits longer does so without.
	mountSoon = 3 * time.Second
	// staleAfter is how long a heartbeat must be silent before the task is
	// taken up again: another process may still be at it.
	staleAfter = 30 * time.Second
)

// worker runs the tasks of one node.
type worker struct {
	client client.Client
	reader client.Reader // asks the server, never a cache
	opts   Options
	await  func(ctx context.Context, task *v1alpha1.VolumeTask) // until its volume is there
	open   func(ctx context.Context, spec v1alpha1.VolumeTaskSpec, slot int) (*volume.Repository, error)
	job    func(ctx context.Context, task *v1alpha1.VolumeTask, repo *opening, report *report) error
	slots  chan int

	running sync.WaitGroup

	mu       sync.Mutex
	tasks    map[types.NamespacedName]current
	stopping bool
}

// current is a task this process is at.
type current struct {
	uid    types.UID
	cancel context.CancelFunc
}

func newWorker(c client.Client, reader client.Reader, opts Options) *worker {
	w := &worker{client: c, reader: reader, opts: opts, tasks: map[types.NamespacedName]current{}, slots: make(chan int, opts.Concurrency)}
	for slot := range opts.Concurrency {
		w.slots <- slot
	}
	m := &carrier{reader: reader, place: newLocator(opts), cacheDir: opts.CacheDir, read: opts.DiskRead, write: opts.DiskWrite, now: opts.Now, ask: newAsker(c, opts.Config)}
	w.open, w.job, w.await = m.open, m.carry, m.await
	return w
}

func (w *worker) setup(mgr ctrl.Manager) error {
	mine := predicate.NewPredicateFuncs(func(o client.Object) bool {
		task, ok := o.(*v1alpha1.VolumeTask)
		return ok && task.Spec.Node == w.opts.Node
	})
	return ctrl.NewControllerManagedBy(mgr).Named("volumetask").For(&v1alpha1.VolumeTask{}).WithEventFilter(mine).Complete(w)
}

// stop cancels what runs, starts nothing more, and waits.
func (w *worker) stop() {
	w.mu.Lock()
	w.stopping = true
	for _, c := range w.tasks {
		c.cancel()
	}
	w.mu.Unlock()
	w.running.Wait()
}

// Reconcile starts a task that nobody is at, and cancels one that was removed.
func (w *worker) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var task v1alpha1.VolumeTask
	err := w.client.Get(ctx, req.NamespacedName, &task)
	gone := apierrors.IsNotFound(err)
	if err != nil && !gone {
		return ctrl.Result{}, err
	}
	if w.at(req.NamespacedName, task.UID, gone || !task.DeletionTimestamp.IsZero()) || gone || finished(&task) || mover.Prepared(&task) {
		return ctrl.Result{}, nil
	}
	if wait := w.othersTime(&task); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	w.start(ctx, &task)
	return ctrl.Result{}, nil
}

// at says whether this process is at the task; one that was removed, or made
// anew under the same name, is cancelled.
func (w *worker) at(name types.NamespacedName, uid types.UID, gone bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, found := w.tasks[name]
	if !found {
		return false
	}
	if gone || c.uid != uid {
		c.cancel()
	}
	return true
}

func finished(task *v1alpha1.VolumeTask) bool {
	return !task.DeletionTimestamp.IsZero() || task.Status.Phase == v1alpha1.TaskSucceeded || task.Status.Phase == v1alpha1.TaskFailed
}

// othersTime is how long a task, running or waiting, is left to the process that beat last.
func (w *worker) othersTime(task *v1alpha1.VolumeTask) time.Duration {
	if task.Status.Heartbeat == nil {
		return 0
	}
	return staleAfter - w.opts.Now().Sub(task.Status.Heartbeat.Time)
}

// start runs the task in the background, when a slot is free. The task outlives
// the reconcile that found it; it ends when it is removed or the worker stops.
func (w *worker) start(ctx context.Context, task *v1alpha1.VolumeTask) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	name := client.ObjectKeyFromObject(task)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopping {
		cancel()
		return
	}
	w.tasks[name] = current{uid: task.UID, cancel: cancel}
	w.running.Go(func() {
		defer w.ended(context.WithoutCancel(ctx), name, cancel)
		r := newReport(w.client, task, w.opts.Now)
		stop := r.beat(ctx) // it lives while it waits, too
		defer stop()
		if w.soon(ctx, task, r, stop) {
			return
		}
		w.await(ctx, task)
		select {
		case <-ctx.Done():
		case slot := <-w.slots:
			repo := w.opening(ctx, task, slot)
			w.run(ctx, task, repo, r, stop)
			repo.drop(ctx)
			w.slots <- slot
		}
	})
}

// soon runs a task for which a slot is free and whose volume comes to be mounted soon.
// Its repository is opened meanwhile.
func (w *worker) soon(ctx context.Context, task *v1alpha1.VolumeTask, r *report, stop func()) (ran bool) {
	var slot int
	select {
	case slot = <-w.slots:
	default:
		return false
	}
	defer func() { w.slots <- slot }()
	repo := w.opening(ctx, task, slot)
	defer repo.drop(ctx)
	waiting, cancel := context.WithTimeout(ctx, mountSoon)
	defer cancel()
	if w.await(waiting, task); waiting.Err() != nil {
		return false
	}
	w.run(ctx, task, repo, r, stop)
	return true
}

// opening is a repository that is being opened.
type opening struct {
	cancel context.CancelFunc
	done   chan struct{}
	repo   *volume.Repository
	err    error
}

// opening begins to open the task's repository, with the slot's cache.
func (w *worker) opening(ctx context.Context, task *v1alpha1.VolumeTask, slot int) *opening {
	ctx, cancel := context.WithCancel(ctx)
	o := &opening{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		o.repo, o.err = w.open(ctx, task.Spec, slot)
	}()
	return o
}

// opened waits for the repository.
func (o *opening) opened() (*volume.Repository, error) {
	<-o.done
	return o.repo, o.err
}

// drop closes what is still open; whoever used it has closed it, and heard whether that went well.
func (o *opening) drop(ctx context.Context) {
	o.cancel()
	<-o.done
	if o.repo != nil {
		_ = o.repo.Close(context.WithoutCancel(ctx))
	}
}

// ended forgets the task, and looks again if it was replaced meanwhile.
func (w *worker) ended(ctx context.Context, name types.NamespacedName, cancel context.CancelFunc) {
	cancel()
	w.mu.Lock()
	delete(w.tasks, name)
	stopping := w.stopping
	w.mu.Unlock()
	if stopping {
		return
	}
	var task v1alpha1.VolumeTask
	if err := w.client.Get(ctx, name, &task); err == nil && !finished(&task) && !mover.Prepared(&task) && w.othersTime(&task) <= 0 {
		w.start(ctx, &task)
	}
}

// run does the task's work and writes its outcome. A task that was cancelled
// gets no outcome: it is gone, or this process stops and another goes on.
func (w *worker) run(ctx context.Context, task *v1alpha1.VolumeTask, repo *opening, r *report, stop func()) {
	operation := string(task.Spec.Operation)
	tasksRunning.Inc()
	defer tasksRunning.Dec()
	logger := log.FromContext(ctx).WithValues("operation", operation, "source", task.Spec.Source)
	logger.Info("task started")
	r.begin()
	err := w.job(ctx, task, repo, r)
	stop()
	done, _ := r.moved()
	bytesMoved.WithLabelValues(operation).Add(float64(done))
	if ctx.Err() != nil {
		tasksDone.WithLabelValues(operation, "cancelled").Inc()
		logger.Info("task cancelled", "bytes", done)
		return
	}
	result := "succeeded"
	if err != nil {
		result = "failed"
		logger.Error(err, "task failed", "bytes", done)
	} else {
		logger.Info("task done", "bytes", done)
	}
	tasksDone.WithLabelValues(operation, result).Inc()
	if err := r.finish(ctx, err); err != nil {
		logger.Error(err, "outcome of task not written")
	}
}
