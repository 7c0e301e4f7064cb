package restore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/transform"
)

// tried is what came of trying the rules on the whole point.
type tried struct {
	mu      sync.Mutex
	matched []int64
	failed  map[string]*failing // by rule
}

// failing is a rule that fails: on which object first, and on how many.
type failing struct {
	object string
	err    error
	more   int
}

func (t *tried) match(rule int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.matched[rule]++
}

func (t *tried) fail(object string, err *transform.Error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.failed[err.Rule]
	switch {
	case f == nil:
		t.failed[err.Rule] = &failing{object: object, err: err.Err}
		return
	case object < f.object:
		f.object, f.err = object, err.Err
	}
	f.more++
}

// checkTransforms applies all rules to all objects, one after the other, and
// keeps none: a rule that fails must do so before anything changes.
func (e *Engine) checkTransforms(ctx context.Context) ([]Finding, error) {
	set := e.opts.Transforms
	if set == nil {
		return nil, nil
	}
	t := &tried{matched: make([]int64, set.Len()), failed: map[string]*failing{}}
	all := func(*index.Entry) bool { return true }
	err := e.each(ctx, e.opts.Workers, all, func(_ context.Context, en *index.Entry, raw []byte) {
		d, err := shape.Decode(raw)
		if err != nil {
			return // fails by itself, by name
		}
		var rule *transform.Error
		if errors.As(e.shape(en.Res, d, t.match), &rule) {
			t.fail(e.nameOf(en), rule)
		}
	})
	if err != nil {
		return nil, err
	}
	return t.findings(set), nil
}

func (t *tried) findings(set *transform.Set) []Finding {
	var found []Finding
	for _, rule := range slices.Sorted(maps.Keys(t.failed)) {
		f := t.failed[rule]
		also := ""
		if f.more > 0 {
			also = fmt.Sprintf(" (and on %d more objects)", f.more)
		}
		found = append(found, wrong("TransformFails", "", "%s: fails on %s%s: %v", rule, f.object, also, f.err))
	}
	for i, n := range t.matched {
		if n == 0 && t.failed[set.Title(i)] == nil && len(t.failed) == 0 {
			found = append(found, beware("UnusedRule", "look at its match, and at the objects with davit describe",
				"%s: matched no object of the recovery point, or nothing in those that it matched", set.Title(i)))
		}
	}
	return found
}
