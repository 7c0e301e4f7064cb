package restore

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/reason"
)

// How long until workloads are looked at again: a tenth of what was waited so far, so
// that nobody waits much longer than the pods took, within these bounds.
const (
	readyLookLeast = 50 * time.Millisecond
	readyLookMost  = 250 * time.Millisecond
)

const againPause = 2 * time.Second

// settleWorkloads tries again what a webhook refused, now that what serves it
// may run, and waits for the workloads.
func (e *Engine) settleWorkloads(ctx context.Context) error {
	if e.notes != nil {
		return nil // nothing starts in a rehearsal
	}
	deadline := e.clock.Now().Add(e.opts.ReadyTimeout)
	if len(e.later) > 0 {
		err := e.timed(StepAgain, func() error { return e.tryLater(ctx, deadline) })
		if err != nil {
			return stopped(ctx, err)
		}
	}
	err := e.timed(StepReady, func() error { return e.awaitReady(ctx, deadline) })
	return stopped(ctx, err)
}

// tryLater restores the postponed objects, in their order, until their webhook
// answers or time is up. Each try is a whole one: postpone refuses a second time,
// so that the last one records the failure.
func (e *Engine) tryLater(ctx context.Context, deadline time.Time) error {
	again := e.later
	levels := map[int32]bool{}
	for en := range again {
		levels[e.levels[en.Node]] = true
	}
	for _, level := range slices.Sorted(maps.Keys(levels)) {
		want := func(en *index.Entry) bool { return again[en] && e.levels[en.Node] == level }
		err := e.each(ctx, e.opts.Workers, want, func(ctx context.Context, en *index.Entry, raw []byte) {
			e.restoreLate(ctx, en, raw, deadline)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) restoreLate(ctx context.Context, en *index.Entry, raw []byte, deadline time.Time) {
	for e.clock.Now().Before(deadline) {
		p, err := e.prepare(ctx, en, raw)
		if err == nil {
			err = e.heldBack(ctx, p)
		}
		if err == nil {
			err = e.put(ctx, p)
		}
		if err == nil {
			e.step()
			return
		}
		if !answer.WebhookFailed(err) {
			break
		}
		if e.clock.Sleep(ctx, againPause) != nil {
			e.outOfTime(ctx, en, err)
			return
		}
	}
	e.restoreObject(ctx, en, raw)
}

// awaitReady waits for every workload that this restore made. Those that are
// not ready in time become warnings with the pods' own reason.
func (e *Engine) awaitReady(ctx context.Context, deadline time.Time) error {
	noted, since := "", e.clock.Now()
	for {
		lag, running, err := e.laggards(ctx, false)
		if err != nil && !answer.Transient(err) {
			return err
		}
		if err == nil && len(lag) == 0 {
			e.rec.Count(func(r *Result) { r.Ready, r.Running = r.Failed == 0, running }) // what failed is no workload to wait for
			return nil
		}
		if !e.clock.Now().Before(deadline) {
			return e.warnLaggards(ctx, e.opts.ReadyTimeout.String())
		}
		if note := reason.WaitingFor(lag); note != noted {
			noted = note
			e.progress.Note(note)
		}
		if err := e.clock.Sleep(ctx, min(max(e.clock.Now().Sub(since)/10, readyLookLeast), readyLookMost)); err != nil {
			return e.lateLaggards(ctx, err)
		}
	}
}

// lateLaggards says who was not ready when the restore's own time was over.
func (e *Engine) lateLaggards(ctx context.Context, cause error) error {
	if !expired(ctx) {
		return cause
	}
	ctx, cancel := lastLook(ctx)
	defer cancel()
	return errors.Join(cause, e.warnLaggards(ctx, "the time that the restore had"))
}

func (e *Engine) warnLaggards(ctx context.Context, waited string) error {
	lag, _, err := e.laggards(ctx, true)
	if err != nil {
		return err
	}
	for _, l := range lag {
		e.rec.Warn(l.Object, "not ready after %s: %s", waited, l.Why)
		e.late(l.Object + " is not ready: " + l.Why)
	}
	return nil
}

// laggards are the workloads of this restore that are not ready yet.
func (e *Engine) laggards(ctx context.Context, explainThem bool) ([]reason.Laggard, int64, error) {
	w := reason.Watch{
		Finder: reason.Finder{Cluster: e.cluster}, ID: e.opts.ID, Kinds: e.x.Kinds,
		Namespaces: e.targetNamespaces(), Started: e.started,
	}
	return w.Laggards(ctx, explainThem)
}
