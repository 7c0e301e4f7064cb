package testkit

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/traffic"

	"davit.dev/davit/internal/testkit/errand"
	"davit.dev/davit/internal/testkit/zone"
)

// doze lets the process stand still when all is checked and nothing is sent yet: what it sends
// goes out when it wakes, however late that is, and whatever was ended meanwhile.
func (p *proc) doze() {
	w := p.w
	if p.stand == nil || p.o.Action == look || w.naps == 0 || p.o.Step.Kind != w.drowsy || w.refusals.IntN(4) > 0 {
		return
	}
	w.naps--
	w.odd["stood still before a write"]++
	d := leaseTime + time.Duration(1+w.refusals.IntN(30))*time.Second
	if w.refusals.IntN(2) == 0 { // for others to roll back, and begin anew
		d += time.Duration(30+w.refusals.IntN(150)) * time.Second
		w.misses(p.o)
	}
	if wake := p.stand(d); wake != nil {
		w.sleepers = append(w.sleepers, wake)
	}
	p.wakes(w.now)
	p.wait()
}

// misses is what makes the process that stands still matter: its run is rolled back, and the target
// does not hear from the vault.
func (w *world) misses(o execute.Order) {
	i := slices.IndexFunc(w.runs, func(r *run) bool { return r.spec.Run == o.Run })
	r, times := w.runs[i], 1
	if w.opt.Drowsy != "" {
		times = 20
	}
	if r.spec.Verb.Moves() && (w.refusals.IntN(4) == 0 || w.opt.Drowsy != "") {
		w.expected++
		w.after(leaseTime, func() { w.again(r, 16) })
	}
	w.after(leaseTime+time.Duration(10+w.refusals.IntN(30))*time.Second, func() { w.rollBack(r, times) })
	if w.refusals.IntN(2) == 0 {
		w.after(leaseTime, func() { w.cut(w.index(o.To), len(w.sites), false) })
	}
}

// rollBack has a person roll a run back, if somebody carries it. So often that is tried.
func (w *world) rollBack(r *run, times int) {
	switch e := r.executors[len(r.executors)-1]; {
	case e.alive && !e.paused && !e.halted && !e.m.Phase().Over():
		r.forced = true
		e.tell(failover.Event{Kind: failover.RollBack, By: "dan", Text: r.spec.To})
	case times > 1:
		w.after(3*time.Second, func() { w.rollBack(r, times-1) })
	}
}

// nudge is said when something was done that whoever stands still may spoil: now and then he goes on just then.
func (w *world) nudge(what string) {
	if w.opt.Wakes != "" && w.opt.Wakes != what {
		return
	}
	for _, wake := range w.sleepers {
		if w.refusals.IntN(4) == 0 || w.opt.Wakes != "" {
			w.after(time.Duration(w.refusals.IntN(3000))*time.Millisecond, wake)
		}
	}
}

// lease takes the lease of an application's restores here: of whoever holds it and shows
// no life any more. It returns what gives it back; nil: somebody else has it.
func (s *site) lease(p *proc, o execute.Order) func() {
	key := o.Sandbox + "/" + o.Step.Application
	if h := s.restoring[key]; h != nil && !h.over && (h.asleep == nil || !h.asleep()) {
		p.pause(time.Second)
		return nil
	}
	s.restoring[key] = p
	return func() {
		if s.restoring[key] == p {
			delete(s.restoring, key)
		}
	}
}

// bring does a part of a restore of what is live: the application is marked, gates that others
// left open are closed, its volumes are filled or its workloads are started, and the
// mark is taken off.
func (s *site) bring(p *proc, o execute.Order) execute.Answer {
	a, t := s.load(o.Step.Application), s.thing(o)
	if a.gate != "" && a.gate != o.Run && o.Step.Kind != plan.KindCatchUp {
		if not := s.turn(p, o, a, func() (string, bool) { return "", a.gate != "" && a.gate != o.Run }); not != nil {
			return *not
		}
	}
	version := a.spec // as it was seen before the look at who restores
	ours, err := s.ours(p, o, a)
	if err == nil && ours {
		err = p.reach(s, func() {
			if a.mark != o.Run {
				a.mark = o.Run
				s.w.nudge("restore")
			}
		})
	}
	if err != nil {
		return execute.Unknown("%v", err)
	}
	if o.Step.Kind == plan.KindRestore || o.Step.Kind == plan.KindCatchUp {
		return s.fill(p, o, a, t)
	}
	then := func(*proc) execute.Answer { return execute.Unknown("another has started it meanwhile") }
	err = p.reach(s, func() {
		// What others have started since is changed by resourceVersion. Where it is gone, it is made
		// anew, which nothing keeps a late process from: nodes that know what was given back do.
		if o.Step.Kind == plan.KindScale && a.want && a.spec != version {
			s.w.odd["a start met another"]++
			return
		}
		then = s.effect(o)
	})
	if err == nil && o.Step.Kind == plan.KindScale {
		err = p.reach(s, func() { s.whole(a, o.Run) })
	}
	if err != nil {
		return execute.Unknown("%v", err)
	}
	return then(p)
}

// whole takes off the mark that a restore set, and what runs had held here before. Whoever
// finds that it is gone has nothing to take off.
func (s *site) whole(a *workload, run string) {
	if a.mark == "" || a.mark != run && !s.w.opt.NoOwnMark {
		return
	}
	if a.mark != run {
		s.w.fail("%s says that %s is whole at %s, which %s is bringing", run, a.app, s.name, a.mark)
	}
	a.mark = ""
	for r, epoch := range a.holds { // its own, and what an older epoch held
		if r == run || epoch < a.epoch {
			delete(a.holds, r)
		}
	}
	s.settle(a)
}

// fill brings data, by a task that the node carries out. Whoever makes one withdraws what
// others have made and not begun, and begins it if he has the lease still.
func (s *site) fill(p *proc, o execute.Order, a *workload, t *thing) execute.Answer {
	var task *errand.Errand
	err := s.vacate(p, o, a)
	if err != nil {
		return execute.Unknown("%v", err)
	}
	err = p.reach(s, func() {
		for _, other := range a.fills {
			other.Withdraw()
		}
		task = &errand.Errand{Number: o.Token.Sequence}
		a.fills = append(a.fills, task)
		if s.w.opt.NoTask {
			task.Begin(task.Version)
			s.restore(o, a, t)
		}
	})
	if err == nil && !task.Begun {
		version, ours := task.Version, false
		ours, err = s.ours(p, o, a)
		if err == nil && !ours {
			s.w.odd["a fill was not begun"]++
			return execute.Unknown("another restore of this application has taken over")
		}
		if err == nil {
			err = p.reach(s, func() {
				if task.Begin(version) {
					s.restore(o, a, t)
					s.w.nudge("fill")
				}
			})
		}
	}
	switch {
	case err != nil:
		return execute.Unknown("%v", err)
	case !task.Begun:
		return execute.Unknown("its task was withdrawn")
	}
	t.made = o.Token.Sequence > t.undone
	return execute.Answer{Outcome: failover.Done, Point: t.point}
}

// ours tells whether a restore has its lease still, and nobody has claimed the application since
// it was ordered.
func (s *site) ours(p *proc, o execute.Order, a *workload) (bool, error) {
	ours := false
	err := p.reach(s, func() { ours = s.restoring["/"+a.app] == p })
	if err != nil || !ours {
		return false, err
	}
	newest, err := s.w.inVault(p, a.app)
	return newest <= o.Token.Epochs[a.app], err
}

var errLost = errors.New("another restore of this application has taken over")

// vacate stops what runs on the volumes, under an older epoch, if it has the lease still by a look after it
// was seen to run, and nobody has changed it since.
func (s *site) vacate(p *proc, o execute.Order, a *workload) error {
	for a.running {
		version, ours, same := 0, false, false
		err := p.reach(s, func() { version = a.spec })
		if err == nil {
			ours, err = s.ours(p, o, a)
		}
		if err == nil && !ours && !s.w.opt.NoStill {
			err = errLost
		}
		if err == nil {
			err = p.reach(s, func() {
				if same = a.spec == version; same {
					if by := a.starter; by.Run == o.Run && by.Sequence > o.Token.Sequence || by.Epochs[a.app] > o.Token.Epochs[a.app] {
						s.w.fail("order %d of %s stops %s at %s, which order %d of %s has started since", o.Token.Sequence, o.Run, a.app, s.name, by.Sequence, by.Run)
					}
					a.want = false
					a.spec++
				}
			})
		}
		switch {
		case err != nil:
			return err
		case !same:
			continue
		}
		if stopped := s.rest(a, func(*proc) execute.Answer { return execute.Done("") })(p); stopped.Outcome != failover.Done {
			return errors.New(stopped.Note)
		}
	}
	return nil
}

// gate lets clients in, or keeps them out again. To close what the run did not open touches
// it all the same: who is about to open it hears of that.
func (s *site) gate(p *proc, o execute.Order) execute.Answer {
	for _, app := range slices.Sorted(maps.Keys(o.Token.Epochs)) {
		a := s.load(app)
		change := func() (string, bool) { return o.Run, true }
		if o.Action == undo {
			change = func() (string, bool) {
				if a.gate == o.Run {
					return "", true
				}
				return a.gate, true
			}
		}
		if not := s.turn(p, o, a, change); not != nil {
			return *not
		}
	}
	return execute.Done("")
}

// turn turns a gate as change says, which is asked first.
func (s *site) turn(p *proc, o execute.Order, a *workload, change func() (by string, turns bool)) *execute.Answer {
	by := ""
	return s.change(p, o, a, s.w.opt.NoVersion, func() (turns bool) { by, turns = change(); return turns }, func() {
		a.gate, a.exposed = by, by != "" || !s.w.gated
	})
}

// hold keeps an application at rest for a run, or lets go of it. To let go of what is not held
// touches it all the same.
func (s *site) hold(p *proc, o execute.Order, a *workload) *execute.Answer {
	return s.change(p, o, a, s.w.opt.NoCurrent, func() bool { return true }, func() {
		if o.Action == act {
			a.holds[o.Run] = o.Token.Epochs[a.app]
		} else {
			delete(a.holds, o.Run)
		}
	})
}

// change changes what an Application says, if it is to, and if the order is current by a look
// that comes after the Application was read, and nobody has changed that since. Free, it looks
// at neither.
func (s *site) change(p *proc, o execute.Order, a *workload, free bool, wanted func() bool, write func()) *execute.Answer {
	for {
		version, wants := 0, false
		err := p.reach(s, func() { version, wants = a.version, wanted() })
		if err == nil && !wants {
			return nil
		}
		if err == nil && !free {
			var current bool
			if current, err = execute.Current(p, notes{s}, o); err == nil && !current {
				s.w.odd["an Application was not changed"]++
				not := execute.Unknown("its order is old")
				return &not
			}
		}
		written := false
		if err == nil {
			err = p.reach(s, func() {
				if written = a.version == version || free; written {
					a.version++
					write()
					s.inOrder(o)
					s.w.nudge("change")
				}
			})
		}
		if err != nil {
			not := execute.Unknown("%v", err)
			return &not
		}
		if written {
			return nil
		}
	}
}

// inOrder checks that nothing that was taken back is done after all.
func (s *site) inOrder(o execute.Order) {
	t := s.thing(o)
	if o.Action == undo {
		t.undone = max(t.undone, o.Token.Sequence)
	} else if o.Token.Sequence < t.undone {
		s.w.fail("order %d of %s at %s comes after order %d has taken it back", o.Token.Sequence, o.Step.Name, s.name, t.undone)
	}
}

// call calls a server outside of all sites, if its order is still the newest when all is read that it takes.
func (s *site) call(p *proc, o execute.Order) execute.Answer {
	w, t := s.w, s.thing(o)
	if err := p.reach(s, func() {}); err != nil { // its Secret
		return execute.Refuse("it was not sent: %v", err)
	}
	looked := w.now
	if !w.opt.NoAgain {
		if late := execute.Late(p, notes{s}, w.inVault, o); late != nil {
			w.odd["a call was not sent"]++
			return *late
		}
	}
	obeyed := false
	err := p.reach(nil, func() {
		switch {
		case o.Token.Sequence == t.called:
			w.fail("order %d of %s is called twice", o.Token.Sequence, o.Step.Name)
		case o.Token.Sequence <= t.asked && looked > t.askedAt:
			w.fail("call %d of %s was sent long after a look had said that nobody knows of it", o.Token.Sequence, o.Step.Name)
		}
		t.called = o.Token.Sequence
		var late bool
		var harm error
		if obeyed, late, harm = w.pool.Call(w.now, looked, o.Token); harm != nil {
			w.fail("%v", harm)
		}
		switch {
		case !obeyed:
			w.odd["a late call was refused"]++
		case late:
			w.odd["a late call, and nothing refused it"]++
		default:
			t.made = true
			w.nudge("call")
		}
	})
	switch {
	case err != nil || w.refusals.IntN(40) == 0:
		return execute.Unknown("no answer")
	case !obeyed:
		return execute.Refuse("status 409")
	}
	return execute.Done("")
}

// leads moves the name that clients know, at a server outside of all sites.
func (w *world) leads(ctx context.Context, o execute.Order) execute.Answer {
	p, to := ctx.(*proc), map[string][]string{}
	for _, s := range w.sites {
		to[s.name] = []string{s.name}
	}
	m := traffic.Move{Name: "www.example.com", Zone: "example.com", To: to[o.Site], Known: []string{"east", "south", "west"}, Site: o.Site, Token: o.Token}
	w.zone.Blind = w.opt.NoPrerequisite
	var seen traffic.Seen
	var shut bool
	if err := p.reach(nil, func() { seen, shut = w.zone.Read(), w.zone.Shut }); err != nil {
		return execute.Unknown("%v", err)
	}
	if shut && o.Action == look {
		return execute.NotDone("the server refuses")
	}
	if shut {
		w.odd["a name was refused"]++
		return execute.Refuse("the server refuses")
	}
	change, verdict := zone.Draft(o.Action, m, seen)
	switch {
	case verdict == traffic.Stands:
		return execute.Done("")
	case verdict == traffic.Superseded:
		return execute.Superseded("a newer epoch moved the name")
	case o.Action == look && verdict == traffic.Sealed:
		return execute.NotDone("")
	case change == nil:
		return execute.Unknown("a newer order was there before: %s", verdict)
	}
	if o.Action == look && o.Token.Sequence == 0 {
		return execute.NotDone("")
	}
	var harm, refused error
	if err := p.reach(nil, func() { harm, refused = w.zone.Swap(change) }); err != nil || refused != nil {
		return execute.Unknown("%v%v", err, refused)
	}
	if harm != nil {
		w.fail("%v", harm)
	}
	w.odd["name moved"]++
	if o.Action == undo {
		w.nudge("name")
	}
	if o.Action == look {
		return execute.NotDone("")
	}
	return execute.Done("")
}
