package testkit

import (
	"slices"
	"strconv"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

// effect changes a site as a step says, or takes it back.
func (s *site) effect(o order, act *actuator, reply func(any)) {
	s.w.log("%s: %s %s, order %d", s.name, o.action, o.step.Name, o.token.Sequence)
	if o.verb == plan.Drill {
		s.w.fail("%s of drill %s touches what is live at %s", o.step.Name, o.token.Run, s.name)
	}
	a := s.load(o.step.Application)
	done := func(v verdict) {
		act.done, act.undone = o.action == failover.Act, o.action == failover.Undo
		act.times++
		if act.undone {
			act.times = 0
		}
		if act.times > 1 && o.step.Kind == plan.KindCommand {
			s.w.fail("%s was run %d times at %s without a look in between", o.step.Name, act.times, s.name)
		}
		reply(v)
	}
	if o.action == failover.Undo {
		s.takeBack(o, a, act, done)
		return
	}
	switch o.step.Kind {
	case plan.KindRestore:
		s.restore(o, a, act, done)
	case plan.KindScale:
		a.want, a.epoch = true, max(a.epoch, o.token.Epochs[a.app])
		for run, epoch := range a.holds { // its own, and what an older epoch held
			if run == o.token.Run || epoch < a.epoch {
				delete(a.holds, run)
			}
		}
		s.settle(a)
		done(verdict{outcome: failover.Done})
	case plan.KindReady, plan.KindProbe:
		if a == nil || a.running {
			done(verdict{outcome: failover.Done})
			return
		}
		reply(verdict{outcome: failover.NoAnswer}) // not yet
	case plan.KindGate:
		for app := range o.token.Epochs {
			s.load(app).exposed = true
		}
		done(verdict{outcome: failover.Done})
	case plan.KindQuiesce, plan.KindSuspend:
		if s.w.opt.NoQuiesce {
			done(verdict{outcome: failover.Done})
			return
		}
		a.holds[o.token.Run] = o.token.Epochs[a.app]
		s.rest(a, act, done)
	case plan.KindSync:
		act.busy = true
		s.publish(a.app, func(x any, ok bool) {
			act.busy = false
			p, is := x.(failover.Point)
			if !ok || !is {
				reply(verdict{outcome: failover.NoAnswer})
				return
			}
			act.point = &p
			done(verdict{outcome: failover.Done, point: &p})
		})
	case plan.KindHold:
		for _, app := range s.w.apps {
			s.load(app).closed = true
		}
		done(verdict{outcome: failover.Done})
	default:
		done(verdict{outcome: failover.Done})
	}
}

func (s *site) rest(a *workload, act *actuator, done func(verdict)) {
	act.busy = true
	s.stop(a, 3*time.Second, func() {
		act.busy = false
		if s.alive && !a.running {
			done(verdict{outcome: failover.Done})
		}
	})
}

// restore fills the volumes from the point that the run names, or the newest
// that the claim accepted.
func (s *site) restore(o order, a *workload, act *actuator, done func(verdict)) {
	if a.running {
		s.w.fail("%s: the data of %s is replaced while it runs", s.name, a.app)
	}
	n := o.token.Epochs[a.app]
	points := s.w.vault.points[a.app]
	if claims := s.w.vault.epochs[a.app]; n >= 1 && int64(len(claims)) >= n {
		points = points[:claims[n-1].accepted]
	}
	if len(points) == 0 {
		done(verdict{outcome: failover.Done})
		return
	}
	best := 0
	for i, p := range points {
		if p.at > points[best].at {
			best = i
		}
	}
	if o.point != nil {
		best, _ = strconv.Atoi(o.point.ID)
	}
	a.data = slices.Clone(points[best].ids)
	act.point = &failover.Point{ID: strconv.Itoa(best), Instant: start.Add(points[best].at)}
	done(verdict{outcome: failover.Done, point: act.point})
}

func (s *site) takeBack(o order, a *workload, act *actuator, done func(verdict)) {
	switch o.step.Kind {
	case plan.KindScale:
		a.want = false
		s.rest(a, act, done)
		return
	case plan.KindQuiesce, plan.KindSuspend:
		delete(a.holds, o.token.Run)
		s.settle(a)
	case plan.KindGate:
		for app := range o.token.Epochs {
			s.load(app).exposed = false
		}
	case plan.KindHold:
		for _, app := range s.w.apps {
			s.load(app).closed = false
		}
	}
	done(verdict{outcome: failover.Done})
}

// fence stops what is older than an epoch, for good, and proves it.
func (s *site) fence(o order, reply func(any)) {
	a, epoch := s.load(o.step.Application), o.token.Epochs[o.step.Application]
	proven := func() {
		if s.alive && !a.running && a.below >= epoch {
			reply(verdict{outcome: failover.Done, proof: &failover.Proof{Application: a.app, Site: s.name, Epoch: a.below, How: "stopped"}})
			return
		}
		reply(verdict{outcome: failover.NotDone, asked: a.below >= epoch})
	}
	if o.action == failover.Look {
		proven()
		return
	}
	if s.w.opt.NoFence { // it says so without doing so
		reply(verdict{outcome: failover.Done, proof: &failover.Proof{Application: a.app, Site: s.name, Epoch: epoch, How: "stopped"}})
		return
	}
	if epoch > a.seen {
		a.seen, a.holder = epoch, -1
	}
	a.below = max(a.below, epoch)
	s.stop(a, 3*time.Second, proven)
}
