package standby

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal/holder"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/sequence"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/standby/halt"
	"davit.dev/davit/internal/standby/mapping"
	"davit.dev/davit/internal/standby/remains"
	"davit.dev/davit/internal/standby/surrender"
)

// stages say how far a kind of step restores.
var stages = map[plan.Kind]sequence.Stage{
	plan.KindRestore: sequence.Data, plan.KindApply: sequence.Objects, plan.KindScale: sequence.Whole,
}

const readyLook = 500 * time.Millisecond

// restore brings an application here, as far as the step says. Every part
// is the same restore, which continues.
func (s *Site) restore(ctx context.Context, o execute.Order) execute.Answer {
	if o.Action == failover.Undo {
		return s.takeBack(ctx, o)
	}
	opts, warning, err := s.options(ctx, o)
	if err != nil {
		return execute.Unknown("%v", err)
	}
	if opts.Point == "" && o.Step.Kind != plan.KindRestore {
		return execute.Refuse("nothing says which recovery point the data of %s is from: do its data step first", o.Step.Application)
	}
	if err := s.closeGates(ctx, o); err != nil {
		return execute.Unknown("%v", err)
	}
	opts.To = stages[o.Step.Kind]
	opts.ReadyTimeout = o.Patience() // the step after it waits on
	deps := s.o.Recovery
	report, err := recovery.Recover(ctx, opts, deps)
	if err != nil {
		return failed(err)
	}
	if report.Result.Failed > 0 {
		return execute.Refuse("%d objects could not be restored: %s", report.Result.Failed, problems(report, true))
	}
	answer := execute.Answer{
		Outcome: failover.Done, Note: strings.Trim(warning+"; "+problems(report, false), "; "), Guard: execute.Guarded,
		Point: &failover.Point{ID: report.Point, Instant: report.Instant},
	}
	if o.Step.Kind == plan.KindRestore {
		answer.Moved = moved(report.Result)
	}
	return answer
}

// awaitReady waits for the workloads that the run brought. It changes nothing:
// another restore would roll back again what runs by now.
func (s *Site) awaitReady(ctx context.Context, o execute.Order) execute.Answer {
	if o.Action == failover.Undo {
		return execute.Done("")
	}
	app := o.Step.Application
	mark, err := s.marks.Load(ctx, o.Run, "data/"+app)
	if err != nil {
		return execute.Unknown("%v", err)
	}
	if mark.Point == nil {
		return execute.Refuse("nothing says which recovery point the data of %s is from: do its data step first", app)
	}
	for {
		late, err := s.late(ctx, app, mark.Point.ID)
		switch {
		case err == nil && late == "":
			return execute.Done("")
		case o.Action == failover.Look && err != nil:
			return execute.Unknown("%v", err)
		case o.Action == failover.Look:
			return execute.NotDone("%s", late)
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return execute.Unknown("%v", err)
			}
			return execute.Refuse("not ready after %s: %s", o.Step.Timeout, late)
		case <-time.After(readyLook):
		}
	}
}

// late is what of the application is not ready, empty if all is.
func (s *Site) late(ctx context.Context, app, id string) (string, error) {
	manifest, err := s.project().Manifest(ctx, app, id)
	if err != nil {
		return "", err
	}
	return unready(ctx, s.o.Recovery.Cluster, shape.ID(id, string(v1alpha1.RestoreTakeOver), nil), manifest.Namespaces)
}

func problems(r recovery.Report, bad bool) string {
	list := r.Result.Warnings
	if bad {
		list = r.Result.Failures
	}
	var all []string
	for i, p := range list {
		if i == 3 {
			all = append(all, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		all = append(all, strings.TrimPrefix(p.Object+": "+p.Message, ": "))
	}
	return strings.Join(all, "; ")
}

// options are those of the application's restore, and what to warn of. Every step
// of the run takes the point that its data step took.
func (s *Site) options(ctx context.Context, o execute.Order) (opts recovery.Options, warning string, err error) {
	app := o.Step.Application
	epoch := o.Token.Epochs[app]
	opts = recovery.Options{Application: app, Mode: v1alpha1.RestoreTakeOver, Attempt: o.Run, SeenEpoch: &epoch}
	if o.Point != nil {
		opts.Point = o.Point.ID
	} else {
		mark, err := s.marks.Load(ctx, o.Run, "data/"+app)
		if err != nil {
			return opts, "", err
		}
		if mark.Point != nil {
			opts.Point = mark.Point.ID
		}
	}
	opts.Holds = holder.Of(s.project(), app, epoch)
	mapping.Call(&opts, o.Step.Mappings)
	left, err := remains.Look(ctx, s.project(), app, s.self(), epoch)
	opts.Existing = left.Existing()
	return opts, left.Warning(app), err
}

// takeBack undoes a part of a restore. What it brought stays, at rest: nothing of
// it runs, and the next run that comes here rolls it back to its own point.
func (s *Site) takeBack(ctx context.Context, o execute.Order) execute.Answer {
	if o.Step.Kind == plan.KindRestore {
		return execute.Done("what was brought stays here, at rest")
	}
	did, late := "what was brought stays here, at rest", error(nil)
	if o.Step.Kind == plan.KindScale {
		mark, err := s.marks.Load(ctx, o.Run, "data/"+o.Step.Application)
		if err != nil {
			return execute.Unknown("%v", err)
		}
		if did = "nothing was started"; mark.Point != nil {
			did, late = s.halt(ctx, mark.Point.ID)
		}
	}
	warning, err := s.surrender(ctx, o)
	if err == nil && late != nil && !s.proven(ctx, o) {
		err = late
	}
	if err != nil {
		return execute.Unknown("%v", err)
	}
	if late != nil {
		did += ", and the nodes keep the rest from running: " + late.Error()
	}
	return execute.Done("%s", strings.Trim(did+"; "+warning, "; "))
}

// halt stops what a restore from a point made. An error says that something may run still.
func (s *Site) halt(ctx context.Context, id string) (did string, err error) {
	if until, ok := ctx.Deadline(); ok { // the nodes take their time, too
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(until)/2)
		defer cancel()
	}
	did, err = halt.Stop(ctx, s.o.Recovery.Cluster, shape.ID(id, string(v1alpha1.RestoreTakeOver), nil))
	return "stopped " + did, err
}

// proven tells whether every node of this site says that nothing of the application runs there under
// the run's epoch, nor will, whatever an operator starts.
func (s *Site) proven(ctx context.Context, o execute.Order) bool {
	if o.From == o.To {
		return false
	}
	app := o.Step.Application
	return surrender.Proven(ctx, cmp.Or(s.o.Recovery.Own, s.o.Recovery.Cluster), app, o.Token.Epochs[app], s.o.Recovery.Now())
}

// nodesHear bounds how long the nodes may take to note that an epoch is given back.
const nodesHear = 20 * time.Second

// surrender has the nodes of this site know that the run's epoch goes back, before it does: what
// a process that stood still may bring yet does not run. It warns of those that it
// waited for in vain.
func (s *Site) surrender(ctx context.Context, o execute.Order) (warning string, err error) {
	app, epoch := o.Step.Application, o.Token.Epochs[o.Step.Application]
	if o.From == o.To { // whoever has it here keeps it
		return "", nil
	}
	live, err := s.applicationHere(ctx, app)
	if errors.Is(err, errNoApplication) || errors.Is(err, restore.ErrNotServed) {
		return "", nil // none of its nodes fences anything
	}
	own := cmp.Or(s.o.Recovery.Own, s.o.Recovery.Cluster)
	if err == nil {
		err = surrender.Declare(ctx, own, live, epoch)
	}
	if apierrors.IsForbidden(err) {
		return err.Error(), nil
	}
	if err != nil {
		return "", err
	}
	within := nodesHear
	if until, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(until)/2)
	}
	return surrender.Warning(app, surrender.Await(ctx, own, port.WallClock{}, app, epoch, within)), nil
}
