// Package proof proves on schedule that recovery points can be restored: it
// reads them back from the vault, and by turns from its second copies. One at a time and never while a capture or a
// restore goes on here, for proof can wait and they cannot.
package proof

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/reconcile/policy"
	"davit.dev/davit/internal/vault"
)

const (
	// lookEvery is how often an application is looked at in between.
	lookEvery = 30 * time.Second
	// lookAgain is when one whose turn has not come is looked at again.
	lookAgain = lookEvery / 3
	// retryAfter is when a run without a verdict is tried again, and
	// retryAtMost the longest pause after many.
	retryAfter  = time.Minute
	retryAtMost = time.Hour
	// makeRoomFor is how long a verification that is due lets captures and
	// restores go first: where they never rest, it must run beside them.
	makeRoomFor = 10 * time.Minute
	// verifyTimeout bounds one verification; the store's own deadlines are
	// much shorter, so it is for what nobody thought of.
	verifyTimeout = 24 * time.Hour
)

// Readers opens vaults for reading points back.
type Readers interface {
	// Reader returns a Vault's Protector that leaves room for other work.
	Reader(ctx context.Context, name string) (*protection.Protector, error)
	// Project returns the open project of a Vault, as of a second copy.
	Project(ctx context.Context, name string) (*vault.Project, error)
	// Opened returns an open Vault, with the store of a second copy for mending it.
	Opened(ctx context.Context, name string) (*vaults.Opened, error)
}

// Verifier reads points back as policies ask.
type Verifier struct {
	Client client.Client
	Vaults Readers
	Events record.EventRecorder
	Now    func() time.Time

	reading sync.Mutex // held by the one verification that runs
}

// Setup registers the reconciler.
func (r *Verifier) Setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("verification").
		For(&v1alpha1.Application{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.ProtectionPolicy{}, handler.EnqueueRequestsFromMapFunc(policy.Applications(mgr.GetClient()))).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(r)
}

// Reconcile verifies an application's newest points when that is due, and in
// between those in a second copy whose turn it is.
func (r *Verifier) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var app v1alpha1.Application
	if err := r.Client.Get(ctx, req.NamespacedName, &app); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	policy, err := policyOf(ctx, r.Client, &app)
	if err != nil {
		return ctrl.Result{}, err
	}
	if policy == nil || policy.Spec.Verify == nil || app.Status.Role != v1alpha1.RoleActive {
		measure.ForgetCopyProofs(app.VaultName())
		return ctrl.Result{RequeueAfter: lookEvery}, r.forget(ctx, &app, policy)
	}
	spec, now := policy.Spec.Verify, r.Now()
	at, err := due(spec.Every, spec.Cron, lastOf(&app), app.CreationTimestamp.Time, now)
	if err != nil {
		return ctrl.Result{RequeueAfter: lookEvery}, r.note(ctx, &app, func(s *v1alpha1.VerificationStatus) { s.Error, s.TriedAt = err.Error(), metaTime(now) })
	}
	if err := r.note(ctx, &app, func(s *v1alpha1.VerificationStatus) { s.Next = nextOf(s.Next, at, now) }); err != nil {
		return ctrl.Result{}, err
	}
	// To ask a silent vault again costs little: it is done every minute.
	pause, err := wait(ctx, r.Client, at, app.Status.Verification.Next.Time, now, attempts{last: app.Status.Verification.TriedAt})
	if err != nil {
		return ctrl.Result{}, err
	}
	if pause > 0 {
		return r.between(ctx, &app, spec, pause)
	}
	return r.alone(func() error { return r.run(ctx, &app, spec) })
}

// alone runs what reads points back, unless another such thing runs here.
func (r *Verifier) alone(run func() error) (ctrl.Result, error) {
	if !r.reading.TryLock() {
		return ctrl.Result{RequeueAfter: lookAgain}, nil
	}
	defer r.reading.Unlock()
	return ctrl.Result{RequeueAfter: lookEvery}, run()
}

// nextOf keeps the time at which a run that is due was due first.
func nextOf(old *metav1.Time, at, now time.Time) *metav1.Time {
	if old != nil && !at.After(now) && old.Time.Before(at) {
		return old
	}
	return metaTime(at)
}

func lastOf(app *v1alpha1.Application) time.Time {
	if v := app.Status.Verification; v != nil && v.At != nil {
		return v.At.Time
	}
	return time.Time{}
}

// Busy tells whether a capture or a restore goes on in the cluster.
func Busy(ctx context.Context, c client.Client) (bool, error) {
	var points v1alpha1.RecoveryPointList
	if err := c.List(ctx, &points, client.UnsafeDisableDeepCopy); err != nil {
		return false, err
	}
	for i := range points.Items {
		if points.Items[i].Status.Phase == v1alpha1.PointCapturing {
			return true, nil
		}
	}
	var restores v1alpha1.RestoreList
	if err := c.List(ctx, &restores); err != nil {
		return false, err
	}
	return slices.ContainsFunc(restores.Items, func(r v1alpha1.Restore) bool { return r.Status.Phase == v1alpha1.RestoreRunning }), nil
}

func policyOf(ctx context.Context, c client.Client, app *v1alpha1.Application) (*v1alpha1.ProtectionPolicy, error) {
	if app.Spec.Policy == "" {
		return nil, nil //nolint:nilnil // without one nothing is asked for
	}
	var policy v1alpha1.ProtectionPolicy
	err := c.Get(ctx, client.ObjectKey{Namespace: app.Namespace, Name: app.Spec.Policy}, &policy)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // the application's reconciler tells
	}
	return &policy, err
}

// run verifies the newest points and says what came of it.
func (r *Verifier) run(ctx context.Context, app *v1alpha1.Application, spec *v1alpha1.VerifyPolicy) error {
	ctx, cancel := context.WithTimeoutCause(ctx, verifyTimeout, fmt.Errorf("no verdict within %s", verifyTimeout))
	defer cancel()
	found, err := r.verify(ctx, app, spec)
	if err == nil && len(found.Points) == 0 { // nothing to read yet
		return nil
	}
	result := "succeeded"
	switch {
	case err != nil:
		result = "failed"
		r.Events.Eventf(app, corev1.EventTypeWarning, "VerificationFailed", "no verdict: %v", err)
	case len(found.Damaged)+len(found.DamagedBlobs) > 0:
		result = "damaged"
	}
	measure.Verifications.WithLabelValues(app.VaultName(), found.How, result).Inc()
	return r.note(ctx, app, func(s *v1alpha1.VerificationStatus) {
		if err != nil {
			s.TriedAt, s.Error = metaTime(r.Now()), err.Error()
			return
		}
		found.Copies = s.Copies
		*s = found
		s.At = metaTime(r.Now())
		if next, err := due(spec.Every, spec.Cron, s.At.Time, app.CreationTimestamp.Time, r.Now()); err == nil {
			s.Next = metaTime(next)
		}
		measure.Proven.WithLabelValues(app.VaultName()).Set(float64(s.At.Unix()))
		measure.BlobsDamaged.WithLabelValues(app.VaultName()).Set(float64(len(s.DamagedBlobs)))
	})
}

// verify reads the points, newest first. Damage is a verdict; an error is none.
func (r *Verifier) verify(ctx context.Context, app *v1alpha1.Application, spec *v1alpha1.VerifyPolicy) (v1alpha1.VerificationStatus, error) {
	sample := ptr.Deref(spec.Sample, 100)
	found := v1alpha1.VerificationStatus{How: v1alpha1.ProvenFull, SampleFrom: app.Status.Verification.SampleFrom}
	if sample < 100 {
		found.How = v1alpha1.ProvenSample
	}
	p, err := r.Vaults.Reader(ctx, app.Spec.Vault)
	if err != nil {
		return found, err
	}
	_, points, err := p.Points(ctx, app.VaultName())
	if err != nil {
		return found, err
	}
	opts := protection.VerifyOptions{
		Sample: int(sample), SampleFrom: int(found.SampleFrom),
		Blobs: spec.Blobs, AllBlobs: len(app.Status.Verification.DamagedBlobs) > 0, // another sample would not see it
	}
	read, err := readBack(ctx, p, app.VaultName(), newest(points, int(ptr.Deref(spec.Newest, 1))), opts, func(id string, report protection.VerifyReport) {
		r.damaged(ctx, app, p, id, report, &found)
	})
	if err != nil {
		return found, err
	}
	found.Points, found.Bytes, found.Blobs = read.points, read.bytes, read.blobs
	found.SampleFrom = (found.SampleFrom + sample) % 100
	return found, nil
}

// reading is what was read back.
type reading struct {
	points       []string
	bytes, blobs int64
}

// readBack reads points one after the other, and hands over the report of each
// that is damaged, or in whose repository something is.
func readBack(ctx context.Context, p *protection.Protector, app string, ids []string, opts protection.VerifyOptions, damaged func(id string, report protection.VerifyReport)) (reading, error) {
	var read reading
	for _, id := range ids {
		report, err := p.Verify(ctx, app, id, opts)
		opts.NotOf = append(opts.NotOf, report.Sites...)
		switch {
		case errors.Is(err, vault.ErrNotFound): // deleted meanwhile
			continue
		case err != nil && !errors.Is(err, protection.ErrDamaged):
			return read, err
		}
		if len(report.Damage)+len(report.BlobDamage) > 0 {
			damaged(id, report)
		}
		read.points = append(read.points, id)
		read.bytes += report.Bytes
		read.blobs += report.Blobs
	}
	return read, nil
}

// damaged tells of damage, mends it if a second copy can, and notes what is left.
func (r *Verifier) damaged(ctx context.Context, app *v1alpha1.Application, p *protection.Protector, id string, report protection.VerifyReport, found *v1alpha1.VerificationStatus) {
	if len(report.Damage) > 0 {
		r.Events.Eventf(app, corev1.EventTypeWarning, v1alpha1.ReasonDamaged, "recovery point %s is damaged and no longer offered: %s", id, report.Damage[0])
	}
	if len(report.BlobDamage) > 0 {
		r.Events.Eventf(app, corev1.EventTypeWarning, v1alpha1.ReasonDamaged, "%d blobs of volume data are not as they were written, and points that need them may be damaged: %s", len(report.BlobDamage), report.BlobDamage[0])
	}
	mended, left := r.repair(ctx, app, p, id, report)
	switch {
	case mended:
		found.Repaired = append(found.Repaired, id)
	case len(left.Damage) > 0:
		found.Damaged = append(found.Damaged, id)
	}
	if !mended {
		found.DamagedBlobs = append(found.DamagedBlobs, left.BlobDamage...)
	}
}

// repair mends a damaged point from the vault's second copies, one after the
// other until it is whole, and tells what came of it, and what is left.
func (r *Verifier) repair(ctx context.Context, app *v1alpha1.Application, p *protection.Protector, id string, found protection.VerifyReport) (mended bool, left protection.VerifyReport) {
	var all v1alpha1.VaultList
	if err := r.Client.List(ctx, &all); err != nil {
		r.Events.Eventf(app, corev1.EventTypeWarning, "RepairFailed", "recovery point %s: list vaults: %v", id, err)
		return false, found
	}
	left = found
	for i := range all.Items {
		name := all.Items[i].Name
		if all.Items[i].Spec.CopyOf != app.Spec.Vault {
			continue
		}
		report, err := r.repairFrom(ctx, app, p, id, name, found)
		if err == nil {
			measure.Repairs.WithLabelValues(app.VaultName(), "succeeded").Inc()
			r.Events.Eventf(app, corev1.EventTypeWarning, "Repaired", "recovery point %s is whole again: %d objects put back from the copy %s; find out what damages the vault", id, len(report.Repaired), name)
			return true, report.Verified
		}
		if report.Verified.ID != "" { // it was read once more
			left = report.Verified
		}
		measure.Repairs.WithLabelValues(app.VaultName(), "failed").Inc()
		r.Events.Eventf(app, corev1.EventTypeWarning, "RepairFailed", "recovery point %s from the copy %s: %v", id, name, err)
	}
	return false, left
}

func (r *Verifier) repairFrom(ctx context.Context, app *v1alpha1.Application, p *protection.Protector, id, name string, found protection.VerifyReport) (protection.RepairReport, error) {
	from, err := r.Vaults.Project(ctx, name)
	if err != nil {
		return protection.RepairReport{}, err
	}
	return p.Repair(ctx, app.VaultName(), id, from, name, found)
}

// newest returns the ids of the newest points that may be offered.
func newest(points []point.Point, n int) []string {
	var ids []string
	left := slices.Clone(points)
	for len(ids) < n {
		p, ok := point.Newest(left, time.Time{})
		if !ok {
			break
		}
		ids = append(ids, p.ID)
		left = slices.DeleteFunc(left, func(q point.Point) bool { return q.ID == p.ID })
	}
	return ids
}

// note changes the application's verification status.
func (r *Verifier) note(ctx context.Context, app *v1alpha1.Application, change func(*v1alpha1.VerificationStatus)) error {
	old := app.DeepCopy()
	if app.Status.Verification == nil {
		app.Status.Verification = &v1alpha1.VerificationStatus{}
	}
	change(app.Status.Verification)
	return client.IgnoreNotFound(r.Client.Status().Patch(ctx, app, client.MergeFrom(old)))
}

// forget takes away when the next run is due, where none is any more.
func (r *Verifier) forget(ctx context.Context, app *v1alpha1.Application, policy *v1alpha1.ProtectionPolicy) error {
	if v := app.Status.Verification; v == nil || v.Next == nil || policy != nil && policy.Spec.Verify != nil && app.Status.Role == v1alpha1.RoleUnknown {
		return nil
	}
	return r.note(ctx, app, func(s *v1alpha1.VerificationStatus) { s.Next = nil })
}

func metaTime(t time.Time) *metav1.Time { return &metav1.Time{Time: t.Truncate(time.Second)} }
