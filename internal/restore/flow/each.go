package flow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/restore/index"
)

// Each streams the wanted objects through the workers, in no order.
func (f Flow) Each(ctx context.Context, want func(*index.Entry) bool, do func(context.Context, *index.Entry, []byte)) error {
	pool, poolCtx := errgroup.WithContext(ctx)
	pool.SetLimit(f.Workers)
	sources, sourceCtx := errgroup.WithContext(ctx)
	sources.SetLimit(readers)
	for i, entries := range f.Index.Entries {
		if !slices.ContainsFunc(entries, func(en *index.Entry) bool { return en.Skip == "" && want(en) }) {
			continue
		}
		sources.Go(func() error {
			n := -1
			return f.Source.ReadResource(sourceCtx, f.Manifest.Resources[i], func(raw []byte) error {
				n++
				if n >= len(entries) {
					return fmt.Errorf("read recovery point %s: %s has more objects than before", f.Manifest.ID, f.Index.Kinds[i])
				}
				en := entries[n]
				if en.Skip != "" || !want(en) {
					return nil
				}
				if err := context.Cause(ctx); err != nil {
					return err
				}
				raw = bytes.Clone(raw)
				pool.Go(func() error {
					do(poolCtx, en, raw)
					return nil
				})
				return nil
			})
		})
	}
	err := sources.Wait()
	return errors.Join(err, pool.Wait())
}
