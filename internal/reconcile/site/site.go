// Package site keeps the Site objects: the cluster's own says what it is, the
// others' turn not ready when their sites fall silent.
package site

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/version"
)

const (
	lookEvery = 30 * time.Second
	// silentAfter is four heartbeats.
	silentAfter = 2 * time.Minute
)

// ReasonSilent says that a site has not written to the vault for long.
const ReasonSilent = "Silent"

// Reconciler keeps Site objects.
type Reconciler struct {
	Client      client.Client
	Site        string // this site's name
	ClusterID   string // which cluster bears it
	KubeVersion func(ctx context.Context) (string, error)
	Now         func() time.Time
}

// Setup registers the reconciler.
func (r *Reconciler) Setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("site").
		For(&v1alpha1.Site{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(r)
}

// Reconcile brings one Site's status up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var s v1alpha1.Site
	if err := r.Client.Get(ctx, req.NamespacedName, &s); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	old := s.DeepCopy()
	s.Status.Local = s.Name == r.Site
	if s.Status.Local {
		s.Status.DavitVersion, s.Status.ClusterID = version.String(), r.ClusterID
		if v, err := r.KubeVersion(ctx); err == nil {
			s.Status.KubeVersion = v
		}
	}
	meta.SetStatusCondition(&s.Status.Conditions, ready(&s, r.Now()))
	if err := r.Client.Status().Patch(ctx, &s, client.MergeFrom(old)); err != nil {
		return ctrl.Result{}, fmt.Errorf("write status of site: %w", err)
	}
	return ctrl.Result{RequeueAfter: lookEvery}, nil
}

// Silent tells whether another site has not written to a vault for long, by its last sign
// and not by what its condition said at some time.
func Silent(s *v1alpha1.Site, now time.Time) bool {
	return s.Status.LastSeen == nil || now.Sub(s.Status.LastSeen.Time) > silentAfter
}

// ready: this site is if it can say so; another is while it writes to a vault.
func ready(s *v1alpha1.Site, now time.Time) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded, ObservedGeneration: s.Generation}
	if s.Status.Local {
		c.Message = "the agent of this site runs"
		return c
	}
	c.Message = "writes to a vault that this site reads"
	if Silent(s, now) {
		c.Status, c.Reason = metav1.ConditionFalse, ReasonSilent
		c.Message = "has written to no vault that this site reads for more than " + silentAfter.String() + ": it may run all the same"
	}
	return c
}
