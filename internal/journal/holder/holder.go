// Package holder tells which runs hold an application at rest in earnest. The name of one that took it elsewhere
// stays on its Application, and means nothing once it has come back under a higher epoch; that
// of one that is about to take it means that it must not start.
package holder

import (
	"context"
	"errors"
	"fmt"

	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/vault"
)

// Of returns whether a run is under way that found the application, by its name in the vault, under
// the epoch or a higher one.
func Of(log journal.Log, app string, epoch int64) func(ctx context.Context, run string) (bool, error) {
	return func(ctx context.Context, run string) (bool, error) {
		s, err := journal.Read(ctx, log, run)
		if errors.Is(err, vault.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("look whether run %s holds %s: %w", run, app, err)
		}
		return !s.Phase.Over() && s.Facts.Epochs[app].Number >= epoch, nil
	}
}
