package testkit

import (
	"slices"
	"time"
)

// older is added to a site's number for the cluster that bore its name before: it lives on, hears of no claim, and
// holds nothing.
const older = 10

// peersOf are those whom the claims of a site name: all others, but for one that came into the plan later. What was
// claimed before another cluster took a site's name is of the older one.
func (w *world) peersOf(site int) []int {
	var all []int
	for _, s := range w.sites {
		if w.promising && s.n != site && s.n != w.stranger {
			all = append(all, s.n)
			if s.n == w.renamed && !w.begun {
				all[len(all)-1] += older
			}
		}
	}
	return all
}

// names tells whether the lease under which a site holds what the run wants is over after the run's wait: peers keep
// it whose promises end with the run's hold, or nobody does.
func (s *store) names(site, target int) bool {
	for _, all := range s.epochs {
		for _, c := range slices.Backward(all) {
			if c.site != site {
				continue
			}
			if len(c.peers) > 0 && !slices.Contains(c.peers, target) && (!s.w.opt.NoClusters || !slices.Contains(c.peers, target+older)) {
				return false
			}
			break
		}
	}
	return true
}

// promises asks every peer to stay passive for a lease. They prolong one that is not over, for the epoch alone that the
// vault itself called the newest, and the site's own.
func (s *site) promises(a *workload) {
	ours := func() bool {
		return s.alive && !s.deaf && a.holder == s.n && s.clock.Mono(s.w.now) < a.lease
	}
	if !ours() || len(a.peers) == 0 {
		return
	}
	asked, epoch, peers := s.clock.Mono(s.w.now), a.seen, a.peers
	given := map[int]bool{}
	for _, n := range peers {
		take := func(x any, ok bool) {
			if yes, _ := x.(bool); ok && yes {
				given[n] = true
			}
			if len(given) == len(peers) && ours() && a.seen == epoch {
				s.w.odd["kept by promises"]++
				a.lease = max(a.lease, asked+leaseTime)
				s.settle(a)
			}
		}
		if n >= older {
			s.w.odd["promised by an older cluster"]++
			s.w.after(s.w.upTo(50*time.Millisecond), func() { take(true, true) })
			continue
		}
		peer := s.w.sites[n]
		s.w.call(s.n, n, 4*time.Second, func(reply func(any)) { peer.promise(a.app, epoch, reply) }, take)
	}
}

// promise answers a peer, by what is at the API server when it is read there: after the question came. Real ones go by
// newer epochs that they know of, too. That depends on what runs there: the hold alone has to do.
func (s *site) promise(app string, epoch int64, reply func(any)) {
	if !s.alive || s.deaf {
		return
	}
	s.w.after(s.w.upTo(50*time.Millisecond), func() {
		p := s.load(app)
		held := p.hold
		if s.w.opt.Cached {
			held = p.cached
		}
		if held > epoch {
			s.w.odd["refused to promise"]++
		}
		reply(s.w.opt.NoHold || held <= epoch)
	})
}

// promiseNothing writes the epochs that a run claimed: they only grow.
func (s *site) promiseNothing(epochs map[string]int64) {
	for app, n := range epochs {
		a := s.load(app)
		a.hold = max(a.hold, n)
		s.w.after(s.w.upTo(30*time.Second), func() { a.cached = a.hold })
	}
}
