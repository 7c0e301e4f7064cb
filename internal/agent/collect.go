package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube/quiescer"
	"davit.dev/davit/internal/profile"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/quiesce"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/selection"
)

// collectEvery is how often what captures that died have done to applications
// is looked for. It adds to the time that one is left at rest.
const collectEvery = 5 * time.Second

// collector undoes what captures that died have done. It needs no vault, and
// runs in the leader only.
type collector struct {
	ledger *quiescer.Ledger
	runner quiesce.Runner
	reader client.Reader
	log    *slog.Logger
	said   string // the last complaint, which is not said again
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (c *collector) NeedLeaderElection() bool { return true }

// Start collects now and then until ctx is done.
func (c *collector) Start(ctx context.Context) error {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		c.collect(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (c *collector) collect(ctx context.Context) {
	left, err := c.ledger.Collect(ctx, c.permits, c.runner)
	if ctx.Err() != nil {
		return
	}
	complaint := ""
	if err != nil {
		complaint = err.Error()
	}
	if complaint != "" && complaint != c.said {
		c.log.Warn("hooks of a capture that died", "left", left, "error", err)
	}
	c.said = complaint
	if err == nil || left > 0 { // else nothing is known
		measure.HooksOwed.Set(float64(left))
	}
}

// permits allows what hooks of the application do after the cut as it is now,
// or a profile does, and only in its namespaces. Whoever may write the ledger
// may not thereby run commands anywhere.
func (c *collector) permits(ctx context.Context, application string) quiesce.Permit {
	spec, err := c.specOf(ctx, application)
	if err != nil {
		return func(context.Context, quiesce.Owed) error { return err }
	}
	hooks := slices.Concat(spec.Hooks, profile.Hooks())
	return func(ctx context.Context, o quiesce.Owed) error {
		if !o.IsOf(hooks) {
			return fmt.Errorf("%s is not what a hook of %s does now after the cut: undo by hand what the hook did", o.Action, application)
		}
		return c.covers(ctx, spec.Select.Namespaces, o.Target.Namespace)
	}
}

// specOf is what the application asks for now.
func (c *collector) specOf(ctx context.Context, application string) (capture.Spec, error) {
	var all v1alpha1.ApplicationList
	if err := c.reader.List(ctx, &all); err != nil {
		return capture.Spec{}, fmt.Errorf("list Applications: %w", err)
	}
	i := slices.IndexFunc(all.Items, func(a v1alpha1.Application) bool { return a.VaultName() == application })
	if i < 0 {
		return capture.Spec{}, errors.New("there is no such Application any more: undo by hand what its hook did")
	}
	return protection.SpecOf(&all.Items[i])
}

// covers says why a namespace is not one of these, or nil.
func (c *collector) covers(ctx context.Context, rule selection.Namespaces, name string) error {
	var labels map[string]string
	if !rule.Static() {
		var ns corev1.Namespace
		err := c.reader.Get(ctx, client.ObjectKey{Name: name}, &ns)
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("read namespace %s: %w", name, err)
		}
		labels = ns.Labels
	}
	if !rule.Match(name, labels) {
		return fmt.Errorf("namespace %s is not the application's, which is of %s: undo by hand what the hook did", name, rule)
	}
	return nil
}
