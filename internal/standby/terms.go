package standby

import (
	"context"
	"fmt"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
)

// leases notes the terms of the former holders that keep a lease of every
// application of the run that they ever held: the longest of each. Of any other
// no wait proves that it has stopped.
func (s *Site) leases(ctx context.Context, facts *failover.Facts, histories map[string][]lease.Epoch, movers map[string][]lease.Mover) error {
	without := map[string]bool{}
	for app, history := range histories {
		for _, site := range facts.Holders[app] {
			t, kept, err := lease.Leased(ctx, s.project(), app, site, s.self(), history, movers[app])
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
	planned := spec.Verb == plan.Switchover || spec.Verb == plan.Failback
	for _, app := range spec.Applications {
		if shared, is := lease.Namesake(histories[app]); is {
			s.namesake(facts, app, shared.Claim.Site, planned)
		}
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
		case planned:
			facts.Problems = append(facts.Problems, fmt.Sprintf(
				"%s: the vault took the place of a lost one, and nothing proves that no site which was not moved over to it still writes this: a planned move would stop it and take itself back. Make sure that none does and none will, then `vault promote %s --lost-stopped`; or fail over with --lost %s",
				app, s.o.Recovery.VaultName, nobodys.Claim.Site))
		}
	}
	return nil
}

// namesake notes that a cluster bears the name which stands for the sites of a lost
// vault. No word can be about those then, so a planned move would take itself back.
func (s *Site) namesake(facts *failover.Facts, app, name string, planned bool) {
	if facts.Shared == nil {
		facts.Shared = map[string]string{}
	}
	facts.Shared[app] = name
	if planned {
		facts.Problems = append(facts.Problems, fmt.Sprintf(
			"%s: the vault took the place of a lost one, whose sites that were not moved over are called %s here, and a cluster of that name has held it, too: no proof and no word can be about those sites, and a planned move would stop it and take itself back. Give that cluster another name (davit uninstall there, then install --site); make sure that it and each site which was not moved over have stopped it, then fail over with --lost %s",
			app, name, name))
	}
}

// holders notes who ever held an application, in the vault that this one took the
// place of, too, the target aside.
func holders(facts *failover.Facts, app string, history []lease.Epoch, movers []lease.Mover, to string) {
	for _, e := range history {
		facts.Epochs[app] = failover.Held{Number: e.Number, Site: e.Claim.Site}
	}
	for _, site := range lease.Holders(history, movers) {
		if site != to {
			facts.Holders[app] = append(facts.Holders[app], site)
		}
	}
}
