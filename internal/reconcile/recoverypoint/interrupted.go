package recoverypoint

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/reconcile/project"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/reading"
)

// restart deals with a capture that another agent process began and did not
// finish. If its manifest got into the vault, the point is there. Else it is
// started again under a new name: the old one could still be written by a
// process that does not know that it is dead.
func (r *Reconciler) restart(ctx context.Context, rp *v1alpha1.RecoveryPoint) error {
	r.mu.Lock()
	mine := r.mine[client.ObjectKeyFromObject(rp)]
	r.mu.Unlock()
	if mine {
		return nil // the event is older than the capture's end
	}
	var app v1alpha1.Application
	m, err := r.published(ctx, rp, &app)
	if err != nil {
		return err
	}
	if m != nil {
		return client.IgnoreNotFound(r.showPinned(ctx, rp, &subject{app: app}, m))
	}
	s, err := r.subject(ctx, rp)
	if err != nil {
		return r.fail(ctx, rp, fmt.Errorf("interrupted, and not started again: %w", err))
	}
	return r.again(ctx, rp, s)
}

// published reads what the vault has of the point, and its application; nil: nothing, or
// there is nowhere to look. It is asked for nothing else, so that a vault that is silent
// for a while, or an epoch that went on, makes no failure of a point that is there.
func (r *Reconciler) published(ctx context.Context, rp *v1alpha1.RecoveryPoint, app *v1alpha1.Application) (*point.Manifest, error) {
	key := client.ObjectKey{Namespace: rp.Namespace, Name: rp.Spec.Application}
	if err := r.Reader.Get(ctx, key, app); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	p, err := r.Vaults.Project(ctx, app.Spec.Vault)
	if errors.Is(err, vault.ErrUnavailable) {
		return nil, err
	}
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // whoever goes on says why
	}
	m, err := p.Manifest(ctx, app.VaultName(), rp.Name)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, nil //nolint:nilnil // the vault has none
	}
	return m, err
}

func (r *Reconciler) again(ctx context.Context, rp *v1alpha1.RecoveryPoint, s *subject) error {
	id := rp.Annotations[project.AnnotationRestarted]
	if id == "" {
		var err error
		if id, err = s.protector.NewPointID(s.app.VaultName()); err != nil {
			return err
		}
		old := rp.DeepCopy()
		if rp.Annotations == nil {
			rp.Annotations = map[string]string{}
		}
		rp.Annotations[project.AnnotationRestarted] = id
		if err := r.Client.Patch(ctx, rp, client.MergeFrom(old)); err != nil {
			return client.IgnoreNotFound(err)
		}
	}
	next := &v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Namespace: rp.Namespace, Name: id}, Spec: rp.Spec}
	if run := rp.Annotations[v1alpha1.AnnotationRun]; run != "" {
		next.Annotations = map[string]string{v1alpha1.AnnotationRun: run} // it is as much the run's
		if mark := rp.Annotations[v1alpha1.AnnotationRested]; mark != "" {
			next.Annotations[v1alpha1.AnnotationRested] = mark
		}
	}
	project.Label(next, s.app.Spec.Vault, s.app.VaultName())
	if err := r.Client.Create(ctx, next); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("start interrupted capture again: %w", err)
	}
	text := "the agent stopped in the middle: started again as " + id
	r.Events.Event(rp, corev1.EventTypeWarning, ReasonInterrupted, text)
	now := metav1.NewTime(r.Now())
	return client.IgnoreNotFound(r.write(ctx, rp, func(st *v1alpha1.RecoveryPointStatus) {
		st.Phase, st.Step, st.FinishedAt = v1alpha1.PointFailed, "", &now
		setReady(st, metav1.ConditionFalse, ReasonInterrupted, text)
	}))
}

// deleteIfAsked deletes the point from the vault, then its object, when the
// annotation asks for it. A refusal is an event, and the request is dropped.
func (r *Reconciler) deleteIfAsked(ctx context.Context, rp *v1alpha1.RecoveryPoint) (ctrl.Result, error) {
	asked := rp.Annotations[project.AnnotationDelete]
	if asked != "true" && asked != "last-good" {
		return ctrl.Result{}, nil
	}
	// Labels are for finding objects: whoever may write them in a namespace may
	// not thereby delete what is another's. The namespace says whose the point is.
	object := v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: rp.Namespace, Name: rp.Spec.Application}}
	app, vaultName := object.VaultName(), rp.Labels[project.LabelVault]
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(&object), &object)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	if err == nil {
		vaultName = object.Spec.Vault
	}
	protector, err := r.Vaults.Protector(ctx, vaultName)
	if err != nil {
		return ctrl.Result{}, err
	}
	err = protector.Delete(ctx, app, rp.Name, protection.DeleteOptions{By: "annotation of the RecoveryPoint", LastGood: asked == "last-good"})
	switch {
	case err == nil, errors.Is(err, vault.ErrNotFound):
		return ctrl.Result{}, client.IgnoreNotFound(r.Client.Delete(ctx, rp))
	case errors.Is(err, vault.ErrPinned), errors.Is(err, protection.ErrLastGood), errors.Is(err, reading.ErrRead):
		return ctrl.Result{}, r.refuseDelete(ctx, rp, err)
	}
	return ctrl.Result{}, err
}

// refuseDelete says why, and drops the request.
func (r *Reconciler) refuseDelete(ctx context.Context, rp *v1alpha1.RecoveryPoint, why error) error {
	r.Events.Event(rp, corev1.EventTypeWarning, "DeleteRefused", why.Error())
	old := rp.DeepCopy()
	delete(rp.Annotations, project.AnnotationDelete)
	return client.IgnoreNotFound(r.Client.Patch(ctx, rp, client.MergeFrom(old)))
}
