package proof

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/copies"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/vault"
)

const (
	// retryCopyAfter is when a copy that gave no verdict is tried again although
	// it is another's turn, or nobody's.
	retryCopyAfter = time.Hour
	// openCopyFor bounds how long a copy may take to say what it is: while it is
	// waited for, nothing else is read back.
	openCopyFor = time.Minute
)

// errEmptyCopy says that there is nothing to read.
var errEmptyCopy = errors.New("it has no recovery point of the application yet")

// between reads a second copy, if it is the turn of one, while the vault's own
// verification waits for so long.
func (r *Verifier) between(ctx context.Context, app *v1alpha1.Application, spec *v1alpha1.VerifyPolicy, pause time.Duration) (ctrl.Result, error) {
	all, err := r.copiesOf(ctx, app)
	if err != nil {
		return ctrl.Result{}, err
	}
	if err := r.keepCopies(ctx, app, all); err != nil {
		return ctrl.Result{}, err
	}
	now := r.Now()
	i, since := turn(app.Status.Verification, all, now)
	if i < 0 {
		return ctrl.Result{RequeueAfter: pause}, nil
	}
	room, err := wait(ctx, r.Client, since, since, now, attempts{})
	if err != nil || room > 0 {
		return ctrl.Result{RequeueAfter: min(pause, room)}, err
	}
	return r.alone(func() error { return r.runCopy(ctx, app, spec, &all[i]) })
}

// copiesOf are the second copies that this site has of the application's vault.
func (r *Verifier) copiesOf(ctx context.Context, app *v1alpha1.Application) ([]v1alpha1.Vault, error) {
	var all v1alpha1.VaultList
	if err := r.Client.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list vaults: %w", err)
	}
	return slices.DeleteFunc(all.Items, func(v v1alpha1.Vault) bool { return v.Spec.CopyOf != app.Spec.Vault }), nil
}

// keepCopies forgets copies that are no more, and shows alerts what the status says.
func (r *Verifier) keepCopies(ctx context.Context, app *v1alpha1.Application, all []v1alpha1.Vault) error {
	gone := func(c v1alpha1.CopyVerification) bool {
		return !slices.ContainsFunc(all, func(v v1alpha1.Vault) bool { return v.Name == c.Vault })
	}
	if slices.ContainsFunc(app.Status.Verification.Copies, gone) {
		if err := r.note(ctx, app, func(s *v1alpha1.VerificationStatus) { s.Copies = slices.DeleteFunc(s.Copies, gone) }); err != nil {
			return err
		}
		measure.ForgetCopyProofs(app.VaultName())
	}
	for _, c := range app.Status.Verification.Copies {
		if c.At != nil {
			measure.CopyProven.WithLabelValues(app.VaultName(), c.Vault).Set(float64(c.At.Unix()))
		}
		measure.CopyDamaged.WithLabelValues(app.VaultName(), c.Vault).Set(float64(len(c.Damaged) + len(c.DamagedBlobs)))
		measure.CopyUnread.WithLabelValues(app.VaultName(), c.Vault).Set(map[bool]float64{true: 1}[c.Error != ""])
	}
	return nil
}

// turn is which copy is to be read now, and since when; -1 for none. After each
// run over the vault itself, whether that gave a verdict or not, it is the turn
// of the one that was tried longest ago; one that gave no verdict is tried
// again in between.
func turn(v *v1alpha1.VerificationStatus, all []v1alpha1.Vault, now time.Time) (int, time.Time) {
	var ran, newest, oldest time.Time
	if v.At != nil {
		ran = v.At.Time
	}
	if v.Error != "" && v.Next != nil && v.Next.After(ran) && !v.Next.After(now) { // it was due, and the vault gave no answer
		ran = v.Next.Time
	}
	next := -1
	for i := range all {
		at := triedAt(copied(v, all[i].Name))
		if next < 0 || at.Before(oldest) {
			next, oldest = i, at
		}
		if at.After(newest) {
			newest = at
		}
	}
	if next >= 0 && newest.Before(ran) {
		return next, ran
	}
	for i := range all {
		c := copied(v, all[i].Name)
		if again := triedAt(c).Add(retryCopyAfter); c.Error != "" && !again.After(now) {
			return i, again
		}
	}
	return -1, time.Time{}
}

// copied is what is known of a copy; only its name where that is nothing.
func copied(v *v1alpha1.VerificationStatus, name string) v1alpha1.CopyVerification {
	if i := slices.IndexFunc(v.Copies, func(c v1alpha1.CopyVerification) bool { return c.Vault == name }); i >= 0 {
		return v.Copies[i]
	}
	return v1alpha1.CopyVerification{Vault: name}
}

// triedAt is when a copy was read last, with a verdict or without.
func triedAt(c v1alpha1.CopyVerification) time.Time {
	var at time.Time
	if c.At != nil {
		at = c.At.Time
	}
	if c.TriedAt != nil && c.TriedAt.After(at) {
		at = c.TriedAt.Time
	}
	return at
}

// runCopy verifies the newest points in a second copy and says what came of it.
// A copy that cannot be read is told, and keeps nothing else from going on.
func (r *Verifier) runCopy(ctx context.Context, app *v1alpha1.Application, spec *v1alpha1.VerifyPolicy, v *v1alpha1.Vault) error {
	ctx, cancel := context.WithTimeoutCause(ctx, verifyTimeout, fmt.Errorf("no verdict within %s", verifyTimeout))
	defer cancel()
	found, proofs, err := r.verifyCopy(ctx, app, spec, v)
	was := copied(app.Status.Verification, v.Name)
	if err != nil {
		if was.Error != err.Error() {
			r.Events.Eventf(app, corev1.EventTypeWarning, "VerificationFailed", "no verdict on second copy %s: %v", v.Name, err)
		}
		found = was
		found.TriedAt, found.Error = metaTime(r.Now()), err.Error()
	} else {
		found.At = metaTime(r.Now())
	}
	err = r.note(ctx, app, func(s *v1alpha1.VerificationStatus) {
		s.Copies = append(slices.DeleteFunc(slices.Clone(s.Copies), func(c v1alpha1.CopyVerification) bool { return c.Vault == v.Name }), found)
	})
	return errors.Join(err, r.showProofs(ctx, app, proofs))
}

// verifyCopy reads the copy's newest points, in the copy alone: the first vault
// is asked only for what is damaged here. Damage is a verdict; an error is none.
func (r *Verifier) verifyCopy(ctx context.Context, app *v1alpha1.Application, spec *v1alpha1.VerifyPolicy, v *v1alpha1.Vault) (v1alpha1.CopyVerification, map[string]v1alpha1.CopyProof, error) {
	sample, was := ptr.Deref(spec.Sample, 100), copied(app.Status.Verification, v.Name)
	found := v1alpha1.CopyVerification{Vault: v.Name, How: v1alpha1.ProvenFull, SampleFrom: was.SampleFrom}
	if sample < 100 {
		found.How = v1alpha1.ProvenSample
	}
	opened, p, err := r.openCopy(ctx, v)
	if err != nil {
		return found, nil, err
	}
	ids, err := newestIn(ctx, p, app.VaultName(), int(ptr.Deref(spec.Newest, 1)))
	if err != nil {
		return found, nil, err
	}
	proofs := map[string]v1alpha1.CopyProof{}
	opts := protection.VerifyOptions{
		Sample: int(sample), SampleFrom: int(found.SampleFrom), Blobs: spec.Blobs, AllBlobs: len(was.DamagedBlobs) > 0,
	}
	read, err := readBack(ctx, p, app.VaultName(), ids, opts, func(id string, report protection.VerifyReport) {
		proofs[id] = r.damagedCopy(ctx, app, p, opened, id, report, &found)
	})
	if err != nil {
		return found, nil, err
	}
	for _, id := range read.points {
		if _, hurt := proofs[id]; !hurt {
			proofs[id] = v1alpha1.CopyProof{Vault: v.Name, Verification: v1alpha1.Verification{How: found.How}}
		}
	}
	found.Points, found.Bytes, found.Blobs = read.points, read.bytes, read.blobs
	found.SampleFrom = (found.SampleFrom + sample) % 100
	return found, proofs, nil
}

// openCopy opens a copy that is still one. One that is known not to answer is
// not waited for.
func (r *Verifier) openCopy(ctx context.Context, v *v1alpha1.Vault) (*vaults.Opened, *protection.Protector, error) {
	if c := meta.FindStatusCondition(v.Status.Conditions, v1alpha1.ConditionReady); c != nil && c.Status == metav1.ConditionFalse {
		return nil, nil, fmt.Errorf("the vault is not ready: %s: %s", c.Reason, c.Message)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, openCopyFor, fmt.Errorf("no answer within %s", openCopyFor))
	defer cancel()
	opened, err := r.Vaults.Opened(ctx, v.Name)
	if err != nil {
		return nil, nil, err
	}
	if err := copies.Halted(ctx, opened.Store); err != nil {
		return nil, nil, err
	}
	p, err := r.Vaults.Reader(ctx, v.Name)
	return opened, p, err
}

// newestIn returns the ids of the newest points of a copy that may be offered,
// and of those whose manifests are damaged there: nothing else reads these again.
func newestIn(ctx context.Context, p *protection.Protector, app string, n int) ([]string, error) {
	infos, points, err := p.Points(ctx, app)
	if err != nil {
		return nil, err
	}
	ids := newest(points, n)
	for _, info := range infos {
		if info.Manifest == nil && errors.Is(info.Err, vault.ErrDamaged) && !slices.Contains(ids, info.ID) {
			ids = append(ids, info.ID)
		}
	}
	if len(ids) == 0 {
		return nil, errEmptyCopy
	}
	return ids, nil
}

// damagedCopy mends a point in a copy from the first vault, tells of the damage,
// and notes what is left.
func (r *Verifier) damagedCopy(ctx context.Context, app *v1alpha1.Application, p *protection.Protector, opened *vaults.Opened, id string, report protection.VerifyReport, found *v1alpha1.CopyVerification) v1alpha1.CopyProof {
	name, left := found.Vault, report
	proof := v1alpha1.CopyProof{Vault: name, Verification: v1alpha1.Verification{How: found.How}}
	done, err := r.mend(ctx, app, p, opened, id, report)
	if err == nil && len(done.Repaired) == 0 {
		return proof // the copier replaced what was read meanwhile: nothing was wrong
	}
	damage := append(slices.Clone(report.Damage), report.BlobDamage...)
	r.Events.Eventf(app, corev1.EventTypeWarning, v1alpha1.ReasonDamaged, "recovery point %s is damaged in the second copy %s: %s", id, name, damage[0])
	if err == nil {
		measure.CopyRepairs.WithLabelValues(app.VaultName(), name, "succeeded").Inc()
		r.Events.Eventf(app, corev1.EventTypeWarning, "Repaired", "recovery point %s is whole again in the second copy %s: %d objects put back from vault %s; find out what damages the copy", id, name, len(done.Repaired), app.Spec.Vault)
		found.Repaired = append(found.Repaired, id)
		proof.How = v1alpha1.ProvenFull
		return proof
	}
	measure.CopyRepairs.WithLabelValues(app.VaultName(), name, "failed").Inc()
	r.Events.Eventf(app, corev1.EventTypeWarning, "RepairFailed", "recovery point %s in the second copy %s: %v", id, name, err)
	if errors.Is(err, protection.ErrNotRepaired) { // it was read once more
		left = done.Verified
	}
	if len(left.Damage) > 0 {
		found.Damaged = append(found.Damaged, id)
		proof.Damaged, proof.Message = true, left.Damage[0]
	}
	found.DamagedBlobs = append(found.DamagedBlobs, left.BlobDamage...)
	return proof
}

func (r *Verifier) mend(ctx context.Context, app *v1alpha1.Application, p *protection.Protector, opened *vaults.Opened, id string, report protection.VerifyReport) (protection.RepairReport, error) {
	first, err := r.Vaults.Project(ctx, app.Spec.Vault)
	if err != nil {
		return protection.RepairReport{}, err
	}
	return p.Mend(ctx, app.VaultName(), id, first, opened.Store, app.Status.HeldEpoch, report)
}

// showProofs writes into the RecoveryPoints what was found of them in a copy.
func (r *Verifier) showProofs(ctx context.Context, app *v1alpha1.Application, proofs map[string]v1alpha1.CopyProof) error {
	var errs []error
	for id, proof := range proofs {
		var rp v1alpha1.RecoveryPoint
		if err := r.Client.Get(ctx, client.ObjectKey{Namespace: app.Namespace, Name: id}, &rp); err != nil {
			errs = append(errs, client.IgnoreNotFound(err)) // one that only the copy has is shown nowhere
			continue
		}
		proof.At = *metaTime(r.Now())
		old := rp.DeepCopy()
		rp.Status.CopyProofs = append(slices.DeleteFunc(rp.Status.CopyProofs, func(p v1alpha1.CopyProof) bool { return p.Vault == proof.Vault }), proof)
		errs = append(errs, client.IgnoreNotFound(r.Client.Status().Patch(ctx, &rp, client.MergeFrom(old))))
	}
	return errors.Join(errs...)
}
