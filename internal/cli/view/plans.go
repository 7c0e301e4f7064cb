package view

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

// gatherPlanRuns finds the runs of plans that are not over.
func (v *Status) gatherPlanRuns(ctx context.Context, c client.Client) error {
	var runs v1alpha1.RunList
	if err := c.List(ctx, &runs); err != nil {
		if meta.IsNoMatchError(err) {
			return nil
		}
		return fmt.Errorf("list runs: %w", err)
	}
	for i := range runs.Items {
		r := &runs.Items[i]
		if failover.Phase(r.Status.Phase).Over() {
			v.remains(r, runs.Items)
			continue
		}
		begun := TimeOf(r.Status.BegunAt)
		if begun.IsZero() {
			begun = r.CreationTimestamp.Time
		}
		v.Running = append(v.Running, Run{string(r.Spec.Verb), r.Name, cmp.Or(r.Status.Phase, string(failover.Pending)), cmp.Or(r.Status.Next, r.Status.Why), begun})
	}
	return nil
}

// Remaining is what a run that is over left to people.
type Remaining struct {
	Run   string `json:"run"`
	Plan  string `json:"plan"`
	Phase string `json:"phase"`
	Do    string `json:"do"`
}

// remains takes up what a run left to people, until its plan runs again. An order that was
// refused is none: it left nothing.
func (v *Status) remains(r *v1alpha1.Run, all []v1alpha1.Run) {
	newer := slices.ContainsFunc(all, func(o v1alpha1.Run) bool {
		return o.Spec.Plan == r.Spec.Plan && o.Spec.Vault == r.Spec.Vault && o.Spec.Verb != v1alpha1.PlanVerb(plan.Drill) && o.Status.Sequence > 0 && TimeOf(o.Status.BegunAt).After(TimeOf(r.Status.BegunAt))
	})
	if r.Status.Next != "" && r.Status.Sequence > 0 && !newer {
		v.Remaining = append(v.Remaining, Remaining{r.Name, r.Spec.Plan, r.Status.Phase, r.Status.Next})
	}
}

// remainsText says what is still to be seen to.
func (v Status) remainsText(t *output.Text) {
	if len(v.Remaining) == 0 {
		return
	}
	t.Section("Left by runs")
	for _, r := range v.Remaining {
		t.Line("%s (plan %s, %s): %s", r.Run, r.Plan, r.Phase, output.OneLine(r.Do))
	}
}
