package execute

import (
	"strings"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/transcript"
)

// Loop is what an executor decides: which orders follow from what a run's machine
// wants, what is under way already, and what the answers of several sites come to. It
// has no clock, no goroutines and does no I/O: Executor gives it those of a process,
// the simulator (internal/testkit) those of a world in virtual time.
type Loop struct {
	machine *failover.Machine
	flying  map[int64]bool            // effects that are under way
	surveys map[failover.Action]int64 // under way, and the newest question's id
}

// NewLoop makes the loop of one machine.
func NewLoop(m *failover.Machine) *Loop {
	return &Loop{machine: m, flying: map[int64]bool{}, surveys: map[failover.Action]int64{}}
}

// Task is something to be done now, beside all that is under way. Whoever does it tells
// the Loop what came of it, if its Action does not say otherwise.
type Task struct {
	// Action is Append (tell Recorded, Unrecorded or Deposed), Evaluate (Gathered), Verify
	// (Surveyed), Age (Aged), Look, Act or Undo (tell what Sum says), or Refuse and Halt,
	// of which nothing is told.
	Action  failover.Action
	Entries []failover.Entry // of Append
	// State is the run's, for Evaluate, Verify and Age: a copy.
	State *failover.State
	// Orders are those of a step, one for each site that it is about, to be given all at
	// once and to be answered within Limit. Step is its name: an Undo ends the Act of
	// its step that is under way.
	Orders []Order
	Step   string
	Limit  time.Duration
	Why    string // of Refuse, to whoever asked, and Halt

	effect failover.Effect
}

// Tell hands the machine an event, and returns what is to be done then, in order.
func (l *Loop) Tell(now failover.Moment, ev failover.Event) []Task {
	if ev.Kind == failover.Looked || ev.Kind == failover.Acted {
		delete(l.flying, ev.ID)
	}
	var tasks []Task
	for _, f := range l.machine.Step(now, l.numbered(ev)) {
		if t, ok := l.task(f); ok {
			tasks = append(tasks, t)
		}
	}
	return tasks
}

// numbered gives a survey's result the id of the newest question: the machine
// asks again while one is under way.
func (l *Loop) numbered(ev failover.Event) failover.Event {
	for kind, a := range map[failover.EventKind]failover.Action{failover.Gathered: failover.Evaluate, failover.Surveyed: failover.Verify, failover.Aged: failover.Age} {
		if ev.Kind == kind {
			ev.ID = l.surveys[a]
			delete(l.surveys, a)
		}
	}
	return ev
}

// task is what an effect asks for. What is asked again while it is under way needs no
// second one: the answer to the first will do.
func (l *Loop) task(f failover.Effect) (Task, bool) {
	t := Task{Action: f.Action, Entries: f.Entries, Why: f.Why, effect: f}
	switch f.Action {
	case failover.Evaluate, failover.Verify, failover.Age:
		_, under := l.surveys[f.Action]
		l.surveys[f.Action] = f.ID
		if under {
			return t, false
		}
		t.State = l.machine.State()
	case failover.Look, failover.Act, failover.Undo:
		if l.flying[f.ID] {
			return t, false
		}
		l.flying[f.ID] = true
		t.Step, t.Limit = f.Step.Name, f.Step.Timeout
		if f.Action == failover.Look {
			t.Limit = lookTimeout
		}
		t.Orders = l.orders(f)
	}
	return t, true
}

// orders are those of an effect, one for each site.
func (l *Loop) orders(f failover.Effect) []Order {
	spec := l.machine.Peek().Spec // which never changes
	var all []Order
	for _, site := range f.Sites {
		all = append(all, Order{
			Action: f.Action, Run: spec.Run, Plan: spec.Plan, Verb: spec.Verb, Step: *f.Step, Token: f.Token,
			Site: site, From: spec.From, To: spec.To, Sandbox: f.Sandbox, Fence: spec.Fence, Point: f.Point, Ready: readyAfter(spec, f.Step),
		})
	}
	return all
}

// readyAfter is how long the run waits for what a step starts.
func readyAfter(spec failover.Spec, step *plan.Step) time.Duration {
	if step.Kind != plan.KindScale {
		return 0
	}
	for _, s := range spec.Steps {
		if s.Kind == plan.KindReady && s.Application == step.Application {
			return s.Timeout
		}
	}
	return 0
}

// Sum is what the answers to all orders of a Look, an Act or an Undo come to, in the order
// of Orders. Nobody to ask is done.
func (t Task) Sum(answers []Answer) failover.Event { return sum(t.effect, answers) }

func sum(f failover.Effect, answers []Answer) failover.Event {
	ev := failover.Event{Kind: failover.Acted, ID: f.ID, Outcome: failover.Done}
	if f.Action == failover.Look {
		ev.Kind = failover.Looked
	}
	// A refusal stands, whatever others may say later: of an act, and of a look at the fence of a planned move,
	// whose source says that something ran. A third site that is silent must not hide that.
	stands := f.Action == failover.Act || f.Action == failover.Look && f.Step.Kind == plan.KindFence && f.Step.OnError == plan.Rollback
	refused := false
	for i, a := range answers {
		if a.Outcome != failover.Done && (ev.Outcome == failover.Done || a.Outcome == failover.NoAnswer) && !refused {
			ev.Outcome = a.Outcome
		}
		if a.Note != "" && !refused {
			ev.Note = a.Note
		}
		if stands && a.Outcome == failover.Refused {
			ev.Outcome, refused = failover.Refused, true
			ev.Note = a.Note
		}
		if a.Guard == Unfenced && a.Outcome == failover.Done && ev.Kind == failover.Acted {
			ev.Note = "unfenced: nothing refuses a late order here; " + a.Note
		}
		if a.Proof != nil {
			ev.Proofs = append(ev.Proofs, *a.Proof)
		}
		if a.Asked {
			ev.Asked = append(ev.Asked, f.Sites[i])
		}
		if a.Point != nil {
			ev.Point = a.Point
		}
		if a.Moved != nil {
			ev.Moved = a.Moved
		}
		ev.Stuck = ev.Stuck || a.Stuck
		if a.Said != "" { // it may have come from another site: it is bounded here as well
			ev.Said = transcript.Keep(strings.TrimPrefix(ev.Said+"\n"+a.Said, "\n"), nil)
		}
		if a.Holder != "" {
			ev.Site = a.Holder
		}
		ev.Epoch = max(ev.Epoch, a.Epoch)
	}
	if ev.Kind == failover.Acted && (ev.Outcome == failover.NotDone || ev.Outcome == failover.Busy) {
		ev.Outcome = failover.NoAnswer // of an act: nobody knows yet
	}
	return ev
}
