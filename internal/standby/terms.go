package standby

import (
	"context"
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
)

// termsOf are the terms under which a plan's sites hold its applications; nil
// where people declare.
func termsOf(f plan.Fence) *lease.Terms {
	if f.Lease <= 0 {
		return nil
	}
	return &lease.Terms{LeaseMillis: f.Lease.Milliseconds(), BoundMillis: f.Bound.Milliseconds(), DriftPPM: f.Drift}
}

// leases notes the terms of the former holders that keep a lease of every
// application of the run that they ever held: the longest of each. Of any other
// no wait proves that it has stopped.
func (s *Site) leases(ctx context.Context, facts *failover.Facts, histories map[string][]lease.Epoch) error {
	without := map[string]bool{}
	for app, history := range histories {
		for _, site := range facts.Holders[app] {
			t, kept, err := lease.Leased(ctx, s.project(), app, site, history)
			if err != nil {
				return err
			}
			if !kept {
				without[site] = true
				continue
			}
			ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
			was := facts.Terms[site]
			facts.Terms[site] = plan.Fence{
				Lease: max(was.Lease, ms(t.LeaseMillis)), Bound: max(was.Bound, ms(t.BoundMillis)), Drift: max(was.Drift, t.DriftPPM),
			}
		}
	}
	for site := range without {
		delete(facts.Terms, site)
	}
	return nil
}

// words notes who said for good that no site which was not moved over to a promoted
// vault writes the applications any more. The epochs that are nobody's stand for those
// sites, and stay among the former holders. Where nobody said it, a planned move would
// stop the source and take itself back: no proof can come, and no consent is taken.
func (s *Site) words(ctx context.Context, facts *failover.Facts, spec failover.Spec, histories map[string][]lease.Epoch) error {
	for _, app := range spec.Applications {
		nobodys, ok := lease.Unheld(histories[app])
		if !ok {
			continue
		}
		w, said, err := lease.Said(ctx, s.project(), app, histories[app])
		switch {
		case err != nil:
			return err
		case said:
			if facts.Words == nil {
				facts.Words = map[string]map[string]string{}
			}
			facts.Words[app] = map[string]string{w.Site: w.By}
		case spec.Verb == plan.Switchover || spec.Verb == plan.Failback:
			facts.Problems = append(facts.Problems, fmt.Sprintf(
				"%s: the vault took the place of a lost one, and nothing proves that no site which was not moved over to it still writes this: a planned move would stop it and take itself back. Make sure that none does and none will, then `vault promote %s --lost-stopped`; or fail over with --lost %s",
				app, s.o.Recovery.VaultName, nobodys.Claim.Site))
		}
	}
	return nil
}

// holders notes who ever held an application, the target aside.
func holders(facts *failover.Facts, app string, history []lease.Epoch, to string) {
	for _, e := range history {
		site := e.Claim.Site
		facts.Epochs[app] = failover.Held{Number: e.Number, Site: site}
		if site != to && !slices.Contains(facts.Holders[app], site) {
			facts.Holders[app] = append(facts.Holders[app], site)
		}
	}
	slices.Sort(facts.Holders[app])
}
