package testkit

import (
	"context"
	"errors"
	"slices"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/testkit/turns"
)

// proc is synchronous code in virtual time: so the actuators of internal/execute run here
// as they stand. It runs in a coroutine. Of all that a world has one runs at a time, and where it
// waits the schedule goes on, so that a seed plays it always the same. It is the context
// of what it runs, too.
type proc struct {
	w       *world
	o       execute.Order
	at      int // the place that it runs at, which is not that of what it works on
	limit   time.Duration
	through func(func()) // its process, which may stand still
	thread  *turns.Coroutine
	gen     int // of what it waits for
	running bool
	over    bool // ended, or killed
	ended   bool // its context
	// knew are the newest epochs that were known when its order came, where they matter.
	knew map[string]int64
	// answered says that what the proc is about was answered.
	answered bool
	// asleep tells whether its process stands still, and has for longer than a lease.
	asleep func() bool
	// stand lets its process stand still for so long; nil: it does not.
	stand func(d time.Duration) (wake func())
}

// procs are those of one process.
type procs []*proc

// start runs code in a process, until a time at the latest.
func (all *procs) start(w *world, at int, o execute.Order, limit time.Duration, through func(func()), body func(p *proc)) *proc {
	*all = slices.DeleteFunc(*all, func(p *proc) bool { return p.over })
	p := &proc{w: w, o: o, at: at, limit: limit, through: through}
	p.thread = w.threads.Start(func() {
		defer func() { p.over = true }()
		body(p)
	})
	*all = append(*all, p)
	p.resume()
	return p
}

// kill ends all that a process does, where it stands.
func (all *procs) kill() {
	old := *all
	*all = nil
	for _, p := range old {
		switch {
		case p.over:
		case p.running: // it is what killed its process
			p.over = true
		default:
			p.over = true
			p.thread.Resume()
		}
	}
}

// end lets the contexts of all that a process does end, or of some of it.
func (all procs) end(which func(p *proc) bool) {
	for _, p := range all {
		if !p.over && which(p) {
			p.ended = true
			p.wakes(p.w.now)
		}
	}
}

func (p *proc) resume() {
	p.gen++
	p.running = true
	p.thread.Resume()
	p.running = false
}

// wakes has the proc go on then, unless something else wakes it before.
func (p *proc) wakes(t time.Duration) {
	gen := p.gen
	p.w.at(t, func() {
		p.through(func() {
			if p.gen == gen && !p.over {
				p.resume()
			}
		})
	})
}

// wait returns when somebody wakes the proc.
func (p *proc) wait() {
	if !p.over {
		p.thread.Yield()
	}
	if p.over {
		p.thread.Kill()
	}
}

// pause waits, at most until the context ends. It tells whether that has not.
func (p *proc) pause(d time.Duration) bool {
	p.wakes(min(p.w.now+d, max(p.limit, p.w.now)))
	p.wait()
	return p.Err() == nil
}

// ask calls the vault, from where the proc runs.
func (p *proc) ask(serve func() any) (answer any, ok bool) {
	p.doze()
	answered := false
	p.w.ask(p.at, serve, func(x any, is bool) {
		answer, ok, answered = x, is, true
		p.wakes(p.w.now)
	})
	for !answered && p.Err() == nil {
		p.wait()
	}
	return answer, ok && answered
}

// Deadline implements context.Context. Times in it would be those of the machine.
func (p *proc) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context. Nobody waits for it but by pause.
func (p *proc) Done() <-chan struct{} { return nil }

// Err implements context.Context.
func (p *proc) Err() error {
	switch {
	case p.ended:
		return context.Canceled
	case p.w.now >= p.limit:
		return context.DeadlineExceeded
	}
	return nil
}

// Value implements context.Context.
func (p *proc) Value(any) any { return nil }

var errUnreachable = errors.New("the API server does not answer")

// reach is a request to a site's API server: what it writes may have arrived all the same.
func (p *proc) reach(s *site, write func()) error {
	w := p.w
	if !p.pause(w.upTo(3 * time.Millisecond)) {
		return p.Err()
	}
	if s == nil { // nobody's: it is outside of all sites
		return p.outside(write)
	}
	p.doze()
	there := p.at == s.n || w.up[p.at][s.n] && w.refusals.Float64() >= w.loss[p.at][s.n]
	if there = there && s.alive && w.refusals.IntN(400) > 0; there {
		write()
	}
	back := p.at == s.n || w.up[s.n][p.at] && w.refusals.Float64() >= w.loss[s.n][p.at]
	if there && back && w.refusals.IntN(400) > 0 {
		return nil
	}
	w.odd["API server silent"]++
	p.pause(time.Duration(1+w.refusals.IntN(4)) * time.Second)
	return errUnreachable
}

// outside is a request to what no site has. It answers nearly always.
func (p *proc) outside(write func()) error {
	p.doze()
	if p.w.refusals.IntN(200) == 0 {
		return errUnreachable
	}
	write()
	return nil
}

// notes are the marks of a site, which survive its processes.
type notes struct{ s *site }

// Load implements execute.Marks.
func (n notes) Load(ctx context.Context, run, step string) (execute.Mark, error) {
	var m execute.Mark
	p := ctx.(*proc)
	err := p.reach(n.s, func() { m, _ = n.s.marks.Load(ctx, run, step) })
	if p.w.opt.NoNumbers {
		m.Seen = 0
	}
	return m, err
}

// Save implements execute.Marks.
func (n notes) Save(ctx context.Context, run, step string, m execute.Mark) error {
	p := ctx.(*proc)
	if p.w.opt.NoSeal && p.o.Action == look {
		return nil
	}
	var saved error
	err := p.reach(n.s, func() { saved = n.s.marks.Save(ctx, run, step, m) })
	if err != nil {
		return err
	}
	if saved != nil {
		p.w.odd["mark changed by another"]++
	}
	if saved == nil && p.stand != nil && p.o.Action == act && (commands(p.o) || p.o.Step.Kind == plan.KindHTTP) && p.w.refusals.IntN(40) == 0 {
		p.w.odd["stood still before a job"]++
		p.stand(leaseTime + time.Duration(1+p.w.refusals.IntN(12))*time.Second)
	}
	return saved
}
