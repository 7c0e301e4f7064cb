package testkit

import (
	"slices"
	"strconv"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

type level = failover.Level

// site is a cluster: an agent, a node with its watchdog, and what runs there.
type site struct {
	w      *world
	n      int
	name   string
	clock  clock // of the node
	alive  bool  // it has power
	gone   bool  // and will not have it again
	paused bool  // the agent stands still
	inbox  []func()
	// deaf says that the watchdog stood still: the lease promises nothing then.
	deaf, wasDeaf bool
	apps          map[string]*workload
	sandboxes     map[string]map[string]bool // what drills made, by run
	actuators     map[string]*actuator       // by run and step
	swept         map[string]int64           // the order that cleaned a drill's sandbox up
}

// workload is an application at a site. What is durable survives a power cut.
type workload struct {
	app     string
	want    bool  // durable: it should run
	epoch   int64 // durable: under which it was started
	seen    int64 // durable: the newest epoch that the site knows
	holder  int   // durable: whose that is
	below   int64 // durable: nothing starts under a lower epoch
	closed  bool  // durable: no peer is promised to stay passive
	exposed bool  // durable: clients reach it
	running bool
	holds   map[string]int64 // durable: runs that quiesced it, and under which epoch
	lease   time.Duration    // until when, by the node's clock
	stuck   time.Duration    // until when the agent cannot stop it
	ending  bool             // the watchdog is stopping it
	data    []int            // durable
}

// actuator carries out one step of a run, one order at a time.
type actuator struct {
	floor  int64 // orders up to this one are refused
	busy   bool
	done   bool
	undone bool
	point  *failover.Point
	times  int // done since it was last undone
}

func (s *site) load(app string) *workload { return s.apps[app] }

// allowed tells whether the node lets a workload run.
func (s *site) allowed(a *workload) bool {
	if !s.alive || !a.want || len(a.holds) > 0 || a.epoch < a.below {
		return false
	}
	return !s.w.lease || s.clock.mono(s.w.now) < a.lease
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
func (s *site) atAgent(do func()) {
	switch {
	case !s.alive:
	case s.paused:
		s.inbox = append(s.inbox, do)
	default:
		do()
	}
}

// learn takes note of an epoch. Only one that was read counts.
func (s *site) learn(a *workload, n int64, holder int) {
	if n > a.seen {
		a.seen, a.holder = n, holder
	}
	if s.w.opt.NoEpochCheck {
		return
	}
	switch {
	case a.holder != s.n && a.below < a.seen:
		a.below = a.seen
		s.w.log("%s: %s is superseded by epoch %d", s.name, a.app, a.seen)
		s.stop(a, 3*time.Second, nil)
	case a.holder == s.n && a.epoch < a.seen && a.want: // given back
		a.epoch = a.seen
		s.settle(a)
	}
}

// poll is the agent's look at the vault.
func (s *site) poll() {
	s.atAgent(func() {
		for _, app := range s.w.apps {
			a := s.load(app)
			s.w.ask(s.n, func() any { n, h := s.w.vault.newest(app); return claimOf{n, h} }, func(x any, ok bool) {
				if c, is := x.(claimOf); ok && is {
					s.atAgent(func() { s.learn(a, c.n, c.site) })
				}
			})
		}
	})
}

type claimOf struct {
	n    int64
	site int
}

// renew is the watchdog's: the lease counts from before it asked. Where the
// vault is silent, all peers together can stand in for it.
func (s *site) renew() {
	if !s.alive || !s.w.lease || s.deaf {
		return
	}
	for _, app := range s.w.apps {
		a := s.load(app)
		asked := s.clock.mono(s.w.now)
		s.w.ask(s.n, func() any { n, h := s.w.vault.newest(app); return claimOf{n, h} }, func(x any, ok bool) {
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
		a.lease = max(a.lease, asked+leaseTime)
		s.settle(a)
	}
	if c.n > a.seen || c.site != s.n {
		s.learn(a, c.n, c.site)
	}
}

// promises asks every peer to stay passive for a lease.
func (s *site) promises(a *workload) {
	if !s.alive || s.deaf || a.holder != s.n {
		return
	}
	asked := s.clock.mono(s.w.now)
	given := map[int]bool{}
	for _, peer := range s.w.sites {
		if peer == s {
			continue
		}
		s.w.call(s.n, peer.n, 4*time.Second, func(reply func(any)) {
			peer.atAgent(func() {
				p := peer.load(a.app)
				reply(s.w.opt.NoHold || !p.closed && p.seen <= a.seen)
			})
		}, func(x any, ok bool) {
			if yes, _ := x.(bool); ok && yes {
				given[peer.n] = true
			}
			if len(given) == len(s.w.sites)-1 && s.alive && !s.deaf {
				s.w.odd["kept by promises"]++
				a.lease = max(a.lease, asked+leaseTime)
				s.settle(a)
			}
		})
	}
}

// watch stops what has no lease any more, within the bound.
func (s *site) watch() {
	for _, app := range s.w.apps {
		a := s.load(app)
		if !a.running || a.ending || a.lease == 0 {
			continue
		}
		s.w.at(s.clock.after(a.lease), func() {
			if !s.alive || s.deaf || !a.running || a.ending || s.clock.mono(s.w.now) < a.lease {
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
			a := s.load(app)
			if a.running {
				s.publish(app, nil)
			}
		}
	})
}

func (s *site) publish(app string, then func(any, bool)) {
	a := s.load(app)
	p := dataPoint{slices.Clone(a.data), s.w.now}
	s.w.ask(s.n, func() any {
		if _, holder := s.w.vault.newest(app); holder != s.n {
			return nil
		}
		s.w.vault.points[app] = append(s.w.vault.points[app], p)
		return failover.Point{ID: strconv.Itoa(len(s.w.vault.points[app]) - 1), Instant: start.Add(p.at)}
	}, func(x any, ok bool) {
		if then != nil {
			then(x, ok)
		}
	})
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
	for _, act := range s.actuators {
		act.busy = false
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
	s.alive, s.paused, s.inbox = true, false, nil
	for _, app := range s.w.apps {
		s.settle(s.load(app))
	}
}

func (s *site) pause(d time.Duration) {
	s.w.log("%s: the agent stands still for %s", s.name, d)
	s.paused = true
	s.w.after(d, func() {
		s.paused = false
		all := s.inbox
		s.inbox = nil
		for _, do := range all {
			s.atAgent(do)
		}
	})
}

// order is what an executor asks a site for.
type order struct {
	action  failover.Action
	step    *plan.Step
	token   failover.Token
	sandbox string
	point   *failover.Point
	verb    plan.Verb // of the run, for the checks
}

type verdict struct {
	outcome failover.Outcome
	note    string
	proof   *failover.Proof
	asked   bool
	point   *failover.Point
}

// serve carries out an order at the agent.
func (s *site) serve(o order, reply func(any)) {
	s.atAgent(func() {
		key := o.token.Run + "/" + o.step.Name
		act := s.actuators[key]
		if act == nil {
			act = &actuator{}
			s.actuators[key] = act
		}
		if o.step.Kind == plan.KindFence {
			s.fence(o, reply)
			return
		}
		if o.action == failover.Look {
			reply(s.look(o, act))
			return
		}
		if v, refused := s.refuses(o, act); refused {
			reply(v)
			return
		}
		s.carryOut(o, act, reply)
	})
}

// refuses is what a fenced actuator does: it obeys no epoch and no order that
// is older than what it has seen.
func (s *site) refuses(o order, act *actuator) (verdict, bool) {
	if act.busy {
		return verdict{outcome: failover.NoAnswer}, true
	}
	if s.w.opt.NoEpochCheck {
		return verdict{}, false
	}
	// To let go of what a run held can hurt nobody: who holds the epoch may
	// still not start before all have let go.
	free := o.action == failover.Undo && (o.step.Kind == plan.KindQuiesce || o.step.Kind == plan.KindSuspend)
	for app, epoch := range o.token.Epochs {
		a := s.load(app)
		if o.sandbox == "" && !free && (epoch < a.below || epoch < a.seen) {
			return verdict{outcome: failover.Superseded, note: "a newer epoch is known here"}, true
		}
	}
	if o.token.Sequence <= act.floor {
		if act.done == (o.action == failover.Act) && (act.done || act.undone) {
			return verdict{outcome: failover.Done}, true
		}
		s.w.odd["refused an old order"]++
		return verdict{outcome: failover.NoAnswer}, true
	}
	act.floor = o.token.Sequence
	return verdict{}, false
}

// look answers whether a step is done. Where it is not, every order up to now
// is refused from here on: the answer stays true.
func (s *site) look(o order, act *actuator) verdict {
	if s.w.refusals.IntN(200) == 0 {
		s.w.odd["look refused"]++
		return verdict{outcome: failover.Refused, note: "it may not look"}
	}
	switch {
	case act.busy:
		return verdict{outcome: failover.Busy}
	case act.done || s.stands(o):
		return verdict{outcome: failover.Done, point: act.point}
	}
	if !s.w.opt.NoSeal {
		act.floor = max(act.floor, o.token.Sequence)
	}
	return verdict{outcome: failover.NotDone}
}

// stands tells of steps that only look whether they are done.
func (s *site) stands(o order) bool {
	a := s.load(o.step.Application)
	switch o.step.Kind {
	case plan.KindReady, plan.KindProbe:
		return o.sandbox != "" && s.sandboxes[o.sandbox]["scale/"+o.step.Application] || o.sandbox == "" && a != nil && a.running
	case plan.KindHold:
		return !slices.ContainsFunc(s.w.apps, func(app string) bool { return !s.load(app).closed })
	}
	return false
}

// carryOut does a step, which takes its time and may fail.
func (s *site) carryOut(o order, act *actuator, reply func(any)) {
	act.busy = true
	s.w.after(s.w.upTo(2*time.Second), func() {
		if !s.alive {
			return
		}
		act.busy = false
		if o.action == failover.Act && s.w.r.IntN(40) == 0 {
			s.w.odd["step failed"]++
			reply(verdict{outcome: failover.Refused, note: "it cannot be done"})
			return
		}
		for app, epoch := range o.token.Epochs { // guarded to the end
			if a := s.load(app); !s.w.opt.NoEpochCheck && o.sandbox == "" && o.action == failover.Act && epoch < max(a.below, a.seen) {
				reply(verdict{outcome: failover.Superseded})
				return
			}
		}
		if o.sandbox != "" {
			s.inSandbox(o, act, reply)
			return
		}
		s.effect(o, act, reply)
	})
}

// inSandbox is all that a drill may do.
func (s *site) inSandbox(o order, act *actuator, reply func(any)) {
	if o.token.Sequence < s.swept[o.sandbox] {
		s.w.odd["too late for its sandbox"]++
		reply(verdict{outcome: failover.Refused, note: "the drill is cleaned up"})
		return
	}
	act.done = true
	if o.step.Kind == plan.KindCleanup {
		delete(s.sandboxes, o.sandbox)
		s.swept[o.sandbox] = o.token.Sequence
	} else {
		if s.sandboxes[o.sandbox] == nil {
			s.sandboxes[o.sandbox] = map[string]bool{}
		}
		s.sandboxes[o.sandbox][o.step.Name] = true
	}
	reply(verdict{outcome: failover.Done})
}
