package declaration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/declare"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/standby"
	"davit.dev/davit/internal/vault"
)

// By begins what requestedBy of a Run says that nobody ordered by hand.
const By = "declared automatically by "

// attempts bounds how many runs of one epoch are looked for.
const attempts = 20

// declare asks for everything again, as it may have changed since, and then orders
// the failover.
func (b *bench) declare(ctx context.Context, object *v1alpha1.RecoveryPlan, p *plan.Plan, t *trial) (declare.Decision, error) {
	n := b.hear(ctx)
	if n.silent == nil {
		n.silent = b.gather(ctx, t, p, n)
	}
	if n.silent == nil {
		n = b.hear(ctx) // that took its time
	}
	if n.silent != nil {
		return declare.Decision{Agree: true}, n.silent
	}
	t.watch(p)
	t.listen(p, b.now(), n)
	decision := t.decider.Decide(b.now(), t.outlook.state)
	if !decision.Declare || !b.mine(p, t) {
		return decision, nil
	}
	same, err := b.same(ctx, object, n.project)
	switch {
	case err != nil:
		return declare.Decision{Agree: true}, err
	case !same:
		return declare.Decision{Agree: true, Person: true, Why: "the vault holds another version of the plan: apply the same one at all sites"}, nil
	}
	run, err := b.order(ctx, object, t, n.project, decision)
	if err != nil {
		return declare.Decision{Agree: true}, fmt.Errorf("order the failover: %w", err)
	}
	t.outlook.state.Running = run
	return decision, nil
}

// order creates the Run. Its name says which epoch it takes: of two that order at
// once, one does.
func (b *bench) order(ctx context.Context, object *v1alpha1.RecoveryPlan, t *trial, project *vault.Project, decision declare.Decision) (string, error) {
	name, err := b.name(ctx, project, object.Name, t.outlook.epoch+1)
	if err != nil {
		return "", err
	}
	reason := fmt.Sprintf("site %s is lost, without a break for %s: %s", t.source, object.Spec.Declaration.For.Duration, decision.Why)
	labels := map[string]string{v1alpha1.LabelDeclared: "true"}
	if len(object.Name) <= 63 {
		labels[v1alpha1.LabelPlan] = object.Name
	}
	run := v1alpha1.Run{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: map[string]string{
			v1alpha1.AnnotationDeclared: commission.Declared{Source: t.source, Epochs: t.outlook.epochs}.String(),
		}},
		Spec: v1alpha1.RunSpec{
			Plan: object.Name, Vault: b.vault, Verb: v1alpha1.PlanVerb(plan.Failover), To: b.d.Site,
			RequestedBy: short(By+strings.Join(t.lost(b.now(), object.Spec.Declaration.Vantages), ", "), 253), Reason: short(reason, 4096),
		},
	}
	if err := b.d.Client.Create(ctx, &run); err != nil && !apierrors.IsAlreadyExists(err) {
		return "", err
	}
	measure.PlanDeclared.WithLabelValues(b.vault, object.Name).Set(float64(b.d.Now().Unix()))
	b.d.Log.Warn("declaration: a site is lost, and failed over", "plan", object.Name, "site", t.source, "run", name, "why", decision.Why)
	b.d.Events.Event(object, corev1.EventTypeWarning, "Declared", "run "+name+": "+reason)
	return name, nil
}

// name is that of a run which neither cluster nor vault knows, or that is not over. Nor may
// the cluster have marks of one: they are of a run of a vault that this one has replaced,
// and would tell that its steps were done.
func (b *bench) name(ctx context.Context, project *vault.Project, plan string, epoch int64) (string, error) {
	for i := range attempts {
		name := fmt.Sprintf("%s-declared-%d", plan, epoch)
		if i > 0 {
			name += fmt.Sprintf("-%d", i+1)
		}
		var run v1alpha1.Run
		err := b.d.Client.Get(ctx, client.ObjectKey{Name: name}, &run)
		if client.IgnoreNotFound(err) != nil {
			return "", err
		}
		if err == nil && !failover.Phase(run.Status.Phase).Over() {
			return name, nil
		}
		if err == nil {
			continue
		}
		if _, err := journal.Read(ctx, project, name); err == nil {
			continue
		} else if !errors.Is(err, vault.ErrNotFound) {
			return "", err
		}
		marks := metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}}
		err = b.d.Reader.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: standby.NotesName(name)}, &marks)
		if apierrors.IsNotFound(err) {
			return name, nil
		}
		if err != nil {
			return "", fmt.Errorf("look for marks of run %s: %w", name, err)
		}
	}
	return "", fmt.Errorf("epoch %d of plan %s had %d runs already: a person must look at them", epoch, plan, attempts)
}

// ordered adds what this cluster knows of runs that no journal tells of: orders
// that were not taken up yet, and those that were refused.
func (b *bench) ordered(ctx context.Context, p *plan.Plan, s *declare.State) error {
	var list v1alpha1.RunList
	if err := b.d.Client.List(ctx, &list); err != nil {
		return fmt.Errorf("list Runs: %w", err)
	}
	now := b.d.Now()
	for i := range list.Items {
		o := &list.Items[i]
		if o.Spec.Plan != p.Name || o.Spec.Verb == v1alpha1.PlanVerb(plan.Drill) {
			continue
		}
		if !failover.Phase(o.Status.Phase).Over() {
			if s.Running == "" {
				s.Running = o.Name
			}
			continue
		}
		if o.Labels[v1alpha1.LabelDeclared] != "true" || o.Status.Sequence > 0 { // the register tells of it
			continue
		}
		if ago := max(now.Sub(o.CreationTimestamp.Time), 0); !s.Ended || ago < s.SinceRun {
			s.Ended, s.SinceRun = true, ago
		}
	}
	return nil
}

func (t *trial) lost(now time.Duration, vantages []string) []string {
	var all []string
	for _, name := range vantages {
		if view, _, fresh := t.decider.View(now, name); fresh && view == declare.Lost {
			all = append(all, name)
		}
	}
	return all
}

func short(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}
