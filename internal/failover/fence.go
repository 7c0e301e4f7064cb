package failover

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/plan"
)

// proofs drafts what an answer says of former holders, however late it comes.
// A proof counts only for the epoch that the run claimed, or above.
func (m *Machine) proofs(e Event) {
	s := m.state
	for _, p := range e.Proofs {
		claim := s.Steps[string(plan.KindClaim)+"/"+p.Application]
		if claim == nil || claim.Status != Succeeded || p.Epoch < s.Epochs[p.Application] || !slices.Contains(s.Facts.Holders[p.Application], p.Site) {
			continue
		}
		if s.Facts.Shared[p.Application] == p.Site {
			continue
		}
		if s.Fences[p.Application][p.Site].Level < Proven {
			m.note(Entry{Kind: Fenced, Application: p.Application, Site: p.Site, Level: Proven, Note: p.How, Proof: &p})
		}
	}
	f := m.flightOf(e.ID)
	if f == "" || s.Spec.step(f).Kind != plan.KindFence {
		return
	}
	app := s.Spec.step(f).Application
	for _, site := range e.Asked {
		if slices.Contains(s.Facts.Holders[app], site) && s.Fences[app][site].Level < Asked {
			m.note(Entry{Kind: Fenced, Application: app, Site: site, Level: Asked, Note: "heard it"})
		}
	}
}

func (m *Machine) flightOf(id int64) string {
	for name, f := range m.flights {
		if f.id == id && id != 0 {
			return name
		}
	}
	return ""
}

// leaseOver is when the lease of a former holder is over, by this executor's
// own clock, and whether there is one to wait for. It counts from when this
// executor knew that the claim stands and that the target promises no more:
// what another executor measured cannot be used, as clocks are not compared.
func (m *Machine) leaseOver(app, site string) (time.Duration, bool) {
	s := m.state
	terms, kept := s.Facts.Terms[site]
	claimed, one := m.known[string(plan.KindClaim)+"/"+app]
	held, two := m.known[string(plan.KindHold)]
	if !kept || !one || !two || s.Fences[app][site].Level >= TimedOut {
		return 0, false
	}
	longest := plan.Fence{
		Lease: max(terms.Lease, s.Spec.Fence.Lease), Bound: max(terms.Bound, s.Spec.Fence.Bound), Drift: max(terms.Drift, s.Spec.Fence.Drift),
	}
	wait := longest.Wait()
	return max(claimed, held) + wait, terms.Lease > 0 && wait > 0
}

// leases drafts which leases are over.
func (m *Machine) leases() {
	for _, app := range m.state.Spec.Applications {
		for _, site := range m.state.Facts.Holders[app] {
			if until, counts := m.leaseOver(app, site); counts && m.now.Mono >= until {
				m.note(Entry{Kind: Fenced, Application: app, Site: site, Level: TimedOut, Note: "its lease and its time to stop are over"})
			}
		}
	}
}

// concludes says how the fence of a planned move ends where former holders give no answer.
// The source takes part, and is fenced: what it waits for is another site, which held the
// applications before. Either its lease is over, or a person said that it is lost: that
// is as good as an answer. Or nothing is left to be waited for: then all is taken back, and the
// source serves again.
func (m *Machine) concludes(name string, f *flight) (Status, string) {
	s, step := m.state, m.state.Spec.step(name)
	if step.Kind != plan.KindFence || !s.Spec.planned() || f.doing != Look || f.then == Undo {
		return "", ""
	}
	limit := f.limit
	if s.Steps[name].Meant {
		limit += Grace
	}
	app, site := step.Application, s.unproven(step.Application)
	source := s.Fences[app][s.Spec.From].Level
	switch {
	case s.meets(app):
		return Succeeded, s.spared(app)
	case f.then != "" && m.now.Mono < limit, m.outlasts(name), source < TimedOut, len(site) == 0:
		return "", ""
	}
	return Broke, noted(fmt.Sprintf("site %s held %s before, and nothing proves that it has stopped: bring it back, or give the command again with --lost %[1]s, if you made sure of it", site[0], app), f.said)
}

// spared says of which former holders no answer was needed, and why.
func (s *State) spared(app string) string {
	var all []string
	for _, site := range s.Facts.Holders[app] {
		switch s.Fences[app][site].Level {
		case Proven:
		case TimedOut:
			all = append(all, "the lease of site "+site+" is over")
		default:
			all = append(all, s.Vouched(app, site)+" said that site "+site+" has stopped")
		}
	}
	return strings.Join(all, ", ")
}

// outlasts tells whether the fence of a planned move waits for a lease, which is over by itself.
func (m *Machine) outlasts(name string) bool {
	step := m.state.Spec.step(name)
	if step.Kind != plan.KindFence || !m.state.Spec.planned() {
		return false
	}
	return slices.ContainsFunc(m.state.Facts.Holders[step.Application], func(site string) bool {
		_, counts := m.leaseOver(step.Application, site)
		return counts
	})
}

// hopeless says which former holder nothing will fence any more without a
// person; empty if none.
func (m *Machine) hopeless() string {
	s := m.state
	for _, app := range s.Spec.Applications {
		claim, fence := s.Steps[string(plan.KindClaim)+"/"+app], s.Steps[string(plan.KindFence)+"/"+app]
		if claim == nil || claim.Status != Succeeded || fence == nil || !fence.ended() || s.meets(app) {
			continue
		}
		waiting := false
		var site string
		for _, holder := range s.Facts.Holders[app] {
			_, counts := m.leaseOver(app, holder)
			waiting = waiting || counts
			if !counts && s.Fences[app][holder].Level < TimedOut && s.Vouched(app, holder) == "" && site == "" {
				site = holder
			}
		}
		if site != "" && !waiting {
			return fmt.Sprintf("nothing proves that site %s has stopped %s (fence: %s): make sure that it has and type its name, or roll back", site, app, s.Fences[app][site].Level)
		}
	}
	return ""
}

// WaitsUntil is when, by the executor's clock, the last lease is over that the
// run waits for; zero without one.
func (m *Machine) WaitsUntil() time.Duration {
	var last time.Duration
	for _, app := range m.state.Spec.Applications {
		for _, site := range m.state.Facts.Holders[app] {
			if until, counts := m.leaseOver(app, site); counts {
				last = max(last, until)
			}
		}
	}
	return last
}
