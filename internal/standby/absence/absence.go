// Package absence tells of a planned move which former holders of its applications are gone, so that it would stop
// them, wait for a proof that cannot come, and take itself back (docs/decisions/0038-planned-moves-past-lost-sites.md).
package absence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/vault"
)

// Problems are the former holders of a switchover or a failback that have given no sign of life for lease.SilentAfter by the
// vault's clock, whose lease no wait proves to be over, and of which nobody said that they have stopped. Not its source:
// that is asked first, and stops the run before anything is stopped. The facts must have holders, terms and words. An
// error is one of the vault.
func Problems(ctx context.Context, p *vault.Project, spec failover.Spec, facts *failover.Facts) ([]string, error) {
	if spec.Verb != plan.Switchover && spec.Verb != plan.Failback {
		return nil, nil
	}
	var problems []string
	for _, app := range spec.Applications {
		for _, site := range facts.Holders[app] {
			_, leased := facts.Terms[site]
			lapsed := leased && spec.Fence.Lease <= 0 // the run has no hold then, from which leases are reckoned
			leased = leased && !lapsed
			if site == facts.Epochs[app].Site || site == failover.Nobody || leased || slices.Contains(spec.Lost, site) || facts.Words[app][site] != "" {
				continue
			}
			since, err := silent(ctx, p, site)
			if err != nil {
				return nil, err
			}
			if since != "" {
				why := "kept no lease"
				if lapsed {
					why = "the plan has no lease any more, so that none is waited for"
				}
				problems = append(problems, fmt.Sprintf("site %s held %s before, %s, and %s: nothing proves that it has stopped, and a planned move would stop the application and take itself back. Bring it back; or make sure that it is off, and give --lost %[1]s", site, app, since, why))
			}
		}
	}
	return problems, nil
}

// silent says how long a site has been silent; empty: it has not. Of a site that is gone nobody mends a damaged
// sign of life: one that cannot be read is none. A site that lives writes the next soon.
func silent(ctx context.Context, p *vault.Project, site string) (string, error) {
	sign, err := p.Site(ctx, site)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return "has never given a sign of life", nil
	case errors.Is(err, vault.ErrDamaged):
		return fmt.Sprintf("its last sign of life cannot be read (%v)", err), nil
	case err != nil:
		return "", fmt.Errorf("look whether site %s lives: %w", site, err)
	}
	ago, err := lease.Silence(ctx, p, sign)
	if err != nil || ago < lease.SilentAfter {
		return "", err
	}
	return "has given no sign of life for " + ago.Round(time.Second).String(), nil
}
