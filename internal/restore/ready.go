package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/reason"
	"davit.dev/davit/internal/restore/shape"
)

const (
	readyLook  = 250 * time.Millisecond
	againPause = 2 * time.Second
)

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

// tryLater restores the postponed objects, by depth, until their webhook
// answers or time is up. Each try is a whole one: postpone refuses a second time,
// so that the last one records the failure.
func (e *Engine) tryLater(ctx context.Context, deadline time.Time) error {
	again := e.later
	for r := range shape.RankCount {
		deepest, _ := e.extent(r)
		for depth := range deepest + 1 {
			want := func(en *index.Entry) bool {
				return again[en] && shape.RankOf(e.x.Kinds[en.Res]) == r && en.Depth == depth
			}
			err := e.each(ctx, e.opts.Workers, want, func(ctx context.Context, en *index.Entry, raw []byte) {
				e.restoreLate(ctx, en, raw, deadline)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Engine) restoreLate(ctx context.Context, en *index.Entry, raw []byte, deadline time.Time) {
	for e.clock.Now().Before(deadline) {
		p, err := e.prepare(ctx, en, raw)
		if err == nil {
			err = e.heldBack(p)
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

// laggard is a workload that is not ready, and why.
type laggard struct{ object, why string }

// waitedFor are the kinds whose readiness is waited for.
var waitedFor = []schema.GroupKind{shape.KindStatefulSet, shape.KindDeployment, shape.KindDaemonSet, shape.KindReplicaSet, shape.KindController, shape.KindPod}

// awaitReady waits for every workload that this restore made. Those that are
// not ready in time become warnings with the pods' own reason.
func (e *Engine) awaitReady(ctx context.Context, deadline time.Time) error {
	noted := ""
	for {
		lag, err := e.laggards(ctx, false)
		if err != nil && !answer.Transient(err) {
			return err
		}
		if err == nil && len(lag) == 0 {
			e.rec.Count(func(r *Result) { r.Ready = r.Failed == 0 }) // what failed is no workload to wait for
			return nil
		}
		if !e.clock.Now().Before(deadline) {
			return e.warnLaggards(ctx, e.opts.ReadyTimeout.String())
		}
		if note := waitingFor(lag); note != noted {
			noted = note
			e.progress.Note(note)
		}
		if err := e.clock.Sleep(ctx, readyLook); err != nil {
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

func waitingFor(lag []laggard) string {
	names := make([]string, 0, len(lag))
	for _, l := range lag {
		names = append(names, l.object)
	}
	return "waiting for " + shape.Names(names, 4)
}

func (e *Engine) warnLaggards(ctx context.Context, waited string) error {
	lag, err := e.laggards(ctx, true)
	if err != nil {
		return err
	}
	for _, l := range lag {
		e.rec.Warn(l.object, "not ready after %s: %s", waited, l.why)
		e.late(l.object + " is not ready: " + l.why)
	}
	return nil
}

// laggards are the workloads of this restore that are not ready yet.
func (e *Engine) laggards(ctx context.Context, explainThem bool) ([]laggard, error) {
	var lag []laggard
	why := reason.Finder{Cluster: e.cluster}
	for _, kind := range waitedFor {
		if !slices.Contains(e.x.Kinds, kind) {
			continue
		}
		at, err := e.served(ctx, kind)
		if err != nil {
			return nil, err
		}
		for _, namespace := range e.targetNamespaces() {
			err := e.cluster.List(ctx, at, namespace, shape.LabelRestore+"="+e.opts.ID, func(u *unstructured.Unstructured) error {
				if shape.Ready(kind, u.Object) {
					return nil
				}
				l := laggard{object: objectName(at, namespace, u.GetName())}
				if explainThem {
					l.why = why.Workload(ctx, kind, u)
				}
				lag = append(lag, l)
				return nil
			})
			if err != nil {
				return nil, fmt.Errorf("look for workloads: %w", err)
			}
		}
	}
	return e.laggardsStarted(ctx, why, lag, explainThem)
}

// laggardsStarted adds what was started again and is not of this restore.
func (e *Engine) laggardsStarted(ctx context.Context, why reason.Finder, lag []laggard, explainThem bool) ([]laggard, error) {
	for _, u := range e.started {
		kind := u.GroupVersionKind().GroupKind()
		if !slices.Contains(waitedFor, kind) {
			continue
		}
		at, err := e.served(ctx, kind)
		if err != nil {
			return nil, err
		}
		live, err := e.cluster.Get(ctx, at, u.GetNamespace(), u.GetName())
		if apierrors.IsNotFound(err) || err == nil && (shape.Ready(kind, live.Object) || live.GetLabels()[shape.LabelRestore] == e.opts.ID) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for workloads: %w", err)
		}
		l := laggard{object: objectName(at, u.GetNamespace(), u.GetName())}
		if explainThem {
			l.why = why.Workload(ctx, kind, live)
		}
		lag = append(lag, l)
	}
	return lag, nil
}
