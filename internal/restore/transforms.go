package restore

import (
	"context"
	"errors"

	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/transform"
)

// checkTransforms applies all rules to all objects and keeps none: a rule that
// fails must do so before anything changes.
func (e *Engine) checkTransforms(ctx context.Context) ([]Finding, error) {
	if e.opts.Transforms == nil {
		return nil, nil
	}
	trial := transform.NewTrial(e.opts.Transforms)
	all := func(*index.Entry) bool { return true }
	err := e.each(ctx, e.opts.Workers, all, func(_ context.Context, en *index.Entry, raw []byte) {
		d, err := shape.Decode(raw)
		if err != nil {
			return // fails by itself, by name
		}
		var rule *transform.Error
		if errors.As(e.shape(en.Res, d, trial.Matched), &rule) {
			trial.Failed(e.nameOf(en), rule)
		}
	})
	if err != nil {
		return nil, err
	}
	return trial.Findings(), nil
}
