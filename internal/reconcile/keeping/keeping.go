// Package keeping proves again and again that this site's credentials can
// destroy nothing in vaults that are to be kept from that.
package keeping

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/vault/history"
)

const (
	// every is how often it is proven. What it writes stays as former versions.
	every = time.Hour
	// retry is when it is tried again that could not be.
	retry = 5 * time.Minute
	// timeout bounds one proof.
	timeout = 2 * time.Minute
)

// Access opens vaults by the name of their objects.
type Access interface {
	Opened(ctx context.Context, name string) (*vaults.Opened, error)
}

// Reconciler proves.
type Reconciler struct {
	Client client.Client
	Vaults Access
	Events record.EventRecorder
	Now    func() time.Time
}

// Setup registers the reconciler.
func (r *Reconciler) Setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("keeping").
		For(&v1alpha1.Vault{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(r)
}

// Reconcile proves it of one vault, if that is due.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var v v1alpha1.Vault
	err := r.Client.Get(ctx, req.NamespacedName, &v)
	if err != nil || !v.Spec.NoOverwrite {
		measure.VaultDestroyable.DeleteLabelValues(req.Name)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if wait := r.due(&v); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	opened, err := r.Vaults.Opened(limited, v.Name)
	if err == nil {
		_, err = history.Prove(limited, opened.Store)
	}
	cancel()
	if ctx.Err() != nil {
		return ctrl.Result{}, nil
	}
	wait := every
	if err != nil {
		wait = retry
	}
	return ctrl.Result{RequeueAfter: wait}, r.tell(ctx, &v, err)
}

// due is how long there is until the next proof; none where the last one failed.
func (r *Reconciler) due(v *v1alpha1.Vault) time.Duration {
	s := v.Status.Keeping
	if s == nil || s.ProvenAt == nil || s.Error != "" {
		return 0
	}
	measure.VaultDestroyable.WithLabelValues(v.Name).Set(0)
	return s.ProvenAt.Add(every).Sub(r.Now())
}

// tell writes what came of it where people and alerts look.
func (r *Reconciler) tell(ctx context.Context, v *v1alpha1.Vault, proof error) error {
	old := v.DeepCopy()
	if v.Status.Keeping == nil {
		v.Status.Keeping = &v1alpha1.KeepingStatus{}
	}
	s := v.Status.Keeping
	was := s.Error
	s.Error = ""
	if proof == nil {
		now := metav1.NewTime(r.Now().Truncate(time.Second))
		s.ProvenAt = &now
	} else if s.Error = proof.Error(); len(s.Error) > 1000 {
		s.Error = s.Error[:1000] + "…"
	}
	measure.VaultDestroyable.WithLabelValues(v.Name).Set(map[bool]float64{true: 1}[s.Error != ""])
	switch {
	case s.Error != "" && s.Error != was:
		reason := "NotProven" // a vault that gives no answer is no breach
		if errors.Is(proof, history.ErrDestroys) {
			reason = "Destroyable"
		}
		r.Events.Event(v, corev1.EventTypeWarning, reason, s.Error)
	case s.Error == "" && was != "":
		r.Events.Event(v, corev1.EventTypeNormal, "NotDestroyable", "the store refuses again to destroy what was written")
	}
	if err := client.IgnoreNotFound(r.Client.Status().Patch(ctx, v, client.MergeFrom(old))); err != nil {
		return fmt.Errorf("write status of keeping: %w", err)
	}
	return nil
}
