package view

import (
	"cmp"
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/failover"
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
