// Package recoverypoint carries out captures. A RecoveryPoint object that was
// not made from the vault asks for one; its status follows the capture from
// Pending through Capturing to Available or Failed. Removing the object of an
// Available point never removes the point: that is asked for by an annotation.
package recoverypoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/reconcile/project"
	"davit.dev/davit/internal/vault"
)

// ReasonInterrupted says that the agent stopped in the middle of a capture.
const ReasonInterrupted = "Interrupted"

const (
	busyWait   = 2 * time.Second
	stepEvery  = time.Second // how often a step is written into the status
	concurrent = 4           // captures; deletions and the like do not wait for them
	lengthy    = 8           // captures beside these, of those that take long: see turns
	// captureTimeout is for captures whose policy says nothing. Every wait of a
	// capture has an end of its own, and a volume that is read must show life:
	// this is for the sum of them, and for what nobody thought of. A capture
	// that hangs would keep the application from being captured.
	captureTimeout = 24 * time.Hour
)

// Access opens vaults by the name of their objects.
type Access interface {
	Protector(ctx context.Context, name string) (*protection.Protector, error)
	Project(ctx context.Context, name string) (*vault.Project, error)
}

// Reconciler carries out captures.
type Reconciler struct {
	Client client.Client
	// Reader asks the API server itself: a cache that lags would start a
	// capture that has ended, or go by what the application was before.
	Reader client.Reader
	Vaults Access
	Events record.EventRecorder
	Site   string
	Now    func() time.Time

	mu   sync.Mutex
	mine map[client.ObjectKey]bool // captures this process began

	turns *turns
}

// Setup registers the reconciler.
func (r *Reconciler) Setup(mgr ctrl.Manager) error {
	r.mine = map[client.ObjectKey]bool{}
	r.turns = newTurns(concurrent, lengthy, r.Now)
	return ctrl.NewControllerManagedBy(mgr).Named("recoverypoint").
		For(&v1alpha1.RecoveryPoint{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: 2*concurrent + lengthy}).
		Complete(r)
}

// Reconcile takes one object a step further.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var rp v1alpha1.RecoveryPoint
	if err := r.Client.Get(ctx, req.NamespacedName, &rp); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if rp.Status.Phase == "" && rp.Annotations[project.AnnotationFromVault] != "" {
		return ctrl.Result{}, nil // a view that has no status yet: there may be thousands, and each would be read again
	}
	if pending(&rp) {
		release, err := r.turn(ctx, &rp)
		if release == nil {
			return ctrl.Result{RequeueAfter: askAgain}, err
		}
		defer release()
		if err := r.Reader.Get(ctx, req.NamespacedName, &rp); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
	}
	if !rp.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	switch rp.Status.Phase {
	case "", v1alpha1.PointPending:
		if rp.Annotations[project.AnnotationFromVault] != "" {
			return ctrl.Result{}, nil // a view that has no status yet
		}
		return r.capture(ctx, &rp)
	case v1alpha1.PointCapturing:
		return ctrl.Result{}, r.restart(ctx, &rp)
	case v1alpha1.PointAvailable, v1alpha1.PointQuarantined, v1alpha1.PointDeleting:
		return r.deleteIfAsked(ctx, &rp)
	}
	return ctrl.Result{}, nil
}

// pending says whether there is something to capture.
func pending(rp *v1alpha1.RecoveryPoint) bool {
	return rp.Status.Phase == "" || rp.Status.Phase == v1alpha1.PointPending || rp.Status.Phase == v1alpha1.PointCapturing
}

// subject is what a capture needs to know.
type subject struct {
	app       v1alpha1.Application
	policy    v1alpha1.ProtectionPolicy
	protector *protection.Protector
	standing  protection.Standing
}

func (r *Reconciler) capture(ctx context.Context, rp *v1alpha1.RecoveryPoint) (ctrl.Result, error) {
	s, err := r.subject(ctx, rp)
	if err != nil {
		return ctrl.Result{}, r.fail(ctx, rp, err)
	}
	labelled := rp.DeepCopy()
	project.Label(labelled, s.app.Spec.Vault, s.app.VaultName())
	if err := r.Client.Patch(ctx, labelled, client.MergeFrom(rp)); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	*rp = *labelled
	if err := r.begin(ctx, rp, s); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	defer r.ended(client.ObjectKeyFromObject(rp))
	m, err := r.run(ctx, rp, s)
	r.noteLies(ctx, rp, s, m, err)
	if errors.Is(err, protection.ErrBusy) {
		return ctrl.Result{RequeueAfter: busyWait}, r.write(ctx, rp, func(st *v1alpha1.RecoveryPointStatus) {
			st.Phase, st.Step = v1alpha1.PointPending, "waiting for another capture of the application"
		})
	}
	if err != nil && ctx.Err() != nil {
		measure.Captures.WithLabelValues(s.app.VaultName(), "interrupted").Inc()
		return ctrl.Result{}, nil // the next agent starts it again
	}
	if err != nil {
		failed := r.fail(ctx, rp, err)
		if full(err) && !rp.Spec.Diverged {
			failed = errors.Join(failed, r.expire(ctx, rp, s))
		}
		return ctrl.Result{}, failed
	}
	return ctrl.Result{}, r.succeed(ctx, rp, s, m)
}

// full tells whether the vault has no room. What a node process met has its
// words alone.
func full(err error) bool {
	return errors.Is(err, vault.ErrFull) || strings.Contains(err.Error(), vault.ErrFull.Error())
}

// subject reads the application, its policy and where the site stands.
func (r *Reconciler) subject(ctx context.Context, rp *v1alpha1.RecoveryPoint) (*subject, error) {
	s := &subject{}
	key := client.ObjectKey{Namespace: rp.Namespace, Name: rp.Spec.Application}
	if err := r.Reader.Get(ctx, key, &s.app); err != nil {
		return nil, fmt.Errorf("read Application %s: %w", key, err)
	}
	if s.app.Spec.Policy != "" {
		key.Name = s.app.Spec.Policy
		if err := client.IgnoreNotFound(r.Reader.Get(ctx, key, &s.policy)); err != nil {
			return nil, fmt.Errorf("read ProtectionPolicy %s: %w", key, err)
		}
	}
	var err error
	if s.protector, err = r.Vaults.Protector(ctx, s.app.Spec.Vault); err != nil {
		return nil, err
	}
	s.standing, err = s.protector.ClaimFirst(ctx, s.app.VaultName(), "agent of "+r.Site)
	if err != nil {
		return nil, err
	}
	if rp.Spec.Diverged {
		return s, diverged(s)
	}
	if s.standing.Role != v1alpha1.RoleActive {
		err := error(&lease.SupersededError{Application: s.app.VaultName(), Held: s.standing.Held, Current: s.standing.Current})
		if taken := s.protector.CheckName(ctx); errors.Is(taken, lease.ErrNameTaken) {
			err = fmt.Errorf("%w: %w", err, taken) // by its own name: say that two bear it, and what to do
		}
		return nil, err
	}
	return s, nil
}

// diverged says why what the site still has of an application cannot be captured.
func diverged(s *subject) error {
	rest := s.app.Status.Rest
	switch {
	case s.standing.Role != v1alpha1.RoleSuperseded:
		return fmt.Errorf("nothing of %s has diverged here: the site is %s", s.app.VaultName(), s.standing.Role)
	case rest == nil || !rest.Stopped || s.app.Status.Role != v1alpha1.RoleSuperseded:
		return fmt.Errorf("%s has not come to rest here yet: ask again when status.rest.stopped says so", s.app.VaultName())
	}
	return nil
}

func (r *Reconciler) begin(ctx context.Context, rp *v1alpha1.RecoveryPoint, s *subject) error {
	r.mu.Lock()
	r.mine[client.ObjectKeyFromObject(rp)] = true
	r.mu.Unlock()
	now := metav1.NewTime(r.Now())
	return r.write(ctx, rp, func(st *v1alpha1.RecoveryPointStatus) {
		st.Phase, st.Step, st.StartedAt = v1alpha1.PointCapturing, "starting", &now
		st.Site, st.Epoch = r.Site, s.standing.Held
		setReady(st, metav1.ConditionFalse, v1alpha1.ReasonProgressing, "being captured")
	})
}

func (r *Reconciler) ended(key client.ObjectKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mine, key)
}

// run captures, and shows each step in the status. An object that was removed
// stops its capture.
func (r *Reconciler) run(ctx context.Context, rp *v1alpha1.RecoveryPoint, s *subject) (*point.Manifest, error) {
	limit := captureTimeout
	if of := s.policy.Spec.CaptureTimeout; of != nil {
		limit = of.Duration
	}
	bounded, end := context.WithTimeoutCause(ctx, limit, errOverdue)
	defer end()
	ctx, cancel := context.WithCancelCause(bounded)
	defer cancel(nil)
	steps := newSteps()
	var wg sync.WaitGroup
	wg.Go(func() { r.follow(ctx, rp.DeepCopy(), steps, cancel) })
	trigger := "manual"
	if rp.Spec.Trigger == v1alpha1.TriggerSchedule {
		trigger = "schedule"
	}
	began := r.Now()
	m, err := s.protector.Capture(ctx, protection.CaptureRequest{
		Application: s.app, PointID: rp.Name, Trigger: trigger, Held: s.standing.Held, Diverged: rp.Spec.Diverged, Progress: steps.set,
		ChangedBlocks: protection.KeepsCuts(&s.app, &s.policy, r.Now()), Distrusted: s.app.Distrusted(),
		Objects: func(writing bool) {
			r.turns.writing(client.ObjectKey{Namespace: rp.Namespace, Name: rp.Spec.Application}, writing)
		},
	})
	cause := context.Cause(ctx)
	cancel(nil)
	wg.Wait()
	if err == nil {
		measure.CaptureDuration.WithLabelValues(s.app.VaultName()).Observe(r.Now().Sub(began).Seconds())
	} else if errors.Is(cause, errRemoved) {
		err = errors.Join(errRemoved, err)
	} else if errors.Is(cause, errOverdue) {
		err = fmt.Errorf("%w: it did not end within %s and was stopped while %s: allow more by captureTimeout of its policy, or look why that takes so long: %w", errOverdue, limit, cmp.Or(steps.get(), "starting"), err)
	}
	return m, err
}

// errOverdue ends a capture that takes longer than its policy allows.
var errOverdue = errors.New("the capture's time is over")

var errRemoved = errors.New("the RecoveryPoint object was removed")

// follow writes the newest step into the status until ctx is done.
func (r *Reconciler) follow(ctx context.Context, rp *v1alpha1.RecoveryPoint, s *steps, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(stepEvery)
	defer tick.Stop()
	shown := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		step := s.get()
		if step == shown {
			continue
		}
		err := r.write(ctx, rp, func(st *v1alpha1.RecoveryPointStatus) { st.Step = step })
		switch {
		case err == nil:
			shown = step
		case apierrors.IsNotFound(err):
			cancel(errRemoved)
			return
		}
	}
}

// steps passes the newest step from the capture to the status.
type steps struct {
	mu   sync.Mutex
	text string
}

func newSteps() *steps { return &steps{} }

func (s *steps) set(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = text
}

func (s *steps) get() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text
}

// succeed shows the point, pins it if asked, and lets old ones expire.
func (r *Reconciler) succeed(ctx context.Context, rp *v1alpha1.RecoveryPoint, s *subject, m *point.Manifest) error {
	app := s.app.VaultName()
	measure.Captures.WithLabelValues(app, "succeeded").Inc()
	countFreeze(app, m.Freeze)
	if q := m.Quiesce; q != nil {
		measure.HoldDuration.WithLabelValues(app).Observe(q.Rested.Seconds())
		if m.Consistency != point.Application {
			measure.HoldsLost.WithLabelValues(app).Inc()
			r.Events.Event(rp, corev1.EventTypeWarning, "NotApplicationConsistent", whyWeak(m))
		}
	}
	if err := r.showPinned(ctx, rp, s, m); err != nil {
		return client.IgnoreNotFound(err)
	}
	r.Events.Eventf(rp, corev1.EventTypeNormal, v1alpha1.ReasonSucceeded, "captured %d objects and %d volumes, %d bytes, %d of them new", m.Objects, len(m.Volumes), m.Bytes, m.StoredBytes)
	if rp.Spec.Diverged {
		return nil // a superseded site deletes nothing
	}
	return r.expire(ctx, rp, s)
}

// expireFor bounds how long points expire after a capture: until that is over, the application's
// next capture waits. What is left goes after the next one. The captures of a cron expression may
// be a minute apart; where they are farther apart, or nobody set when, a minute is no matter.
func expireFor(policy v1alpha1.ProtectionPolicySpec) time.Duration {
	limit := 2 * time.Minute
	if policy.Schedule.Cron != "" {
		limit = time.Minute
	}
	for _, d := range []*metav1.Duration{policy.Schedule.Every, policy.Objectives.RPO} {
		if d != nil {
			limit = min(limit, d.Duration)
		}
	}
	return max(limit/2, 5*time.Second)
}

// expire lets old points go, also when a full vault took no new one.
func (r *Reconciler) expire(ctx context.Context, rp *v1alpha1.RecoveryPoint, s *subject) error {
	report, err := s.protector.Expire(ctx, s.app.VaultName(), protection.Rules(s.policy.Spec), s.standing.Held, r.Now(), expireFor(s.policy.Spec))
	if err != nil {
		r.Events.Eventf(&s.app, corev1.EventTypeWarning, "ExpireFailed", "%v", err)
		log.FromContext(ctx).Error(err, "retention incomplete")
	}
	for _, read := range report.Read {
		r.Events.Eventf(&s.app, corev1.EventTypeNormal, "PointRead", "point %s is to go, and stays for now: %s", read.Point, read)
	}
	for _, id := range report.Deleted {
		gone := &v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Namespace: rp.Namespace, Name: id}}
		if err := client.IgnoreNotFound(r.Client.Delete(ctx, gone)); err != nil {
			return fmt.Errorf("remove expired point's object: %w", err)
		}
	}
	return nil
}

// whyWeak says why a point is weaker than hooks were to make it.
func whyWeak(m *point.Manifest) string {
	why := "its volumes were not cut at one instant"
	if m.Quiesce.Reason != "" {
		why = m.Quiesce.Reason
	} else if m.Freeze != nil && m.Freeze.Reason != "" {
		why += ": " + m.Freeze.Reason
	}
	return fmt.Sprintf("consistency is %s: %s", m.Consistency, why)
}

// countFreeze measures how long the application was held still, and whether
// that was worth it.
func countFreeze(app string, f *point.Freeze) {
	if f == nil || f.Window == 0 { // not tried
		return
	}
	if f.Frozen > 0 {
		measure.FreezeDuration.WithLabelValues(app).Observe(f.Frozen.Seconds())
	}
	if !f.Held {
		measure.FreezesBroken.WithLabelValues(app).Inc()
	}
}

// showPinned shows the point once it is pinned, if that was asked for: what is shown
// without its pin is taken for one whose pin somebody took off. After an error the
// object is looked at again, as of an interrupted capture. The capture has finished all
// the same, and holds up no other.
func (r *Reconciler) showPinned(ctx context.Context, rp *v1alpha1.RecoveryPoint, s *subject, m *point.Manifest) error {
	if rp.Spec.Pinned {
		if err := r.pin(ctx, s, m.ID); err != nil {
			err = fmt.Errorf("pin recovery point: %w", err)
			r.Events.Event(rp, corev1.EventTypeWarning, "NotPinned", err.Error())
			at := metav1.NewTime(r.Now())
			return errors.Join(err, r.write(ctx, rp, func(st *v1alpha1.RecoveryPointStatus) {
				st.Step, st.FinishedAt = "captured; pinning it, as was asked for", &at
			}))
		}
	}
	return r.show(ctx, rp, m)
}

// pin pins a point, once.
func (r *Reconciler) pin(ctx context.Context, s *subject, id string) error {
	p, err := r.Vaults.Project(ctx, s.app.Spec.Vault)
	if err != nil {
		return err
	}
	marks, err := p.Marks(ctx, s.app.VaultName(), id)
	if err != nil || (vault.PointInfo{Marks: marks}).Pinned() {
		return err
	}
	return p.Mark(ctx, s.app.VaultName(), id, vault.Mark{Kind: vault.MarkPinned, Site: r.Site, By: "RecoveryPoint object"})
}

func (r *Reconciler) show(ctx context.Context, rp *v1alpha1.RecoveryPoint, m *point.Manifest) error {
	info := vault.PointInfo{ID: m.ID, Manifest: m}
	return r.write(ctx, rp, func(st *v1alpha1.RecoveryPointStatus) {
		view := v1alpha1.RecoveryPoint{Status: *st}
		p := info.Point()
		p.Quarantined = p.Quarantined || rp.Spec.Diverged
		project.Status(&view, info, p)
		*st = view.Status
	})
}

// fail says why there is no point.
func (r *Reconciler) fail(ctx context.Context, rp *v1alpha1.RecoveryPoint, cause error) error {
	if errors.Is(cause, errRemoved) {
		return nil
	}
	result, reason := "failed", v1alpha1.ReasonCaptureFailed
	if errors.Is(cause, lease.ErrSuperseded) {
		result, reason = "superseded", v1alpha1.ReasonSuperseded
	} else if r := vaults.Reason(cause); r == v1alpha1.ReasonVaultDenied || r == v1alpha1.ReasonWrongKey || r == v1alpha1.ReasonVaultFull {
		reason = r
	}
	app := rp.Labels[v1alpha1.LabelApplication]
	if app == "" {
		app = rp.Spec.Application
	}
	measure.Captures.WithLabelValues(app, result).Inc()
	log.FromContext(ctx).Error(cause, "capture failed")
	r.Events.Event(rp, corev1.EventTypeWarning, reason, cause.Error())
	now := metav1.NewTime(r.Now())
	err := r.write(ctx, rp, func(st *v1alpha1.RecoveryPointStatus) {
		st.Phase, st.Step, st.FinishedAt = v1alpha1.PointFailed, "", &now
		setReady(st, metav1.ConditionFalse, reason, cause.Error())
	})
	return client.IgnoreNotFound(err)
}

// write changes the status, whatever version of the object the server has, as
// nobody else writes it while its capture runs.
func (r *Reconciler) write(ctx context.Context, rp *v1alpha1.RecoveryPoint, change func(*v1alpha1.RecoveryPointStatus)) error {
	old := rp.DeepCopy()
	change(&rp.Status)
	if err := r.Client.Status().Patch(ctx, rp, client.MergeFrom(old)); err != nil {
		return fmt.Errorf("write status of recovery point: %w", err)
	}
	return nil
}

func setReady(st *v1alpha1.RecoveryPointStatus, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&st.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: project.Cut(message)})
}
