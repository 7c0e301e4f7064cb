// Package copying keeps the second copies of vaults up to date. Each copy has
// a worker of its own, so that a slow or dead one delays nothing else; what is
// captured never waits for any of them.
package copying

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
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
	"davit.dev/davit/internal/copies"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/reconcile/project"
	"davit.dev/davit/internal/vault"
)

const (
	// lookEvery is how often both vaults are compared.
	lookEvery = 20 * time.Second
	// passTimeout bounds one pass; the next one goes on where it was.
	passTimeout = time.Hour
	// maxDamage bounds what the status names.
	maxDamage = 20
)

// Access opens vaults by the name of their objects.
type Access interface {
	Opened(ctx context.Context, name string) (*vaults.Opened, error)
}

// Reconciler copies.
type Reconciler struct {
	Client client.Client
	Vaults Access
	Events record.EventRecorder
	Now    func() time.Time
	Logger *slog.Logger

	mu      sync.Mutex
	copiers map[string]*copier // by the copy's name
}

// copier is the Copier of one pair of open vaults.
type copier struct {
	first, second *vault.Project
	*copies.Copier
}

// Setup registers the reconciler.
func (r *Reconciler) Setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("copying").
		For(&v1alpha1.Vault{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 8}).
		Complete(r)
}

// Reconcile makes one pass into one copy.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var v v1alpha1.Vault
	if err := r.Client.Get(ctx, req.NamespacedName, &v); err != nil {
		r.forget(req.Name)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if v.Spec.CopyOf == "" {
		return ctrl.Result{}, nil
	}
	limited, cancel := context.WithTimeoutCause(ctx, passTimeout, fmt.Errorf("a pass ends after %s", passTimeout))
	defer cancel()
	copier, report, err := r.pass(limited, &v)
	if ctx.Err() != nil {
		return ctrl.Result{}, nil
	}
	if err := r.tell(ctx, &v, report, err); err != nil {
		return ctrl.Result{}, err
	}
	if err == nil {
		copier.MakeRoom(limited, lookEvery)
	}
	return ctrl.Result{RequeueAfter: lookEvery}, nil
}

func (r *Reconciler) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.copiers, name)
	measure.ForgetCopy(name)
}

// copier returns the one of a copy, a new one when a vault was opened anew.
func (r *Reconciler) copier(name string, first, second *vaults.Opened) *copier {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.copiers[name]
	if c != nil && c.first == first.Project && c.second == second.Project {
		return c
	}
	if r.copiers == nil {
		r.copiers = map[string]*copier{}
	}
	c = &copier{first: first.Project, second: second.Project, Copier: copies.New(copies.Options{
		First: first.Project, Listing: first.Listing, Store: second.Store, Volumes: protection.VolumeOptions, Reserve: true, Now: r.Now, Logger: r.Logger,
	})}
	r.copiers[name] = c
	return c
}

// pass makes one, and returns also who made it.
func (r *Reconciler) pass(ctx context.Context, v *v1alpha1.Vault) (*copier, copies.Report, error) {
	second, err := r.Vaults.Opened(ctx, v.Name)
	if err != nil {
		return nil, copies.Report{}, err
	}
	first, err := r.Vaults.Opened(ctx, v.Spec.CopyOf)
	if err != nil {
		return nil, copies.Report{}, fmt.Errorf("vault %s, of which this is a copy: %w", v.Spec.CopyOf, err)
	}
	apps, err := r.apps(ctx, v, first)
	if err != nil {
		return nil, copies.Report{}, err
	}
	c := r.copier(v.Name, first, second)
	report, err := c.Pass(ctx, apps)
	return c, report, err
}

// apps are the first vault's applications: this site copies those that it may
// write, and looks at the others.
func (r *Reconciler) apps(ctx context.Context, second *v1alpha1.Vault, first *vaults.Opened) ([]copies.App, error) {
	names, err := first.Listing.Apps(ctx)
	if err != nil {
		return nil, err
	}
	var here v1alpha1.ApplicationList
	if err := r.Client.List(ctx, &here); err != nil {
		return nil, fmt.Errorf("list applications: %w", err)
	}
	own := map[string]copies.App{}
	for i := range here.Items {
		a := &here.Items[i]
		if a.Spec.Vault != second.Spec.CopyOf || a.Status.Role != v1alpha1.RoleActive {
			continue
		}
		app := copies.App{Name: a.VaultName(), Held: a.Status.HeldEpoch, DeletionDelay: max(vaults.DeletionDelay(&first.Object), vaults.DeletionDelay(second))}
		if app.Rules, app.Expire, err = r.rules(ctx, a); err != nil {
			return nil, err
		}
		own[app.Name] = app
	}
	apps := make([]copies.App, 0, len(names))
	for _, name := range names {
		app, active := own[name]
		if !active {
			app = copies.App{Name: name, LookOnly: true}
		}
		apps = append(apps, app)
	}
	return apps, nil
}

// rules are the retention of the application's policy; false when it has none.
func (r *Reconciler) rules(ctx context.Context, a *v1alpha1.Application) (point.Retention, bool, error) {
	if a.Spec.Policy == "" {
		return point.Retention{}, false, nil
	}
	var policy v1alpha1.ProtectionPolicy
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: a.Namespace, Name: a.Spec.Policy}, &policy)
	if err != nil {
		return point.Retention{}, false, client.IgnoreNotFound(err)
	}
	return protection.Rules(policy.Spec), true, nil
}

// tell writes what came of a pass where people and alerts look.
func (r *Reconciler) tell(ctx context.Context, v *v1alpha1.Vault, report copies.Report, passErr error) error {
	old := v.DeepCopy()
	if v.Status.Copy == nil {
		v.Status.Copy = &v1alpha1.CopyStatus{}
	}
	s := v.Status.Copy
	was := s.Error
	s.Error = ""
	if passErr != nil {
		s.Error = short(passErr.Error())
	}
	if report.Apps != nil && passErr == nil {
		r.summarize(v, report)
	}
	if s.Error != was && s.Error != "" {
		r.Events.Event(v, corev1.EventTypeWarning, "CopyFailed", s.Error)
	}
	if s.Error == "" && was != "" {
		r.Events.Event(v, corev1.EventTypeNormal, "CopyResumed", "copying goes on")
	}
	for _, damage := range s.Damaged {
		if old.Status.Copy == nil || !slices.Contains(old.Status.Copy.Damaged, damage) {
			r.Events.Event(v, corev1.EventTypeWarning, v1alpha1.ReasonDamaged, "not copied, for it is not what was written: "+damage)
		}
	}
	measure.CopyFailing.WithLabelValues(v.Name).Set(map[bool]float64{true: 1}[s.Error != ""])
	if err := r.Client.Status().Patch(ctx, v, client.MergeFrom(old)); err != nil {
		return fmt.Errorf("write status of copy: %w", client.IgnoreNotFound(err))
	}
	return r.showCopies(ctx, v, report)
}

// summarize brings a pass's report into the status and the metrics.
func (r *Reconciler) summarize(v *v1alpha1.Vault, report copies.Report) {
	s := v.Status.Copy
	now := metav1.NewTime(r.Now().Truncate(time.Second))
	s.LookedAt, s.Pending, s.PendingSince, s.Applications = &now, 0, nil, nil
	s.Damaged = report.Damaged[:min(len(report.Damaged), maxDamage)]
	for i := range s.Damaged {
		s.Damaged[i] = short(s.Damaged[i])
	}
	if report.Copied > 0 {
		s.Objects, s.Bytes = int64(report.Copied), report.Bytes
	}
	names := make([]string, 0, len(report.Apps))
	for name := range report.Apps {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		a := report.Apps[name]
		app := v1alpha1.ApplicationCopy{Name: name, Points: int64(len(a.Points)), Newest: when(a.Newest), Pending: int64(a.Pending)}
		if a.Err != nil {
			app.Error = short(a.Err.Error())
			if s.Error == "" {
				s.Error = app.Error
			}
		}
		s.Applications = append(s.Applications, app)
		s.Pending += app.Pending
		if since := when(a.OldestPending); since != nil && (s.PendingSince == nil || since.Before(s.PendingSince)) {
			s.PendingSince = since
		}
		lag := 0.0
		if a.Pending > 0 {
			lag = max(r.Now().Sub(a.OldestPending).Seconds(), 0)
		}
		measure.CopyLag.WithLabelValues(v.Name, name).Set(lag)
		measure.CopyPending.WithLabelValues(v.Name, name).Set(float64(a.Pending))
	}
}

func when(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t.Truncate(time.Second)}
}

func short(text string) string {
	const most = 1000
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// showCopies says of each RecoveryPoint which copies have it.
func (r *Reconciler) showCopies(ctx context.Context, v *v1alpha1.Vault, report copies.Report) error {
	in := map[string]bool{}
	for name, a := range report.Apps {
		for _, id := range a.Points {
			in[name+"/"+id] = true
		}
	}
	var points v1alpha1.RecoveryPointList
	if err := r.Client.List(ctx, &points, client.MatchingLabels{project.LabelVault: v.Spec.CopyOf}); err != nil {
		return fmt.Errorf("list recovery points: %w", err)
	}
	var errs []error
	for i := range points.Items {
		rp := &points.Items[i]
		app := project.Application(rp)
		if a, looked := report.Apps[app]; !looked || a.Err != nil && !in[app+"/"+rp.Name] {
			continue // nothing is known
		}
		if has := slices.Contains(rp.Status.Copies, v.Name); has == in[app+"/"+rp.Name] {
			continue
		}
		old := rp.DeepCopy()
		rp.Status.Copies = slices.DeleteFunc(rp.Status.Copies, func(name string) bool { return name == v.Name })
		if in[app+"/"+rp.Name] {
			rp.Status.Copies = append(rp.Status.Copies, v.Name)
		}
		errs = append(errs, client.IgnoreNotFound(r.Client.Status().Patch(ctx, rp, client.MergeFrom(old))))
	}
	return errors.Join(errs...)
}
