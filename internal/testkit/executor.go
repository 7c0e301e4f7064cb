package testkit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
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
	clock  clock
	m      *failover.Machine
	j      *journal.Journal
	alive  bool
	paused bool
	halted bool
	inbox  []failover.Event
	tick   time.Duration // the next one, in true time
	left   int           // effects until it dies; negative: it does not
}

// launch starts an executor that opens the run.
func (w *world) launch(r *run, place int) {
	e := w.newExecutor(r, place)
	m, err := failover.New(e.name, r.spec)
	if err != nil {
		w.fail("open run: %v", err)
		return
	}
	e.m, e.j = m, journal.Create(w.vault, r.spec.Run, e.name)
	e.tell(failover.Event{Kind: failover.Begin})
}

func (w *world) newExecutor(r *run, place int) *executor {
	e := &executor{w: w, name: fmt.Sprintf("%s-e%d", r.spec.Run, len(r.executors)+1), place: place, run: r, clock: w.newClock(), alive: true, left: -1}
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
	w.odd["take-over"]++
	w.log("%s takes over at place %d, %s", e.name, place, state.Shown())
	e.m, e.j = failover.TakeOver(e.name, state), j
	e.tell(failover.Event{Kind: failover.Begin})
}

// tell hands the machine an event, and carries out what follows.
func (e *executor) tell(ev failover.Event) {
	switch {
	case !e.alive || e.halted:
		return
	case e.paused:
		e.inbox = append(e.inbox, ev)
		return
	}
	before := e.m.Phase()
	mono := e.clock.mono(e.w.now)
	for _, effect := range e.m.Step(failover.Moment{Mono: mono, Wall: start.Add(e.w.now + e.clock.wall)}, ev) {
		if e.left == 0 {
			e.die()
			return
		}
		e.left--
		e.do(effect)
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
	at := max(e.clock.after(d), e.w.now+time.Millisecond)
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
}

func (e *executor) do(f failover.Effect) {
	switch f.Action {
	case failover.Append:
		e.append(f.Entries)
	case failover.Evaluate:
		e.evaluate(f.ID)
	case failover.Verify:
		e.verify(f.ID)
	case failover.Age:
		e.age(f.ID)
	case failover.Look, failover.Act, failover.Undo:
		e.step(f)
	case failover.Halt:
		e.halted = true
		e.w.odd["deposed"]++
		e.w.log("%s halts: %s", e.name, f.Why)
		if f.Why != "another executor carries the run" {
			e.w.fail("%s: %s", e.name, f.Why)
		}
	case failover.Refuse:
		e.w.log("%s refuses: %s", e.name, f.Why)
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
func (e *executor) evaluate(id int64) {
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
			if e.w.lease {
				f.Terms[s.name] = e.w.terms()
			}
		}
		return f
	}, func(x any, ok bool) {
		if f, is := x.(*failover.Facts); ok && is {
			e.tell(failover.Event{Kind: failover.Gathered, ID: id, Facts: f})
		}
	})
}

func (w *world) index(name string) int {
	return slices.IndexFunc(w.sites, func(s *site) bool { return s.name == name })
}

// verify looks at the target, and at all others as far as they answer.
func (e *executor) verify(id int64) {
	left := len(e.w.sites)
	ev := failover.Event{Kind: failover.Surveyed, ID: id, Outcome: failover.NoAnswer}
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

// step carries out what concerns a step, at the vault or at sites.
func (e *executor) step(f failover.Effect) {
	if e.run.spec.Verb == plan.Drill && (f.Sandbox != e.run.spec.Run || f.Step.Side != plan.Target || f.Step.Kind == plan.KindClaim) {
		e.w.fail("%s wants to %s %s outside of its sandbox", e.name, f.Action, f.Step.Name)
	}
	if f.Step.Kind == plan.KindClaim {
		e.claim(f)
		return
	}
	if f.Action == failover.Look && e.w.opt.NoLook {
		e.w.after(time.Millisecond, func() {
			e.tell(failover.Event{Kind: failover.Looked, ID: f.ID, Outcome: failover.NotDone})
		})
		return
	}
	if f.Action == failover.Act && f.Step.Kind == plan.KindScale && f.Sandbox == "" {
		e.activates(f)
	}
	kind := failover.Acted
	limit := 20 * time.Second
	if f.Action == failover.Look {
		kind, limit = failover.Looked, 4*time.Second
	}
	left := len(f.Sites)
	sum := failover.Event{Kind: kind, ID: f.ID, Outcome: failover.Done}
	if left == 0 {
		e.w.after(time.Millisecond, func() { e.tell(sum) })
		return
	}
	answers := 0
	for _, name := range f.Sites {
		s := e.w.sites[e.w.index(name)]
		e.w.call(e.place, s.n, limit, func(reply func(any)) {
			o := order{f.Action, f.Step, f.Token, f.Sandbox, f.Point, e.run.spec.Verb}
			if e.w.opt.NoSandbox {
				o.sandbox = ""
			}
			s.serve(o, reply)
		}, func(x any, ok bool) {
			left--
			v, is := x.(verdict)
			if ok && is {
				answers++
				merge(&sum, v, name)
			} else if sum.Outcome == failover.Done {
				sum.Outcome = failover.NoAnswer
			}
			if left > 0 {
				return
			}
			if kind == failover.Acted && f.Step.Kind == plan.KindFence && sum.Outcome == failover.NotDone {
				sum.Outcome = failover.NoAnswer
			}
			if answers == 0 {
				sum.Outcome = failover.NoAnswer
			}
			e.tell(sum)
		})
	}
}

// merge adds one site's answer to that of all.
func merge(sum *failover.Event, v verdict, site string) {
	if v.outcome != failover.Done {
		sum.Outcome = v.outcome
	}
	sum.Note = v.note
	if v.proof != nil {
		sum.Proofs = append(sum.Proofs, *v.proof)
	}
	if v.asked {
		sum.Asked = append(sum.Asked, site)
	}
	if v.point != nil {
		sum.Point = v.point
	}
}

// activates notes what the run relies on, for the check of writers.
func (e *executor) activates(f failover.Effect) {
	s := e.m.State()
	for app, n := range f.Token.Epochs {
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

// claim asks the vault for an epoch, or gives it back.
func (e *executor) claim(f failover.Effect) {
	app := f.Step.Application
	n, to, from := f.Token.Epochs[app], e.w.index(e.run.spec.To), e.w.index(e.run.spec.From)
	mine, back := e.run.spec.Run, e.run.spec.Run+"/back"
	ev := failover.Event{Kind: failover.Acted, ID: f.ID, Outcome: failover.NoAnswer}
	if f.Action == failover.Look {
		ev.Kind = failover.Looked
	}
	e.w.ask(e.place, func() any {
		switch f.Action {
		case failover.Look:
			all := e.w.vault.epochs[app]
			switch {
			case int64(len(all)) < n:
				return failover.Event{Outcome: failover.NotDone}
			case int64(len(all)) == n && all[n-1].request == mine:
				return failover.Event{Outcome: failover.Done, Epoch: n}
			}
			return failover.Event{Outcome: failover.Superseded, Note: all[len(all)-1].request}
		case failover.Undo:
			return e.giveBack(app, mine, back, from)
		}
		if c := e.w.vault.put(app, n, to, mine); c.request == mine {
			return failover.Event{Outcome: failover.Done, Epoch: n}
		}
		return failover.Event{Outcome: failover.Superseded, Note: "another run claimed it"}
	}, func(x any, ok bool) {
		if got, is := x.(failover.Event); ok && is {
			ev.Outcome, ev.Epoch, ev.Note = got.Outcome, got.Epoch, got.Note
		}
		e.tell(ev)
	})
}

// giveBack makes a claim of the run void by writing the next number for the
// source, whether or not the claim has arrived.
func (e *executor) giveBack(app, mine, back string, from int) failover.Event {
	all := e.w.vault.epochs[app]
	n := int64(len(all))
	last := all[n-1]
	switch {
	case last.request == back:
		return failover.Event{Outcome: failover.Done, Epoch: n}
	case last.request != mine && last.site != from:
		return failover.Event{Outcome: failover.Superseded, Epoch: n}
	}
	e.w.vault.put(app, n+1, from, back)
	return failover.Event{Outcome: failover.Done, Epoch: n + 1}
}

// age asks the vault since when the run waits for its commit.
func (e *executor) age(id int64) {
	record := e.m.Peek().Awaiting
	e.w.ask(e.place, func() any {
		age, err := e.j.Age(context.Background(), record)
		if err != nil {
			e.w.fail("%v", err)
		}
		return age
	}, func(x any, ok bool) {
		ev := failover.Event{Kind: failover.Aged, ID: id, Outcome: failover.NoAnswer}
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
