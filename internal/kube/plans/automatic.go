package plans

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vault"
)

// Automatic keeps which plans of a vault are declared automatically. A plan is
// read again only when it has a new revision, or could not be read.
type Automatic struct {
	// Every is how often the vault is asked.
	Every time.Duration
	Now   func() time.Time

	mu     sync.Mutex
	of     *vault.Project
	looked time.Time
	read   map[string]kept
}

type kept struct {
	revision int64      // the newest that was read
	plan     *plan.Plan // nil: people declare, or none could be read
	unread   bool       // there is a newer one, damaged or of a newer format
}

// None says that the vault has none: all its plans were read, and people declare
// them. A plan that cannot be read may be one.
func (a *Automatic) None() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.read {
		if k.plan != nil || k.unread {
			return false
		}
	}
	return true
}

// Plans returns them by name, as they were read last. Those that are damaged, or
// of a newer format, from the first on are left out.
func (a *Automatic) Plans(ctx context.Context, p *vault.Project) ([]*plan.Plan, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of != p {
		a.of, a.looked, a.read = p, time.Time{}, map[string]kept{}
	}
	if now := a.Now(); now.Sub(a.looked) >= a.Every {
		if err := a.look(ctx, p); err != nil {
			return nil, fmt.Errorf("look for plans with automatic declaration: %w", err)
		}
		a.looked = now
	}
	var all []*plan.Plan
	for _, name := range slices.Sorted(maps.Keys(a.read)) {
		if pl := a.read[name].plan; pl != nil {
			all = append(all, pl)
		}
	}
	return all, nil
}

func (a *Automatic) look(ctx context.Context, p *vault.Project) error {
	s := shelf.New(p)
	newest, err := s.Revisions(ctx)
	if err != nil {
		return err
	}
	maps.DeleteFunc(a.read, func(name string, _ kept) bool { return newest[name] == 0 })
	var failed error
	for name, revision := range newest {
		old := a.read[name]
		if old.revision == revision {
			continue
		}
		now, err := read(ctx, s, name)
		switch {
		case err == nil:
			a.read[name] = now
		case errors.Is(err, vault.ErrDamaged), errors.Is(err, shelf.ErrNewer):
			old.unread = true // what it said before goes on
			a.read[name] = old
		default: // the vault, for now: it is asked again
			failed = err
		}
	}
	return failed
}

func read(ctx context.Context, s shelf.Shelf, name string) (kept, error) {
	sheet, err := s.Get(ctx, name)
	if err != nil {
		return kept{}, err
	}
	found, err := Parse(sheet)
	if err != nil {
		return kept{}, err
	}
	k := kept{revision: sheet.Revision}
	if pl := found.Plan(); pl.Declaration.Automatic {
		k.plan = pl
	}
	return k, nil
}
