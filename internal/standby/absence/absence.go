// Package absence tells of a planned move which former holders of its applications are gone, so that it would stop
// them, wait for a proof that cannot come, and take itself back (docs/decisions/0038-planned-moves-past-lost-sites.md).
package absence

import (
	"context"
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
	var silent map[string]string
	var problems []string
	for _, app := range spec.Applications {
		for _, site := range facts.Holders[app] {
			_, leased := facts.Terms[site]
			if site == facts.Epochs[app].Site || site == failover.Nobody || leased || slices.Contains(spec.Lost, site) || facts.Words[app][site] != "" {
				continue
			}
			if silent == nil {
				var err error
				if silent, err = words(ctx, p); err != nil {
					return nil, err
				}
			}
			since, heard := silent[site]
			if !heard {
				since = "has never given a sign of life"
			}
			if since != "" {
				problems = append(problems, fmt.Sprintf("site %s held %s before, %s, and kept no lease: nothing proves that it has stopped, and a planned move would stop the application and take itself back. Bring it back; or make sure that it is off, and give --lost %[1]s", site, app, since))
			}
		}
	}
	return problems, nil
}

// words says how long each site has been silent; empty: it has not.
func words(ctx context.Context, p *vault.Project) (map[string]string, error) {
	signs, err := p.Sites(ctx)
	if err != nil {
		return nil, fmt.Errorf("look which sites live: %w", err)
	}
	all := map[string]string{}
	for _, sign := range signs {
		ago, err := lease.Silence(ctx, p, sign)
		if err != nil {
			return nil, err
		}
		all[sign.Site] = ""
		if ago >= lease.SilentAfter {
			all[sign.Site] = "has given no sign of life for " + ago.Round(time.Second).String()
		}
	}
	return all, nil
}
