package declaration

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/declare"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/vantage"
)

// Reasons of the condition Declares.
const (
	ReasonWatching = "Watching"       // the source lives, as far as is seen
	ReasonLost     = "Lost"           // enough vantage points say that it is lost
	ReasonListen   = "Listening"      // it began a moment ago
	ReasonMissing  = "NotArmed"       // something is missing: a person decides
	ReasonSilent   = "VantagesSilent" // too few vantage points are heard
	ReasonBlocked  = "Blocked"        // a run ended not long ago
	ReasonRun      = "RunUnderWay"
	ReasonNoSource = "NoSource" // no one site holds the applications
)

// verdict is what a condition says, and what would happen.
type verdict struct {
	status          metav1.ConditionStatus
	reason, message string
	next            string
}

// tell writes what is seen, and what follows, into the plan's status.
func (b *bench) tell(ctx context.Context, object *v1alpha1.RecoveryPlan, p *plan.Plan, t *trial, now time.Duration, decision declare.Decision, silent error) {
	before := object.DeepCopy()
	elsewhere := t.known && t.outlook.source != "" && !b.mine(p, t)
	if elsewhere {
		object.Status.Declaration = nil
		meta.RemoveStatusCondition(&object.Status.Conditions, v1alpha1.ConditionDeclares)
		b.unmeasure(p.Name)
	} else {
		v := b.verdict(p, t, now, decision, silent)
		meta.SetStatusCondition(&object.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionDeclares, Status: v.status, Reason: v.reason, Message: short(v.message, 4096), ObservedGeneration: object.Generation,
		})
		object.Status.Declaration = &v1alpha1.PlanDeclarationStatus{Source: t.source, Target: b.d.Site, Next: v.next, Observers: b.observers(p, t, now)}
		b.measure(p, t, now, v)
	}
	if equality.Semantic.DeepEqual(before.Status, object.Status) {
		return
	}
	err := b.d.Client.Status().Patch(ctx, object, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	switch {
	case apierrors.IsConflict(err): // somebody else wrote: at the next look
		return
	case client.IgnoreNotFound(err) != nil && ctx.Err() == nil:
		b.d.Log.Warn("declaration: write status", "plan", p.Name, "error", err)
		return
	}
	b.event(before, object)
}

// event says what is new to whoever watches the plan.
func (b *bench) event(before, object *v1alpha1.RecoveryPlan) {
	was := meta.FindStatusCondition(before.Status.Conditions, v1alpha1.ConditionDeclares)
	is := meta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionDeclares)
	switch {
	case is == nil, was != nil && was.Reason == is.Reason && was.Message == is.Message, is.Reason == ReasonListen:
	case is.Status == metav1.ConditionFalse, is.Reason == ReasonLost:
		b.d.Events.Event(object, corev1.EventTypeWarning, is.Reason, is.Message)
	case was != nil && was.Reason != is.Reason:
		b.d.Events.Event(object, corev1.EventTypeNormal, is.Reason, is.Message)
	}
}

// verdict says whether this site would take over by itself, and what it waits for.
func (b *bench) verdict(p *plan.Plan, t *trial, now time.Duration, decision declare.Decision, silent error) verdict {
	no := func(reason, message, next string) verdict {
		return verdict{metav1.ConditionFalse, reason, message, next}
	}
	hand := fmt.Sprintf("nothing by itself: a person gives davit failover %s", p.Name)
	s := &t.outlook.state
	switch {
	case silent != nil:
		return no(v1alpha1.ReasonVaultUnavailable, "the vault does not answer this site: "+silent.Error(), "nothing while the vault is silent here: whose silence it is nobody knows")
	case t.outlook.source == "":
		return no(ReasonNoSource, t.outlook.why, hand)
	case s.Running != "":
		return no(ReasonRun, "run "+s.Running+" is not over", "nothing before that: davit runs show "+s.Running)
	case s.Missing() != "":
		return no(ReasonMissing, s.Missing(), hand)
	case s.Ended && s.SinceRun < p.Declaration.Block:
		return no(ReasonBlocked, fmt.Sprintf("a run ended, and nothing is declared for %s after one: until %s", p.Declaration.Block, t.blocked(b.d.Now(), p)), hand+", or it waits until then")
	case decision.Person:
		return no(ReasonMissing, decision.Why, hand)
	case now-t.begun < 2*vantage.Fresh && len(t.decider.Silent(now)) > 0:
		return verdict{metav1.ConditionUnknown, ReasonListen, "listening to the vantage points", "nothing before they are heard"}
	}
	quiet := t.decider.Silent(now)
	if heard := len(p.Declaration.Vantages) - len(quiet); heard < t.decider.Need() {
		return no(ReasonSilent, fmt.Sprintf("%d of %d vantage points are heard, and %d must agree; silent: %s: look at their agents, or at davit witness", heard, len(p.Declaration.Vantages), t.decider.Need(), strings.Join(quiet, ", ")), hand)
	}
	return b.ready(p, t, decision)
}

// ready is the verdict where nothing is missing.
func (b *bench) ready(p *plan.Plan, t *trial, decision declare.Decision) verdict {
	serves := fmt.Sprintf("site %s claims its applications and starts them %s later", b.d.Site, wait(p.Fence))
	if !decision.Agree {
		t.due = time.Time{}
		return verdict{
			metav1.ConditionTrue, ReasonWatching, fmt.Sprintf("site %s is watched, and failed over when it is lost", t.source),
			fmt.Sprintf("if %d of %s say for %s that site %s is lost, %s", t.decider.Need(), strings.Join(p.Declaration.Vantages, ", "), p.Declaration.For, t.source, serves),
		}
	}
	if t.due.IsZero() {
		t.due = b.d.Now().Add(decision.Due).UTC().Truncate(time.Second)
	}
	return verdict{
		metav1.ConditionTrue, ReasonLost, fmt.Sprintf("%d vantage points say that site %s is lost", t.decider.Need(), t.source),
		fmt.Sprintf("at %s, unless they see it again, %s", t.due.Format(time.RFC3339), serves),
	}
}

// wait is how long a run waits for a lease from its claim.
func wait(f plan.Fence) time.Duration {
	drift := float64(f.Drift) / 1e6
	return time.Duration(float64(f.Lease+f.Bound) * (1 + drift) / (1 - drift)).Round(10 * time.Millisecond)
}

// blocked is until when nothing is declared, always told as the same time.
func (t *trial) blocked(now time.Time, p *plan.Plan) string {
	until := now.Add(p.Declaration.Block - t.outlook.state.SinceRun)
	if until.Sub(t.until).Abs() > time.Minute {
		t.until = until
	}
	return t.until.UTC().Format(time.RFC3339)
}

// observers are the vantage points' last words.
func (b *bench) observers(p *plan.Plan, t *trial, now time.Duration) []v1alpha1.PlanObserver {
	if t.decider == nil {
		return nil
	}
	var all []v1alpha1.PlanObserver
	for _, name := range p.Declaration.Vantages {
		o := v1alpha1.PlanObserver{Name: name, View: "silent"}
		if view, why, fresh := t.decider.View(now, name); fresh {
			o.View, o.Why = string(view), why
		}
		if last, ok := t.since[name]; ok && last.View == o.View {
			o.Since = last.Since
		} else {
			at := metav1.NewTime(b.d.Now().Truncate(time.Second))
			o.Since = &at
		}
		t.since[name] = o
		all = append(all, o)
	}
	return all
}

func (b *bench) measure(p *plan.Plan, t *trial, now time.Duration, v verdict) {
	armed := 0.0
	if v.status == metav1.ConditionTrue {
		armed = 1
	}
	if v.status != metav1.ConditionUnknown {
		measure.PlanDeclares.WithLabelValues(b.vault, p.Name).Set(armed)
	}
	votes := 0
	if t.decider != nil {
		votes = len(t.lost(now, p.Declaration.Vantages))
	}
	measure.PlanLostVotes.WithLabelValues(b.vault, p.Name).Set(float64(votes))
}

func (b *bench) unmeasure(name string) {
	measure.PlanDeclares.DeleteLabelValues(b.vault, name)
	measure.PlanLostVotes.DeleteLabelValues(b.vault, name)
}

// drop forgets a plan that is gone, or declared by people.
func (b *bench) drop(name string) {
	delete(b.cases, name)
	b.unmeasure(name)
}
