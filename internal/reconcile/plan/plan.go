// Package plan keeps RecoveryPlan objects: it says what is wrong with them, keeps
// them in the vault, so that the plan outlives its site, and says where their
// applications are and what became of the last runs.
package plan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
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
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vault"
)

const (
	lookEvery   = time.Minute
	lookSoon    = 10 * time.Second
	lookTimeout = 15 * time.Second
	// ReasonDiffers says that another site has written another version of the plan
	// into the vault.
	ReasonDiffers = "Differs"
)

// Reconciler keeps RecoveryPlan objects.
type Reconciler struct {
	Client  client.Client
	Project func(ctx context.Context, vault string) (*vault.Project, error)
	Events  record.EventRecorder
	Site    string
	Now     func() time.Time

	looked map[string]look // by plan; of the one worker
}

// look is when the vault was last asked about a version of a plan.
type look struct {
	generation int64
	at         time.Time
}

// Setup registers the reconciler.
func (r *Reconciler) Setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("plan").
		For(&v1alpha1.RecoveryPlan{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.Run{}, handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
			run, ok := o.(*v1alpha1.Run)
			if !ok {
				return nil
			}
			return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: run.Spec.Plan}}}
		})).
		Complete(r)
}

// Reconcile brings one plan's status up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var p v1alpha1.RecoveryPlan
	if err := r.Client.Get(ctx, req.NamespacedName, &p); err != nil || !p.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	old := p.DeepCopy()
	p.Status.ObservedGeneration, p.Status.Applications = p.Generation, int32(len(p.Spec.Applications))
	if !p.Spec.Declaration.Automatic {
		p.Status.Declaration = nil
		meta.RemoveStatusCondition(&p.Status.Conditions, v1alpha1.ConditionDeclares)
	}
	valid := r.valid(&p)
	meta.SetStatusCondition(&p.Status.Conditions, valid)
	next := r.lookIntoVault(ctx, &p, valid)
	if err := r.runs(ctx, &p); err != nil {
		return ctrl.Result{}, err
	}
	// Others write other fields of the status: only what changed is sent.
	err := r.Client.Status().Patch(ctx, &p, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: time.Second}, nil
	}
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("write status of plan: %w", err)
	}
	was := meta.FindStatusCondition(old.Status.Conditions, v1alpha1.ConditionValid)
	if valid.Status == metav1.ConditionFalse && (was == nil || was.Message != valid.Message) {
		r.Events.Event(&p, corev1.EventTypeWarning, v1alpha1.ReasonInvalid, valid.Message)
	}
	return ctrl.Result{RequeueAfter: next}, nil
}

// lookIntoVault mirrors the plan and sees where its applications are, and says when
// to do so again. A run that goes on has its plan looked at every second: that is
// no reason to ask the vault as often.
func (r *Reconciler) lookIntoVault(ctx context.Context, p *v1alpha1.RecoveryPlan, valid metav1.Condition) time.Duration {
	now := r.Now()
	if last := r.looked[p.Name]; last.generation == p.Generation && now.Sub(last.at) < lookSoon {
		return lookSoon
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	mirrored := r.mirror(ctx, p, valid.Status == metav1.ConditionTrue)
	meta.SetStatusCondition(&p.Status.Conditions, mirrored)
	meta.SetStatusCondition(&p.Status.Conditions, ready(p, valid, mirrored))
	if r.looked == nil {
		r.looked = map[string]look{}
	}
	r.looked[p.Name] = look{p.Generation, now}
	if mirrored.Reason == v1alpha1.ReasonVaultUnavailable {
		return lookSoon
	}
	return lookEvery
}

// valid says all that is wrong with the plan.
func (r *Reconciler) valid(p *v1alpha1.RecoveryPlan) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionValid, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded, Message: "it can be carried out as it is written", ObservedGeneration: p.Generation}
	var wrong []string
	converted := document.Convert(p)
	for _, problem := range converted.Check() {
		wrong = append(wrong, problem.Error())
	}
	if _, err := document.Timetable(converted.Drills); err != nil {
		wrong = append(wrong, err.Error())
	}
	if len(wrong) > 0 {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonInvalid, limit(strings.Join(wrong, "; "))
	}
	return c
}

// limit keeps a message within what a condition may hold.
func limit(s string) string {
	const most = 8 << 10
	if len(s) > most {
		return s[:most] + " ..."
	}
	return s
}

// mirror keeps the plan in the vault, once for each change of the object: so two
// clusters with different versions do not write against each other. One that is not valid
// replaces none that is.
func (r *Reconciler) mirror(ctx context.Context, p *v1alpha1.RecoveryPlan, valid bool) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionMirrored, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonInvalid, ObservedGeneration: p.Generation}
	before := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionMirrored)
	project, err := r.project(ctx, p)
	if err != nil {
		return r.unmirrored(c, before, err)
	}
	r.where(ctx, p, project)
	if !valid {
		c.ObservedGeneration = 0
		c.Message = "a plan that is not valid is not kept; the vault holds the last one that was"
		return c
	}
	document, err := plans.Document(p)
	if err != nil {
		return r.unmirrored(c, before, err)
	}
	if plans.Mirrored(p) { // this version was written already
		newest, err := shelf.New(project).Get(ctx, p.Name)
		switch {
		case err == nil && newest.Same(document):
			p.Status.Revision = newest.Revision
		case err == nil:
			c.Reason, c.Message = ReasonDiffers, fmt.Sprintf("site %s has written revision %d, which says something else: runs follow that; apply the same plan at all sites", newest.Site, newest.Revision)
			return c
		case errors.Is(err, vault.ErrNotFound) && before.Reason == ReasonDiffers:
			c.Reason, c.Message = ReasonDiffers, "the vault is another one and has no version yet; in the last one another site's counted, and not this: apply the same plan at all sites"
			return c
		case errors.Is(err, vault.ErrNotFound):
			p.Status.Revision = 0 // the vault is another one
		case errors.Is(err, vault.ErrDamaged) && newest.Revision == p.Status.Revision && before.Reason != ReasonDiffers:
			// this site's own, or the same: it is at hand
		default:
			return r.unmirrored(c, before, err)
		}
	}
	sheet, err := shelf.New(project).Put(ctx, shelf.Sheet{Plan: p.Name, At: r.Now().UTC(), Site: r.Site, Document: document})
	if err != nil {
		return r.unmirrored(c, before, err)
	}
	p.Status.Revision = sheet.Revision
	c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonSucceeded, fmt.Sprintf("revision %d in the vault", sheet.Revision)
	return c
}

// unmirrored keeps what generation was last written, so that a vault that was
// silent for a moment changes nothing.
func (r *Reconciler) unmirrored(c metav1.Condition, before *metav1.Condition, err error) metav1.Condition {
	if before != nil && before.Reason == ReasonDiffers && before.ObservedGeneration == c.ObservedGeneration {
		c.Reason, c.Message = ReasonDiffers, limit("another site's version counts; now the vault gives no answer: "+err.Error())
		return c
	}
	c.Reason, c.Message, c.ObservedGeneration = v1alpha1.ReasonVaultUnavailable, limit(err.Error()), 0
	if before != nil {
		c.ObservedGeneration = before.ObservedGeneration
	}
	return c
}

// project opens the plan's vault.
func (r *Reconciler) project(ctx context.Context, p *v1alpha1.RecoveryPlan) (*vault.Project, error) {
	name, err := plans.Vault(ctx, r.Client, p)
	if err != nil {
		return nil, err
	}
	return r.Project(ctx, name)
}

// where says which sites hold the applications.
func (r *Reconciler) where(ctx context.Context, p *v1alpha1.RecoveryPlan, project *vault.Project) {
	var sites []string
	for _, app := range p.Spec.Applications {
		e, err := lease.New(project).Current(ctx, app.Name)
		if err != nil {
			return // what was seen last stays
		}
		sites = append(sites, cmp.Or(e.Claim.Site, "none"))
	}
	slices.Sort(sites)
	p.Status.At = strings.Join(slices.Compact(sites), ", ")
}

func ready(p *v1alpha1.RecoveryPlan, valid, mirrored metav1.Condition) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded, ObservedGeneration: p.Generation}
	for _, other := range []metav1.Condition{valid, mirrored} {
		if other.Status != metav1.ConditionTrue {
			c.Status, c.Reason, c.Message = metav1.ConditionFalse, other.Reason, other.Message
			break
		}
	}
	return c
}

// runs finds the newest run and the newest drill of the plan.
func (r *Reconciler) runs(ctx context.Context, p *v1alpha1.RecoveryPlan) error {
	var list v1alpha1.RunList
	if err := r.Client.List(ctx, &list); err != nil {
		return fmt.Errorf("list Runs: %w", err)
	}
	for i := range list.Items {
		o := &list.Items[i]
		if o.Spec.Plan != p.Name || o.Status.BegunAt == nil { // or it was refused
			continue
		}
		last := &p.Status.LastRun
		if o.Spec.Verb == "drill" {
			last = &p.Status.LastDrill
		}
		if *last == nil || (*last).Name == o.Name || (*last).BegunAt == nil || o.Status.BegunAt.After((*last).BegunAt.Time) {
			*last = &v1alpha1.PlanRun{
				Name: o.Name, Verb: string(o.Spec.Verb), To: o.Spec.To, Phase: cmp.Or(o.Status.Phase, string(failover.Pending)),
				BegunAt: o.Status.BegunAt, EndedAt: o.Status.EndedAt, RPO: o.Status.RPO, RTO: o.Status.RTO, Fence: o.Status.Fence,
			}
			ended(*last, o)
		}
	}
	return nil
}

// ended says of a run that is over where its report is, and how a drill did.
func ended(r *v1alpha1.PlanRun, o *v1alpha1.Run) {
	const most = 4096
	phase := failover.Phase(r.Phase)
	if !phase.Over() {
		return
	}
	r.Report = "reports/" + r.Name
	if o.Spec.Verb != "drill" {
		return
	}
	switch phase {
	case failover.Completed:
		r.Verdict = v1alpha1.DrillPassed
	case failover.Canceled:
		r.Verdict = v1alpha1.DrillCanceled
	default:
		r.Verdict = v1alpha1.DrillFailed
	}
	if r.Verdict != v1alpha1.DrillPassed {
		r.Message = strings.ToValidUTF8(o.Status.Why[:min(len(o.Status.Why), most)], "")
	}
}
