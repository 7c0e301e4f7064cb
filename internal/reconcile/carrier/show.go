package carrier

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/failover"
)

const (
	maxSteps = 300 // in a status
	maxWaits = 20
	// maxMessage is how long a condition's message may be.
	maxMessage = 1024
	// keep is how many Runs that only show what others carried are kept once
	// they are over.
	keep = 50
)

// ended tells whether a Run object says that its run is over.
func ended(o *v1alpha1.Run) bool { return failover.Phase(o.Status.Phase).Over() }

// objects are the Run objects of this vault that are not over.
func (d *desk) objects(ctx context.Context) ([]v1alpha1.Run, error) {
	var list v1alpha1.RunList
	if err := d.c.Client.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("list Runs: %w", err)
	}
	var out []v1alpha1.Run
	for i := range list.Items {
		o := &list.Items[i]
		if ended(o) || !o.DeletionTimestamp.IsZero() {
			continue
		}
		name, err := d.vaultOf(ctx, o)
		if err != nil {
			return nil, err
		}
		if name == d.vault {
			out = append(out, *o)
			continue
		}
		all := d.c.vaults(ctx)
		slices.Sort(all)
		if name != "" && !slices.Contains(all, name) && len(all) > 0 && all[0] == d.vault { // one of the desks says so
			d.c.refuse(ctx, o, commission.Refuse("`vault ls` lists them", "this site has no vault %q that holds runs", name))
		}
	}
	return out, nil
}

// vaultOf is the Vault that a Run is of: its own word, its plan's, or the only
// one that there is.
func (d *desk) vaultOf(ctx context.Context, o *v1alpha1.Run) (string, error) {
	if o.Spec.Vault != "" {
		return o.Spec.Vault, nil
	}
	var p v1alpha1.RecoveryPlan
	err := d.c.Client.Get(ctx, client.ObjectKey{Name: o.Spec.Plan}, &p)
	if client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("read RecoveryPlan %s: %w", o.Spec.Plan, err)
	}
	if p.Spec.Vault != "" {
		return p.Spec.Vault, nil
	}
	all := d.c.vaults(ctx)
	if len(all) == 0 {
		return "", nil
	}
	slices.Sort(all)
	if len(all) > 1 && all[0] == d.vault && o.Status.Phase == "" {
		d.c.refuse(ctx, o, commission.Refuse("say spec.vault in the plan or the run", "this site has several vaults: %s", strings.Join(all, ", ")))
	}
	if len(all) > 1 {
		return "", nil
	}
	return all[0], nil
}

// meet takes a Run object up that the desk does not know yet: an order, or what
// shows a run that this process has not followed.
func (d *desk) meet(o *v1alpha1.Run) {
	if d.runs[o.Name] != nil {
		return
	}
	f := &followed{run: o.Name, plan: o.Spec.Plan, to: o.Spec.To}
	projection := o.Labels[v1alpha1.LabelProjection] == "true"
	switch {
	case projection, o.Status.Sequence > 0:
		f.to = "" // until its journal says so
	case o.Spec.To != d.c.Site:
		d.c.refuse(context.Background(), o, commission.Refuse("create it there", "a run is carried at its target: that is site %s, and this is site %s", o.Spec.To, d.c.Site))
		return
	default:
		f.order = o.DeepCopy()
	}
	d.add(f)
}

// refuse says in the order why it is not carried out.
func (c *Carrier) refuse(ctx context.Context, o *v1alpha1.Run, why error) {
	if o == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	old := o.DeepCopy()
	old.Status.WaitsFor = []string{"it may have waited, and does no more"} // which this object, of an earlier look, need not have
	now := metav1.NewTime(c.Now())
	o.Status.Phase, o.Status.Why, o.Status.EndedAt = string(failover.Failed), told(why.Error(), mostText), &now
	if r := commission.Refused(why); r != nil {
		o.Status.Why, o.Status.Next = told(r.Why, mostText), told(r.Do, mostText)
	}
	meta.SetStatusCondition(&o.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonInvalid, Message: told(why.Error(), mostText), ObservedGeneration: o.Generation,
	})
	meta.SetStatusCondition(&o.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionSucceeded, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonInvalid, Message: "nothing was changed", ObservedGeneration: o.Generation,
	})
	if err := c.Client.Status().Patch(ctx, o, client.MergeFrom(old)); client.IgnoreNotFound(err) != nil {
		c.Log.Warn("runs: refuse order", "run", o.Name, "error", err)
		return
	}
	c.Events.Event(o, corev1.EventTypeWarning, "Refused", told(why.Error(), mostWait))
}

// waits says in the order why it has not begun: whoever gave it hears nothing else. It is tried
// again, so that what is said must not end it.
func (c *Carrier) waits(ctx context.Context, f *followed, o *v1alpha1.Run, why error) {
	text := told("it has not begun, and is tried again: "+why.Error(), mostWait)
	if o == nil || f.complained == text {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	next := o.DeepCopy()
	next.Status.WaitsFor = []string{text}
	if err := c.Client.Status().Patch(ctx, next, client.MergeFrom(o)); err != nil {
		c.Log.Debug("runs: say why an order waits", "run", o.Name, "error", err)
		return
	}
	f.complained = text
}

// show writes where a run is into its object. A run that has none gets one where
// it matters here.
func (d *desk) show(ctx context.Context, f *followed) error {
	waits := f.stuck.Load()
	if waits == nil && f.mine() {
		waits = f.waits.Load()
	}
	now := shown{sequence: f.state.Sequence, waits: waits}
	if now == f.shown {
		return nil
	}
	var o v1alpha1.Run
	err := d.c.Client.Get(ctx, client.ObjectKey{Name: f.run}, &o)
	if apierrors.IsNotFound(err) {
		var matters bool
		if matters, err = d.matters(ctx, f); err != nil || !matters {
			return err
		}
		o = projection(f.state, d.vault)
		err = d.c.Client.Create(ctx, &o)
		if apierrors.IsAlreadyExists(err) {
			return nil // the cache learns of it
		}
	}
	if err != nil {
		return fmt.Errorf("show run %s: %w", f.run, err)
	}
	old := o.DeepCopy()
	var list []string
	if waits != nil {
		list = *waits
	}
	Status(&o, f.state, list)
	err = d.c.Client.Status().Patch(ctx, &o, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) {
		return nil // the cache was behind: again at the next look
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("show run %s: %w", f.run, err)
	}
	if old.Status.Phase != o.Status.Phase {
		kind := corev1.EventTypeNormal
		if f.state.Pause != nil || slices.Contains([]failover.Phase{failover.Failed, failover.SplitBrain, failover.RollbackFailed, failover.OutcomeUnknown, failover.RollingBack}, f.state.Phase) {
			kind = corev1.EventTypeWarning
		}
		d.c.Events.Event(&o, kind, o.Status.Phase, told(strings.TrimSuffix(o.Status.Phase+": "+o.Status.Why, ": "), mostWait))
	}
	f.shown = now
	return nil
}

// matters tells whether a run that was not ordered here is to be seen here.
func (d *desk) matters(ctx context.Context, f *followed) (bool, error) {
	if f.to == d.c.Site || f.from == d.c.Site {
		return true, nil
	}
	var p v1alpha1.RecoveryPlan
	err := d.c.Client.Get(ctx, client.ObjectKey{Name: f.plan}, &p)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// projection is an object that shows a run and orders nothing.
func projection(s *failover.State, vault string) v1alpha1.Run {
	spec := &s.Spec
	labels := map[string]string{v1alpha1.LabelProjection: "true"}
	if len(spec.Plan) <= 63 {
		labels[v1alpha1.LabelPlan] = spec.Plan
	}
	o := v1alpha1.Run{
		ObjectMeta: metav1.ObjectMeta{Name: spec.Run, Labels: labels},
		Spec: v1alpha1.RunSpec{
			Plan: spec.Plan, Vault: vault, Verb: v1alpha1.PlanVerb(spec.Verb), To: spec.To, RequestedBy: short(spec.By, 253), Reason: short(spec.Reason, 4096),
			LostAt: stamp(spec.LostAt),
		},
	}
	if spec.Verb.Moves() {
		o.Spec.Lost = spec.Lost
	}
	if spec.Verb == "failover" && spec.Accept == failover.Asked {
		o.Spec.AcceptFence = v1alpha1.AcceptAsked
	}
	return o
}

func short(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

func stamp(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t.Truncate(time.Second)}
}

// prune removes objects that only show runs which ended long ago.
func (a *adopter) prune(ctx context.Context) error {
	var list v1alpha1.RunList
	if err := a.c.Client.List(ctx, &list, client.MatchingLabels{v1alpha1.LabelProjection: "true"}); err != nil {
		return fmt.Errorf("list Runs: %w", err)
	}
	over := slices.DeleteFunc(list.Items, func(o v1alpha1.Run) bool { return !ended(&o) || o.Spec.Vault != a.vault })
	slices.SortFunc(over, func(a, b v1alpha1.Run) int { return b.CreationTimestamp.Compare(a.CreationTimestamp.Time) })
	for i := keep; i < len(over); i++ {
		if err := a.c.Client.Delete(ctx, &over[i]); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("remove Run %s: %w", over[i].Name, err)
		}
	}
	return nil
}
