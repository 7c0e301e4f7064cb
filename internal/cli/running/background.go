package running

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/plan"
)

const (
	lookAtRun = 500 * time.Millisecond
	// unheard is how long an agent may take to take an order up, until people are
	// told that there may be none.
	unheard = 30 * time.Second
)

// find looks for a plan by its name, in the cluster and in the vault.
func find(ctx context.Context, in *access.Opened, cluster client.Reader, name string) (*plan.Plan, error) {
	found, err := plans.Find(ctx, cluster, in.Project, name)
	if errors.Is(err, plans.ErrUnknown) {
		return nil, exit.Refuse("`plan ls` lists those that there are; -f FILE reads one from a file", "neither this cluster nor the vault has a plan %q", name)
	}
	if err != nil {
		return nil, err
	}
	return found.Plan(), nil
}

// background orders the run from the agent here.
func (h *here) background(ctx context.Context, s *failover.Spec, o *order) error {
	run := &v1alpha1.Run{
		ObjectMeta: metav1.ObjectMeta{Name: s.Run},
		Spec: v1alpha1.RunSpec{
			Plan: s.Plan, Vault: h.in.VaultName, Verb: v1alpha1.PlanVerb(s.Verb), To: s.To, RequestedBy: s.By, Reason: s.Reason, Lost: s.Lost,
		},
	}
	if o.accepts {
		run.Spec.AcceptFence = v1alpha1.AcceptAsked
	}
	if len(s.Despite) > 0 {
		run.Annotations = map[string]string{commission.AnnotationDespite: strings.Join(s.Despite, ",")}
	}
	for app, p := range s.Points {
		if run.Spec.Points == nil {
			run.Spec.Points = map[string]v1alpha1.PointName{}
		}
		run.Spec.Points[app] = v1alpha1.PointName(p.ID)
	}
	err := h.cluster.Create(ctx, run)
	switch {
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err):
		return exit.Refuse("`install` first, or carry the run with this command: leave --background out", "this cluster serves no Runs")
	case err != nil:
		return fmt.Errorf("order run %s: %w", run.Name, err)
	}
	if !o.wait {
		return h.Print(Ordered{Run: run.Name, Plan: s.Plan, Verb: s.Verb, To: s.To})
	}
	return h.watch(ctx, run.Name)
}

// watch waits until a run that an agent carries is over, or waits for people.
func (h *here) watch(ctx context.Context, name string) error {
	told := map[string]failover.Status{}
	reader, since, warned := journal.Follow(h.in.Project, name), time.Now(), false
	for {
		var run v1alpha1.Run
		if err := h.cluster.Get(ctx, client.ObjectKey{Name: name}, &run); err != nil {
			return fmt.Errorf("look at run %s: %w", name, err)
		}
		if meta.IsStatusConditionFalse(run.Status.Conditions, v1alpha1.ConditionAccepted) {
			return exit.Refuse(run.Status.Next, "%s", run.Status.Why)
		}
		if run.Status.Sequence > 0 {
			s, err := reader.Next(ctx)
			if err != nil {
				return err
			}
			h.tell(s, run.Status.WaitsFor, told)
			if s.Phase.Over() || settled(s) {
				return h.conclude(s, nil)
			}
		} else if !warned && time.Since(since) > unheard {
			warned = true
			h.Progress().Note("No agent has taken run %s up yet: `davit status` shows whether one runs.", name)
		}
		select {
		case <-ctx.Done():
			return exit.Hint(fmt.Errorf("wait for run %s: %w", name, context.Cause(ctx)), "the agent goes on with it; `runs show "+name+"` shows how far it is")
		case <-time.After(lookAtRun):
		}
	}
}

// Ordered is a run that an agent was told to carry.
type Ordered struct {
	Run  string    `json:"run"`
	Plan string    `json:"plan"`
	Verb plan.Verb `json:"verb"`
	To   string    `json:"to"`
}

// Document implements output.Result.
func (o Ordered) Document() any { return o }

// Text implements output.Result.
func (o Ordered) Text(t *output.Text) {
	t.Line("Run %s is ordered: the agent of site %s carries it. `davit runs show %s` shows how far it is.", o.Run, o.To, o.Run)
}
