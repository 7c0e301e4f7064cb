// Package locking prolongs the object locks of recovery points that are kept,
// in vaults that lock what is written.
package locking

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/vault/lock"
)

const (
	// lookEvery is how often it is looked whether a pass is due.
	lookEvery = 10 * time.Minute
	// passTimeout bounds one pass; the next one begins anew.
	passTimeout = 4 * time.Hour
)

// Access opens vaults by the name of their objects.
type Access interface {
	Opened(ctx context.Context, name string) (*vaults.Opened, error)
}

// Reconciler prolongs locks.
type Reconciler struct {
	Client client.Client
	Vaults Access
	Events record.EventRecorder
	Now    func() time.Time
}

// Setup registers the reconciler.
func (r *Reconciler) Setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("locking").
		For(&v1alpha1.Vault{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(r)
}

// Reconcile makes a pass over one vault if one is due.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var v v1alpha1.Vault
	if err := r.Client.Get(ctx, req.NamespacedName, &v); err != nil {
		measure.ForgetLocks(req.Name)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	policy := vaults.Lock(&v)
	if !policy.On() {
		measure.ForgetLocks(v.Name)
		return ctrl.Result{}, nil
	}
	if wait := r.due(&v, policy); wait > 0 {
		measure.LockedUntil.WithLabelValues(v.Name).Set(float64(v.Status.Lock.Until.Unix()))
		return ctrl.Result{RequeueAfter: min(wait, lookEvery)}, nil
	}
	limited, cancel := context.WithTimeoutCause(ctx, passTimeout, fmt.Errorf("a pass ends after %s", passTimeout))
	report, err := r.pass(limited, &v, policy)
	cancel()
	if ctx.Err() != nil {
		return ctrl.Result{}, nil
	}
	return ctrl.Result{RequeueAfter: lookEvery}, r.tell(ctx, &v, report, err)
}

// due is how long there is until the next pass; none after a policy that
// reaches further than what was done under the one before.
func (r *Reconciler) due(v *v1alpha1.Vault, policy lock.Policy) time.Duration {
	s := v.Status.Lock
	if s == nil || s.ExtendedAt == nil || s.Until == nil || s.Error != "" {
		return 0
	}
	now := r.Now()
	if s.Until.Sub(now) < policy.Span()-2*policy.Every() {
		return 0
	}
	return s.ExtendedAt.Add(policy.Every()).Sub(now)
}

func (r *Reconciler) pass(ctx context.Context, v *v1alpha1.Vault, policy lock.Policy) (lock.Report, error) {
	opened, err := r.Vaults.Opened(ctx, v.Name)
	if err != nil {
		return lock.Report{}, err
	}
	return lock.Extend(ctx, opened.Project, opened.Store, policy, r.Now())
}

// tell writes what came of a pass where people and alerts look.
func (r *Reconciler) tell(ctx context.Context, v *v1alpha1.Vault, report lock.Report, passErr error) error {
	old := v.DeepCopy()
	if v.Status.Lock == nil {
		v.Status.Lock = &v1alpha1.LockStatus{}
	}
	s := v.Status.Lock
	was := s.Error
	s.Error = ""
	if passErr == nil {
		now, until := metav1.NewTime(r.Now().Truncate(time.Second)), metav1.NewTime(report.Until)
		s.ExtendedAt, s.Until, s.Objects = &now, &until, int64(report.Objects)
		measure.LockedUntil.WithLabelValues(v.Name).Set(float64(until.Unix()))
	} else if s.Error = passErr.Error(); len(s.Error) > 1000 {
		s.Error = s.Error[:1000] + "…"
	}
	measure.LocksFailing.WithLabelValues(v.Name).Set(map[bool]float64{true: 1}[s.Error != ""])
	switch {
	case s.Error != "" && s.Error != was:
		r.Events.Event(v, corev1.EventTypeWarning, "LocksNotExtended", s.Error)
	case s.Error == "" && was != "":
		r.Events.Event(v, corev1.EventTypeNormal, "LocksExtended", "locks of kept recovery points are prolonged again")
	}
	if err := client.IgnoreNotFound(r.Client.Status().Patch(ctx, v, client.MergeFrom(old))); err != nil {
		return fmt.Errorf("write status of locks: %w", err)
	}
	return nil
}
