package restore

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/flow"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/pace"
	"davit.dev/davit/internal/restore/reason"
	"davit.dev/davit/internal/restore/sequence"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/standstill"
	"davit.dev/davit/internal/restore/vacancy"
	"davit.dev/davit/internal/restore/window"
)

// askAgain is how old the answer of Activate may be when something starts.
const askAgain = 15 * time.Second

// Order says in what order a restore would go, and why.
func (e *Engine) Order(ctx context.Context) (sequence.Drawing, error) {
	if err := e.load(ctx); err != nil {
		return sequence.Drawing{}, err
	}
	return e.order.Draw(e.nameOf), nil
}

// checkOrder says which annotations of the order cannot be followed.
func (e *Engine) checkOrder(context.Context) (found []Finding, err error) {
	for _, problem := range e.order.Problems() {
		found = append(found, beware("Order", "correct the annotation at the source; it is left out of account here", "%s", problem))
	}
	return found, nil
}

// flow restores everything, each object as soon as what it needs is there.
func (e *Engine) flow(ctx context.Context) error {
	e.windows = window.New(ctx, e.cluster)
	defer e.windows.Close()
	e.present = window.NewPresence(e.cluster)
	parts := pace.New(e.clock, e.progress, &e.rec, e.order.Steps())
	for _, en := range e.order.Entries {
		if e.order.KindOf(en) == shape.KindClaim && e.volumeOf(en) != nil {
			e.empty.Mark(e.target(en)) // until it is filled
		}
	}
	if err := e.empty.Others(ctx, e.cluster, e.targetNamespaces()...); err != nil {
		return err
	}
	err := flow.Flow{
		Sequence: e.order, Index: e.x, Manifest: e.m, Source: e.source, Workers: e.opts.Workers, Fillers: e.opts.Fillers,
		Within: e.order.Within(e.opts.To),
		Fills:  func(en *index.Entry) bool { return e.order.KindOf(en) == shape.KindClaim },
		Object: func(ctx context.Context, en *index.Entry, raw []byte) error {
			rank := shape.RankOf(e.order.KindOf(en))
			if err := e.activate(ctx, rank, askAgain); err != nil {
				return err
			}
			parts.Begin(rank.String())
			defer parts.Done(rank.String())
			if rank == shape.RankClaims {
				e.restoreClaim(ctx, en, raw)
			} else {
				e.restoreObject(ctx, en, raw)
			}
			return nil
		},
		Gate: func(ctx context.Context, p sequence.Point, members []*index.Entry) error {
			if p.Hub == sequence.Made { // it may start what was stopped
				if err := e.activate(ctx, shape.RankWorkloads, 0); err != nil {
					return err
				}
			}
			if rank, timed := p.Step(); timed {
				parts.Begin(rank.String())
				defer parts.Done(rank.String())
			}
			return e.gate(ctx, p, members)
		},
	}.Run(ctx)
	parts.End(err)
	return err
}

// gate does what a gate of the order is for.
func (e *Engine) gate(ctx context.Context, p sequence.Point, members []*index.Entry) error {
	switch p.Hub {
	case sequence.Namespace:
		name := e.names.To(p.Namespace)
		if err := e.createNamespace(ctx, name, shape.Document{shape.LabelRestore: e.opts.ID}); err != nil && ctx.Err() == nil {
			e.rec.Fail(kindName(shape.KindNamespace, "", name), answer.Explain(err))
		}
		return e.own(ctx, name)
	case sequence.Definitions:
		return e.establish(ctx)
	case sequence.Answering:
		return e.awaitAnswer(ctx, p, members)
	case sequence.Made:
		return e.startAgain(ctx)
	case sequence.Ready:
		return e.settleWorkloads(ctx)
	}
	return nil
}

// activate asks whether what comes now may run: before the first custom
// resource, before the first workload, and again when the answer is so old.
func (e *Engine) activate(ctx context.Context, r shape.Rank, old time.Duration) error {
	if e.opts.Activate == nil || r != shape.RankCustom && r != shape.RankWorkloads {
		return nil
	}
	e.activating.Lock()
	defer e.activating.Unlock()
	if at, asked := e.asked[r]; asked && e.clock.Now().Sub(at) < old {
		return nil
	}
	if err := e.opts.Activate(ctx); err != nil {
		return err
	}
	e.asked[r] = e.clock.Now()
	return nil
}

// awaitAnswer waits until the workloads behind a Service of the point are
// ready, which something else needs of it.
func (e *Engine) awaitAnswer(ctx context.Context, p sequence.Point, members []*index.Entry) error {
	if e.notes != nil {
		return nil // nothing starts in a rehearsal
	}
	deadline := e.clock.Now().Add(e.opts.ReadyTimeout)
	for _, en := range members {
		at, err := e.resolve(ctx, en.Res)
		if err != nil || e.isUnmade(en) {
			continue // it fails by itself, by name
		}
		namespace, name := e.target(en)
		if err := (reason.Finder{Cluster: e.cluster}).AwaitReady(ctx, e.clock, deadline, at, namespace, name); err != nil {
			return err
		}
		if !e.clock.Now().Before(deadline) {
			e.rec.Warn(e.nameOf(en), "not ready after %s, though Service %s is needed by other objects: they are tried all the same", e.opts.ReadyTimeout, p.Namespace+"/"+p.Service)
		}
	}
	return nil
}

// stage stops and starts what uses volumes.
func (e *Engine) stage() standstill.Stage {
	patience := vacancy.GoneTimeout
	if e.notes != nil {
		patience = rehearsalPatience
	}
	return standstill.Stage{
		Cluster: e.cluster, Clock: e.clock, Progress: e.progress, Patience: patience, Brings: e.brings, Warn: e.rec.Warn,
		Brought: func(namespace, name string) bool { return e.brings(shape.KindPod, namespace, name) },
	}
}

// stop brings to rest what uses a claim.
func (e *Engine) stop(ctx context.Context, namespace, claim string) error {
	stopped, err := e.stage().Stop(ctx, namespace, claim)
	e.locked(func() {
		for _, name := range stopped {
			e.stopped[name] = true
		}
	})
	return err
}

// startAgain makes what was stopped again what it was, by this try or by one
// that was killed: the workloads that are restored have been by now. What
// mounts a claim that is not whole stays at rest.
func (e *Engine) startAgain(ctx context.Context) error {
	started, kept, err := e.stage().Start(ctx, e.targetNamespaces(), func(kind schema.GroupKind, u *unstructured.Unstructured) string {
		if why := e.empty.MountedBy(kind, u, false); why != "" {
			return "stays stopped, because " + why + ", and it is started"
		}
		return ""
	})
	e.locked(func() {
		clear(e.stopped)
		e.started = append(e.started, started...)
	})
	for name, why := range kept {
		e.rec.Warn(name, "%s", why)
	}
	return err
}

// leaveStopped says what a restore that was interrupted leaves at rest.
func (e *Engine) leaveStopped() {
	e.locked(func() {
		for name := range e.stopped {
			e.rec.Warn(name, "was stopped so that its volume can be filled, and stays stopped until the restore is given again and ends")
		}
	})
}
