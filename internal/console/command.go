package console

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/lead"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
)

// askLimit is how long a command asks the vault who is active.
const askLimit = 10 * time.Second

// Overtaken asks the vault whether another console has taken over from the one in
// a directory that was served: what commands change there then is lost. Of one that
// was never served nobody knows.
func Overtaken(ctx context.Context, dir string, c *store.Console, open fleet.OpenStore) (by lead.Claim, overtaken bool, err error) {
	mine, err := os.ReadFile(filepath.Join(dir, holderFile))
	if errors.Is(err, fs.ErrNotExist) {
		return by, false, nil
	}
	if err != nil {
		return by, false, fmt.Errorf("read name of the console's directory: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	by, err = ledger{newShelves(Options{Dir: dir, Store: open}, c)}.Newest(ctx)
	if err != nil {
		return by, false, fmt.Errorf("look who is active: %w", err)
	}
	return by, by.Number > 0 && by.Holder != strings.TrimSpace(string(mine)), nil
}

// How long a command waits for what it changed to be in the vault, which the
// process does that serves the console, and for a new project's first backup.
const (
	sentLimit = 2 * time.Second
	keptLimit = 30 * time.Second
	lookAgain = 100 * time.Millisecond
)

// Sent waits until what was changed in a database is in the vault. False: it is
// not, as far as was waited.
func Sent(ctx context.Context, db store.Journaled) bool {
	return wait(ctx, sentLimit, func(ctx context.Context) (bool, error) {
		all, err := db.Waiting(ctx, 1)
		return len(all) == 0, err
	})
}

// Kept waits until a project has its first backup in its vault.
func Kept(ctx context.Context, c *store.Console, p *vault.Project, a *authority.Authority) bool {
	s := backup.Shelf{Project: p, Authority: a, Console: c.ID()}
	return wait(ctx, keptLimit, func(ctx context.Context) (bool, error) {
		all, err := s.List(ctx, backup.ProjectDatabase)
		return len(all) > 0, err
	})
}

// wait looks until it is so; what cannot be seen is not.
func wait(ctx context.Context, limit time.Duration, so func(ctx context.Context) (bool, error)) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		if yes, err := so(ctx); err == nil && yes {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}
