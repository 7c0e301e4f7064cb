package proof

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/reconcile/policy"
	"davit.dev/davit/internal/trial"
	"davit.dev/davit/internal/vault"
)

// Trials runs restore tests.
type Trials interface {
	Readers
	// Test tests one point of a Vault, as the account that restores.
	Test(ctx context.Context, vaultName string, opts trial.Options) (trial.Report, error)
}

// Tester brings points up as isolated copies as policies ask. One at a time.
type Tester struct {
	Client client.Client
	Trials Trials
	Events record.EventRecorder
	Now    func() time.Time

	testing sync.Mutex // held by the one test that runs
}

// Setup registers the reconciler.
func (r *Tester) Setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("restore-test").
		For(&v1alpha1.Application{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.ProtectionPolicy{}, handler.EnqueueRequestsFromMapFunc(policy.Applications(mgr.GetClient()))).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(r)
}

// Reconcile tests an application's newest points when that is due.
func (r *Tester) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var app v1alpha1.Application
	if err := r.Client.Get(ctx, req.NamespacedName, &app); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	policy, err := policyOf(ctx, r.Client, &app)
	if err != nil {
		return ctrl.Result{}, err
	}
	if policy == nil || policy.Spec.RestoreTest == nil || app.Status.Role != v1alpha1.RoleActive {
		return ctrl.Result{RequeueAfter: lookEvery}, r.forget(ctx, &app, policy)
	}
	spec, now := policy.Spec.RestoreTest, r.Now()
	at, err := dueTest(&app, spec, now)
	if err != nil {
		return ctrl.Result{RequeueAfter: lookEvery}, r.note(ctx, &app, func(s *v1alpha1.RestoreTestStatus) { s.Error, s.TriedAt = err.Error(), metaTime(now) })
	}
	if err := r.note(ctx, &app, func(s *v1alpha1.RestoreTestStatus) { s.Next = nextOf(s.Next, at, now) }); err != nil {
		return ctrl.Result{}, err
	}
	st := app.Status.RestoreTest
	pause, err := wait(ctx, r.Client, at, st.Next.Time, now, attempts{last: st.TriedAt, count: st.Tries})
	if err != nil || pause > 0 {
		return ctrl.Result{RequeueAfter: pause}, err
	}
	if !r.testing.TryLock() {
		return ctrl.Result{RequeueAfter: lookAgain}, nil
	}
	defer r.testing.Unlock()
	return ctrl.Result{RequeueAfter: lookEvery}, r.run(ctx, &app, spec)
}

// dueTest is when the next test is to start, as of the one now that its caller
// compares with: a later one would never be reached.
func dueTest(app *v1alpha1.Application, spec *v1alpha1.RestoreTestPolicy, now time.Time) (time.Time, error) {
	if err := trial.Check(spec.Probes); err != nil {
		return time.Time{}, err
	}
	var last time.Time
	if t := app.Status.RestoreTest; t != nil && t.At != nil {
		last = t.At.Time
	}
	return due(spec.Every, spec.Cron, last, app.CreationTimestamp.Time, now)
}

// run tests the newest points and says what came of it.
func (r *Tester) run(ctx context.Context, app *v1alpha1.Application, spec *v1alpha1.RestoreTestPolicy) error {
	found, err := r.test(ctx, app, spec)
	if ctx.Err() != nil {
		return nil // the agent stops: the next one begins anew, and removes the copy
	}
	name := app.VaultName()
	if err == nil && found == nil { // nothing to test yet
		return nil
	}
	result := "passed"
	switch {
	case err != nil:
		result = "no-verdict"
		r.Events.Eventf(app, corev1.EventTypeWarning, "RestoreTestNoVerdict", "%v", err)
	case found.Unproven != "":
		result = "nothing-proven"
		r.Events.Eventf(app, corev1.EventTypeWarning, v1alpha1.ReasonNothingProven, "recovery point %s: %s", found.Point, found.Unproven)
	case !found.Passed:
		result = "failed"
		r.Events.Eventf(app, corev1.EventTypeWarning, v1alpha1.ReasonTestFailed, "recovery point %s: %s", found.Point, found.Message)
	}
	measure.RestoreTests.WithLabelValues(name, result).Inc()
	err = r.note(ctx, app, func(s *v1alpha1.RestoreTestStatus) {
		s.Running, s.Namespaces = nil, nil
		if err != nil {
			s.TriedAt, s.Error, s.Tries = metaTime(r.Now()), err.Error(), s.Tries+1
			return
		}
		*s = *found
		s.At = metaTime(r.Now())
		if next, err := due(spec.Every, spec.Cron, s.At.Time, app.CreationTimestamp.Time, r.Now()); err == nil {
			s.Next = metaTime(next)
		}
		measureTest(name, s)
	})
	return err
}

// measureTest sets the gauges that alerts look at.
func measureTest(name string, s *v1alpha1.RestoreTestStatus) {
	failed, unproven := 0.0, 0.0
	switch {
	case s.Unproven != "":
		unproven = 1
	case !s.Passed:
		failed = 1
	default:
		measure.Tested.WithLabelValues(name).Set(float64(s.At.Unix()))
		if s.RTO != nil {
			measure.TestedRTO.WithLabelValues(name).Set(s.RTO.Seconds())
		}
	}
	measure.TestFailed.WithLabelValues(name).Set(failed)
	measure.TestUnproven.WithLabelValues(name).Set(unproven)
}

// test tests the points, newest first, until one does not pass. Nil says that there is
// none; an error is no verdict.
func (r *Tester) test(ctx context.Context, app *v1alpha1.Application, spec *v1alpha1.RestoreTestPolicy) (*v1alpha1.RestoreTestStatus, error) {
	p, err := r.Trials.Reader(ctx, app.Spec.Vault)
	if err != nil {
		return nil, err
	}
	_, points, err := p.Points(ctx, app.VaultName())
	if err != nil {
		return nil, err
	}
	var found *v1alpha1.RestoreTestStatus
	var gone error
	for _, id := range newest(points, int(ptr.Deref(spec.Newest, 1))) {
		report, err := r.testPoint(ctx, app, spec, id)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, err
		case errors.Is(err, vault.ErrNotFound): // deleted meanwhile
			gone = err
			continue
		case err != nil && !errors.Is(err, trial.ErrFailed) && !errors.Is(err, trial.ErrNothingProven):
			return nil, err
		}
		if found == nil || !report.Passed { // the newest's figures stand for all that passed
			found = statusOf(report)
		}
		if !report.Passed {
			break
		}
	}
	if found == nil {
		return nil, gone
	}
	return found, nil
}

func (r *Tester) testPoint(ctx context.Context, app *v1alpha1.Application, spec *v1alpha1.RestoreTestPolicy, id string) (trial.Report, error) {
	opts := trial.FromPolicy(spec)
	opts.Application, opts.Point = app.VaultName(), id
	opts.Began = func(namespaces []string) {
		// Whoever looks sees what runs; that it cannot be written stops no test.
		_ = r.note(ctx, app, func(s *v1alpha1.RestoreTestStatus) { s.Running, s.Namespaces = metaTime(r.Now()), namespaces })
	}
	report, err := r.Trials.Test(ctx, app.Spec.Vault, opts)
	for _, left := range report.Leftovers {
		r.Events.Eventf(app, corev1.EventTypeWarning, "RestoreTestLeftovers", "the copy could not be removed, which is tried again: %s", left)
	}
	return report, err
}

// statusOf is a test's outcome as the Application shows it.
func statusOf(report trial.Report) *v1alpha1.RestoreTestStatus {
	s := &v1alpha1.RestoreTestStatus{
		Point: report.Point, Passed: report.Passed, Message: report.Failure, Unproven: report.Unproven, Warnings: report.Warnings, Leftovers: report.Leftovers,
	}
	if report.RTO > 0 {
		s.RTO = &metav1.Duration{Duration: report.RTO.Round(time.Millisecond)}
	}
	for _, p := range report.Probes {
		s.Probes = append(s.Probes, v1alpha1.ProbeStatus{
			Name: p.Name, Passed: p.Passed, Took: &metav1.Duration{Duration: p.Took.Round(time.Millisecond)}, Message: p.Message,
		})
	}
	return s
}

// note changes the application's restore-test status.
func (r *Tester) note(ctx context.Context, app *v1alpha1.Application, change func(*v1alpha1.RestoreTestStatus)) error {
	old := app.DeepCopy()
	if app.Status.RestoreTest == nil {
		app.Status.RestoreTest = &v1alpha1.RestoreTestStatus{}
	}
	change(app.Status.RestoreTest)
	err := r.Client.Status().Patch(ctx, app, client.MergeFrom(old))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write status of restore test: %w", err)
	}
	return nil
}

// forget takes away when the next test is due, and that one runs, where none is
// asked for any more.
func (r *Tester) forget(ctx context.Context, app *v1alpha1.Application, policy *v1alpha1.ProtectionPolicy) error {
	t := app.Status.RestoreTest
	if t == nil || t.Next == nil && t.Running == nil || policy != nil && policy.Spec.RestoreTest != nil && app.Status.Role == v1alpha1.RoleUnknown {
		return nil
	}
	return r.note(ctx, app, func(s *v1alpha1.RestoreTestStatus) { s.Next, s.Running, s.Namespaces = nil, nil, nil })
}
