package restore

import (
	"context"
	"time"

	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/rehearse"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

// rehearsalPatience is how long a rehearsal waits for pods to end, in its own
// time: those that would end are not shown to it.
const rehearsalPatience = time.Second

// Plan says what Run would do with every object, in the order in which it
// would, and changes nothing: it is Run at a target that only remembers.
func (e *Engine) Plan(ctx context.Context) ([]Planned, error) {
	if err := e.load(ctx); err != nil {
		return nil, err
	}
	target := rehearse.New(e.cluster, e.dryRun())
	r := &Engine{
		m: e.m, source: e.source, cluster: target, bare: target, leases: target, progress: Silent{}, clock: rehearse.NewClock(e.clock.Now()),
		log: e.log, opts: e.opts, names: e.names, state: newState(),
	}
	if e.volumes != nil {
		r.volumes = rehearse.Volumes{Volumes: e.volumes}
	}
	r.opts.Activate = nil
	r.x, r.git, r.notes = e.x, e.git, rehearse.NewNotes()
	r.attempt = hold.Standing(ctx, e.holding())
	r.order, r.levels = e.order, e.levels
	if err := r.restore(ctx, nil); err != nil {
		return nil, err
	}
	diffs := map[string]string{}
	for _, c := range target.Changes() {
		name := kindName(c.Kind, c.Now.GetNamespace(), c.Now.GetName())
		if text := rehearse.Diff(c.Kind, e.asCaptured(c.Kind, c.Before), e.asCaptured(c.Kind, c.Now)); text != "" {
			diffs[name] = text
		}
	}
	return r.notes.Plan(r.rec.Result().Warnings, diffs), nil
}

// dryRun is the target where it can tell what it would make of a change.
func (e *Engine) dryRun() Cluster {
	if d, ok := e.bare.(interface{ DryRun() port.Cluster }); ok {
		return port.Retry(d.DryRun(), e.clock)
	}
	return nil
}

// decided tells a rehearsal what is done with an object. A restore does it.
func (e *Engine) decided(en *index.Entry, action report.Action, reason string) {
	if e.notes == nil {
		return
	}
	place := int(e.levels[en.Node])*int(shape.RankCount) + int(shape.RankOf(e.x.Kinds[en.Res]))
	e.notes.Note(rehearse.Restored, place, Planned{Object: e.nameOf(en), Action: action, Reason: reason})
}

// left tells a rehearsal what is not restored.
func (e *Engine) left(object, why string) {
	e.notes.Note(rehearse.LeftOut, 0, Planned{Object: object, Action: report.SkipIt, Reason: why})
}

// pruned tells a rehearsal what becomes of an object that the point lacks.
func (e *Engine) pruned(object, keep string) {
	p := Planned{Object: object, Action: report.Prune, Reason: "the point does not have it"}
	if keep != "" {
		p.Action, p.Reason = report.SkipIt, keep
	}
	e.notes.Note(rehearse.Pruned, 0, p)
}
