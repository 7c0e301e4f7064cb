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

// annotationTurned is the last order that had to do with gates of an Application: to close
// what is not open changes it as well. No gate can be called so.
const annotationTurned = v1alpha1.AnnotationGate + "Turned"

// gate opens a gate for load balancers that ask for it: the active probe answers
// for the site only while the gate stands open on each of the applications. It is
// an annotation of the Application, which the agent that answers has in memory: no
// silence of the API server closes it. Another site's claim closes what it covers,
// since that site's probe is the active one from then on.
func (s *Site) gate(ctx context.Context, o execute.Order) execute.Answer {
	if o.Action == failover.Look {
		return s.isOpen(ctx, o)
	}
	for _, app := range slices.Sorted(maps.Keys(o.Token.Epochs)) {
		err := s.turnGate(ctx, o, app, o.Step.Object, func(by string) (any, bool) {
			switch {
			case o.Action == failover.Act:
				return o.Run, by != o.Run
			case by == o.Run:
				return nil, true
			}
			return by, true // another's: it stays, and who is about to open it for this run hears of that
		})
		switch {
		case errors.Is(err, errNoApplication) && o.Action == failover.Undo: // nothing of it can be open
		case errors.Is(err, errNoApplication):
			return execute.Refuse("open gate %s: %v", o.Step.Object, err)
		case err != nil:
			return execute.Unknown("%v", err)
		}
	}
	return execute.Answer{Outcome: failover.Done, Guard: execute.Fenced}
}

// isOpen tells whether the run's gate stands open on all applications.
func (s *Site) isOpen(ctx context.Context, o execute.Order) execute.Answer {
	for _, app := range slices.Sorted(maps.Keys(o.Token.Epochs)) {
		live, err := s.applicationHere(ctx, app)
		switch {
		case errors.Is(err, errNoApplication):
			return execute.NotDone("%v", err)
		case err != nil:
			return execute.Unknown("%v", err)
		case live.GetAnnotations()[v1alpha1.AnnotationGate+o.Step.Object] != o.Run:
			return execute.NotDone("")
		}
	}
	return execute.Answer{Outcome: failover.Done, Guard: execute.Fenced}
}

// turnGate turns a gate of an Application, as to says of the run that has it open: for a run, for
// nobody (nil), or not at all. A process may stand still before it does, for longer than it
// takes others to carry the run on and another run to begin: so the order has to be the newest of its step, by
// a look that comes after the Application was read, and nobody may have changed that since.
func (s *Site) turnGate(ctx context.Context, o execute.Order, app, gate string, to func(by string) (run any, turns bool)) error {
	at, err := serving(ctx, s.o.Recovery.Cluster, kindApplication)
	if err != nil {
		return err
	}
	for range conflicts {
		live, err := s.applicationHere(ctx, app)
		if err != nil {
			return err
		}
		run, turns := to(live.GetAnnotations()[v1alpha1.AnnotationGate+gate])
		if !turns {
			return nil
		}
		if run == "" {
			run = nil
		}
		current, err := execute.Current(ctx, s.marks, o)
		if err != nil {
			return err
		}
		if !current {
			return fmt.Errorf("order %d is old: gate %s was not turned", o.Token.Sequence, gate)
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"resourceVersion": live.GetResourceVersion(),
			"annotations":     map[string]any{v1alpha1.AnnotationGate + gate: run, annotationTurned: fmt.Sprintf("%s %d", o.Run, o.Token.Sequence)},
		}})
		if err != nil {
			return fmt.Errorf("encode gate: %w", err)
		}
		_, err = s.o.Recovery.Cluster.Patch(ctx, at, live.GetNamespace(), live.GetName(), patch)
		switch {
		case apierrors.IsConflict(err):
		case err != nil && !apierrors.IsNotFound(err):
			return fmt.Errorf("turn gate %s of Application %s/%s: %w", gate, live.GetNamespace(), live.GetName(), err)
		default:
			return nil
		}
	}
	return fmt.Errorf("turn gate %s: the Application of %s changes faster than that", gate, app)
}

// closeGates closes what an earlier run left open here, before an application comes
// again: clients are let in by this run's own step.
func (s *Site) closeGates(ctx context.Context, o execute.Order) error {
	for _, gate := range o.Step.Gates {
		err := s.turnGate(ctx, o, o.Step.Application, gate, func(by string) (any, bool) { return nil, by != "" && by != o.Run })
		if errors.Is(err, errNoApplication) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}
