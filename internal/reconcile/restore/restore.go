// Package restore carries out Restore objects with the rights of the service
// account that each names, and follows them in their status. One that was
// interrupted is given again to package recovery, which continues it.
package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/recovery"
	engine "davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/vault"
)

const (
	showEvery  = time.Second
	concurrent = 2
	maxList    = 100 // warnings in a status
)

// Access makes what a recovery works with.
type Access interface {
	// Recovery opens the vault, and the cluster as the service account.
	Recovery(ctx context.Context, vaultName, namespace, serviceAccount string) (recovery.Deps, error)
}

// Reconciler carries out Restore objects.
type Reconciler struct {
	Client client.Client
	Reader client.Reader
	Access Access
	Events record.EventRecorder
	Now    func() time.Time
}

// Setup registers the reconciler.
func (r *Reconciler) Setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("restore").
		For(&v1alpha1.Restore{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrent}).
		Complete(r)
}

// Reconcile runs a restore to its end; ended ones stay as they are.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var rs v1alpha1.Restore
	if err := r.Reader.Get(ctx, req.NamespacedName, &rs); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	switch rs.Status.Phase {
	case v1alpha1.RestoreCompleted, v1alpha1.RestoreWarned, v1alpha1.RestoreFailed:
		return ctrl.Result{}, nil
	}
	if !rs.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	return ctrl.Result{}, r.run(ctx, &rs)
}

func (r *Reconciler) run(ctx context.Context, rs *v1alpha1.Restore) error {
	taken := metav1.NewTime(r.Now())
	first := rs.Status.StartedAt == nil && rs.Status.Phase != v1alpha1.RestoreRunning
	report, err := r.recover(ctx, rs, taken)
	if err != nil && ctx.Err() != nil || errors.Is(err, errGone) {
		return nil // the agent stops: the next one continues; or the order is gone
	}
	return r.conclude(ctx, rs, report, err, taken, first && untouched(report, err))
}

// untouched tells whether a try ended before it changed anything. Of one that goes on
// with what another agent began, that says nothing of the restore.
func untouched(rep recovery.Report, cause error) bool {
	return cause != nil && (rep.StartedAt.IsZero() || recovery.Refused(cause))
}

// recover runs the use case and shows its progress.
func (r *Reconciler) recover(ctx context.Context, rs *v1alpha1.Restore, taken metav1.Time) (recovery.Report, error) {
	if err := permitted(rs); err != nil {
		return recovery.Report{}, err
	}
	if err := r.late(rs); err != nil {
		return recovery.Report{}, err
	}
	deps, err := r.Access.Recovery(ctx, rs.Spec.Vault, rs.Namespace, rs.Spec.ServiceAccountName)
	if err != nil {
		return recovery.Report{}, err
	}
	if err := r.begin(ctx, rs, deps.Project, taken); err != nil {
		return recovery.Report{}, err
	}
	view := &progress{now: r.Now}
	deps.Progress, deps.Now = view, r.Now
	deps.Holder = fmt.Sprintf("Restore %s/%s", rs.Namespace, rs.Name)
	shown, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { r.follow(shown, rs.DeepCopy(), view) })
	opts := recovery.FromSpec(rs.Spec)
	opts.Attempt, opts.Namespace, opts.Team = string(rs.UID), rs.Namespace, rs.Namespace != v1alpha1.SystemNamespace
	opts.NewNamespaces = rs.Annotations[v1alpha1.AnnotationRequest] != "" // a console may fill no namespace of another's
	if rs.Status.ObservedEpoch != nil {
		opts.SeenEpoch = rs.Status.ObservedEpoch
	}
	bounded, free := r.bounded(ctx, rs)
	report, err := recovery.Recover(bounded, opts, deps)
	free()
	cancel()
	wg.Wait()
	return report, err
}

// bounded ends when the restore's own time is over, which began when an agent
// first took it up.
func (r *Reconciler) bounded(ctx context.Context, rs *v1alpha1.Restore) (context.Context, context.CancelFunc) {
	limit := recovery.DefaultTimeout
	if own := rs.Spec.Timeout; own != nil && own.Duration > 0 {
		limit = own.Duration
	}
	left := limit
	if rs.Status.StartedAt != nil {
		left -= r.Now().Sub(rs.Status.StartedAt.Time)
	}
	return context.WithTimeoutCause(ctx, left, fmt.Errorf("%w: spec.timeout is %s", errTimeOver, limit))
}

// errTimeOver ends a restore that takes longer than its spec allows.
var errTimeOver = errors.New("the restore's time is over")

// begin notes that the restore runs, and when it is taken up for the first
// time, under which epoch, in one write: an agent that dies now and comes back
// late must not carry out what others have overtaken.
func (r *Reconciler) begin(ctx context.Context, rs *v1alpha1.Restore, p *vault.Project, taken metav1.Time) error {
	observed := rs.Status.ObservedEpoch
	if observed == nil && rs.Status.StartedAt == nil {
		if observed = rs.Spec.Epoch; observed == nil {
			current, err := lease.New(p).Current(ctx, rs.Spec.Application)
			if err != nil {
				return err
			}
			observed = &current.Number
		}
	}
	err := r.write(ctx, rs, func(st *v1alpha1.RestoreStatus) {
		st.Phase, st.ObservedEpoch = v1alpha1.RestoreRunning, observed
		if st.StartedAt == nil {
			st.StartedAt = &taken
		}
	})
	if apierrors.IsNotFound(err) {
		return errGone
	}
	return err
}

// AnnotationBeginBy is when it is too late to begin a Restore, in RFC 3339, by the
// site's clock: whoever asked has decided something else since.
const AnnotationBeginBy = "davit.dev/begin-by"

// late refuses a Restore that nobody began in time.
func (r *Reconciler) late(rs *v1alpha1.Restore) error {
	by, said := rs.Annotations[AnnotationBeginBy]
	if !said || rs.Status.StartedAt != nil || rs.Status.Phase == v1alpha1.RestoreRunning {
		return nil
	}
	until, err := time.Parse(time.RFC3339, by)
	switch {
	case err != nil:
		return fmt.Errorf("%w: its annotation %s is no time: %w", recovery.ErrRefused, AnnotationBeginBy, err)
	case r.Now().After(until):
		return fmt.Errorf("%w: it was to begin by %s, and waited longer for others: ask again, if it is still wanted", recovery.ErrRefused, by)
	}
	return nil
}

// errGone says that the Restore was removed before it began.
var errGone = errors.New("the Restore is gone")

// permitted says who may ask for what: an epoch is not a namespace's own, nor
// is what was captured in another. The account's rights do not tell, for it is
// Davit that reads the vault.
func permitted(rs *v1alpha1.Restore) error {
	switch {
	case rs.Namespace == v1alpha1.SystemNamespace:
		return nil
	case rs.Spec.Mode == v1alpha1.RestoreTakeOver:
		return fmt.Errorf("%w: a take-over is for administrators: create the Restore in %s", recovery.ErrRefused, v1alpha1.SystemNamespace)
	case !strings.HasPrefix(rs.Spec.Application, rs.Namespace+"."):
		return fmt.Errorf("%w: application %s is not of namespace %s: name it %s.<application>, or create the Restore in %s",
			recovery.ErrRefused, rs.Spec.Application, rs.Namespace, rs.Namespace, v1alpha1.SystemNamespace)
	}
	return nil
}

// follow writes progress into the status until ctx is done.
func (r *Reconciler) follow(ctx context.Context, rs *v1alpha1.Restore, p *progress) {
	tick := time.NewTicker(showEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := r.write(ctx, rs, p.show)
		if err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "progress of restore not written")
		}
	}
}

// conclude writes what the restore did.
func (r *Reconciler) conclude(ctx context.Context, rs *v1alpha1.Restore, rep recovery.Report, cause error, taken metav1.Time, untouched bool) error {
	phase := rep.Phase
	switch {
	case cause != nil:
		phase = v1alpha1.RestoreFailed
	case phase == "" || phase == v1alpha1.RestoreRunning || phase == v1alpha1.RestorePending:
		phase = v1alpha1.RestoreCompleted
	}
	measure.Restores.WithLabelValues(string(phase)).Inc()
	condition := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded, Message: "restored"}
	kind := corev1.EventTypeNormal
	if phase == v1alpha1.RestoreFailed {
		message := rep.Error
		if cause != nil {
			message = cause.Error()
		}
		kind = corev1.EventTypeWarning
		condition.Status, condition.Reason, condition.Message = metav1.ConditionFalse, reasonOf(cause), message
	}
	r.Events.Event(rs, kind, condition.Reason, condition.Message)
	now := metav1.NewTime(r.Now())
	err := r.write(ctx, rs, func(st *v1alpha1.RestoreStatus) {
		if st.StartedAt == nil { // it did not come so far as to note it
			st.StartedAt = &taken
		}
		fill(st, rep)
		st.Phase, st.Step, st.FinishedAt = phase, "", &now
		meta.SetStatusCondition(&st.Conditions, condition)
		if untouched {
			meta.SetStatusCondition(&st.Conditions, metav1.Condition{Type: v1alpha1.ConditionUntouched, Status: metav1.ConditionTrue, Reason: condition.Reason, Message: "nothing was changed"})
		}
	})
	return client.IgnoreNotFound(err)
}

// reasonOf is the condition reason of a restore that failed.
func reasonOf(cause error) string {
	switch {
	case errors.Is(cause, recovery.ErrOvertaken):
		return v1alpha1.ReasonOvertaken
	case errors.Is(cause, lease.ErrNameTaken):
		return v1alpha1.ReasonNameTaken
	}
	return v1alpha1.ReasonRestoreFailed
}

// fill copies the report into the status.
func fill(st *v1alpha1.RestoreStatus, rep recovery.Report) {
	st.Point, st.Epoch, st.Overlays = rep.Point, rep.Epoch, rep.Overlays
	res := rep.Result
	st.Restored = res.Created + res.Updated + res.Replaced + res.Continued
	st.Pruned, st.Skipped, st.FailedObjects, st.VolumeBytes = res.Pruned, res.Skipped, res.Failed, res.VolumeBytes
	if !rep.Instant.IsZero() {
		st.RPO = &metav1.Duration{Duration: max(rep.RPO-earlier(st, rep), 0).Round(time.Millisecond)}
	}
	if rep.RTO > 0 {
		st.RTO = &metav1.Duration{Duration: (rep.RTO + earlier(st, rep)).Round(time.Millisecond)}
	}
	var warnings []string
	for _, f := range rep.Findings {
		warnings = append(warnings, f.String())
	}
	for _, p := range slices.Concat(res.Failures, res.Warnings) {
		warnings = append(warnings, p.Object+": "+p.Message)
	}
	st.Warnings = int64(len(warnings))
	st.WarningList = warnings[:min(len(warnings), maxList)]
	if len(rep.Steps) > 0 {
		st.Steps = nil
	}
	for _, s := range rep.Steps {
		step := v1alpha1.StepStatus{Name: s.Name, StartedAt: at(s.StartedAt), FinishedAt: at(s.FinishedAt), Message: s.Message}
		step.Took = took(s.StartedAt, s.FinishedAt)
		st.Steps = append(st.Steps, step)
	}
}

// earlier is how long before this report's try the restore began, when an
// agent that died began it. Times in the status are whole seconds.
func earlier(st *v1alpha1.RestoreStatus, rep recovery.Report) time.Duration {
	if st.StartedAt == nil {
		return 0
	}
	if d := rep.StartedAt.Sub(st.StartedAt.Time); d > time.Second {
		return d
	}
	return 0
}

func at(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t}
}

// took is from start to finish, or nil while there is none.
func took(start, finish time.Time) *metav1.Duration {
	if start.IsZero() || finish.IsZero() {
		return nil
	}
	return &metav1.Duration{Duration: finish.Sub(start).Round(time.Millisecond)}
}

func (r *Reconciler) write(ctx context.Context, rs *v1alpha1.Restore, change func(*v1alpha1.RestoreStatus)) error {
	old := rs.DeepCopy()
	change(&rs.Status)
	if err := r.Client.Status().Patch(ctx, rs, client.MergeFrom(old)); err != nil {
		return fmt.Errorf("write status of restore: %w", err)
	}
	return nil
}

// progress gathers what the engine says, for the status.
type progress struct {
	now func() time.Time

	mu    sync.Mutex
	steps []v1alpha1.StepStatus
	began []time.Time // of steps
	step  string
	bytes int64
	done  int64
}

var _ engine.Progress = (*progress)(nil)

func (p *progress) StepStarted(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step = name
	now := p.now()
	p.steps = append(p.steps, v1alpha1.StepStatus{Name: name, StartedAt: at(now)})
	p.began = append(p.began, now)
}

func (p *progress) StepFinished(name string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.steps {
		if s := &p.steps[i]; s.Name == name && s.FinishedAt == nil {
			now := p.now()
			s.FinishedAt, s.Took = at(now), took(p.began[i], now)
			if err != nil {
				s.Message = err.Error()
			}
		}
	}
}

func (p *progress) Objects(done, _ int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = done
}

func (p *progress) Bytes(done, _ int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes = done
}

// Note is for the log of a command; the status shows steps.
func (p *progress) Note(string) {}

func (p *progress) show(st *v1alpha1.RestoreStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st.Step, st.Restored, st.VolumeBytes = p.step, p.done, p.bytes
	st.Steps = slices.Clone(p.steps)
}
