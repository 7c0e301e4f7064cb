package testkit

import (
	"slices"
	"strconv"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"

	"davit.dev/davit/internal/testkit/clockwork"
	"davit.dev/davit/internal/testkit/errand"
)

type level = failover.Level

// site is a cluster: an agent, a node with its watchdog, and what runs there.
type site struct {
	w     *world
	n     int
	name  string
	clock clockwork.Clock // of the node
	alive bool            // it has power
	gone  bool            // and will not have it again
	// deaf says that the node process and its watchdog are dead or stand still: they speak for nothing, and the lease
	// promises nothing then.
	deaf, wasDeaf bool
	apps          map[string]*workload
	sandboxes     map[string]map[string]bool // what drills made, by run
	things        map[string]*thing          // what steps made, by run and step
	marks         execute.Memory             // durable
	restoring     map[string]*proc           // by sandbox and application
	agent         *agent                     // that leads
	former        []*agent                   // that stand still, or did
}

// agent is one process of a site's agent. There are two, of which one leads.
type agent struct {
	paused bool // it stands still
	dead   bool
	inbox  []func()
	origin execute.Actuator
	procs  procs
}

// workload is an application at a site. What is durable survives a power cut.
type workload struct {
	app     string
	want    bool  // durable: it should run
	epoch   int64 // durable: under which it was started
	seen    int64 // durable: the newest epoch that the site knows
	holder  int   // durable: whose that is
	back    bool  // durable: it was given back to that site
	below   int64 // durable: nothing starts under a lower epoch
	hold    int64 // durable, at the API server: below it no peer is promised to stay passive
	cached  int64 // what of it was read before
	peers   []int // whose promises keep the lease, as the vault said
	exposed bool  // durable: clients reach it
	running bool
	holds   map[string]int64 // durable: runs that quiesced it, and under which epoch
	lease   time.Duration    // until when, by the node's clock
	stuck   time.Duration    // until when the agent cannot stop it
	ending  bool             // the watchdog is stopping it
	data    []int            // durable
	gate    string           // durable: the run that lets clients in
	version int              // durable: of what says so
	spec    int              // durable: the version of its workloads
	mark    string           // durable: the run that is bringing it
	starter failover.Token   // whose order started it
	fills   []*errand.Errand // durable
}

func (s *site) load(app string) *workload { return s.apps[app] }

// allowed tells whether the node lets a workload run.
func (s *site) allowed(a *workload) bool {
	if !s.alive || !a.want || len(a.holds) > 0 || a.epoch < a.below && !s.w.opt.NoFloor {
		return false
	}
	return !s.w.lease || s.clock.Mono(s.w.now) < a.lease
}

// settle starts or keeps a workload where it may run.
func (s *site) settle(a *workload) {
	if a.running || a.ending || !s.allowed(a) {
		return
	}
	a.running = true
	s.w.log("%s: %s runs, epoch %d", s.name, a.app, a.epoch)
	s.w.twoWriters(a.app)
}

// stop ends a workload after a while, then says so.
func (s *site) stop(a *workload, within time.Duration, then func()) {
	s.w.after(s.w.upTo(within), func() {
		if !a.ending && s.w.now < a.stuck {
			if then != nil {
				then() // its processes do not end; the watchdog would end them
			}
			return
		}
		if a.running && (!a.want || len(a.holds) > 0 || a.epoch < a.below || a.ending) {
			a.running = false
			s.w.log("%s: %s stopped", s.name, a.app)
		}
		if then != nil {
			then()
		}
	})
}

// atAgent hands the agent something to do, when it can.
func (s *site) atAgent(do func()) { s.by(s.agent, do) }

// by hands it to one of the agent's processes.
func (s *site) by(g *agent, do func()) {
	switch {
	case !s.alive || g.dead:
	case g.paused:
		g.inbox = append(g.inbox, do)
	default:
		do()
	}
}

// lead lets a process of the agent lead that has just started.
func (s *site) lead() {
	if s.agent != nil {
		s.former = append(s.former, s.agent)
	}
	s.agent = &agent{origin: s.w.origin(s)}
}

// learn takes note of an epoch. Only one that was read counts.
func (s *site) learn(a *workload, c claimOf) {
	n := c.n
	if n > a.seen {
		a.seen, a.holder, a.back = n, c.site, c.back
	}
	if s.w.opt.NoEpochCheck {
		return
	}
	switch {
	case a.holder != s.n && a.below < a.seen:
		a.below = a.seen
		s.w.log("%s: %s is superseded by epoch %d", s.name, a.app, a.seen)
		s.stop(a, 3*time.Second, nil)
	case a.holder == s.n && a.epoch < a.seen && a.want && a.back && a.mark == "": // given back, and it is whole
		a.epoch = a.seen
		s.settle(a)
	}
}

// poll is the agent's look at the vault.
func (s *site) poll() {
	s.atAgent(func() {
		for _, r := range s.w.runs { // what drills that are over left behind
			if r.over {
				delete(s.sandboxes, r.spec.Run)
			}
		}
		for _, app := range s.w.apps {
			a := s.load(app)
			s.w.ask(s.n, func() any { return s.w.vault.claim(app) }, func(x any, ok bool) {
				if c, is := x.(claimOf); ok && is {
					s.atAgent(func() { s.learn(a, c) })
				}
			})
		}
	})
}

type claimOf struct {
	n     int64
	site  int
	back  bool // it was given back
	peers []int
}

// renew is the watchdog's: the lease counts from before it asked. Where the
// vault is silent, all peers together can stand in for it.
func (s *site) renew() {
	if !s.alive || !s.w.lease || s.deaf {
		return
	}
	for _, app := range s.w.apps {
		a := s.load(app)
		asked := s.clock.Mono(s.w.now)
		s.w.ask(s.n, func() any { return s.w.vault.claim(app) }, func(x any, ok bool) {
			if c, is := x.(claimOf); ok && is {
				s.renewed(a, c, asked)
				return
			}
			if s.w.promising {
				s.promises(a)
			}
		})
	}
	s.watch()
}

func (s *site) renewed(a *workload, c claimOf, asked time.Duration) {
	if !s.alive || s.deaf {
		return
	}
	if c.site == s.n && c.n >= a.seen {
		a.lease, a.peers = max(a.lease, asked+leaseTime), c.peers
		s.settle(a)
	}
	if c.n > a.seen || c.site != s.n {
		s.learn(a, c)
	}
}

// watch stops what has no lease any more, within the bound.
func (s *site) watch() {
	for _, app := range s.w.apps {
		a := s.load(app)
		if !a.running || a.ending || a.lease == 0 {
			continue
		}
		s.w.at(s.clock.After(a.lease), func() {
			if !s.alive || s.deaf || !a.running || a.ending || s.clock.Mono(s.w.now) < a.lease {
				return
			}
			s.w.odd["lease ran out"]++
			a.ending = true
			s.stop(a, boundTime*99/100, func() {
				a.ending = false
				s.settle(a)
			})
		})
	}
}

// capture makes a recovery point of what runs here.
func (s *site) capture() {
	s.atAgent(func() {
		for _, app := range s.w.apps {
			if a := s.load(app); a.running && a.mark == "" {
				s.w.ask(s.n, s.point(app), func(any, bool) {})
			}
		}
	})
}

// point makes a recovery point of what there is now, once the vault is asked to take it.
func (s *site) point(app string) func() any {
	p := dataPoint{slices.Clone(s.load(app).data), s.w.now}
	return func() any {
		if _, holder := s.w.vault.newest(app); holder != s.n {
			return nil
		}
		s.w.vault.points[app] = append(s.w.vault.points[app], p)
		return failover.Point{ID: strconv.Itoa(len(s.w.vault.points[app]) - 1), Instant: start.Add(p.at)}
	}
}

// crash takes the power, perhaps for good.
func (s *site) crash(forGood bool) {
	if !s.alive {
		return
	}
	s.w.log("%s: power is gone", s.name)
	s.alive, s.gone = false, forGood
	for _, a := range s.apps {
		a.running, a.ending, a.lease = false, false, 0
	}
	s.kill()
	s.lead()
	s.former = nil
	for _, r := range s.w.runs {
		for _, e := range r.executors {
			if e.place == s.n && e.alive {
				e.die()
			}
		}
	}
	if !forGood {
		s.w.after(5*time.Second+s.w.upTo(60*time.Second), s.revive)
	}
}

func (s *site) revive() {
	if s.alive || s.gone {
		return
	}
	s.w.log("%s: power is back", s.name)
	s.alive = true
	for _, app := range s.w.apps {
		s.settle(s.load(app))
	}
}

// pause lets all of the agent stand still.
func (s *site) pause(d time.Duration) {
	s.w.log("%s: the agent stands still for %s", s.name, d)
	s.still(s.agent, d)
}

// stand lets the process stand still that leads. Another leads once the lease of the first is
// over, and that one ends soon after it goes on.
func (s *site) stand(d time.Duration) (wake func()) {
	g := s.agent
	s.w.log("%s: the agent that leads stands still for %s", s.name, d)
	wake = s.still(g, d)
	s.w.after(leaseTime+s.w.upTo(3*time.Second), func() {
		if s.alive && g.paused && s.agent == g {
			s.w.odd["another agent leads"]++
			s.w.log("%s: another agent leads", s.name)
			s.lead()
		}
	})
	return wake
}

func (s *site) still(g *agent, d time.Duration) (wake func()) {
	g.paused = true
	wake = func() {
		if !g.paused {
			return
		}
		g.paused = false
		if s.agent != g {
			s.w.after(s.w.upTo(time.Second), func() { g.procs.end(func(*proc) bool { return true }) })
		}
		all := g.inbox
		g.inbox = nil
		for _, do := range all {
			s.by(g, do)
		}
	}
	s.w.after(d, wake)
	return wake
}

// agentDies ends the process that leads, while the node goes on by itself. Another leads later.
func (s *site) agentDies() {
	g := s.agent
	if !s.alive || g.dead {
		return
	}
	s.w.odd["agent died"]++
	s.w.log("%s: the agent dies", s.name)
	g.dead = true
	g.procs.kill()
	s.w.after(leaseTime+s.w.upTo(time.Minute), func() {
		if s.alive && s.agent == g {
			s.lead()
		}
	})
}

// kill ends all that the agent does.
func (s *site) kill() {
	for _, g := range append(s.former, s.agent) {
		g.dead = true
		g.procs.kill()
	}
}

// letter is an order on its way to a site's agent, through the vault: it stays there until
// it is answered or its time is up.
type letter struct {
	o     execute.Order
	limit time.Duration
	taken *agent // by which it is being carried out
	read  bool   // the answer was
	done  func(execute.Answer)
}

const mailEvery = 3 * time.Second

// post puts an order into the vault for another site, and waits for its answer.
func (w *world) post(from int, o execute.Order, limit time.Duration, done func(execute.Answer)) {
	l := &letter{o: o, limit: w.now + limit, done: done}
	s := w.sites[w.index(o.Site)]
	w.carried(l, func() bool { return l.taken == s.agent }, from, s.n, func() {
		s.atAgent(func() { s.take(l, from) })
	})
	w.at(l.limit, func() {
		if !l.read {
			l.read = true
			done(execute.Unknown("site %s did not answer", o.Site))
		}
	})
}

// carried tries again to bring something through the vault, until it is there.
func (w *world) carried(l *letter, there func() bool, from, to int, do func()) {
	if l.read || w.now >= l.limit {
		return
	}
	v := len(w.sites)
	switch {
	case there():
	case w.vault.stalled || !w.hop(from, v) || !w.hop(v, to):
		w.odd["lost message"]++
	default:
		w.after(w.delay(), do)
		if w.r.IntN(30) == 0 {
			w.odd["doubled message"]++
			w.after(w.delay(), do)
		}
	}
	w.after(mailEvery, func() { w.carried(l, there, from, to, do) })
}

// hop tells whether something gets from one place to another.
func (w *world) hop(from, to int) bool {
	return from == to || w.up[from][to] && w.r.Float64() >= w.loss[from][to]
}

// take carries out an order. If the agent dies over it, it is found again.
func (s *site) take(l *letter, from int) {
	g := s.agent
	if l.taken == g || s.w.now >= l.limit {
		return
	}
	l.taken = g
	g.procs.start(s.w, s.n, l.o, l.limit, func(do func()) { s.by(g, do) }, func(p *proc) {
		defer func() {
			if !p.answered && l.taken == g {
				l.taken = nil
			}
		}()
		p.stand = func(d time.Duration) func() {
			if s.alive && !g.paused && s.agent == g {
				return s.stand(d)
			}
			return nil
		}
		answer := g.origin.Do(p, l.o)
		p.answered = true
		s.w.carried(l, func() bool { return l.read }, s.n, from, func() {
			if !l.read {
				l.read = true
				l.done(answer)
			}
		})
	})
}
