package testkit

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"

	"davit.dev/davit/internal/testkit/errand"
)

const (
	look = failover.Look
	act  = failover.Act
	undo = failover.Undo
)

// thing is what a step made at a site, of one run. It is durable.
type thing struct {
	made   bool
	undone int64 // the number of the order that took it back
	point  *failover.Point
	times  int // made since it was last taken back
	// notDone is the highest number that a look was answered with "not done" under.
	notDone int64
	jobs    []*errand.Errand
	// asked is the highest number that a look was answered under with "nobody knows", and when.
	asked   int64
	askedAt time.Duration
	called  int64 // the number of the last call
}

func (s *site) thing(o execute.Order) *thing {
	key := o.Run + "/" + o.Step.Name
	if s.things[key] == nil {
		s.things[key] = &thing{}
	}
	return s.things[key]
}

// standby is a site as the target of runs, for one process: what internal/standby puts
// together.
func (w *world) standby(s *site) execute.Actuator {
	inner := execute.Func(s.do)
	aged := func(blind bool, newest func(context.Context, string) (int64, error)) execute.Actuator {
		return s.aged(&execute.Aged{Newest: newest, Blind: blind, Again: blind}, func(app string) int64 { n, _ := w.vault.newest(app); return n })
	}
	sees, remembers, drills := aged(false, w.inVault), aged(true, w.inVault), aged(true, nil)
	live := execute.Kinds{
		plan.KindClaim: execute.Func(s.claim), plan.KindHold: inner, plan.KindReady: inner, plan.KindProbe: inner,
		plan.KindRestore: remembers, plan.KindApply: remembers, plan.KindScale: remembers, plan.KindCatchUp: remembers,
		plan.KindHTTP:    s.aged(&execute.Aged{Newest: w.inVault, Blind: true}, func(app string) int64 { n, _ := w.vault.newest(app); return n }),
		plan.KindCommand: sees, plan.KindInfra: sees, plan.KindGate: sees, plan.KindDNS: execute.Func(w.leads), plan.KindSuspend: sees, plan.KindPin: sees,
	}
	drill := execute.Kinds{
		plan.KindSandbox: drills, plan.KindClone: drills, plan.KindApply: drills, plan.KindScale: drills, plan.KindCleanup: drills,
		plan.KindReady: inner, plan.KindProbe: inner, plan.KindGate: inner, plan.KindDNS: inner, plan.KindCommand: sees, plan.KindInfra: sees,
	}
	return execute.Func(func(ctx context.Context, o execute.Order) execute.Answer {
		if o.Verb == plan.Drill {
			return drill.Do(ctx, o)
		}
		return live.Do(ctx, o)
	})
}

// aged is the real one over this site. It keeps what looks were answered with, and, where
// epochs matter, which were the newest when an order came.
func (s *site) aged(a *execute.Aged, newest func(app string) int64) execute.Actuator {
	a.Inner, a.Marks = execute.Func(s.begun), notes{s}
	matter := a.Newest != nil
	if s.w.opt.NoEpochCheck {
		a.Newest = nil
	}
	return execute.Func(func(ctx context.Context, o execute.Order) execute.Answer {
		if matter {
			knew := map[string]int64{}
			for app := range o.Token.Epochs {
				knew[app] = newest(app)
			}
			ctx.(*proc).knew = knew
		}
		answer := a.Do(ctx, o)
		if t := s.thing(o); o.Action == look && answer.Outcome == failover.NotDone {
			t.notDone = max(t.notDone, o.Token.Sequence)
		} else if o.Action == look && o.Step.Kind == plan.KindHTTP && strings.HasPrefix(answer.Note, "it was begun") && o.Token.Sequence > t.asked {
			t.asked, t.askedAt = o.Token.Sequence, s.w.now
		}
		return answer
	})
}

// begun checks that what a look said stays true: no older order begins after it. Nor does
// one of an older epoch than was known when it came, unless it lets go of what a run held.
func (s *site) begun(ctx context.Context, o execute.Order) execute.Answer {
	free := o.Action == look || o.Sandbox != "" || o.Action == undo && (o.Step.Kind == plan.KindQuiesce || o.Step.Kind == plan.KindSuspend)
	for _, app := range s.w.apps {
		epoch, of := o.Token.Epochs[app]
		if knew := ctx.(*proc).knew[app]; of && !free && epoch < knew {
			s.w.fail("%s of %s begins at %s for epoch %d of %s, where %d was known", o.Action, o.Step.Name, s.name, epoch, app, knew)
		}
	}
	if t := s.thing(o); o.Action != look && o.Token.Sequence <= t.notDone {
		s.w.fail("order %d of %s begins at %s after a look under %d was answered with not done", o.Token.Sequence, o.Step.Name, s.name, t.notDone)
	}
	return s.do(ctx, o)
}

// inVault asks the vault for the newest epoch.
func (w *world) inVault(ctx context.Context, app string) (int64, error) {
	x, ok := ctx.(*proc).ask(func() any { n, _ := w.vault.newest(app); return n })
	if n, is := x.(int64); ok && is {
		return n, nil
	}
	return 0, errUnreachable
}

// origin is a site as what applications are taken away from: what
// internal/reconcile/origin puts together.
func (w *world) origin(s *site) execute.Actuator {
	seen := func(app string) int64 { return s.load(app).seen }
	aged := s.aged(&execute.Aged{Newest: func(_ context.Context, app string) (int64, error) { return seen(app), nil }}, seen)
	still := s.aged(&execute.Aged{}, nil)
	return execute.Func(func(ctx context.Context, o execute.Order) execute.Answer {
		switch {
		case o.Step.Kind == plan.KindFence && o.Action == undo:
			return s.runsAgain(ctx.(*proc), o)
		case o.Step.Kind == plan.KindFence:
			return s.fence(ctx.(*proc), o)
		case o.Step.Kind != plan.KindSuspend:
			return aged.Do(ctx, o)
		case o.Action == undo:
			if not := s.returned(ctx.(*proc), o); not.Outcome != failover.Done {
				return not
			}
		}
		return still.Do(ctx, o)
	})
}

// returned waits until the site knows that the order's applications are its own again, or
// that somebody else claimed them, or is about to.
func (s *site) returned(p *proc, o execute.Order) execute.Answer {
	half := (s.w.now + p.limit) / 2
	for _, app := range s.w.apps {
		epoch, of := o.Token.Epochs[app]
		for a := s.load(app); of && (a.holder != s.n || a.heldBeside(o.Run)); {
			switch {
			case a.holder == s.n && s.w.now >= half:
				return execute.Superseded("another run holds %s at rest here", app)
			case a.holder != s.n && a.seen > epoch:
				return execute.Superseded("epoch %d of %s is known here", a.seen, app)
			}
			if !p.pause(time.Second) {
				return execute.Unknown("the site has not seen yet that it may write again")
			}
		}
	}
	return execute.Done("")
}

// heldBeside tells whether another run holds it at rest.
func (a *workload) heldBeside(run string) bool {
	_, own := a.holds[run]
	return len(a.holds) > 1 || len(a.holds) == 1 && !own
}

// runsAgain tells whether an application that was given back runs here again.
func (s *site) runsAgain(p *proc, o execute.Order) execute.Answer {
	a, epoch := s.load(o.Step.Application), o.Token.Epochs[o.Step.Application]
	for {
		switch {
		case a.seen > epoch && a.holder != s.n:
			return execute.Superseded("epoch %d of %s is known here", a.seen, a.app)
		case a.seen >= epoch && a.holder == s.n && (a.running || !a.want || len(a.holds) > 0):
			return execute.Done("")
		}
		if !p.pause(time.Second) {
			answer := execute.Unknown("it does not run again yet")
			answer.Asked = true
			return answer
		}
	}
}

// do carries out an order that nothing refused.
func (s *site) do(ctx context.Context, o execute.Order) execute.Answer {
	p := ctx.(*proc)
	if o.Action == look {
		if s.w.refusals.IntN(200) == 0 {
			s.w.odd["look refused"]++
			return execute.Refuse("it may not look")
		}
		a := execute.Unknown("unreachable")
		if p.reach(s, func() { a = s.look(o) }) != nil {
			return execute.Unknown("unreachable")
		}
		return a
	}
	if commands(o) || o.Step.Kind == plan.KindHTTP && o.Action == undo {
		return s.command(p, o)
	}
	brings := slices.Contains([]plan.Kind{plan.KindRestore, plan.KindCatchUp, plan.KindApply, plan.KindScale, plan.KindClone}, o.Step.Kind) && o.Action == act
	if brings {
		release := s.lease(p, o)
		if release == nil {
			return execute.Unknown("another restore of this application runs here")
		}
		defer release()
	}
	if !p.pause(s.w.upTo(2 * time.Second)) {
		return execute.Unknown("its time is up")
	}
	if o.Action == act && s.w.r.IntN(40) == 0 {
		s.w.odd["step failed"]++
		return execute.Refuse("it cannot be done")
	}
	if brings && o.Sandbox == "" && !s.w.opt.NoEpochCheck { // guarded to the end
		for _, app := range s.w.apps {
			a := s.load(app)
			if epoch, of := o.Token.Epochs[app]; of && epoch < max(a.below, a.seen) {
				return execute.Superseded("a newer epoch is known here")
			}
		}
	}
	switch {
	case o.Sandbox != "":
	case brings:
		return s.bring(p, o)
	case o.Step.Kind == plan.KindGate:
		return s.gate(p, o)
	case o.Step.Kind == plan.KindHTTP:
		return s.call(p, o)
	case o.Step.Kind == plan.KindSuspend && o.Step.Side == plan.Source:
		if not := s.change(p, o, s.load(s.w.apps[0]), s.w.opt.NoCurrent, func() bool { return true }, func() { s.thing(o).made = o.Action == act }); not != nil {
			return *not
		}
		return execute.Done("")
	case rests(o) && !s.w.opt.NoQuiesce:
		if not := s.hold(p, o, s.load(o.Step.Application)); not != nil {
			return *not
		}
	}
	then := func(*proc) execute.Answer { return execute.Unknown("unreachable") }
	if err := p.reach(s, func() { then = s.effect(o) }); err != nil {
		return execute.Unknown("%v", err)
	}
	return then(p)
}

// look tells whether a step is done.
func (s *site) look(o execute.Order) execute.Answer {
	a, t := s.load(o.Step.Application), s.thing(o)
	done := t.made
	switch o.Step.Kind {
	case plan.KindReady, plan.KindProbe:
		done = o.Sandbox != "" && s.sandboxes[o.Sandbox]["scale/"+o.Step.Application] || o.Sandbox == "" && a.running
	case plan.KindGate:
		if o.Sandbox == "" {
			done = true
			for app := range o.Token.Epochs {
				done = done && s.load(app).gate == o.Run
			}
		}
	case plan.KindHold:
		done = !slices.ContainsFunc(s.w.apps, func(app string) bool { return s.load(app).hold < o.Token.Epochs[app] })
	case plan.KindQuiesce:
		if _, held := a.holds[o.Run]; held && a.running {
			return execute.Answer{Outcome: failover.Busy}
		}
		_, done = a.holds[o.Run]
	case plan.KindCommand, plan.KindInfra:
		for _, j := range t.jobs {
			j.Withdraw()
		}
		if slices.ContainsFunc(t.jobs, (*errand.Errand).Open) {
			return execute.Answer{Outcome: failover.Busy}
		}
	}
	if done {
		return execute.Answer{Outcome: failover.Done, Point: t.point}
	}
	return execute.NotDone("")
}

// command runs a job and waits for it. Whoever orders it again finds it by its number.
func (s *site) command(p *proc, o execute.Order) execute.Answer {
	t := s.thing(o)
	var j *errand.Errand
	if o.Action == undo && !s.w.opt.NoTurn { // as a look does: what has not begun never will
		if err := p.reach(s, func() {
			for _, other := range t.jobs {
				if other.Number != o.Token.Sequence {
					other.Withdraw()
				}
			}
		}); err != nil {
			return execute.Unknown("%v", err)
		}
	}
	for o.Action == undo && !s.w.opt.NoTurn && slices.ContainsFunc(t.jobs, func(j *errand.Errand) bool { return j.Open() && j.Number != o.Token.Sequence }) {
		if !p.pause(time.Second) {
			return execute.Unknown("another job of it has not ended")
		}
	}
	if slices.ContainsFunc(t.jobs, func(j *errand.Errand) bool { return j.Undo && j.Over }) {
		return execute.Done("it was taken back")
	}
	err := p.reach(s, func() {
		for _, old := range t.jobs {
			if old.Number == o.Token.Sequence {
				j = old
			}
		}
		if j == nil {
			j = &errand.Errand{Number: o.Token.Sequence, Undo: o.Action == undo}
			t.jobs = append(t.jobs, j)
			if s.w.opt.Hasty {
				s.runJob(o, t, j)
			}
		}
	})
	for err == nil && !j.Begun {
		var version int
		if err = p.reach(s, func() { version = j.Version }); err != nil || j.Withdrawn {
			return execute.Unknown("its job has not begun")
		}
		if current, not := execute.Current(p, notes{s}, o); not != nil || !current {
			s.w.odd["a job was not begun"]++
			return execute.Unknown("its order is old: %v", not)
		}
		err = p.reach(s, func() {
			if j.Version == version && !j.Begun {
				s.runJob(o, t, j)
			}
		})
	}
	for err == nil && !j.Over {
		if !p.pause(time.Second) {
			return execute.Unknown("its job has not ended")
		}
	}
	switch {
	case err != nil:
		return execute.Unknown("%v", err)
	case j.Broke:
		return execute.Refuse("its job failed")
	}
	return execute.Done("")
}

func (s *site) runJob(o execute.Order, t *thing, j *errand.Errand) {
	s.w.log("%s: %s %s, order %d", s.name, o.Action, o.Step.Name, o.Token.Sequence)
	s.touches(o)
	j.Begin(j.Version)
	j.Broke = o.Action == act && s.w.r.IntN(40) == 0
	if !j.Broke && !j.Undo {
		if t.times++; t.times > 1 {
			s.w.fail("%s was run %d times at %s without a look in between", o.Step.Name, t.times, s.name)
		}
	}
	var end func()
	end = func() {
		if !s.alive {
			if !s.gone {
				s.w.after(5*time.Second, end)
			}
			return
		}
		j.Over = true
		switch {
		case j.Broke:
			s.w.odd["step failed"]++
		case j.Undo:
			t.made, t.times = false, 0
			if o.Step.Kind == plan.KindHTTP { // it hands on whose order it is
				_, _, _ = s.w.pool.Call(s.w.now, s.w.now, o.Token)
			}
		default:
			t.made = true
		}
	}
	s.w.after(s.w.upTo(8*time.Second), end)
}

// rests tells whether an order holds an application at rest, or lets go of it.
func rests(o execute.Order) bool {
	return o.Step.Kind == plan.KindQuiesce || o.Step.Kind == plan.KindSuspend && o.Step.Side == plan.Target
}

// touches checks that no drill changes what is live.
func (s *site) touches(o execute.Order) {
	if o.Verb == plan.Drill && o.Sandbox == "" {
		s.w.fail("%s of drill %s touches what is live at %s", o.Step.Name, o.Run, s.name)
	}
}

// effect changes a site as a step says, or takes it back, and returns what waits for its
// end.
func (s *site) effect(o execute.Order) func(p *proc) execute.Answer {
	s.w.log("%s: %s %s, order %d", s.name, o.Action, o.Step.Name, o.Token.Sequence)
	s.touches(o)
	a, t := s.load(o.Step.Application), s.thing(o)
	done := func(*proc) execute.Answer {
		if o.Action == undo {
			t.undone = o.Token.Sequence
		}
		t.made = o.Action == act && o.Token.Sequence > t.undone // else it is there late, at rest
		return execute.Answer{Outcome: failover.Done, Point: t.point}
	}
	switch {
	case o.Sandbox != "":
		return s.inSandbox(o, t)
	case o.Action == undo:
		return s.takeBack(o, a, done)
	}
	switch o.Step.Kind {
	case plan.KindScale:
		a.spec++
		a.want, a.epoch, a.starter = true, max(a.epoch, o.Token.Epochs[a.app]), o.Token
		if a.exposed && a.gate != "" && a.gate != o.Run {
			s.w.fail("%s: %s is started by %s, and clients are let in by %s", s.name, a.app, o.Run, a.gate)
		}
		s.settle(a)
		s.w.nudge("start")
	case plan.KindReady, plan.KindProbe:
		return func(p *proc) execute.Answer {
			for !a.running {
				if !p.pause(2 * time.Second) {
					return execute.Unknown("it is not ready")
				}
			}
			return execute.Done("")
		}
	case plan.KindQuiesce, plan.KindSuspend:
		if s.w.opt.NoQuiesce {
			break
		}
		return s.rest(a, done)
	case plan.KindSync:
		return func(p *proc) execute.Answer {
			x, ok := p.ask(s.point(a.app))
			point, is := x.(failover.Point)
			if !ok || !is {
				return execute.Unknown("the vault does not answer")
			}
			t.point = &point
			return done(p)
		}
	case plan.KindHold:
		s.promiseNothing(o.Token.Epochs)
	}
	return done
}

// rest stops a workload, and waits until it has.
func (s *site) rest(a *workload, done func(*proc) execute.Answer) func(p *proc) execute.Answer {
	return func(p *proc) execute.Answer {
		stopped := false
		s.stop(a, 3*time.Second, func() { stopped = true })
		for !stopped {
			if !p.pause(500 * time.Millisecond) {
				return execute.Unknown("it has not stopped")
			}
		}
		if !s.alive || a.running {
			return execute.Unknown("it has not stopped")
		}
		return done(p)
	}
}

// restore fills the volumes from the point that the run names, or the newest
// that the claim accepted.
func (s *site) restore(o execute.Order, a *workload, t *thing) {
	if a.running {
		s.w.fail("%s: the data of %s is replaced while it runs", s.name, a.app)
	}
	n := o.Token.Epochs[a.app]
	points := s.w.vault.points[a.app]
	if claims := s.w.vault.epochs[a.app]; n >= 1 && int64(len(claims)) >= n {
		points = points[:claims[n-1].accepted]
	}
	if len(points) == 0 {
		return
	}
	best := 0
	for i, p := range points {
		if p.at > points[best].at {
			best = i
		}
	}
	if o.Point != nil {
		best, _ = strconv.Atoi(o.Point.ID)
	}
	a.data = slices.Clone(points[best].ids)
	t.point = &failover.Point{ID: strconv.Itoa(best), Instant: start.Add(points[best].at)}
}

func (s *site) takeBack(o execute.Order, a *workload, done func(*proc) execute.Answer) func(p *proc) execute.Answer {
	switch o.Step.Kind {
	case plan.KindScale:
		s.w.nudge("stop")
		a.want = false
		a.spec++
		if !s.w.opt.NoReturn { // all nodes know that the epoch goes back, before it does
			a.below = max(a.below, o.Token.Epochs[a.app]+1)
		}
		return s.rest(a, done)
	case plan.KindQuiesce, plan.KindSuspend:
		s.settle(a)
	}
	return done
}

// inSandbox is all that a drill may do. Traffic is only rehearsed.
func (s *site) inSandbox(o execute.Order, t *thing) func(p *proc) execute.Answer {
	switch o.Step.Kind {
	case plan.KindGate, plan.KindDNS, plan.KindReady, plan.KindProbe:
	case plan.KindCleanup:
		delete(s.sandboxes, o.Sandbox)
	default:
		if s.sandboxes[o.Sandbox] == nil && o.Step.Kind != plan.KindSandbox {
			s.w.odd["no sandbox any more"]++ // its namespaces are gone
			return func(*proc) execute.Answer { return execute.Refuse("its namespace is not there") }
		}
		if s.sandboxes[o.Sandbox] == nil {
			s.sandboxes[o.Sandbox] = map[string]bool{}
		}
		s.sandboxes[o.Sandbox][o.Step.Name] = true
	}
	return func(*proc) execute.Answer {
		t.made = true
		return execute.Done("")
	}
}

// fence stops what is older than an epoch, for good, and proves it.
func (s *site) fence(p *proc, o execute.Order) execute.Answer {
	a, epoch := s.load(o.Step.Application), o.Token.Epochs[o.Step.Application]
	proven := func() execute.Answer {
		if s.alive && a.below >= epoch && (!a.running && !s.deaf || s.w.opt.NoWord) { // its nodes say so
			return execute.Answer{Outcome: failover.Done, Asked: true, Proof: &failover.Proof{Application: a.app, Site: s.name, Epoch: a.below, How: "stopped"}}
		}
		return execute.Answer{Outcome: failover.NotDone, Asked: a.below >= epoch}
	}
	if o.Action == look {
		return proven()
	}
	if s.w.opt.NoFence { // it says so without doing so
		return execute.Answer{Outcome: failover.Done, Proof: &failover.Proof{Application: a.app, Site: s.name, Epoch: epoch, How: "stopped"}}
	}
	if epoch > a.seen {
		a.seen, a.holder = epoch, -1
	}
	a.below = max(a.below, epoch)
	answer := s.rest(a, func(*proc) execute.Answer { return proven() })(p)
	if answer.Outcome == failover.NoAnswer && s.w.opt.NoWord {
		answer = proven()
	}
	answer.Asked = true
	return answer
}

// claim asks the vault for an epoch, or gives it back.
func (s *site) claim(ctx context.Context, o execute.Order) execute.Answer {
	v, app := s.w.vault, o.Step.Application
	n, mine := o.Token.Epochs[app], o.Run
	x, ok := ctx.(*proc).ask(func() any {
		all := v.epochs[app]
		switch {
		case o.Action == undo:
			return v.giveBack(app, n, s.w.index(o.From), mine)
		case o.Action == look && int64(len(all)) < n:
			return execute.NotDone("")
		case o.Action == look && int64(len(all)) == n && all[n-1].request == mine:
			return execute.Answer{Outcome: failover.Done, Epoch: n}
		case o.Action == look:
			return v.overtaken(app)
		}
		if c := v.put(app, n, s.n, mine); c.request == mine {
			return execute.Answer{Outcome: failover.Done, Epoch: n}
		}
		return v.overtaken(app)
	})
	if a, is := x.(execute.Answer); ok && is {
		return a
	}
	return execute.Unknown("the vault does not answer")
}

// overtaken says whose claim stands instead.
func (s *store) overtaken(app string) execute.Answer {
	n, holder := s.newest(app)
	a := execute.Superseded("site %s holds epoch %d of %s", s.w.sites[holder].name, n, app)
	a.Holder = s.w.sites[holder].name
	return a
}

// giveBack makes a claim of the run void by writing the next number for the
// source, whether or not the claim has arrived.
func (s *store) giveBack(app string, n int64, from int, mine string) execute.Answer {
	all, back := s.epochs[app], mine+"/back"
	number := n + 1 // that it was to have
	for i, c := range all {
		if c.request == mine {
			number = int64(i) + 1
		}
	}
	newest := int64(len(all))
	switch last := all[newest-1]; {
	case last.request == back:
		return execute.Answer{Outcome: failover.Done, Epoch: newest}
	case newest == number && last.request == mine:
		number++
	case newest >= number:
		return s.overtaken(app)
	}
	s.put(app, number, from, back)
	return execute.Answer{Outcome: failover.Done, Epoch: number}
}
