package barrier

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// The simulator plays captures of several nodes with slow, repeated and lost
// messages, slow kernels, processes that crash or stand still, and strangers
// who thaw. Orders and reports are states that are looked at, as through an
// API server. It checks, for every run: nothing stays frozen, nothing is
// frozen for longer than the window and what the kernel and the watchdog take,
// the coordinator comes to an end, and what it claims is true.

const (
	simWindow   = 10 * time.Second
	simPatience = 20 * time.Second
	simGrace    = time.Second            // the watchdog's, on top of the window
	simKernel   = 300 * time.Millisecond // a freeze or thaw takes at most
	simNotice   = 100 * time.Millisecond // the watchdog sees a death within
)

// entry is something that happens.
type entry struct {
	at time.Time
	do func()
}

type agenda []entry

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a agenda) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }

// Push and Pop implement heap.Interface.
func (a *agenda) Push(x any) { *a = append(*a, x.(entry)) }

func (a *agenda) Pop() any {
	old := *a
	last := old[len(old)-1]
	*a = old[:len(old)-1]
	return last
}

// disk is one file system: when it was frozen, and when cut.
type disk struct {
	frozen bool
	since  time.Time
	spells [][2]time.Time // each freeze, from its end to the thaw
	cut    time.Time
}

// box is one node.
type box struct {
	name           string
	holder         *Holder
	disks          []*disk
	alive, guarded bool
	paused         bool
	inbox          []Word // while paused
	order          Action
	removed        bool
	begun          time.Time // of the first freeze that was asked for
}

type world struct {
	r       *rand.Rand
	now     time.Time
	agenda  agenda
	boxes   []*box
	coord   *Coordinator
	alive   bool // the coordinator
	done    bool
	lying   bool // nodes' reports are read as "held", for the control
	longest time.Duration
}

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.r.Int64N(int64(d)) + 1) }

func (w *world) after(d time.Duration, do func()) {
	heap.Push(&w.agenda, entry{w.now.Add(d), do})
}

// delay is how long a message takes: short, and now and then very long.
func (w *world) delay() time.Duration {
	if w.r.IntN(40) == 0 {
		return w.upTo(15 * time.Second)
	}
	return w.upTo(400 * time.Millisecond)
}

func newSimulation(seed uint64, lying bool) *world {
	w := &world{r: rand.New(rand.NewPCG(seed, 7)), now: origin, alive: true, lying: lying}
	plan := Plan{Window: simWindow, ArmLimit: 5 * time.Second, Slack: 3 * time.Second, Required: w.r.IntN(4) == 0}
	for i := range 1 + w.r.IntN(3) {
		b := &box{name: fmt.Sprint("n", i), alive: true, guarded: true, order: -1}
		for range 1 + w.r.IntN(3) {
			b.disks = append(b.disks, &disk{})
		}
		w.boxes = append(w.boxes, b)
		plan.Nodes = append(plan.Nodes, b.name)
	}
	w.coord = NewCoordinator(plan)
	return w
}

// tell steps the coordinator.
func (w *world) tell(e Event) {
	if !w.alive || w.done {
		return
	}
	if w.lying && e.Kind == Ended {
		e.Held = true
	}
	for _, f := range w.coord.Step(w.now, e) {
		switch f.Action {
		case Cut:
			w.cutAll()
		case Finish:
			w.done = true
			for _, b := range w.boxes {
				w.after(w.delay(), func() { w.remove(b) })
			}
		default:
			for _, b := range w.boxes {
				if b.name == f.Node {
					w.order(b, f.Action)
				}
			}
		}
	}
	if d := w.coord.Deadline(); !d.IsZero() {
		w.after(max(0, d.Sub(w.now)), func() { w.tell(Event{Kind: Tick}) })
	}
}

// order changes the node's order; it is seen later, and perhaps twice.
func (w *world) order(b *box, a Action) {
	for range 1 + w.r.IntN(2) {
		w.after(w.delay(), func() {
			if b.removed || b.order >= a {
				return
			}
			b.order = a
			if b.alive && b.holder == nil {
				w.arm(b)
			}
			switch a {
			case Freeze:
				w.word(b, Word{Signal: OrderFreeze})
			case Thaw:
				w.word(b, Word{Signal: OrderThaw})
			}
		})
	}
}

func (w *world) remove(b *box) {
	b.removed = true
	w.word(b, Word{Signal: Abandoned})
}

func (w *world) arm(b *box) {
	b.holder = NewHolder(len(b.disks), simWindow, simPatience, w.now)
	w.after(w.upTo(200*time.Millisecond), func() {
		if w.r.IntN(30) == 0 {
			w.word(b, Word{Signal: Refused, Why: "shared with the node"})
			return
		}
		w.word(b, Word{Signal: Ready})
		if b.order >= Freeze { // the order is a state: it is looked at again
			w.word(b, Word{Signal: OrderFreeze})
		}
		if b.order >= Thaw {
			w.word(b, Word{Signal: OrderThaw})
		}
	})
}

// word steps a node's holder, or waits until it goes on.
func (w *world) word(b *box, x Word) {
	switch {
	case !b.alive || b.holder == nil:
		return
	case b.paused:
		b.inbox = append(b.inbox, x)
		return
	}
	for _, task := range b.holder.Step(w.now, x) {
		switch task.Deed {
		case FreezeVolume:
			if b.begun.IsZero() {
				b.begun = w.now
			}
			w.after(w.upTo(simKernel), func() { w.kernelFroze(b, task.Volume) })
		case ThawVolume:
			w.after(w.upTo(simKernel/10), func() { w.word(b, Word{Signal: Thawed, Volume: task.Volume, Still: w.thaw(b.disks[task.Volume])}) })
		case Report:
			said := b.holder.Said()
			for range 1 + w.r.IntN(2) {
				w.after(w.delay(), func() { w.report(b, said) })
			}
		}
	}
	if d := b.holder.Deadline(); !d.IsZero() {
		w.after(max(0, d.Sub(w.now)), func() { w.word(b, Word{Signal: Clock}) })
	}
}

func (w *world) report(b *box, s Said) {
	kind := map[State]Kind{StateArmed: Armed, StateFrozen: Frozen, StateEnded: Ended}[s.State]
	w.tell(Event{Kind: kind, Node: b.name, Held: s.Held, Why: s.Why, Took: s.Took})
}

// kernelFroze ends a freeze, which happens also when its process is dead.
func (w *world) kernelFroze(b *box, i int) {
	d := b.disks[i]
	d.frozen, d.since = true, w.now
	if !b.alive {
		w.after(w.upTo(simNotice), func() { w.thaw(d) }) // the last thread ends, the watchdog sees it
		return
	}
	// The watchdog's own deadline, for a process that stands still.
	w.after(max(0, b.begun.Add(simWindow+simGrace).Sub(w.now)), func() {
		if b.guarded {
			w.thaw(d)
		}
	})
	w.word(b, Word{Signal: Froze, Volume: i})
}

func (w *world) thaw(d *disk) (still bool) {
	if !d.frozen {
		return false
	}
	d.frozen = false
	d.spells = append(d.spells, [2]time.Time{d.since, w.now})
	w.longest = max(w.longest, w.now.Sub(d.since))
	return true
}

// cutAll cuts every disk at some moment before it says so.
func (w *world) cutAll() {
	limit := 3 * time.Second
	if w.r.IntN(10) == 0 {
		limit = 20 * time.Second
	}
	var last time.Duration
	for _, b := range w.boxes {
		for _, d := range b.disks {
			at := w.upTo(limit)
			last = max(last, at)
			w.after(at, func() { d.cut = w.now })
		}
	}
	w.after(last+w.upTo(100*time.Millisecond), func() { w.tell(Event{Kind: CutsDone}) })
}

// misfortune lets something go wrong at a moment of its own.
func (w *world) misfortune() {
	b := w.boxes[w.r.IntN(len(w.boxes))]
	do := []func(){
		func() {},
		func() { w.alive = false },
		func() { w.crash(b) },
		func() { b.guarded = false; w.after(w.upTo(simNotice), func() { w.word(b, Word{Signal: GuardLost}) }) },
		func() { w.pause(b) },
		func() { w.thaw(b.disks[w.r.IntN(len(b.disks))]) }, // a stranger
		func() { w.tell(Event{Kind: Cancelled}) },
		func() { w.word(b, Word{Signal: Stopping}) },
		func() { w.remove(b) },
	}
	w.after(w.upTo(6*time.Second), do[w.r.IntN(len(do))])
}

// crash ends a node process; its watchdog thaws, and a new process tells.
func (w *world) crash(b *box) {
	b.alive = false
	for _, d := range b.disks {
		w.after(w.upTo(simNotice), func() { w.thaw(d) })
	}
	w.after(w.delay(), func() { w.tell(Event{Kind: Ended, Node: b.name, Why: "the node process was started anew"}) })
}

func (w *world) pause(b *box) {
	b.paused = true
	w.after(w.upTo(40*time.Second), func() {
		b.paused = false
		for _, x := range b.inbox {
			w.word(b, x)
		}
		w.word(b, Word{Signal: Clock})
	})
}

func (w *world) play() {
	w.tell(Event{Kind: Start})
	w.misfortune()
	for len(w.agenda) > 0 {
		e := heap.Pop(&w.agenda).(entry)
		w.now = e.at
		e.do()
		if w.now.Sub(origin) > time.Hour {
			panic("the simulation does not end")
		}
	}
}

// check returns what is wrong with the run.
func (w *world) check() error {
	for _, b := range w.boxes {
		for i, d := range b.disks {
			if d.frozen {
				return fmt.Errorf("disk %d of %s stays frozen", i, b.name)
			}
		}
	}
	if bound := simWindow + simGrace + 2*simKernel; w.longest > bound {
		return fmt.Errorf("something was frozen for %s, more than %s", w.longest, bound)
	}
	if w.alive && !w.done {
		return fmt.Errorf("the coordinator did not come to an end")
	}
	if !w.coord.Outcome().Held {
		return nil
	}
	return w.oneInstant()
}

// oneInstant checks that all cuts lie inside one time in which every disk stood still.
func (w *world) oneInstant() error {
	from, until := time.Time{}, origin.Add(24*time.Hour)
	var first, last time.Time
	for _, b := range w.boxes {
		for _, d := range b.disks {
			if d.cut.IsZero() {
				return fmt.Errorf("held, but a disk of %s was not cut", b.name)
			}
			if first.IsZero() || d.cut.Before(first) {
				first = d.cut
			}
			if d.cut.After(last) {
				last = d.cut
			}
			in := false
			for _, s := range d.spells {
				if !d.cut.Before(s[0]) && !d.cut.After(s[1]) {
					in = true
					if s[0].After(from) {
						from = s[0]
					}
					if s[1].Before(until) {
						until = s[1]
					}
				}
			}
			if !in {
				return fmt.Errorf("held, but a disk of %s was not frozen when it was cut", b.name)
			}
		}
	}
	if first.Before(from) || last.After(until) {
		return fmt.Errorf("held, but the cuts lie outside of the common freeze")
	}
	return nil
}

func TestSimulation(t *testing.T) {
	const runs = 20000
	held := 0
	reasons := map[string]bool{}
	for seed := range uint64(runs) {
		w := newSimulation(seed, false)
		w.play()
		if err := w.check(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		out := w.coord.Outcome()
		if out.Held {
			held++
		}
		reasons[out.Why] = true
	}
	t.Logf("%d of %d runs held, with %d different reasons for the others", held, runs, len(reasons)-1)
	if held < runs/4 || held > runs*9/10 || len(reasons) < 10 {
		t.Errorf("%d of %d runs held, with %d reasons: the simulation does not try both", held, runs, len(reasons))
	}
}

// TestSimulationFindsLies is the control: without the nodes' word that they
// held, points would claim what is not true, and the simulator sees it.
func TestSimulationFindsLies(t *testing.T) {
	for seed := range uint64(20000) {
		w := newSimulation(seed, true)
		w.play()
		if err := w.check(); err != nil {
			t.Logf("seed %d: %v", seed, err)
			return
		}
	}
	t.Error("no claim was found untrue although the nodes' word was not needed")
}
