package testkit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"

	"davit.dev/davit/internal/testkit/clockwork"
)

// run is one run of a schedule, and all who carried it.
type run struct {
	spec      failover.Spec
	executors []*executor
	opened    bool
	over      bool
	phase     failover.Phase
	// forced says that a person accepted the loss of writes at the target.
	forced bool
}

// executor is a process that carries a run.
type executor struct {
	w      *world
	name   string
	place  int // a site, or the console
	run    *run
	clock  clockwork.Clock
	m      *failover.Machine
	loop   *execute.Loop
	j      *journal.Journal
	alive  bool
	paused bool
	since  time.Duration // it stands still
	naps   int
	// replaced says that another took over while it stood still.
	replaced bool
	halted   bool
	inbox    []func()
	procs    procs
	here     execute.Actuator // the target, as this process works on it
	lost     bool             // another process holds the run at the target
	tick     time.Duration    // the next one, in true time
	left     int              // effects until it dies; negative: it does not
}

// launch starts an executor that opens the run.
func (w *world) launch(r *run, place int) {
	e := w.newExecutor(r, place)
	m, err := failover.New(e.name, w.opened(r.spec))
	if err != nil {
		w.fail("open run: %v", err)
		return
	}
	e.m, e.loop, e.j = m, execute.NewLoop(m), journal.Create(w.vault, r.spec.Run, e.name)
	e.tell(failover.Event{Kind: failover.Begin})
}

// opened is what a run is opened with.
func (w *world) opened(spec failover.Spec) failover.Spec {
	if w.opt.NoAsk {
		spec.Steps = slices.Clone(spec.Steps)
		for i := range spec.Steps {
			spec.Steps[i].Approvers = nil
		}
	}
	return spec
}

func (w *world) newExecutor(r *run, place int) *executor {
	e := &executor{w: w, name: fmt.Sprintf("%s-e%d", r.spec.Run, len(r.executors)+1), place: place, run: r, clock: w.newClock(), alive: true, left: -1}
	e.here = w.standby(w.sites[w.index(r.spec.To)])
	if w.chance(50) && len(r.executors) < 4 {
		e.left = w.r.IntN(40)
	}
	r.executors = append(r.executors, e)
	return e
}

// takeOver reads the journal somewhere and carries the run on from there.
func (w *world) takeOver(r *run, place int) {
	v := len(w.sites)
	if r.over || !w.up[place][v] || !w.up[v][place] || w.vault.stalled || place < len(w.sites) && !w.sites[place].alive {
		return
	}
	e := w.newExecutor(r, place)
	w.vault.mode = arrives
	j, state, err := journal.Open(context.Background(), w.vault, r.spec.Run, e.name)
	if err != nil {
		r.executors = r.executors[:len(r.executors)-1]
		if len(w.vault.records[r.spec.Run]) > 0 {
			w.fail("take over %s: %v", r.spec.Run, err)
		} else if !r.opened { // nobody could open it: the person asks again
			w.launch(r, place)
		}
		return
	}
	for _, old := range r.executors[:len(r.executors)-1] { // what it does at the target ends with its hold of the run
		if old.paused { // and it learns of that when it goes on, soon. What it does is to bear that
			old.replaced = true
			continue
		}
		old.lost = true
		old.lets()
	}
	w.odd["take-over"]++
	w.log("%s takes over at place %d, %s", e.name, place, state.Shown())
	m := failover.TakeOver(e.name, state)
	e.m, e.loop, e.j = m, execute.NewLoop(m), j
	e.tell(failover.Event{Kind: failover.Begin})
}

// itself runs something in the executor's process, when it can.
func (e *executor) itself(do func()) {
	switch {
	case !e.alive || e.halted:
	case e.paused:
		e.inbox = append(e.inbox, do)
	default:
		do()
	}
}

// tell hands the machine an event, and carries out what follows.
func (e *executor) tell(ev failover.Event) { e.itself(func() { e.told(ev) }) }

func (e *executor) told(ev failover.Event) {
	before := e.m.Phase()
	mono := e.clock.Mono(e.w.now)
	for _, t := range e.loop.Tell(failover.Moment{Mono: mono, Wall: start.Add(e.w.now + e.clock.Wall)}, ev) {
		if e.left == 0 {
			e.die()
			return
		}
		e.left--
		e.do(t)
	}
	if now := e.m.Phase(); now != before {
		e.w.log("%s: %s → %s", e.name, before, now)
	}
	e.run.opened = e.run.opened || len(e.w.vault.records[e.run.spec.Run]) > 0
	e.plan()
}

// plan sees to it that a tick comes when the machine wants one.
func (e *executor) plan() {
	d := e.m.Deadline()
	if d == 0 || e.halted {
		return
	}
	at := max(e.clock.After(d), e.w.now+time.Millisecond)
	if e.tick > e.w.now && e.tick <= at {
		return
	}
	e.tick = at
	e.w.at(at, func() {
		if e.tick == at {
			e.tick = 0
			e.tell(failover.Event{Kind: failover.Tick})
		}
	})
}

func (e *executor) die() {
	e.w.odd["executor died"]++
	e.w.log("%s dies", e.name)
	e.alive = false
	e.procs.kill()
}

// stand lets the executor stand still for so long.
func (e *executor) stand(d time.Duration) (wake func()) {
	e.w.odd["executor paused"]++
	e.w.log("%s stands still", e.name)
	e.paused, e.since = true, e.w.now
	e.naps++
	nap := e.naps
	wake = func() {
		if !e.paused || e.naps != nap {
			return
		}
		e.paused = false
		if e.replaced {
			e.w.after(e.w.upTo(time.Second), func() {
				e.lost = true
				e.lets()
			})
		}
		all := e.inbox
		e.inbox = nil
		for _, do := range all {
			e.itself(do)
		}
	}
	e.w.after(d, wake)
	return wake
}

// commands tells whether an order makes a job.
func commands(o execute.Order) bool {
	return o.Step.Kind == plan.KindCommand || o.Step.Kind == plan.KindInfra
}

// lets ends all that the executor does at the target.
func (e *executor) lets() { e.procs.end(func(*proc) bool { return true }) }

func (e *executor) do(t execute.Task) {
	switch t.Action {
	case failover.Append:
		e.append(t.Entries)
	case failover.Evaluate:
		e.evaluate()
	case failover.Verify:
		e.verify()
	case failover.Age:
		e.age(t.State.Awaiting)
	case look, act, undo:
		e.step(t)
	case failover.Halt:
		e.halted = true
		e.lets()
		e.w.odd["deposed"]++
		e.w.log("%s halts: %s", e.name, t.Why)
		if t.Why != "another executor carries the run" {
			e.w.fail("%s: %s", e.name, t.Why)
		}
	case failover.Refuse:
		e.w.log("%s refuses: %s", e.name, t.Why)
	}
}

func (e *executor) append(entries []failover.Entry) {
	try := func(mode fate) error {
		e.w.vault.mode = mode
		put := entries
		if e.w.opt.LostEntry && len(put) > 1 {
			put = put[:len(put)-1]
		}
		err := e.j.Append(context.Background(), put)
		e.w.vault.mode = arrives
		return err
	}
	answer := func(err error) {
		switch {
		case err == nil:
			e.tooSoon(entries)
			e.ownClaim(entries)
			e.tell(failover.Event{Kind: failover.Recorded})
		case errors.Is(err, journal.ErrDeposed):
			e.tell(failover.Event{Kind: failover.Deposed})
		default:
			e.tell(failover.Event{Kind: failover.Unrecorded})
		}
	}
	e.w.after(e.w.upTo(50*time.Millisecond), func() {
		if !e.alive {
			return // it died with the put not yet sent; those that were sent arrive
		}
		err := try(e.w.putFate(e.place))
		wait := e.w.upTo(50 * time.Millisecond)
		if err != nil && !errors.Is(err, journal.ErrDeposed) {
			wait = 3 * time.Second
		}
		for _, entry := range entries {
			if err == nil {
				e.w.log("%s: journal: %s %s%s %s %s", e.name, entry.Kind, entry.Step, entry.Site, entry.Status, entry.Note)
			}
		}
		e.w.after(wait, func() { answer(err) })
	})
}

// evaluate asks the vault; what it says is all that a run needs.
func (e *executor) evaluate() {
	to := e.w.index(e.run.spec.To)
	e.w.ask(e.place, func() any {
		f := &failover.Facts{Epochs: map[string]failover.Held{}, Holders: map[string][]string{}, Terms: map[string]plan.Fence{}}
		for _, app := range e.w.apps {
			n, holder := e.w.vault.newest(app)
			f.Epochs[app] = failover.Held{Number: n, Site: e.w.sites[holder].name}
			for _, c := range e.w.vault.epochs[app] {
				if name := e.w.sites[c.site].name; c.site != to && !slices.Contains(f.Holders[app], name) {
					f.Holders[app] = append(f.Holders[app], name)
				}
			}
			slices.Sort(f.Holders[app])
		}
		for _, s := range e.w.sites {
			if e.w.lease && (e.w.opt.NoNames || e.w.vault.names(s.n, to)) {
				f.Terms[s.name] = e.w.terms()
			}
		}
		return f
	}, func(x any, ok bool) {
		f, is := x.(*failover.Facts)
		if ok && is {
			e.tell(failover.Event{Kind: failover.Gathered, Facts: f})
			return
		}
		e.w.after(time.Second, func() { e.tell(failover.Event{Kind: failover.Gathered}) })
	})
}

func (w *world) index(name string) int {
	return slices.IndexFunc(w.sites, func(s *site) bool { return s.name == name })
}

// verify looks at the target, and at all others as far as they answer.
func (e *executor) verify() {
	left := len(e.w.sites)
	ev := failover.Event{Kind: failover.Surveyed, Outcome: failover.NoAnswer}
	for _, s := range e.w.sites {
		e.w.call(e.place, s.n, 4*time.Second, func(reply func(any)) {
			s.atAgent(func() {
				running := map[string]bool{}
				for _, app := range e.w.apps {
					running[app] = s.load(app).running
				}
				reply(running)
			})
		}, func(x any, ok bool) {
			left--
			running, _ := x.(map[string]bool)
			for _, app := range e.w.apps {
				switch {
				case !ok:
				case s.name != e.run.spec.To && running[app]:
					ev.Split = fmt.Sprintf("%s runs at %s too", app, s.name)
				case s.name == e.run.spec.To && !running[app]:
					ev.Outcome, ev.Note = failover.NotDone, app+" does not run"
				case s.name == e.run.spec.To && ev.Outcome == failover.NoAnswer:
					ev.Outcome = failover.Done
				}
			}
			if left == 0 {
				e.tell(ev)
			}
		})
	}
}

// step gives every order of a step, and sums up.
func (e *executor) step(t execute.Task) {
	e.relies(t)
	if t.Action == look && e.w.opt.NoLook {
		e.w.after(time.Millisecond, func() { e.tell(t.Sum([]execute.Answer{execute.NotDone("")})) })
		return
	}
	if t.Action == undo {
		e.procs.end(func(p *proc) bool { return p.o.Action == act && p.o.Step.Name == t.Step })
	}
	left, answers := len(t.Orders), make([]execute.Answer, len(t.Orders))
	if left == 0 {
		e.w.after(time.Millisecond, func() { e.tell(t.Sum(nil)) })
	}
	for i, o := range t.Orders {
		answered := func(a execute.Answer) {
			e.itself(func() {
				answers[i] = e.heard(o, a)
				if left--; left == 0 {
					e.told(t.Sum(answers))
				}
			})
		}
		if e.w.opt.NoSandbox {
			o.Sandbox = ""
		}
		if o.Site != o.To {
			e.w.post(e.place, o, t.Limit, answered)
			continue
		}
		e.procs.start(e.w, e.place, o, e.w.now+t.Limit, e.itself, func(p *proc) {
			p.ended = e.lost
			p.asleep = func() bool { return e.paused && e.w.now-e.since >= leaseTime }
			p.stand = func(d time.Duration) func() {
				if e.alive && !e.paused {
					return e.stand(d)
				}
				return nil
			}
			p.pause(time.Microsecond)
			a := e.here.Do(p, o)
			e.w.after(0, func() { answered(a) })
		})
	}
}

// heard is what the machine hears of an answer.
func (e *executor) heard(o execute.Order, a execute.Answer) execute.Answer {
	if strings.Contains(a.Note, " is old: ") {
		e.w.odd["refused an old order"]++
	}
	if a.Outcome == failover.Superseded && o.Step.Early {
		e.w.odd["early order superseded"]++
	}
	if e.w.opt.OldNews && a.Outcome == failover.Superseded && o.Step.Kind != plan.KindClaim {
		a.Outcome, a.Note = failover.Refused, "superseded: "+a.Note
		if o.Action == undo {
			a.Outcome = failover.Done
		}
	}
	return a
}

// relies checks what a drill orders, and notes what a run relies on that activates.
func (e *executor) relies(t execute.Task) {
	for _, o := range t.Orders {
		if o.Action == act {
			e.allowed(o.Step)
		}
		if o.Verb == plan.Drill && (o.Sandbox != o.Run || o.Step.Side != plan.Target || o.Step.Kind == plan.KindClaim) {
			e.w.fail("%s wants to %s %s outside of its sandbox", e.name, o.Action, o.Step.Name)
		}
		if o.Action == act && o.Step.Kind == plan.KindScale && o.Sandbox == "" {
			e.activates(o)
		}
	}
}

// allowed checks that people said yes to all that comes before a step and asks them.
func (e *executor) allowed(step plan.Step) {
	if !e.w.asks {
		return
	}
	for _, name := range step.After {
		i := slices.IndexFunc(e.run.spec.Steps, func(s plan.Step) bool { return s.Name == name })
		if i < 0 {
			continue
		}
		before, need := e.run.spec.Steps[i], 1
		if before.Approvers != nil {
			need = before.Approvers.Count
		}
		if n := len(e.w.said[e.run.spec.Run+"/"+name]); before.Asks() && n < need {
			e.w.fail("%s begins %s, and %d of %d said yes to %s", e.name, step.Name, n, need, name)
		}
		e.allowed(before)
	}
}

// activates notes what the run relies on, for the check of writers.
func (e *executor) activates(o execute.Order) {
	s := e.m.State()
	for app, n := range o.Token.Epochs {
		if e.w.levels[app] == nil {
			e.w.levels[app] = map[int64]level{}
		}
		if old, had := e.w.levels[app][n]; !had || s.Level(app) > old {
			e.w.levels[app][n] = s.Level(app)
		}
		e.w.odd["activated: "+s.Level(app).String()]++
		e.w.log("%s activates %s, epoch %d: %s", e.name, app, n, s.Level(app))
	}
}

// age asks the vault since when the run waits for its commit.
func (e *executor) age(record int64) {
	e.w.ask(e.place, func() any {
		age, err := e.j.Age(context.Background(), record)
		if err != nil {
			e.w.fail("%v", err)
		}
		return age
	}, func(x any, ok bool) {
		ev := failover.Event{Kind: failover.Aged, Outcome: failover.NoAnswer}
		if age, is := x.(time.Duration); ok && is {
			ev.Outcome, ev.Age = failover.Done, age
			e.w.odd["asked since when it waits"]++
		}
		e.tell(ev)
	})
}

// tooSoon checks that nobody's time to commit was cut short.
func (e *executor) tooSoon(entries []failover.Entry) {
	for _, entry := range entries {
		if entry.By != "" || entry.Kind != failover.Committed || e.w.opt.WildClocks {
			continue
		}
		waited := e.w.now - e.w.vault.putAt[e.run.spec.Run][e.m.Peek().Awaiting-1]
		if window := e.run.spec.Commit.Window; waited < window-window*2*drift/1_000_000 {
			e.w.fail("%s ends %s after %s, its window is %s", e.name, e.run.spec.Run, waited, window)
		}
	}
}

// ownClaim checks that no step ends as superseded where nobody but its own run has claimed.
func (e *executor) ownClaim(entries []failover.Entry) {
	for _, entry := range entries {
		if entry.Kind != failover.Ended || entry.Status != failover.Broke || !strings.HasPrefix(entry.Note, "superseded") {
			continue
		}
		if s := e.m.Peek(); !e.w.othersClaimed(s) {
			e.w.fail("%s of %s is superseded by the run's own claim: %s", entry.Step, s.Spec.Run, entry.Note)
		}
	}
}

// othersClaimed tells whether somebody else claimed what a run is about since it looked.
func (w *world) othersClaimed(s *failover.State) bool {
	for _, app := range w.apps {
		for i, c := range w.vault.epochs[app] {
			if int64(i) >= s.Facts.Epochs[app].Number && c.request != s.Spec.Run && c.request != s.Spec.Run+"/back" {
				return true
			}
		}
	}
	return false
}
