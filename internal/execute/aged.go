package execute

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

// ErrMarked says that somebody else changed a mark in between: read it again.
var ErrMarked = errors.New("the mark was changed by another")

// Mark is what a site remembers of the orders of one step.
type Mark struct {
	// Seen is the highest number that was ordered, or that a look was answered
	// with "not done" under. No order at or below it is carried out any more.
	Seen int64 `json:"seen"`
	// Began is the number of the last order that was begun, Last what it was,
	// and Ended that it is done.
	Began int64           `json:"began,omitempty"`
	Last  failover.Action `json:"last,omitempty"`
	Ended bool            `json:"ended,omitempty"`
	// Looked says that somebody looked for what was begun, and that nobody could tell him whether it
	// was carried out. What has not been sent until then never is.
	Looked bool `json:"looked,omitempty"`
	// Point is what came with it.
	Point *failover.Point `json:"point,omitempty"`
	// Version is the store's, for Save.
	Version string `json:"-"`
}

// Marks keep marks where they survive the process: in the site's cluster.
type Marks interface {
	// Load reads a mark; one that was never saved is zero.
	Load(ctx context.Context, run, step string) (Mark, error)
	// Save replaces the mark that was loaded with m.Version, or returns ErrMarked.
	Save(ctx context.Context, run, step string, m Mark) error
}

// Aged refuses orders that have aged, for an actuator that does not know of
// them (docs/decisions/0011-runs.md, "Orders that age"): one order of a step at
// a time; none below the newest epoch; none at or below a number that was seen.
type Aged struct {
	Inner Actuator
	Marks Marks
	// Newest is the newest epoch of an application that the site knows. Nil: epochs do
	// not matter to the actuator.
	Newest func(ctx context.Context, app string) (int64, error)
	// Blind says that Inner cannot see whether a step was done: looks are
	// answered from the marks alone.
	Blind bool
	// Again says that Inner continues what it began: what was begun and has not
	// ended is not done, and is done by ordering it again.
	Again bool

	mu   sync.Mutex
	busy map[string]bool
}

// swept is the mark of a drill's whole sandbox.
const swept = ".sandbox"

// Do implements Actuator.
func (a *Aged) Do(ctx context.Context, o Order) Answer {
	key := o.Run + "/" + o.Step.Name
	if !a.enter(key) {
		if o.Action == failover.Look {
			return Answer{Outcome: failover.Busy}
		}
		return Unknown("an order of this step is being carried out")
	}
	defer a.leave(key)
	if o.Action == failover.Look {
		return a.look(ctx, o)
	}
	return a.order(ctx, o)
}

func (a *Aged) enter(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy[key] {
		return false
	}
	if a.busy == nil {
		a.busy = map[string]bool{}
	}
	a.busy[key] = true
	return true
}

func (a *Aged) leave(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.busy, key)
}

// look seals a "not done": from then on it stays true, whatever is still on
// its way. What was begun and is not to be seen, whoever began it may stand still over:
// it is Current no more, and looked for once more, as it may have come until then.
func (a *Aged) look(ctx context.Context, o Order) Answer {
	m, err := a.Marks.Load(ctx, o.Run, o.Step.Name)
	if err != nil {
		return Unknown("%v", err)
	}
	answer := a.seen(ctx, o, m)
	if answer.Outcome == failover.NoAnswer && a.Blind && m.Last == failover.Act && m.Began <= o.Token.Sequence && !m.Looked {
		m.Looked = true
		if err := a.Marks.Save(ctx, o.Run, o.Step.Name, m); err != nil {
			return Unknown("%v", err)
		}
	}
	open := !a.Blind && m.Last == failover.Act && m.Began > 0 && m.Began <= o.Token.Sequence && !m.Ended
	if answer.Outcome != failover.NotDone || m.Seen >= o.Token.Sequence && !open {
		return answer
	}
	m.Seen = max(m.Seen, o.Token.Sequence)
	if open {
		m.Began = 0
	}
	if err := a.Marks.Save(ctx, o.Run, o.Step.Name, m); err != nil {
		return Unknown("%v", err)
	}
	if open {
		return a.seen(ctx, o, m)
	}
	return answer
}

// Current tells whether an order that Aged let begin is still its step's newest: nothing newer
// was ordered since, no look said that it was not done, and its drill is not cleaned up. An
// actuator that asks this after it has prepared an effect which all can see, and lets it happen
// only if nobody has touched it meanwhile, does nothing late, however long it stood still.
func Current(ctx context.Context, marks Marks, o Order) (bool, error) {
	m, err := marks.Load(ctx, o.Run, o.Step.Name)
	if newest := m.Began == o.Token.Sequence && m.Last == o.Action && !m.Looked; err != nil || !newest || o.Sandbox == "" {
		return err == nil && newest, err
	}
	all, err := marks.Load(ctx, o.Run, swept)
	return err == nil && o.Token.Sequence >= all.Seen, err
}

// Late looks once more whether an order may be carried out, just before something is sent that nothing
// refuses: it is still its step's newest, and of no older epoch than newest says. Else it returns why not; where
// that cannot be told now, Unsent has it ordered again.
// What it cannot keep from being late is a process that stands still between this look and the sending.
func Late(ctx context.Context, marks Marks, newest func(ctx context.Context, app string) (int64, error), o Order) *Answer {
	if older := below(ctx, newest, o); older != nil {
		if older.Outcome == failover.NoAnswer {
			older.Unsent, older.Note = true, "nothing was sent, as it cannot be told which epoch is the newest: "+older.Note
		}
		return older
	}
	var not Answer
	switch current, err := Current(ctx, marks, o); { // last, as this is what takes a step back first
	case err != nil:
		not = Unknown("nothing was sent, as it cannot be told whether the order is still the newest: %v", err)
		not.Unsent = true
	case !current:
		not = Unknown("order %d is old: nothing was sent", o.Token.Sequence)
	default:
		return nil
	}
	return &not
}

// below says of an order that a newer epoch is known, or that nobody knows; nil: it is of the newest. A
// drill's have no epochs of their own.
func below(ctx context.Context, newest func(ctx context.Context, app string) (int64, error), o Order) *Answer {
	if o.Sandbox != "" || newest == nil {
		return nil
	}
	for _, app := range slices.Sorted(maps.Keys(o.Token.Epochs)) { // always the same is named
		epoch := o.Token.Epochs[app]
		known, err := newest(ctx, app)
		switch {
		case err != nil:
			not := Unknown("%v", err)
			return &not
		case known > epoch:
			not := Superseded("epoch %d of %s is known here, the order has %d", known, app, epoch)
			return &not
		}
	}
	return nil
}

func (a *Aged) seen(ctx context.Context, o Order, m Mark) Answer {
	if !a.Blind {
		return a.Inner.Do(ctx, o)
	}
	switch {
	case m.Began == 0 || m.Last == failover.Undo && m.Ended:
		return NotDone("")
	case m.Last == failover.Act && m.Ended:
		return Answer{Outcome: failover.Done, Point: m.Point}
	}
	if a.Again && m.Last == failover.Act {
		return NotDone("it was begun")
	}
	return Unknown("it was begun, and nobody knows whether it was carried out")
}

// order carries out an act or its undo, unless it is old.
func (a *Aged) order(ctx context.Context, o Order) Answer {
	m, err := a.Marks.Load(ctx, o.Run, o.Step.Name)
	if err != nil {
		return Unknown("%v", err)
	}
	if answer, old := a.refuses(ctx, o, m); old {
		return answer
	}
	m.Seen, m.Began, m.Last, m.Ended, m.Looked, m.Point = o.Token.Sequence, o.Token.Sequence, o.Action, false, false, nil
	if err := a.save(ctx, o, m); err != nil {
		return Unknown("%v", err)
	}
	answer := a.Inner.Do(ctx, o)
	if answer.Outcome != failover.Done {
		nothing := answer.Unsent || answer.Outcome == failover.Refused || answer.Outcome == failover.Superseded && !a.Again
		if !nothing || !a.Blind || o.Action != failover.Act {
			return answer
		}
		if err := a.forget(ctx, o); err != nil && answer.Unsent { // a look would ask people what came of it
			answer.Outcome = failover.Refused
		}
		return answer
	}
	if err := a.ended(ctx, o, answer); err != nil && a.Blind {
		return Unknown("it was carried out, and that could not be noted: %v", err)
	}
	return answer // who is not blind asks the site itself
}

// ended notes that an order was carried out, unless a newer one was begun.
func (a *Aged) ended(ctx context.Context, o Order, answer Answer) error {
	return a.note(ctx, o, func(m *Mark) { m.Ended, m.Point = true, answer.Point })
}

// forget notes that an act was refused, or that nothing was sent, so that a look
// says so: what the run's own claim superseded is ordered again, under the newer epoch. Without it a look knows less.
func (a *Aged) forget(ctx context.Context, o Order) error {
	return a.note(ctx, o, func(m *Mark) { m.Began = 0 })
}

// note changes the mark of an order that was begun last. Somebody who looks for it may change it in between, once.
func (a *Aged) note(ctx context.Context, o Order, change func(*Mark)) error {
	for again := true; ; again = false {
		m, err := a.Marks.Load(ctx, o.Run, o.Step.Name)
		if err != nil || m.Began != o.Token.Sequence {
			return err
		}
		change(&m)
		if err = a.Marks.Save(ctx, o.Run, o.Step.Name, m); !again || !errors.Is(err, ErrMarked) {
			return err
		}
	}
}

// save notes an order before it is carried out. The cleanup of a drill is the
// newest order for all of its sandbox.
func (a *Aged) save(ctx context.Context, o Order, m Mark) error {
	if o.Step.Kind == plan.KindCleanup && o.Action == failover.Act {
		all, err := a.Marks.Load(ctx, o.Run, swept)
		if err != nil {
			return err
		}
		all.Seen = max(all.Seen, o.Token.Sequence)
		if err := a.Marks.Save(ctx, o.Run, swept, all); err != nil {
			return err
		}
	}
	return a.Marks.Save(ctx, o.Run, o.Step.Name, m)
}

func (a *Aged) refuses(ctx context.Context, o Order, m Mark) (Answer, bool) {
	last := m.Last == o.Action && m.Began == o.Token.Sequence
	switch {
	case o.Token.Sequence > m.Seen:
	case last && m.Ended:
		return Answer{Outcome: failover.Done, Point: m.Point}, true
	case last && o.Action == failover.Undo && m.Seen == m.Began:
		// It was begun, and nobody knows what came of it. Nothing looks at an undo: it is
		// ordered again under its number until it is done, and nothing newer was ordered.
	default:
		return Unknown("order %d is old: %d was seen", o.Token.Sequence, m.Seen), true
	}
	if o.Sandbox != "" {
		all, err := a.Marks.Load(ctx, o.Run, swept)
		if err != nil {
			return Unknown("%v", err), true
		}
		if o.Token.Sequence < all.Seen {
			return Refuse("the drill is cleaned up"), true
		}
		return Answer{}, false
	}
	// To let go of what a run held can hurt nobody: who holds the epoch may
	// still not start before all have let go.
	free := o.Action == failover.Undo && (o.Step.Kind == plan.KindQuiesce || o.Step.Kind == plan.KindSuspend)
	if free {
		return Answer{}, false
	}
	if older := below(ctx, a.Newest, o); older != nil {
		return *older, true
	}
	return Answer{}, false
}
