package failover

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/internal/plan"
)

// Times of a Machine.
const (
	// Patience is how long a look, an evaluation or a verification may take
	// before it is asked for again.
	Patience = 5 * time.Second
	// Grace is how long a step whose time is up is looked at, until its outcome
	// is called unknown.
	Grace = 15 * time.Second
	// Breath is the least time between two tries of one thing.
	Breath = time.Second
	// LettingGo is how long a source has at least to start again what a run held there: 20 s
	// until its agent knows that it may, 30 s for nodes that would stop it, and as much again
	// for orders and answers on their way.
	LettingGo = 90 * time.Second
	// LookAgain is how often something unknown is looked at.
	LookAgain = 10 * time.Second
)

// MostSaid is how many bytes of what its steps say the journal of a run keeps. What went
// well takes half of it at most: people want to hear the step that did not.
const MostSaid = 512 << 10

// Action says what an effect asks for.
type Action string

// The effects.
const (
	Append   Action = "append"   // put Entries into the journal; answer Recorded, Unrecorded or Deposed
	Evaluate Action = "evaluate" // gather Facts; answer Gathered
	Look     Action = "look"     // is Step done? Changes nothing; answer Looked
	Act      Action = "act"      // do Step; answer Acted
	Undo     Action = "undo"     // take Step back; answer Acted
	Verify   Action = "verify"   // does all of it stand, and only there? Answer Surveyed
	Age      Action = "age"      // how long ago did the run begin to wait for its commit? Answer Aged
	Refuse   Action = "refuse"   // tell By why what they want cannot be: Why
	Halt     Action = "halt"     // this executor has nothing more to say, ever
)

// Effect is something the Machine wants done.
type Effect struct {
	Action Action
	ID     int64 // comes back in the answer
	Step   *plan.Step
	Token  Token
	Sites  []string // where: of a fence, all former holders that there are to ask
	// Sandbox is set in drills: nothing outside of it may change.
	Sandbox string
	// Point is what data comes from; nil: the newest that may be offered.
	Point   *Point
	Entries []Entry
	By, Why string
}

// EventKind says what an event is.
type EventKind string

// The events. The first ones answer effects, the others come by themselves.
const (
	Recorded   EventKind = "recorded"   // the journal holds the entries
	Unrecorded EventKind = "unrecorded" // perhaps it does
	Deposed    EventKind = "deposed"    // another executor has written there
	Gathered   EventKind = "gathered"   // Facts; if there are none, Note
	Looked     EventKind = "looked"     // Outcome, Proofs, Point
	Acted      EventKind = "acted"      // Outcome, Proofs, Point, Asked
	Surveyed   EventKind = "surveyed"   // Outcome, Note, which is who was unheard if it is Done; Split if two sites write
	Aged       EventKind = "aged"       // Outcome; Age, or Note

	Begin    EventKind = "begin" // the executor takes the run up
	Tick     EventKind = "tick"  // time has passed
	Sighting EventKind = "sighting"
	Approve  EventKind = "approve"
	Reject   EventKind = "reject"
	Pausing  EventKind = "pause"
	Resume   EventKind = "resume"
	Retry    EventKind = "retry"  // Step, or all that failed
	Skip     EventKind = "skip"   // Step
	Answer   EventKind = "answer" // Step: a person did it (Done) or could not (Refused)
	Consent  EventKind = "consent"
	Commit   EventKind = "commit"
	RollBack EventKind = "roll back"
	Cancel   EventKind = "cancel"
	Settle   EventKind = "settle" // Step, or all: of a run that is over, which no Machine carries (internal/settlement)
)

// Outcome is how a look or an act went.
type Outcome string

// The outcomes. Of a look: Done, NotDone, Busy, Refused, Superseded, NoAnswer. Of
// an act: Done, Refused, Superseded, NoAnswer.
const (
	Done       Outcome = "done"
	NotDone    Outcome = "not done"
	Busy       Outcome = "busy"       // it is being done
	Refused    Outcome = "refused"    // it was not done and will not be; of a look: to look is refused
	Superseded Outcome = "superseded" // another site's epoch is newer
	NoAnswer   Outcome = "no answer"  // who knows
)

// Event is something a Machine is told.
type Event struct {
	Kind    EventKind
	ID      int64
	Outcome Outcome
	Note    string
	Proofs  []Proof
	Asked   []string // sites that said they heard
	Said    string   // by a program that did it, or a server
	Stuck   bool     // of a look that says Busy: it may never end by itself, and Note says what helps
	Point   *Point
	Moved   *Moved
	Epoch   int64 // of a claim or its return
	Facts   *Facts
	Split   string
	Age     time.Duration // of the record since which the run awaits its commit, by the vault's clock
	By      string
	Groups  []string // that the cluster knows By to be of
	Denied  string   // why By has no right to that; empty: he has
	Step    string
	Site    string // of a consent, or that claimed what is superseded
	Text    string // what the person typed
	Request int64  // the number of the person's request; 0: it has none
}

// flight is what a Machine is doing about a step right now.
type flight struct {
	doing Action // Look, Act, Undo; empty: about to look
	id    int64  // of the effect that is out; 0: none
	// then is what the look is for: Act, Undo, or nothing but to know.
	then  Action
	began time.Duration
	limit time.Duration
	next  time.Duration // look or ask again then, unless an answer comes
	watch bool          // of a fence that has ended without proof, until there is one
	said  string        // by the newest look, if that knew no end of it
	// epochs are what the effect that is or was out first went out with.
	epochs map[string]int64
	// outlived are what its newest order went out with, if the run's own claim superseded
	// that: it is ordered anew once the claims have brought others, or have come to nothing.
	outlived map[string]int64
}

// Machine carries one run, for one executor.
type Machine struct {
	executor string
	state    *State
	now      Moment
	begun    bool
	halted   bool
	ids      int64
	// draft is what the journal will hold next; nothing else is decided until
	// it does. inbox are the events that came meanwhile.
	draft     []Entry
	appending bool
	inbox     []Event
	out       []Effect
	flights   map[string]*flight
	// stands are the claims that a look found to stand, or not to be there, since
	// the run rolls back.
	stands map[string]bool
	// stuck are the steps of which this executor noted that they may never end.
	stuck map[string]bool
	// known is when this executor knew that a step had succeeded, by its own
	// clock: waits count from then.
	known  map[string]time.Duration
	due    map[string]int // see plan.Awaited
	survey flight         // of Evaluating, Verifying and AwaitingCommit
	// window is when the time to commit is over, if it is that of the state's
	// Awaiting.
	window  time.Duration
	counted int64
}

// New makes a Machine for a new run.
func New(executor string, spec Spec) (*Machine, error) {
	if err := spec.Check(); err != nil {
		return nil, err
	}
	m := TakeOver(executor, NewState())
	m.draft = []Entry{{Kind: Opened, Spec: &spec, By: spec.By}}
	return m, nil
}

// TakeOver makes a Machine that goes on from what the journal says.
func TakeOver(executor string, s *State) *Machine {
	return &Machine{executor: executor, state: s.Clone(), flights: map[string]*flight{}, stands: map[string]bool{}, stuck: map[string]bool{}, known: map[string]time.Duration{}}
}

// State returns a copy of what the journal says, as far as this Machine knows.
func (m *Machine) State() *State { return m.state.Clone() }

// Spec is what the run is about, also before the journal holds it.
func (m *Machine) Spec() Spec {
	if m.state.Spec.Run == "" && len(m.draft) > 0 {
		return *m.draft[0].Spec
	}
	return m.state.Spec
}

// Peek returns what the journal says without copying it: to be read before the
// next Step, and not kept. Runs of many steps have many events.
func (m *Machine) Peek() *State { return m.state }

// Phase is where the run is; Paused where it does not go on by itself.
func (m *Machine) Phase() Phase { return m.state.Shown() }

// Shown is the phase as people see it.
func (s *State) Shown() Phase {
	if s.Pause != nil && !s.Phase.Over() {
		return Paused
	}
	return s.Phase
}

// Step takes an event and returns what to do, in order. Answers to an effect
// may be late, lost or come twice.
func (m *Machine) Step(now Moment, e Event) []Effect {
	m.now, m.out = now, nil
	if m.halted {
		return nil
	}
	switch e.Kind {
	case Begin:
		m.begin()
	case Deposed:
		m.halted = true
		return []Effect{{Action: Halt, Why: "another executor carries the run"}}
	case Recorded:
		m.recorded()
	case Unrecorded:
		if m.appending {
			m.out = append(m.out, m.put())
		}
	case Tick: // it is enough to work
	default:
		m.inbox = append(m.inbox, e)
	}
	m.work()
	return m.out
}

// begin writes first: whoever took over before and still acts loses its next
// put, and so learns of it.
func (m *Machine) begin() {
	if m.begun {
		return
	}
	m.begun = true
	for i := range m.draft { // of the opening
		m.draft[i].At = m.now.Wall.UTC().Round(0)
	}
	for name, step := range m.state.Steps {
		if step.Status == Succeeded {
			m.known[name] = m.now.Mono
		}
	}
	m.note(Entry{Kind: Took, By: m.executor})
}

func (m *Machine) recorded() {
	if !m.appending {
		return
	}
	m.appending = false
	entries, awaited := m.draft, m.state.Awaiting
	m.draft = nil
	if err := m.state.Replay(m.state.Sequence+1, entries); err != nil {
		m.halted = true // a defect: it must not act on it
		m.out = append(m.out, Effect{Action: Halt, Why: err.Error()})
		return
	}
	if m.state.Awaiting != awaited {
		m.counted, m.window = m.state.Awaiting, m.now.Mono+m.state.Spec.Commit.Window
	}
	for _, e := range entries {
		m.follow(e)
	}
}

// follow does what may be done now that the journal holds an entry.
func (m *Machine) follow(e Entry) {
	switch e.Kind {
	case Intended:
		m.send(e.Step, Act)
	case Undoing:
		m.send(e.Step, Undo)
	case Ended:
		if e.Status == Doing {
			return // it has not, and is looked at
		}
		delete(m.flights, e.Step)
		if e.Status == Succeeded {
			m.known[e.Step] = m.now.Mono
		}
	case Undone, Overtaken, Retried, Stuck:
		delete(m.flights, e.Step)
	}
}

// work handles events until the journal must be written or nothing is left.
func (m *Machine) work() {
	for !m.halted && !m.appending {
		if len(m.draft) == 0 && len(m.inbox) > 0 {
			e := m.inbox[0]
			m.inbox = m.inbox[1:]
			m.handle(e)
			continue
		}
		if len(m.draft) == 0 {
			m.advance()
		}
		if len(m.draft) == 0 {
			return
		}
		m.appending = true
		m.out = append(m.out, m.put())
	}
}

func (m *Machine) put() Effect {
	return Effect{Action: Append, Entries: m.draft}
}

// note drafts an entry.
func (m *Machine) note(e Entry) {
	most := MostSaid
	if e.Status == Succeeded || e.Kind == Undone {
		most /= 2
	}
	if e.Said != "" && m.state.Said+len(e.Said) > most {
		e.Said = "[not kept: the steps of this run have said too much]"
	}
	e.At = m.now.Wall.UTC().Round(0)
	m.draft = append(m.draft, e)
}

func (m *Machine) handle(e Event) {
	switch e.Kind {
	case Gathered:
		switch {
		case m.survey.id != e.ID || m.state.Phase != Evaluating:
		case e.Facts == nil: // it is asked again
			m.survey.said = e.Note
		default:
			m.survey = flight{}
			m.note(Entry{Kind: Evaluated, Facts: e.Facts})
		}
	case Surveyed:
		m.surveyed(e)
	case Aged:
		m.aged(e)
	case Looked:
		m.proofs(e)
		m.looked(e)
	case Acted:
		m.proofs(e)
		m.acted(e)
	case Sighting:
		if slices.Contains([]Phase{Running, OutcomeUnknown, Verifying, AwaitingCommit}, m.state.Phase) {
			m.note(Entry{Kind: Split, Note: e.Split, By: e.By})
		}
	default:
		m.person(e)
	}
}

func (m *Machine) surveyed(e Event) {
	if m.survey.id != e.ID || m.state.Phase != Verifying || m.state.Pause != nil {
		return
	}
	switch {
	case e.Split != "":
		m.note(Entry{Kind: Split, Note: e.Split})
	case e.Outcome == Done:
		m.note(Entry{Kind: Verified, Unheard: e.Note})
	case e.Outcome == NotDone:
		m.note(Entry{Kind: Verified, Note: e.Note})
	default: // nobody could say: again later
		m.survey = flight{next: m.now.Mono + Patience, said: e.Note}
		return
	}
	m.survey = flight{}
}

// advance starts whatever can be started.
func (m *Machine) advance() {
	if !m.begun || m.state.Phase.Over() || (m.state.Pause != nil && m.state.Pause.Kind != ForInput) {
		m.ongoing()
		return
	}
	switch m.state.Phase {
	case Evaluating:
		m.ask(Evaluate)
	case Running, OutcomeUnknown:
		m.run()
	case Verifying:
		m.ask(Verify)
	case AwaitingCommit:
		m.awaitCommit()
	case RollingBack:
		m.rollBack()
	}
	m.ongoing()
}

// ask lets the executor gather facts or survey, and asks again after a while.
func (m *Machine) ask(a Action) {
	if m.now.Mono < m.survey.next {
		return
	}
	m.ids++
	m.survey = flight{id: m.ids, next: m.now.Mono + 2*Patience, said: m.survey.said}
	m.out = append(m.out, Effect{Action: a, ID: m.ids, Sandbox: m.sandbox()})
}

// awaitCommit ends the run when its time to commit is over. That counts from the
// record with which the run began to wait: whoever takes it over asks how old it is.
func (m *Machine) awaitCommit() {
	switch {
	case m.state.Spec.Commit.Then == "":
		return
	case m.counted != m.state.Awaiting:
		m.ask(Age)
		return
	case m.now.Mono < m.window:
		return
	}
	if m.state.Spec.Commit.Then == plan.ThenRollback && m.state.WayBack() == "" {
		m.note(Entry{Kind: Rolling, Note: "nobody committed the run in time"})
		return
	}
	m.note(Entry{Kind: Committed, Note: "the time to roll back is over"})
}

func (m *Machine) aged(e Event) {
	if m.survey.id != e.ID || m.state.Phase != AwaitingCommit || m.counted == m.state.Awaiting {
		return
	}
	m.survey = flight{}
	if e.Outcome != Done { // nobody could say: again later
		m.survey.next, m.survey.said = m.now.Mono+Patience, e.Note
		return
	}
	m.counted, m.window = m.state.Awaiting, m.now.Mono+m.state.Spec.Commit.Window-max(e.Age, 0)
}

func (m *Machine) sandbox() string {
	if m.state.Spec.Verb == plan.Drill {
		return m.state.Spec.Run
	}
	return ""
}

// Deadline is when the Machine wants a Tick; zero means that it waits for
// events alone.
func (m *Machine) Deadline() time.Duration {
	if m.halted || m.appending {
		return 0
	}
	var next time.Duration
	sooner := func(t time.Duration) {
		if t > m.now.Mono && (next == 0 || t < next) {
			next = t
		}
	}
	for _, f := range m.flights {
		sooner(f.next)
		sooner(f.limit)
	}
	sooner(m.survey.next)
	if m.state.Phase == AwaitingCommit && m.counted == m.state.Awaiting {
		sooner(m.window)
	}
	for _, app := range m.state.Spec.Applications {
		for _, site := range m.state.Facts.Holders[app] {
			if until, counts := m.leaseOver(app, site); counts {
				sooner(until)
			}
		}
	}
	return next
}

// Writing tells whether something is decided that the journal does not hold yet.
func (m *Machine) Writing() bool { return m.appending }

// inWords are what is done about a step, for people.
var inWords = map[Action]string{Look: "looking how it stands", Act: "under way", Undo: "being taken back"}

// Waits says why the run does not go on right now, or what it is doing. It is
// empty only when the run is over.
func (m *Machine) Waits() []string {
	s := m.state
	var why []string
	switch {
	case s.Phase.Over():
		return nil
	case m.appending:
		why = append(why, "the journal is being written")
	}
	if s.Pause != nil {
		why = append(why, fmt.Sprintf("paused (%s): %s", s.Pause.Kind, s.Pause.Why))
	}
	switch s.Phase {
	case AwaitingApproval:
		why = append(why, fmt.Sprintf("%d of %d people have approved: it takes %s", len(s.Approved), s.Spec.Approvals, s.Lacks()))
	case AwaitingCommit:
		why = append(why, noted("done: commit it, or roll back", m.survey.said))
	case SplitBrain, RollbackFailed:
		why = append(why, s.Why)
	case OutcomeUnknown:
		why = append(why, s.unknown()+": "+s.Steps[s.unknown()].Note+": looking again")
	case Evaluating, Verifying, Pending:
		why = append(why, noted("looking at the sites", m.survey.said))
	}
	for _, name := range m.inFlight() {
		why = append(why, noted(name+": "+cmp.Or(inWords[m.flights[name].doing], "about to begin"), m.flights[name].said))
	}
	for _, app := range s.Spec.Applications {
		if s.Phase == Running && !s.meets(app) {
			why = append(why, app+" starts once its former holders have stopped")
		}
	}
	if len(why) == 0 {
		why = append(why, "between two steps")
	}
	return why
}
