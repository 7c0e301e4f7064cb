package plans

import (
	"context"
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
// read again only when it has a new revision.
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
	revision int64
	plan     *plan.Plan // nil: people declare, or it cannot be read
}

// Plans returns them by name. Those that cannot be read are left out.
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
	for name, revision := range newest {
		if a.read[name].revision == revision {
			continue
		}
		sheet, err := s.Get(ctx, name)
		if ctx.Err() != nil {
			return err
		}
		k := kept{revision: revision}
		if err == nil {
			if found, err := Parse(sheet); err == nil {
				if pl := found.Plan(); pl.Declaration.Automatic {
					k.plan = pl
				}
			}
		}
		a.read[name] = k
	}
	return nil
}
