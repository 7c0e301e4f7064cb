package testkit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/settlement"
)

// Report is how a schedule went.
type Report struct {
	Seed  uint64
	Err   error // the invariant that broke
	Trace []string
	Runs  map[string]failover.Phase // how its runs ended
	Odd   map[string]int            // what happened
	// Unfinished says of every run that was not over why it waits.
	Unfinished []string
}

// Simulate plays the schedule of a seed.
func Simulate(seed uint64, opt Options) Report {
	w := newWorld(seed, opt)
	w.play()
	rep := Report{Seed: seed, Runs: map[string]failover.Phase{}, Odd: w.odd}
	for _, r := range w.runs {
		w.checkRun(r, &rep)
	}
	w.nothingLost()
	rep.Err, rep.Trace = w.err, w.trace
	return rep
}

// writes are the kinds of steps whose processes may stand still before a write.
var writes = []plan.Kind{
	plan.KindClaim, plan.KindQuiesce, plan.KindRestore, plan.KindScale, plan.KindScale, plan.KindApply, plan.KindGate, plan.KindDNS, plan.KindCatchUp, plan.KindSuspend, plan.KindCommand, plan.KindClone, plan.KindHTTP,
}

// life is what goes on without any run.
func (w *world) life() {
	for _, s := range w.sites {
		for _, app := range w.apps {
			s.settle(s.load(app))
		}
		w.every(5*time.Second, s.poll)
		w.every(10*time.Second, s.capture)
		if w.lease {
			s.renew()
			w.every(leaseTime/3, s.renew)
		}
		w.every(2*time.Second, func() { w.clients(s) })
	}
	w.every(20*time.Second, w.people)
	w.every(12*time.Second, w.survivors)
}

// clients write wherever they are let.
func (w *world) clients(s *site) {
	for _, app := range w.apps {
		if a := s.load(app); a.running && a.exposed {
			w.writes++
			a.data = append(a.data, w.writes)
			w.acked = append(w.acked, write{w.writes, app, s.n, a.epoch, w.now})
		}
	}
}

// misfortunes are some of what can go wrong, at moments of their own.
func (w *world) misfortunes() {
	if w.chance(30) {
		w.lose(w.r.Float64() * 0.2)
	}
	for range w.r.IntN(5) {
		w.after(w.upTo(trouble*2/3), w.misfortune)
	}
	w.after(trouble, func() {
		w.log("all heals")
		w.lose(0)
		w.vault.stalled = false
		for _, row := range w.up {
			for i := range row {
				row[i] = true
			}
		}
		for _, s := range w.sites {
			s.revive()
		}
	})
}

// disaster befalls the site that runs the applications.
func (w *world) disaster() {
	s, v := w.sites[0], len(w.sites)
	switch w.r.IntN(4) {
	case 0:
		w.odd["site crashed"]++
		s.crash(w.chance(60))
	case 1: // it lives, and nobody hears of it
		for other := range w.up {
			w.cut(s.n, other, false)
		}
	case 2: // only its nodes go on, and its peers answer them
		w.odd["only nodes and peers are left"]++
		w.cut(s.n, v, false)
		s.pause(30*time.Second + w.upTo(time.Minute))
	case 3:
		w.odd["cannot be stopped"]++
		w.cut(s.n, v, false)
		for _, app := range w.apps {
			s.load(app).stuck = w.now + 30*time.Second + w.upTo(2*time.Minute)
		}
	}
}

func (w *world) misfortune() {
	s := w.sites[w.r.IntN(len(w.sites))]
	switch w.r.IntN(12) {
	case 0, 1, 2:
		w.cut(w.r.IntN(len(w.up)), w.r.IntN(len(w.up)), w.chance(40))
	case 3: // a site sees nobody
		for other := range w.up {
			w.cut(s.n, other, false)
		}
	case 4:
		w.log("the vault stands still")
		w.odd["vault stalled"]++
		w.vault.stalled = true
		w.after(w.upTo(time.Minute), func() { w.vault.stalled = false })
	case 5:
		w.odd["site crashed"]++
		s.crash(w.chance(40))
	case 6:
		switch w.r.IntN(3) {
		case 0:
			w.odd["agent paused"]++
			s.stand(w.upTo(90 * time.Second))
		case 1:
			w.odd["agent paused"]++
			s.pause(w.upTo(90 * time.Second))
		case 2:
			s.agentDies()
		}
	case 7:
		w.executorPauses(s)
	case 8:
		w.odd["cannot be stopped"]++
		a := s.load(w.apps[0])
		a.stuck = w.now + w.upTo(2*time.Minute)
		w.log("%s: %s cannot be stopped until %s", s.name, a.app, a.stuck)
	case 9:
		w.oneWayLoss(w.r.IntN(len(w.up)), w.r.IntN(len(w.up)))
	case 10:
		w.flap(s, w.now+w.upTo(2*time.Minute))
	case 11: // a site has lost the vault and nothing else
		w.odd["vault reached from one side only"]++
		w.cut(s.n, len(w.sites), false)
	}
}

// oneWayLoss makes a link lose much of what goes one way, and nothing of what goes
// the other.
func (w *world) oneWayLoss(a, b int) {
	if a == b {
		return
	}
	part, was := 0.3+0.6*w.r.Float64(), w.loss[a][b]
	w.odd["one way loses"]++
	w.log("of what place %d sends to %d, %.0f%% are lost", a, b, 100*part)
	w.loss[a][b] = part
	w.after(w.upTo(2*time.Minute), func() { w.loss[a][b] = min(was, w.loss[a][b]) })
}

// flap lets a site go away and come back again and again.
func (w *world) flap(s *site, until time.Duration) {
	if w.now >= min(until, trouble) {
		return
	}
	w.odd["site flapped"]++
	w.log("%s flaps", s.name)
	d := w.upTo(50 * time.Second)
	w.isolate(s, d)
	w.after(d, func() { w.after(w.upTo(20*time.Second), func() { w.flap(s, until) }) })
}

// executorPauses lets an executor stand still, or a watchdog, or clocks jump.
func (w *world) executorPauses(s *site) {
	if w.chance(30) {
		w.odd["watchdog paused"]++
		w.log("%s: the node process and its watchdog stand still, or are dead", s.name)
		s.deaf, s.wasDeaf = true, true
		w.after(w.upTo(time.Minute), func() { s.deaf = false; s.renew(); s.watch() })
		return
	}
	for _, r := range w.runs {
		for _, e := range r.executors {
			if w.chance(50) || e.paused || !e.alive {
				continue
			}
			e.clock.Wall = w.upTo(1000*time.Hour) - 500*time.Hour
			e.stand(w.upTo(time.Minute))
		}
	}
}

// newRun lets somebody ask for a run.
func (w *world) newRun(at time.Duration) {
	verb := []plan.Verb{plan.Failover, plan.Failover, plan.Failover, plan.Failover, plan.Switchover, plan.Switchover, plan.Switchover, plan.Failback, plan.Drill, plan.Restore}[w.r.IntN(10)]
	w.order(verb, w.sites[0], w.sites[1+w.r.IntN(len(w.sites)-1)], at)
}

// moveOn lets somebody ask for a planned move away from the site that holds the
// applications by then. None is taken while another run is under way: it is asked for so often.
func (w *world) moveOn(times int) {
	if times > 0 && slices.ContainsFunc(w.runs, func(r *run) bool { return !r.over }) {
		w.after(15*time.Second, func() { w.moveOn(times - 1) })
		return
	}
	w.expected--
	_, holder := w.vault.newest(w.apps[0])
	for _, app := range w.apps {
		if _, other := w.vault.newest(app); other != holder {
			return
		}
	}
	if times == 0 {
		return
	}
	if holder == 0 { // once more
		w.order(plan.Failover, w.sites[0], w.sites[max(1, w.index(w.runs[0].spec.To))], w.now+w.upTo(5*time.Second))
		return
	}
	w.odd["moved on"]++
	w.order([]plan.Verb{plan.Switchover, plan.Switchover, plan.Failback}[w.r.IntN(3)], w.sites[holder], w.sites[0], w.now+w.upTo(5*time.Second))
}

// survivors take over where nobody carries a run any more.
func (w *world) survivors() {
	for _, r := range w.runs {
		if len(r.executors) == 0 || r.over {
			continue
		}
		last := r.executors[len(r.executors)-1]
		asleep := last.paused && w.now-last.since >= leaseTime // its lease is over, and it does not know
		dark := last.place < len(w.sites) && !w.sites[last.place].alive
		if !last.alive || last.halted || dark || asleep {
			last.alive = last.alive && !dark
			w.takeOver(r, w.anyPlace(r))
		}
	}
}

// checkRun looks at a run when all is done: it is over or says why not, and
// whoever reads its journal comes to the same state.
func (w *world) checkRun(r *run, rep *Report) {
	if len(w.vault.records[r.spec.Run]) == 0 {
		rep.Unfinished = append(rep.Unfinished, r.spec.Run+": it was never opened")
		return
	}
	w.vault.mode = arrives
	state, err := journal.Read(context.Background(), w.vault, r.spec.Run)
	if err != nil {
		w.fail("read journal of %s: %v", r.spec.Run, err)
		return
	}
	rep.Runs[r.spec.Run] = state.Shown()
	said := text(state)
	for _, e := range r.executors {
		if live := e.m.Peek(); live.Sequence == state.Sequence && text(live) != said {
			w.fail("%s and its journal do not agree:\n%s\n%s", e.name, text(live), said)
		}
	}
	if state.Phase.Over() {
		w.checkEnd(r, state, said)
		return
	}
	last := r.executors[len(r.executors)-1]
	why := last.m.Waits()
	if len(why) == 0 || w.opt.Mute {
		w.fail("%s is %s and does not say why it waits", r.spec.Run, state.Shown())
	}
	rep.Unfinished = append(rep.Unfinished, fmt.Sprintf("%s: %s: %v", r.spec.Run, state.Shown(), why))
}

func (w *world) checkEnd(r *run, state *failover.State, said string) {
	to := w.sites[w.index(r.spec.To)]
	w.checkSettled(r, state, said)
	if state.Phase == failover.RolledBack {
		w.checkBack(r, state)
	}
	if state.Phase == failover.Completed && r.spec.Verb.Moves() && !w.othersClaimed(state) {
		w.stuck(r, to)
	}
	if r.spec.Verb == plan.Drill {
		if to.alive && len(to.sandboxes[r.spec.Run]) > 0 && !strings.Contains(state.Why, "may be left") {
			w.fail("%s is %s and left its sandbox", r.spec.Run, state.Phase)
		}
		for _, app := range w.apps {
			for _, c := range w.vault.epochs[app] {
				if c.request == r.spec.Run {
					w.fail("%s claimed %s", r.spec.Run, app)
				}
			}
		}
	}
}

// stuck checks that what a run says that it has moved is there: to run, and to be reached.
func (w *world) stuck(r *run, to *site) {
	for _, app := range r.spec.Applications {
		switch a := to.load(app); {
		case !a.want:
			w.fail("%s is completed, and %s was stopped at %s", r.spec.Run, app, to.name)
		case w.gated && a.gate != r.spec.Run:
			w.fail("%s is completed, and its gate on %s was closed at %s", r.spec.Run, app, to.name)
		}
	}
}

// checkSettled has a person say that he has seen to all that a run left: nothing else may follow.
func (w *world) checkSettled(r *run, state *failover.State, said string) {
	words, _ := settlement.Word{By: "ann", Reason: "seen to"}.Entries(state, start)
	if len(words) == 0 {
		return
	}
	after := state.Clone()
	if err := after.Replay(state.Sequence+1, append([]failover.Entry{{Kind: failover.Took, By: "ann"}}, words...)); err != nil {
		w.fail("settle what %s left: %v", r.spec.Run, err)
		return
	}
	again, why := settlement.Word{By: "bob", Reason: "seen to"}.Entries(after, start)
	after.Settled, after.Sequence = state.Settled, state.Sequence
	if text(after) != said || len(again) > 0 || why != "" {
		w.fail("settled, %s is another: %s\n%s\n%v %s", r.spec.Run, text(after), said, again, why)
	}
}

// checkBack looks whether anything is left of a run that says that it was rolled back, and
// whether it says of anything that is there that it was taken back.
func (w *world) checkBack(r *run, state *failover.State) {
	told := state.Result().Steps
	for i, step := range r.spec.Steps {
		s := w.sites[w.index(r.spec.To)]
		if step.Side == plan.Source {
			s = w.sites[w.index(r.spec.From)]
		}
		t := s.things[r.spec.Run+"/"+step.Name]
		left := t != nil && t.made && step.Undoable()
		switch step.Kind {
		case plan.KindQuiesce: // to let go of it is never refused
			_, left = s.load(step.Application).holds[r.spec.Run]
		case plan.KindScale: // what comes late the nodes keep from running
			left = left && s.load(step.Application).running
		case plan.KindGate:
			left = s.load(w.apps[0]).gate == r.spec.Run
		case plan.KindDNS:
			name := w.zone.Read()
			left = state.Steps[step.Name].Led == "" && name.Guard != nil && name.Guard.Run == r.spec.Run && name.Values[0] == r.spec.To && !slices.Equal(name.Guard.Was, name.Values)
		}
		switch {
		case step.Kind == plan.KindSuspend && step.Side == plan.Source: // another run may only be about to
			left = left && !state.Steps[step.Name].Stands
		case step.Kind != plan.KindQuiesce:
			left = left && (!w.othersClaimed(state) || !state.Steps[step.Name].Stands)
		}
		if left {
			w.fail("%s is rolled back, and what %s made is still there", r.spec.Run, step.Name)
		}
		if t != nil && t.made && step.Undoable() && told[i].Undone && step.Kind != plan.KindQuiesce && step.Kind != plan.KindScale {
			w.fail("%s says that it took %s back, and what that made is still there", r.spec.Run, step.Name)
		}
	}
}

// nothingLost checks, where all runs were planned moves, that whoever may write
// in the end has every write that a client was told is safe.
func (w *world) nothingLost() {
	for _, r := range w.runs {
		planned := slices.Contains([]plan.Verb{plan.Switchover, plan.Failback, plan.Drill}, r.spec.Verb)
		if !planned || !r.over || r.forced {
			return
		}
	}
	for _, app := range w.apps {
		_, holder := w.vault.newest(app)
		have := map[int]bool{}
		for _, id := range w.sites[holder].load(app).data {
			have[id] = true
		}
		for _, x := range w.acked {
			if x.app == app && !have[x.id] {
				w.fail("%s lost write %d of %s, acknowledged at %s %.3fs", w.sites[holder].name, x.id, app, w.sites[x.site].name, x.at.Seconds())
			}
		}
	}
}

// people look at the runs now and then, and decide something.
func (w *world) people() {
	for _, r := range w.runs {
		for i := len(r.executors) - 1; i >= 0; i-- {
			e := r.executors[i]
			if !e.alive || e.halted || e.paused {
				continue
			}
			s := e.m.State()
			if s.Phase.Over() {
				r.over, r.phase = true, s.Phase
				if _, known := w.runEnds[r.spec.Run]; !known && w.runEnds != nil {
					w.runEnds[r.spec.Run] = w.now
				}
			} else if ev := w.decide(r, s); ev.Kind != "" {
				w.log("%s: a person says %s %s", e.name, ev.Kind, ev.Step)
				e.tell(ev)
			}
			break
		}
	}
}

func (w *world) decide(r *run, s *failover.State) failover.Event {
	by := []string{"bob", "cas"}[w.r.IntN(2)]
	back := failover.Event{Kind: failover.RollBack, By: by}
	for _, step := range r.spec.Steps { // nobody knows whether it was called: somebody has seen to it
		if step.Kind == plan.KindHTTP && s.Phase == failover.OutcomeUnknown && s.Steps[step.Name].Status == failover.Unknown && w.chance(50) {
			w.odd["a call was seen to"]++
			return failover.Event{Kind: failover.Skip, By: by, Step: step.Name}
		}
	}
	for _, o := range s.Offers() {
		if o.Kind == failover.Skip && s.Phase == failover.RollbackFailed && w.chance(50) {
			w.odd["a name is led by hand"]++
			return failover.Event{Kind: failover.Skip, By: by, Step: o.Step}
		}
	}
	switch {
	case s.Phase == failover.SplitBrain || s.Phase == failover.RollbackFailed:
		return failover.Event{Kind: failover.Resume, By: by}
	case s.Phase == failover.AwaitingApproval:
		return failover.Event{Kind: failover.Approve, By: by}
	case s.Phase == failover.AwaitingCommit:
		if w.chance(80) {
			return failover.Event{Kind: failover.Commit, By: by}
		}
		r.forced = true
		back.Text = r.spec.To
		return back
	case s.Pause == nil:
		if w.chance(3) {
			return failover.Event{Kind: []failover.EventKind{failover.Pausing, failover.Cancel, failover.RollBack}[w.r.IntN(3)], By: by}
		}
		return failover.Event{}
	case s.Pause.Kind == failover.ByOperator:
		return failover.Event{Kind: failover.Resume, By: by}
	case s.Pause.Kind == failover.ForInput:
		return w.input(r, s, by)
	}
	switch n := w.r.IntN(100); {
	case n < 20 && !r.spec.Verb.Moves():
		return failover.Event{Kind: failover.Cancel, By: by}
	case n < 60:
		return failover.Event{Kind: failover.Retry, By: by}
	case n < 75:
		return failover.Event{Kind: failover.Resume, By: by}
	}
	if w.now > trouble && w.chance(30) {
		r.forced = true
		back.Text = r.spec.To
	}
	return back
}

// input answers what a run asks: whether to go on without a fence.
func (w *world) input(r *run, s *failover.State, by string) failover.Event {
	if w.chance(40) {
		return failover.Event{Kind: failover.RollBack, By: by}
	}
	for _, step := range r.spec.Steps {
		if step.Asks() && strings.HasPrefix(s.Pause.Why, step.Name+": ") {
			return w.answer(r, step, by)
		}
	}
	for _, app := range r.spec.Applications {
		for _, holder := range s.Facts.Holders[app] {
			if s.Fences[app][holder].Level < failover.TimedOut && s.Vouched(app, holder) == "" {
				return failover.Event{Kind: failover.Consent, By: by, Site: holder, Text: holder}
			}
		}
	}
	return failover.Event{Kind: failover.Retry, By: by}
}

// answer says yes to what a step asks, or no.
func (w *world) answer(r *run, step plan.Step, by string) failover.Event {
	ev := failover.Event{Kind: failover.Answer, By: by, Step: step.Name, Outcome: failover.Done}
	if w.chance(10) {
		ev.Outcome = failover.Refused
	} else {
		key := r.spec.Run + "/" + step.Name
		if w.said[key] == nil {
			w.said[key] = map[string]bool{}
		}
		w.said[key][by] = true
		w.odd["a person said yes"]++
	}
	return ev
}

func newWorld(seed uint64, opt Options) *world {
	w := bareWorld(seed, 11, opt, 0)
	w.life()
	w.misfortunes()
	if keys := rand.New(rand.NewPCG(seed, 311)); keys.IntN(3) == 0 { // the key of the zone is revoked, sometimes for good
		at := time.Duration(keys.IntN(int(trouble)))
		w.after(at, func() { w.zone.Shut = true })
		if keys.IntN(2) == 0 {
			w.after(at+time.Duration(keys.IntN(int(10*time.Minute))), func() { w.zone.Shut = false })
		}
	}
	if w.refusals.IntN(3) > 0 {
		w.naps, w.drowsy = 1+w.refusals.IntN(2), writes[w.refusals.IntN(len(writes))]
	}
	if w.calls && w.refusals.IntN(3) == 0 {
		w.naps, w.drowsy = 2, plan.KindHTTP
	}
	if opt.Drowsy != "" {
		w.naps, w.drowsy = 2, opt.Drowsy
	}
	if w.chance(40) { // what runs are made for, at about the time of the first
		w.after(5*time.Second+w.upTo(30*time.Second), w.disaster)
	}
	w.newRun(10*time.Second + w.upTo(20*time.Second))
	if w.chance(20) {
		w.newRun(10*time.Second + w.upTo(60*time.Second))
	}
	if w.chance(20) { // it goes on from where it is by then
		w.expected++
		w.after(60*time.Second+w.upTo(2*time.Minute), func() { w.moveOn(6) })
	}
	return w
}
