// Package testkit plays disaster recovery in virtual time: sites with their
// agents and nodes, a vault, a console, clients, and executors that carry runs
// over the real core (internal/plan, internal/failover), the real journal
// (internal/journal), and what executors and sites really decide
// (internal/execute). Links break and lose, processes die and stand still,
// clocks drift and jump, answers come late, twice or never. One seed plays one
// schedule, always the same. Only tests import it.
package testkit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"davit.dev/davit/internal/plan"

	"davit.dev/davit/internal/testkit/clockwork"
	"davit.dev/davit/internal/testkit/pool"
	"davit.dev/davit/internal/testkit/turns"
	"davit.dev/davit/internal/testkit/zone"
	"davit.dev/davit/internal/vantage"
)

// world is one schedule.
type world struct {
	opt Options
	r   *rand.Rand
	// refusals are drawn apart: a schedule without any is what it was.
	refusals *rand.Rand
	now      time.Duration
	n        int
	agenda   clockwork.Agenda
	threads  turns.Pool
	sites    []*site
	vault    *store
	up       [][]bool // [from][to]; sites, then the vault, then the console
	// loss is how much of what is sent is lost, by direction.
	loss  [][]float64
	lease bool
	// promising says that peers can stand in for a vault that is silent.
	promising bool
	stranger  int  // the site that no claim names as a peer; -1: none
	renamed   int  // the site whose name another cluster bore when the first claims were made; -1: none
	begun     bool // they are made
	gated     bool
	zone      *zone.Zone // the name that clients know
	early     bool       // plans have steps that run beside claims
	calls     bool       // and call what is outside of all sites
	pool      pool.Pool
	asks      bool // and ask people, who said yes, by run and step
	said      map[string]map[string]bool
	apps      []string
	runs      []*run
	expected  int // that somebody asks for later
	// drowsy is the kind of steps whose processes stand still before a write, so many times.
	drowsy   plan.Kind
	naps     int
	sleepers []func()      // let them go on
	ended    time.Duration // when the last run was over
	err      error
	// trace is kept only when asked for.
	trace []string
	// levels are what runs relied on when they activated, by application and epoch.
	levels map[string]map[int64]level
	// words are what vantage points said last, runEnds when runs were seen to be over;
	// of schedules of automatic declaration.
	words   map[string]vantage.Word // never changed, but replaced
	runEnds map[string]time.Duration
	// probed says that the plan has a probe of its source, askings how it went.
	probed  bool
	askings map[string][]asking
	acked   []write
	writes  int
	// odd counts what happened, so that tests can tell that it did.
	odd map[string]int
}

// write is one that a client was told is safe.
type write struct {
	id    int
	app   string
	site  int
	epoch int64
	at    time.Duration
}

func (w *world) log(format string, args ...any) {
	if w.opt.Trace {
		w.trace = append(w.trace, fmt.Sprintf("%8.3fs ", w.now.Seconds())+fmt.Sprintf(format, args...))
	}
}

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
		w.log("VIOLATED: %v", w.err)
	}
}

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.r.Int64N(int64(d)) + 1) }

func (w *world) chance(percent int) bool { return w.r.IntN(100) < percent }

func (w *world) after(d time.Duration, do func()) { w.at(w.now+max(d, 0), do) }

func (w *world) at(t time.Duration, do func()) {
	w.n++
	w.agenda.Push(clockwork.Entry{At: max(t, w.now), N: w.n, Do: do})
}

// every does something again and again.
func (w *world) every(d time.Duration, do func()) {
	w.after(d/2+w.upTo(d), func() {
		do()
		w.every(d, do)
	})
}

func (w *world) newClock() clockwork.Clock {
	most := drift / 1e6
	if w.opt.WildClocks {
		most = 0.9
	}
	return clockwork.Clock{Rate: 1 + (2*w.r.Float64()-1)*most, Offset: w.upTo(time.Hour), Wall: w.upTo(48*time.Hour) - 24*time.Hour}
}

// delay is how long a message takes: short, and now and then very long.
func (w *world) delay() time.Duration {
	if w.r.IntN(50) == 0 {
		w.odd["late message"]++
		return w.upTo(25 * time.Second)
	}
	return w.upTo(100 * time.Millisecond)
}

// send carries a message, perhaps: it may be lost, late, or come twice.
func (w *world) send(from, to int, do func()) {
	if from == to {
		w.after(w.upTo(5*time.Millisecond), do)
		return
	}
	if !w.up[from][to] || w.r.Float64() < w.loss[from][to] {
		w.odd["lost message"]++
		return
	}
	w.after(w.delay(), do)
	if w.r.IntN(30) == 0 {
		w.odd["doubled message"]++
		w.after(w.delay(), do)
	}
}

// call asks somebody and waits for an answer, for so long.
func (w *world) call(from, to int, limit time.Duration, serve func(reply func(any)), done func(answer any, ok bool)) {
	answered := false
	w.send(from, to, func() {
		serve(func(x any) {
			w.send(to, from, func() {
				if !answered {
					answered = true
					done(x, true)
				}
			})
		})
	})
	w.after(limit, func() {
		if !answered {
			answered = true
			done(nil, false)
		}
	})
}

// play runs the schedule to its end.
func (w *world) play() {
	defer w.end()
	for len(w.agenda) > 0 && w.err == nil && w.now < horizon {
		e := w.agenda.Pop()
		w.now = e.At
		e.Do()
		if w.over() && w.now > w.ended+tail {
			return
		}
	}
}

// end leaves nothing of what waits behind.
func (w *world) end() {
	for _, s := range w.sites {
		s.kill()
	}
	for _, r := range w.runs {
		for _, e := range r.executors {
			e.procs.kill()
		}
	}
	w.threads.End()
}

func (w *world) over() bool {
	if w.ended > 0 {
		return true
	}
	if w.words != nil { // until its time is over
		return false
	}
	if w.expected > 0 {
		return false
	}
	for _, r := range w.runs {
		if !r.over || slices.ContainsFunc(r.executors, func(e *executor) bool { return e.alive && e.paused }) {
			return false
		}
	}
	w.ended = w.now
	return true
}

// asking is one probe of a source by a vantage point, for the checks.
type asking struct {
	source   string
	at       time.Duration
	answered bool
}
