package standby

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
)

// gate opens a gate for load balancers that ask for it: the active probe answers
// for the site only while the gate stands open on each of the applications. It is
// an annotation of the Application, which the agent that answers has in memory: no
// silence of the API server closes it. Another site's claim closes what it covers,
// since that site's probe is the active one from then on.
func (s *Site) gate(ctx context.Context, o execute.Order) execute.Answer {
	apps := slices.Sorted(maps.Keys(o.Token.Epochs))
	open := 0
	for _, app := range apps {
		live, err := s.applicationHere(ctx, app)
		switch {
		case errors.Is(err, errNoApplication) && o.Action == failover.Undo:
			continue // nothing of it can be open
		case errors.Is(err, errNoApplication) && o.Action == failover.Act:
			return execute.Refuse("open gate %s: %v", o.Step.Object, err)
		case err != nil && !errors.Is(err, errNoApplication):
			return execute.Unknown("%v", err)
		case err != nil: // a look
			return execute.NotDone("%v", err)
		}
		by := live.GetAnnotations()[v1alpha1.AnnotationGate+o.Step.Object]
		if by == o.Run {
			open++
		}
		switch {
		case o.Action == failover.Act && by != o.Run:
			err = s.turnGate(ctx, live.GetNamespace(), live.GetName(), o.Step.Object, o.Run)
		case o.Action == failover.Undo && by == o.Run:
			err = s.turnGate(ctx, live.GetNamespace(), live.GetName(), o.Step.Object, nil)
		}
		if err != nil {
			return execute.Unknown("%v", err)
		}
	}
	if o.Action == failover.Look && open < len(apps) {
		return execute.NotDone("")
	}
	return execute.Answer{Outcome: failover.Done, Guard: execute.Guarded}
}

// turnGate opens a gate on an Application for a run, or closes it (nil).
func (s *Site) turnGate(ctx context.Context, namespace, name, gate string, run any) error {
	at, err := serving(ctx, s.o.Recovery.Cluster, kindApplication)
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{v1alpha1.AnnotationGate + gate: run}}})
	if err != nil {
		return fmt.Errorf("encode gate: %w", err)
	}
	if _, err := s.o.Recovery.Cluster.Patch(ctx, at, namespace, name, patch); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("turn gate %s of Application %s/%s: %w", gate, namespace, name, err)
	}
	return nil
}

// closeGates closes what an earlier run left open here, before an application comes
// again: clients are let in by this run's own step.
func (s *Site) closeGates(ctx context.Context, o execute.Order) error {
	if len(o.Step.Gates) == 0 {
		return nil
	}
	live, err := s.applicationHere(ctx, o.Step.Application)
	if errors.Is(err, errNoApplication) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, gate := range o.Step.Gates {
		if by := live.GetAnnotations()[v1alpha1.AnnotationGate+gate]; by != "" && by != o.Run {
			if err := s.turnGate(ctx, live.GetNamespace(), live.GetName(), gate, nil); err != nil {
				return err
			}
		}
	}
	return nil
}
