package standby

import (
	"context"
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
