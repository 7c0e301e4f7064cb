package restore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

// Plan says what Run would do with every object, in the order in which it
// would, and changes nothing.
func (e *Engine) Plan(ctx context.Context) ([]Planned, error) {
	if err := e.load(ctx); err != nil {
		return nil, err
	}
	var plan []Planned
	for r := range shape.RankCount {
		deepest, _ := e.extent(r)
		for depth := range deepest + 1 {
			part, err := e.planLevel(ctx, r, depth)
			if err != nil {
				return nil, err
			}
			plan = append(plan, part...)
		}
	}
	prunes, err := e.planPrunes(ctx)
	return slices.Concat(plan, prunes, e.planSkipped()), err
}

func (e *Engine) planLevel(ctx context.Context, r shape.Rank, depth int) ([]Planned, error) {
	var mu sync.Mutex
	var plan []Planned
	err := e.each(ctx, e.opts.Workers, func(en *index.Entry) bool {
		return shape.RankOf(e.x.Kinds[en.Res]) == r && en.Depth == depth
	}, func(ctx context.Context, en *index.Entry, raw []byte) {
		p := e.planObject(ctx, en, raw)
		mu.Lock()
		defer mu.Unlock()
		plan = append(plan, p)
	})
	slices.SortFunc(plan, func(a, b Planned) int { return cmp.Compare(a.Object, b.Object) })
	return plan, err
}

// planObject is restoreObject without doing it.
func (e *Engine) planObject(ctx context.Context, en *index.Entry, raw []byte) Planned {
	plan := Planned{Object: e.nameOf(en), Action: report.Create}
	d, err := shape.Decode(raw)
	if err != nil {
		return Planned{Object: plan.Object, Action: report.Conflict, Reason: err.Error()}
	}
	at, err := e.resolve(ctx, en.Res)
	switch {
	case errors.Is(err, ErrNotServed) && len(e.x.Defined[e.x.Kinds[en.Res]]) > 0:
		plan.Reason = "once its definition is there"
		return plan
	case err != nil:
		return Planned{Object: plan.Object, Action: report.Conflict, Reason: err.Error()}
	}
	namespace, name := e.target(en)
	live, err := e.cluster.Get(ctx, at, namespace, name)
	if apierrors.IsNotFound(err) {
		return plan
	}
	if err != nil {
		return Planned{Object: plan.Object, Action: report.Conflict, Reason: err.Error()}
	}
	if vol := e.volumeOf(en); e.x.Kinds[en.Res] == shape.KindClaim && vol != nil {
		plan.Action, plan.Reason = e.claimVerdict(en, live, *vol)
		return plan
	}
	if err := e.shape(en.Res, d, nil); err != nil {
		return Planned{Object: plan.Object, Action: report.Conflict, Reason: err.Error()}
	}
	p := &prepared{entry: en, kind: e.x.Kinds[en.Res], at: at, obj: wrap(at, d)}
	plan.Action, plan.Reason = e.decide(p, live)
	if plan.Action == report.SkipIt && plan.Reason == "" {
		plan.Reason = "exists already and is the same"
	}
	return plan
}

// planSkipped lists what is left out, sorted.
func (e *Engine) planSkipped() []Planned {
	var plan []Planned
	for i, res := range e.m.Resources {
		if why := e.leftOut(res); why != "" {
			plan = append(plan, Planned{Object: e.x.Kinds[i].String() + " (all)", Action: report.SkipIt, Reason: why})
			continue
		}
		for _, en := range e.x.Entries[i] {
			if en.Skip != "" {
				plan = append(plan, Planned{Object: e.nameOf(en), Action: report.SkipIt, Reason: en.Skip})
			}
		}
	}
	slices.SortFunc(plan, func(a, b Planned) int { return cmp.Compare(a.Object, b.Object) })
	return plan
}
