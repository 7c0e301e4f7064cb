// Package vault keeps each Vault object honest: it checks the vault every half
// minute, gives this site's sign of life, and shows what the vault holds as
// objects of the cluster: the other sites, and every recovery point.
package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/version"
)

const (
	checkEvery   = 30 * time.Second
	retryEvery   = 10 * time.Second
	checkTimeout = 25 * time.Second
)

// Access opens vaults by the name of their objects.
type Access interface {
	// Opened returns the open project of a Vault as its object is now: whoever
	// sees status.observedGeneration counts on all of the agent going by it.
	Opened(ctx context.Context, name string) (*vaults.Opened, error)
	// Drop forgets a Vault that is gone.
	Drop(name string)
}

// Reconciler keeps Vault objects.
type Reconciler struct {
	Client client.Client
	Vaults Access
	Events record.EventRecorder
	// Site is this site's name, ClusterID the cluster that bears it and
	// KubeVersion that cluster's version.
	Site        string
	ClusterID   string
	KubeVersion func(ctx context.Context) (string, error)
	Now         func() time.Time
}

// Setup registers the reconciler.
func (r *Reconciler) Setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("vault").
		For(&v1alpha1.Vault{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(r)
}

// checked is what one check of a vault found.
type checked struct {
	opened  *vaults.Opened
	sites   []vault.SiteStatus
	latency time.Duration
	skew    time.Duration
}

// Reconcile checks one vault and brings its projections up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var v v1alpha1.Vault
	if err := r.Client.Get(ctx, req.NamespacedName, &v); err != nil {
		if apierrors.IsNotFound(err) {
			r.Vaults.Drop(req.Name)
			measure.VaultUp.DeleteLabelValues(req.Name)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	limited, cancel := context.WithTimeout(ctx, checkTimeout)
	found, err := r.check(limited, &v)
	cancel()
	if statusErr := r.writeStatus(ctx, &v, found, err); statusErr != nil {
		return ctrl.Result{}, statusErr
	}
	if err != nil {
		return ctrl.Result{RequeueAfter: retryEvery}, nil
	}
	if err := r.projectChecked(ctx, &v, found); err != nil {
		log.FromContext(ctx).Error(err, "projection of vault incomplete")
		return ctrl.Result{RequeueAfter: retryEvery}, nil
	}
	return ctrl.Result{RequeueAfter: checkEvery}, nil
}

// projectChecked brings the projections of a vault up to date, which takes long where it
// holds much, and goes on checking it meanwhile: one that falls silent under it would be
// said to answer for as long as the projection waits.
func (r *Reconciler) projectChecked(ctx context.Context, v *v1alpha1.Vault, found checked) error {
	shown := v.DeepCopy()
	return meanwhile(ctx, func(ctx context.Context) error { return r.project(ctx, shown, found) }, func(ctx context.Context) error {
		limited, cancel := context.WithTimeout(ctx, checkTimeout)
		now, err := r.check(limited, v)
		cancel()
		return errors.Join(err, r.writeStatus(ctx, v, now, err), r.projectSites(ctx, now.sites))
	})
}

// meanwhile does work, and every checkEvery looks whether it makes sense to go on: if not,
// the work is ended.
func meanwhile(ctx context.Context, work, look func(context.Context) error) error {
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- work(working) }()
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
		}
		if err := look(ctx); err != nil {
			cancel()
			<-done
			return err
		}
	}
}

// check writes this site's sign of life and reads everybody's: that a vault
// takes writes and gives them back is what matters. lease.ErrNameTaken says
// that another cluster bears the name, and is left to.
func (r *Reconciler) check(ctx context.Context, v *v1alpha1.Vault) (checked, error) {
	opened, err := r.Vaults.Opened(ctx, v.Name)
	if err != nil {
		return checked{}, err
	}
	if opened.Project.IsCopy() {
		if err := r.takeKeys(ctx, v, opened); err != nil {
			return checked{}, err
		}
		return r.checkCopy(ctx, opened)
	}
	if err := r.takeKeys(ctx, v, opened); err != nil {
		return checked{}, err
	}
	kubeVersion, err := r.KubeVersion(ctx)
	if err != nil {
		kubeVersion = ""
	}
	c := checked{opened: opened}
	before := r.Now().UTC()
	sign := vault.SiteStatus{Site: r.Site, Cluster: r.ClusterID, Time: before, AgentVersion: version.String(), KubeVersion: kubeVersion}
	sign.KeyID, sign.Recipient = opened.Project.NewestKey().KeyID, opened.Project.Opener().String()
	if err := lease.Beat(ctx, opened.Project, sign); err != nil {
		return c, err
	}
	c.latency = r.Now().Sub(before)
	if c.sites, err = opened.Project.Sites(ctx); err != nil {
		return c, err
	}
	for _, s := range c.sites {
		if s.Site == r.Site {
			c.skew = s.Written.Sub(before.Add(c.latency / 2)).Truncate(time.Second)
		}
	}
	return c, nil
}

// checkCopy only reads: signs of life are given in the first vault.
func (r *Reconciler) checkCopy(ctx context.Context, opened *vaults.Opened) (checked, error) {
	before := r.Now()
	_, _, err := vault.Identify(ctx, opened.Store)
	return checked{opened: opened, latency: r.Now().Sub(before)}, err
}

func (r *Reconciler) writeStatus(ctx context.Context, v *v1alpha1.Vault, c checked, checkErr error) error {
	old := v.DeepCopy()
	s := &v.Status
	now := metav1.NewTime(r.Now())
	s.ObservedGeneration, s.LastChecked = v.Generation, &now
	up := 0.0
	if checkErr == nil {
		up = 1
		s.VaultID = c.opened.VaultID
		key := c.opened.Project.NewestKey()
		s.KeyID, s.KeyVersion = key.KeyID, key.Number
		s.Latency = &metav1.Duration{Duration: c.latency.Round(time.Millisecond)}
		s.ClockSkew = &metav1.Duration{Duration: c.skew}
		measure.VaultLatency.WithLabelValues(v.Name).Set(c.latency.Seconds())
		measure.VaultSkew.WithLabelValues(v.Name).Set(c.skew.Seconds())
	}
	measure.VaultUp.WithLabelValues(v.Name).Set(up)
	r.warnOfSkew(v, old.Status.ClockSkew)
	reason := vaults.Reason(checkErr)
	message := "the vault takes writes and gives them back"
	if v.Spec.CopyOf != "" {
		message = "the second copy of vault " + v.Spec.CopyOf + " answers"
	}
	if checkErr != nil {
		message = checkErr.Error()
	}
	changed := false
	for _, kind := range []string{v1alpha1.ConditionReachable, v1alpha1.ConditionReady} {
		status := metav1.ConditionTrue
		if checkErr != nil && (kind == v1alpha1.ConditionReady || reason == v1alpha1.ReasonVaultUnavailable) {
			status = metav1.ConditionFalse
		}
		condition := metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: v.Generation}
		before := meta.FindStatusCondition(s.Conditions, kind)
		changed = changed || before == nil || before.Reason != reason
		meta.SetStatusCondition(&s.Conditions, condition)
	}
	if changed {
		kind := corev1.EventTypeNormal
		if checkErr != nil {
			kind = corev1.EventTypeWarning
		}
		r.Events.Event(v, kind, reason, message)
	}
	if err := r.Client.Status().Patch(ctx, v, client.MergeFrom(old)); err != nil {
		return fmt.Errorf("write status of vault: %w", err)
	}
	return nil
}

// warnOfSkew tells once when the clocks come apart.
func (r *Reconciler) warnOfSkew(v *v1alpha1.Vault, before *metav1.Duration) {
	now := v.Status.ClockSkew
	if now == nil || now.Abs() <= vault.SafeSkew || before != nil && before.Abs() > vault.SafeSkew {
		return
	}
	r.Events.Eventf(v, corev1.EventTypeWarning, v1alpha1.ReasonClockSkew, "the vault's clock is %s of this site's: ages and RPO are wrong by as much; mend time synchronisation", apart(now.Duration))
}

func apart(d time.Duration) string {
	if d < 0 {
		return (-d).String() + " behind"
	}
	return d.String() + " ahead"
}

func (r *Reconciler) project(ctx context.Context, v *v1alpha1.Vault, c checked) error {
	if c.opened.Project.IsCopy() { // its points are shown by the first vault
		return nil
	}
	if err := r.projectSites(ctx, c.sites); err != nil {
		return err
	}
	return r.projectPoints(ctx, v, c.opened)
}
