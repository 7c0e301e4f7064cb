// Package reconcilers carries out a run's suspend and resume steps: what makes
// objects from git keeps its hands off while a run moves them, or goes on. It is an
// actuator; what it does is package gitops'.
package reconcilers

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/gitops"
	"davit.dev/davit/internal/restore/port"
)

// Actuator suspends and resumes.
type Actuator struct {
	Cluster restore.Cluster
	// Marks are those of the orders that it is given; nil: none ages.
	Marks execute.Marks
}

var _ execute.Actuator = Actuator{}

// Do implements execute.Actuator. Undo of either does the other, where it was the
// run that changed something.
func (a Actuator) Do(ctx context.Context, o execute.Order) execute.Answer {
	r, err := gitops.Parse(o.Step.Object)
	if err != nil {
		return execute.Refuse("%v", err)
	}
	stage := gitops.Stage{Cluster: a.Cluster, Clock: port.WallClock{}, ID: o.Run, Current: a.current(o), Leases: a.Cluster, Home: v1alpha1.SystemNamespace}
	if o.Action == failover.Act { // what is taken back rests for those that relied on it since
		stage.Run = o.Token.Epochs
	}
	now, err := stage.Look(ctx, r)
	if errors.Is(err, gitops.ErrAbsent) { // or was defined since this cluster was last asked for its kinds
		if err = a.Cluster.Refresh(ctx); err == nil {
			now, err = stage.Look(ctx, r)
		}
	}
	if err != nil {
		return failed(o, r, err)
	}
	suspend := o.Step.Kind == plan.KindSuspend
	switch o.Action {
	case failover.Look:
		if suspend && now.Suspended || !suspend && now.Active {
			return execute.Done("")
		}
		return execute.NotDone("")
	case failover.Undo:
		if suspend && now.By != o.Run { // who is about to, and stood still over it, finds it changed
			if err := stage.Leave(ctx, r, fmt.Sprintf("%s %d", o.Run, o.Token.Sequence)); err != nil {
				return failed(o, r, err)
			}
			return execute.Done("the run did not suspend it")
		}
		suspend = !suspend
	}
	note := "resumed " + r.String()
	if suspend {
		note, err = stage.Suspend(ctx, r)
		if note == "" && now.Held {
			note = "its own manifest in git says whether it is suspended, and what makes it from that may resume it: suspend that as well"
		}
	} else {
		var why string
		if why, err = stage.Release(ctx, r); why != "" {
			note = r.String() + " " + why
		}
	}
	if err != nil {
		return failed(o, r, err)
	}
	answer := execute.Done("%s", note)
	answer.Guard = execute.Guarded
	return answer
}

// current tells whether the order is the newest of its step still: its process may have stood
// still, and others have taken back what it is at.
func (a Actuator) current(o execute.Order) func(context.Context) error {
	if a.Marks == nil {
		return nil
	}
	return func(ctx context.Context) error {
		current, err := execute.Current(ctx, a.Marks, o)
		if err == nil && !current {
			err = fmt.Errorf("order %d is old", o.Token.Sequence)
		}
		return err
	}
}

// failed says what an error means for the order.
func failed(o execute.Order, r gitops.Reconciler, err error) execute.Answer {
	switch {
	case errors.Is(err, gitops.ErrAbsent) && o.Action == failover.Undo:
		return execute.Done("%s is not at this site", r)
	case errors.Is(err, gitops.ErrAbsent) && o.Action == failover.Look:
		return execute.NotDone("%s is not at this site", r)
	case errors.Is(err, gitops.ErrAbsent):
		return execute.Refuse("%s is not at this site: correct the step's object, or let the step continue on errors", r)
	case apierrors.IsForbidden(err):
		return execute.Refuse("%s: %v", r, err)
	}
	return execute.Unknown("%s: %v", r, err)
}
