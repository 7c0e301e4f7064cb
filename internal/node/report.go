package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/volume"
)

const (
	maxWarnings = 100
	maxMessage  = 4096
	// finishFor is how long the outcome of a task is tried to be written.
	finishFor = 2 * time.Minute
)

var (
	bytesMoved = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "davit_node_bytes_total", Help: "Bytes of volume files read or written, by operation.",
	}, []string{"operation"})
	tasksDone = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "davit_node_tasks_total", Help: "Volume tasks ended, by operation and result.",
	}, []string{"operation", "result"})
	bytesUnread = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "davit_node_unread_bytes_total", Help: "Bytes of changed files that backups did not read, as their storage calls them unchanged.",
	})
	tasksRunning = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "davit_node_tasks_running", Help: "Volume tasks being worked on.",
	})
)

// report keeps a task's status up to date. It is safe for use by several
// goroutines.
type report struct {
	client client.Client
	now    func() time.Time

	mu       sync.Mutex
	task     *v1alpha1.VolumeTask // as last written
	progress volume.Progress
	snapshot string
	unread   int64
	lie      string
	warnings []string
	dropped  int

	begun chan struct{} // closed when the task no longer waits
}

func newReport(c client.Client, task *v1alpha1.VolumeTask, now func() time.Time) *report {
	return &report{client: c, task: task.DeepCopy(), now: now, lie: task.Status.Distrusted, begun: make(chan struct{})}
}

// found is what a storage was found to have called unchanged, by a process that was at the task before, too.
func (r *report) found() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lie
}

// begin says that the task is being worked on.
func (r *report) begin() { close(r.begun) }

// advance takes note of progress.
func (r *report) advance(p volume.Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress = p
}

// warn takes note of something a person should know.
func (r *report) warn(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.warnings) < maxWarnings-1 {
		r.warnings = append(r.warnings, text)
		return
	}
	r.dropped++
}

// result takes note of the snapshot of a Read.
func (r *report) result(snapshot string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.snapshot = snapshot
}

// left takes note of how many bytes of changed files were not read.
func (r *report) left(unread int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unread = unread
	bytesUnread.Add(float64(unread))
}

// lied takes note of what a storage called unchanged that was not, and shows it at the next
// beat: there may never be a snapshot that says so.
func (r *report) lied(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lie = cmp.Or(r.lie, what)
}

func (r *report) moved() (bytes, files int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.progress.Bytes, r.progress.Files
}

// beat writes the status now, when the task begins, and every few seconds until
// stopped. It may be stopped twice.
func (r *report) beat(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(beatEvery)
		defer tick.Stop()
		begun := r.begun
		for {
			if err := r.write(ctx, func(*v1alpha1.VolumeTaskStatus) {}); err != nil && ctx.Err() == nil {
				log.FromContext(ctx).Error(err, "heartbeat of task not written")
			}
			select {
			case <-ctx.Done():
				return
			case <-begun:
				begun = nil
			case <-tick.C:
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// write brings the task's status up to date; more changes the rest of it.
func (r *report) write(ctx context.Context, more func(*v1alpha1.VolumeTaskStatus)) error {
	r.mu.Lock()
	old := r.task.DeepCopy()
	next := r.task.DeepCopy()
	s := &next.Status
	now := metav1.NewTime(r.now())
	s.Phase, s.Heartbeat = v1alpha1.TaskPending, &now
	select {
	case <-r.begun:
		s.Phase = v1alpha1.TaskRunning
		if s.StartedAt == nil {
			s.StartedAt = &now
		}
	default:
	}
	s.BytesDone, s.BytesTotal, s.FilesDone, s.BytesFetched = r.progress.Bytes, r.progress.TotalBytes, r.progress.Files, r.progress.Fetched
	s.Distrusted = r.lie
	more(s)
	r.mu.Unlock()
	if err := r.client.Status().Patch(ctx, next, client.MergeFrom(old)); err != nil {
		return fmt.Errorf("write status of task %s: %w", old.Name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.task = next
	return nil
}

// finish writes the outcome, again and again while the API server does not
// answer. A task that was removed needs none.
func (r *report) finish(ctx context.Context, outcome error) error {
	ctx, cancel := context.WithTimeout(ctx, finishFor)
	defer cancel()
	for {
		err := r.write(ctx, func(s *v1alpha1.VolumeTaskStatus) { r.conclude(s, outcome) })
		if err == nil || apierrors.IsNotFound(err) {
			return nil
		}
		if apierrors.IsInvalid(err) {
			outcome = errors.Join(outcome, err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
}

// conclude fills in the outcome. r.mu is held.
func (r *report) conclude(s *v1alpha1.VolumeTaskStatus, outcome error) {
	s.FinishedAt = s.Heartbeat
	s.Warnings = r.warnings
	if r.dropped > 0 {
		s.Warnings = append(s.Warnings[:len(s.Warnings):len(s.Warnings)], fmt.Sprintf("and %d more", r.dropped))
	}
	s.Phase, s.Snapshot, s.BytesUnread = v1alpha1.TaskSucceeded, r.snapshot, r.unread
	if outcome != nil {
		s.Phase, s.Snapshot, s.Message = v1alpha1.TaskFailed, "", shorten(outcome.Error())
		s.NoAnswer = volume.IsOutage(outcome)
	}
}

func shorten(s string) string {
	if len(s) > maxMessage {
		return s[:maxMessage] + "…"
	}
	return s
}
