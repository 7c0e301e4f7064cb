// Package drilling keeps the drill schedules of plans: it orders, as Run objects
// of this cluster, the drills that are due here, and says how they do. The carrier
// carries them.
package drilling

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vault"
)

const (
	// requester is who asks for drills on schedule.
	requester   = "davit: the plan's schedule"
	lookEvery   = 5 * time.Minute
	lookSoon    = 15 * time.Second
	lookTimeout = 15 * time.Second
	// keep is how many Runs of a plan's schedule are kept once they are over.
	keep = 10
)

// Reconciler orders drills.
type Reconciler struct {
	Client  client.Client
	Project func(ctx context.Context, vault string) (*vault.Project, error)
	Events  record.EventRecorder
	Site    string
	Now     func() time.Time
}

// Setup registers the reconciler.
func (r *Reconciler) Setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("drills").
		For(&v1alpha1.RecoveryPlan{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.Run{}, handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
			run, ok := o.(*v1alpha1.Run)
			if !ok || run.Spec.Verb != v1alpha1.PlanVerb(plan.Drill) {
				return nil
			}
			return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: run.Spec.Plan}}}
		})).
		Complete(r)
}

// Reconcile orders a plan's drill if one is due.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var p v1alpha1.RecoveryPlan
	if err := r.Client.Get(ctx, req.NamespacedName, &p); err != nil || !p.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	old := p.DeepCopy()
	next, err := r.keep(ctx, &p)
	if err != nil {
		return ctrl.Result{}, err
	}
	if equality.Semantic.DeepEqual(old.Status, p.Status) {
		return ctrl.Result{RequeueAfter: next}, nil
	}
	err = r.Client.Status().Patch(ctx, &p, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) { // others write other fields of the status
		return ctrl.Result{RequeueAfter: time.Second}, nil
	}
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("write drills into status of plan: %w", err)
	}
	return ctrl.Result{RequeueAfter: next}, nil
}

// keep does what the plan's schedule asks for now, and returns when to look again.
func (r *Reconciler) keep(ctx context.Context, p *v1alpha1.RecoveryPlan) (time.Duration, error) {
	d, now := p.Spec.Drills, r.Now()
	table, err := document.Timetable(document.Convert(p).Drills)
	if err != nil || table == nil || !r.mine(p) || r.active(p) || len(document.Convert(p).Check()) > 0 {
		p.Status.NextDrill = nil // what is wrong, its condition Valid says
		meta.RemoveStatusCondition(&p.Status.Conditions, v1alpha1.ConditionDrilled)
		measure.ForgetDrills(p.Name)
		return lookEvery, nil
	}
	seen, err := r.look(ctx, p)
	if err != nil {
		return 0, err
	}
	vaultName, err := plans.Vault(ctx, r.Client, p)
	if err != nil {
		r.say(p, seen, "", err.Error())
		return lookSoon, nil
	}
	if err := r.prune(ctx, seen.over); err != nil {
		return 0, err
	}
	if d.Suspend {
		p.Status.NextDrill = nil
		r.say(p, seen, vaultName, "drills are suspended")
		return 0, nil
	}
	if seen.pending != "" { // its end is seen
		r.say(p, seen, vaultName, seen.pending+" is under way")
		return lookEvery, nil
	}
	due := turn{table: table, interval: d.Schedule.Every != nil, created: p.CreationTimestamp.Time, last: seen.last, refused: seen.refused, now: now}.due()
	if due.IsZero() {
		p.Status.NextDrill = nil
		r.say(p, seen, vaultName, "the schedule never comes")
		return lookEvery, nil
	}
	p.Status.NextDrill = &metav1.Time{Time: due}
	if due.After(now) {
		r.say(p, seen, vaultName, "")
		return min(due.Sub(now), lookEvery), nil
	}
	waits, err := r.order(ctx, p, vaultName, due)
	if err != nil {
		waits = "the next cannot begin: " + err.Error()
	}
	r.say(p, seen, vaultName, waits)
	if p.Status.NextDrill == nil {
		return lookEvery, nil
	}
	return lookSoon, nil
}

// active tells whether this site ran applications of the plan when that was last
// looked at: then there is nothing to say of drills here.
func (r *Reconciler) active(p *v1alpha1.RecoveryPlan) bool {
	return slices.Contains(strings.Split(p.Status.At, ", "), r.Site)
}

// mine tells whether this site drills the plan.
func (r *Reconciler) mine(p *v1alpha1.RecoveryPlan) bool {
	named := slices.ContainsFunc(p.Spec.Sites, func(s v1alpha1.PlanSite) bool { return s.Name == r.Site })
	return named && (len(p.Spec.Drills.Sites) == 0 || slices.Contains(p.Spec.Drills.Sites, r.Site))
}

// order orders the drill that is due, or says what it waits for. The order is
// named after when it was due: whoever orders it again orders nothing more.
func (r *Reconciler) order(ctx context.Context, p *v1alpha1.RecoveryPlan, vaultName string, due time.Time) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	project, err := r.Project(ctx, vaultName)
	if err != nil {
		return "", err
	}
	found, err := plans.Find(ctx, r.Client, project, p.Name)
	if err != nil {
		return "", err
	}
	whole := found.Plan()
	for _, app := range whole.Applications {
		e, err := lease.New(project).Current(ctx, app.Name)
		switch {
		case err != nil:
			return "", err
		case e.Number == 0:
			return fmt.Sprintf("the next waits until %s is protected", app.Name), nil
		case e.Claim.Site == r.Site:
			p.Status.NextDrill = nil
			return fmt.Sprintf("%s runs at this site: drills are where it does not", app.Name), nil
		}
	}
	name := commission.Name(p.Name, plan.Drill, due)
	spec, err := commission.Spec(whole, commission.Ask{Run: name, Verb: plan.Drill, To: r.Site, By: requester, At: r.Now()})
	if err != nil {
		return "", err
	}
	under, err := register.New(project).States(ctx, p.Name, name)
	if err != nil {
		return "", err
	}
	if err := commission.Conflict(spec, under); err != nil {
		return "the next waits: " + commission.Refused(err).Why, nil
	}
	o := &v1alpha1.Run{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelScheduled: "true"}},
		Spec: v1alpha1.RunSpec{
			Plan: p.Name, Vault: vaultName, Verb: v1alpha1.PlanVerb(plan.Drill), To: r.Site, RequestedBy: requester,
			Reason: "on schedule, due " + due.UTC().Format(time.RFC3339),
		},
	}
	if len(p.Name) <= 63 {
		o.Labels[v1alpha1.LabelPlan] = p.Name
	}
	err = r.Client.Create(ctx, o)
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("order drill %s: %w", name, err)
	}
	if err == nil {
		r.Events.Eventf(p, corev1.EventTypeNormal, "DrillOrdered", "drill %s, due %s", name, due.UTC().Format(time.RFC3339))
	}
	return name + " is ordered", nil
}

// say writes down how the drills here did, and what is due.
func (r *Reconciler) say(p *v1alpha1.RecoveryPlan, s *seen, vaultName, waits string) {
	now := r.Now()
	c := metav1.Condition{Type: v1alpha1.ConditionDrilled, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonNeverDrilled, Message: "no drill here has ended yet", ObservedGeneration: p.Generation}
	if s.ended != nil {
		c.Message = fmt.Sprintf("%s passed at %s", s.ended.Name, s.ended.Status.EndedAt.UTC().Format(time.RFC3339))
		c.Status, c.Reason = metav1.ConditionTrue, v1alpha1.ReasonSucceeded
		if !s.passed() {
			c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.ReasonDrillFailed
			c.Message = fmt.Sprintf("%s: %s: %s", s.ended.Name, s.ended.Status.Phase, s.ended.Status.Why)
		}
	}
	due := p.Status.NextDrill
	if due != nil && now.Sub(due.Time) > measure.DrillGrace && c.Status != metav1.ConditionFalse {
		c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.ReasonOverdue
	}
	if due != nil && waits == "" {
		waits = "the next is due at " + due.UTC().Format(time.RFC3339)
	}
	if waits != "" {
		c.Message += "; " + waits
	}
	c.Message = c.Message[:min(len(c.Message), 8<<10)]
	meta.SetStatusCondition(&p.Status.Conditions, c)
	if vaultName == "" {
		return
	}
	measure.ForgetDrills(p.Name)
	if s.ended != nil {
		measure.PlanDrilled.WithLabelValues(vaultName, p.Name).Set(float64(s.ended.Status.EndedAt.Unix()))
		passed := map[bool]float64{true: 1}[s.passed()]
		measure.PlanDrillPassed.WithLabelValues(vaultName, p.Name).Set(passed)
	}
	if due != nil {
		measure.PlanDrillDue.WithLabelValues(vaultName, p.Name).Set(float64(due.Unix()))
	}
}

// seen is what the cluster's Runs say of a plan's drills at this site.
type seen struct {
	last    time.Time     // when one began last
	refused time.Time     // when one was ordered last that was refused, if none began since
	pending string        // one that is ordered or under way
	ended   *v1alpha1.Run // the newest that is over, refused ones included
	over    []v1alpha1.Run
}

func (s *seen) passed() bool { return failover.Phase(s.ended.Status.Phase) == failover.Completed }

// look gathers what is seen. Runs that were removed are known by the plan's own status.
func (r *Reconciler) look(ctx context.Context, p *v1alpha1.RecoveryPlan) (*seen, error) {
	var list v1alpha1.RunList
	if err := r.Client.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("list Runs: %w", err)
	}
	s := &seen{}
	if d := p.Status.LastDrill; d != nil && d.To == r.Site && d.BegunAt != nil {
		s.last = d.BegunAt.Time
	}
	for i := range list.Items {
		o := &list.Items[i]
		if o.Spec.Plan != p.Name || o.Spec.To != r.Site || o.Spec.Verb != v1alpha1.PlanVerb(plan.Drill) {
			continue
		}
		begun, over := o.Status.BegunAt, failover.Phase(o.Status.Phase).Over()
		if begun != nil && begun.After(s.last) {
			s.last = begun.Time
		}
		switch {
		case !over && o.DeletionTimestamp.IsZero():
			s.pending = cmp.Or(s.pending, o.Name)
		case over && begun == nil && o.CreationTimestamp.After(s.refused):
			s.refused = o.CreationTimestamp.Time
		}
		if over && o.Status.EndedAt != nil && (s.ended == nil || o.Status.EndedAt.After(s.ended.Status.EndedAt.Time)) {
			s.ended = o
		}
		if over && o.Labels[v1alpha1.LabelScheduled] == "true" {
			s.over = append(s.over, *o)
		}
	}
	if s.refused.Before(s.last) {
		s.refused = time.Time{}
	}
	return s, nil
}

// prune removes the objects of drills on schedule that ended long ago. Their
// journals and reports stay in the vault.
func (r *Reconciler) prune(ctx context.Context, over []v1alpha1.Run) error {
	slices.SortFunc(over, func(a, b v1alpha1.Run) int { return b.CreationTimestamp.Compare(a.CreationTimestamp.Time) })
	for i := keep; i < len(over); i++ {
		if err := r.Client.Delete(ctx, &over[i]); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("remove Run %s: %w", over[i].Name, err)
		}
	}
	return nil
}
