package failover

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"davit.dev/davit/internal/failover/approval"
	"davit.dev/davit/internal/plan"
)

// EntryKind says what an entry of the journal notes.
type EntryKind string

// The kinds of entries.
const (
	Opened    EntryKind = "opened"    // Spec
	Took      EntryKind = "took"      // an executor carries the run from here on
	Evaluated EntryKind = "evaluated" // Facts
	Approved  EntryKind = "approved"  // of the run, or of Step
	Denied    EntryKind = "denied"    // somebody wanted what he has no right to
	Rejected  EntryKind = "rejected"
	Intended  EntryKind = "intended" // Step is about to be done
	Ended     EntryKind = "ended"    // Step came to an end: Status
	Fenced    EntryKind = "fenced"   // Site is fenced for Application: Level
	Consented EntryKind = "consented"
	PausedBy  EntryKind = "paused"
	Resumed   EntryKind = "resumed"
	Retried   EntryKind = "retried"
	Verified  EntryKind = "verified" // Note says what is wrong, if anything
	Split     EntryKind = "split"    // two sites write
	Rolling   EntryKind = "rolling"  // back, from here on
	Undoing   EntryKind = "undoing"  // Step is about to be taken back
	Undone    EntryKind = "undone"
	Overtaken EntryKind = "overtaken" // Step, a claim, cannot be given back: Site has claimed since
	Stuck     EntryKind = "stuck"     // Step could not be taken back
	Committed EntryKind = "committed"
	Canceling EntryKind = "canceled"
	Settled   EntryKind = "settled" // of a run that is over: somebody has seen to what Step left
)

// Entry is one line of a run's journal.
type Entry struct {
	Kind        EntryKind     `json:"kind"`
	At          time.Time     `json:"at"` // by the executor's clock, for people
	By          string        `json:"by,omitempty"`
	Groups      []string      `json:"groups,omitempty"` // of By, that the plan names
	Note        string        `json:"note,omitempty"`
	Step        string        `json:"step,omitempty"`
	Status      Status        `json:"status,omitempty"`
	Took        time.Duration `json:"took,omitempty"` // the step, by a clock that does not jump
	Application string        `json:"application,omitempty"`
	Site        string        `json:"site,omitempty"`
	Level       Level         `json:"level,omitempty"`
	Epoch       int64         `json:"epoch,omitempty"`
	Pause       PauseKind     `json:"pause,omitempty"`
	Point       *Point        `json:"point,omitempty"`
	Moved       *Moved        `json:"moved,omitempty"`
	Proof       *Proof        `json:"proof,omitempty"`
	Spec        *Spec         `json:"spec,omitempty"`
	Facts       *Facts        `json:"facts,omitempty"`
	Unheard     string        `json:"unheard,omitempty"` // of a last look; see Facts
	// Untouched says of a name whose step failed that all its servers refused every try.
	Untouched bool `json:"untouched,omitempty"`
	// Said is the end of what the step said, for people: nothing follows from it. It is not
	// part of the state.
	Said string `json:"said,omitempty"`
	// Request is the number of the person's request that this grants.
	Request int64 `json:"request,omitempty"`
}

// Status is how far a step is.
type Status string

// The statuses. Empty is not begun.
const (
	Doing     Status = "Doing"     // intended, its end is not in the journal
	Succeeded Status = "Succeeded" //
	Broke     Status = "Failed"    // and it is known that it did
	Skipped   Status = "Skipped"   // a person said so
	Unknown   Status = "Unknown"   // it may have happened: look again
)

// StepState is what is known of a step.
type StepState struct {
	Status Status
	// Meant says that the step was intended at least once, so that it may have
	// happened, whatever Status says.
	Meant          bool
	Undoing, Undid bool
	// Stands says that it was not taken back, as another run had claimed since, or as Led has it.
	Stands bool
	// Led is who had a roll-back go on without a name that could not be led back: it is led by hand.
	Led string
	// Untouched says that every try to move a name was refused, so far.
	Untouched bool
	// Unseen is of a fence: why the application was not seen to run again at the source when
	// all else was taken back. Empty: it was, or nobody looked yet.
	Unseen     string
	Attempts   int
	Sequence   int64 // of the newest intention, to do or to undo
	Begun, End time.Time
	Took       time.Duration
	Note       string
	Point      *Point
	Moved      *Moved
}

func (s StepState) ended() bool {
	return s.Status == Succeeded || s.Status == Skipped || s.Status == Broke || s.Status == Unknown
}

// FenceState is what keeps a site from writing an application.
type FenceState struct {
	Level Level
	How   string
}

// Pause is why a run does not go on by itself.
type Pause struct {
	Kind PauseKind
	Why  string
}

// State is what the journal says of a run.
type State struct {
	Spec     Spec
	Phase    Phase
	Why      string // of Failed, Canceled, SplitBrain, RollbackFailed
	Pause    *Pause
	Facts    Facts
	Unheard  string // of the newest look; see Facts
	Sequence int64  // of the newest record
	Executor string // who carries the run
	Awaiting int64  // the record with which it began to wait for its commit
	Since    int64  // the newest record that says more than who carries the run
	Approved []string
	// Agreed are who agreed, by approval step; those under "" to the run. Denied is what
	// was refused for want of a right.
	Agreed   map[string][]approval.Agreement
	Denied   map[string]bool
	Steps    map[string]*StepState
	Epochs   map[string]int64                 // by application, as the run knows them
	Fences   map[string]map[string]FenceState // by application and site
	Consents map[string]string                // by site: who
	// Overtaken are the applications that somebody claimed after the run did, as
	// its roll-back found: they stay where they are. The value says who.
	Overtaken map[string]string
	// Fault is why a drill will end as Failed once it is cleaned up.
	Fault    string
	Canceled bool
	// Granted are the numbers of the requests of people that were granted.
	Granted map[int64]bool
	// Settled are the steps that left something to people which they say they have seen to.
	Settled    map[string]Settlement
	Said       int // bytes of what steps said that the journal keeps
	Begun, End time.Time
}

// NewState returns the state of a run before the first record, to Replay into.
func NewState() *State {
	return &State{
		Phase: Pending, Steps: map[string]*StepState{}, Epochs: map[string]int64{},
		Fences: map[string]map[string]FenceState{}, Consents: map[string]string{},
	}
}

// Replay adds a record of the journal. Records come in order, from 1.
func (s *State) Replay(sequence int64, entries []Entry) error {
	if sequence != s.Sequence+1 {
		return fmt.Errorf("replay run: record %d follows %d", sequence, s.Sequence)
	}
	s.Sequence = sequence
	for _, e := range entries {
		if e.Kind != Took && !s.Phase.Over() { // what people settle then is no part of it
			s.Since = sequence
		}
		if err := s.apply(e); err != nil {
			return fmt.Errorf("replay record %d: %w", sequence, err)
		}
	}
	return nil
}

// apply adds an entry. What follows from it alone follows here, so that it
// follows for everyone who reads the journal.
func (s *State) apply(e Entry) error {
	if (s.Spec.Run == "") != (e.Kind == Opened) {
		return fmt.Errorf("a run is opened once, and first: found %q", e.Kind)
	}
	about := slices.Contains([]EntryKind{Intended, Ended, Retried, Undoing, Undone, Overtaken, Stuck, Settled}, e.Kind)
	if (about || e.Step != "") && s.Steps[e.Step] == nil {
		return fmt.Errorf("%s of a step %q that the run has not", e.Kind, e.Step)
	}
	if s.Pause != nil && s.Pause.Kind == ForInput && e.Kind != PausedBy && e.Kind != Denied {
		s.Pause = nil // something happened; if it is not enough, it pauses again
	}
	if err := s.applyKind(e); err != nil {
		return err
	}
	if e.Request > 0 {
		if s.Granted == nil {
			s.Granted = map[int64]bool{}
		}
		s.Granted[e.Request] = true
	}
	s.Said += len(e.Said)
	s.settle(e.At)
	return nil
}

func (s *State) applyKind(e Entry) error {
	switch e.Kind {
	case Opened:
		return s.opened(e)
	case Took:
		if !s.Phase.Over() { // who only notes what people have settled carries nothing
			s.Executor = e.By
		}
	case Evaluated:
		return s.evaluated(e)
	case Approved:
		s.agreed(e)
	case Denied:
		s.denied(e)
	case Rejected, Canceling:
		s.cancel(e)
	case Intended, Undoing:
		s.intended(e)
	case Ended:
		s.ended(e)
	case Fenced:
		s.fenced(e)
	case Consented:
		s.Consents[e.Site] = e.By
	case PausedBy:
		s.Pause = &Pause{e.Pause, e.Note}
	case Resumed:
		s.resumed()
	case Retried:
		s.retried(e.Step)
	case Verified:
		s.verified(e)
	case Split:
		s.Phase, s.Why = SplitBrain, e.Note
	case Rolling:
		s.roll()
	case Undone:
		s.undone(e)
	case Overtaken:
		s.overtaken(e)
	case Stuck:
		s.stuck(e)
	case Committed:
		s.Phase = Completed
	case Settled:
		s.settled(e)
	default:
		return fmt.Errorf("an entry of the kind %q is not known: use a newer davit", e.Kind)
	}
	return nil
}

func (s *State) opened(e Entry) error {
	if e.Spec == nil {
		return fmt.Errorf("the run is opened without saying what it is")
	}
	if err := e.Spec.Check(); err != nil {
		return err
	}
	s.Spec, s.Phase, s.Begun = *e.Spec, Evaluating, e.At
	for _, step := range s.Spec.Steps {
		s.Steps[step.Name] = &StepState{}
	}
	for _, site := range s.Spec.Lost {
		s.Consents[site] = s.Spec.By
	}
	return nil
}

func (s *State) evaluated(e Entry) error {
	if e.Facts == nil {
		return fmt.Errorf("evaluated without facts")
	}
	if s.Phase != Evaluating {
		return nil
	}
	s.Facts, s.Unheard = *e.Facts, e.Facts.Unheard
	for app, held := range s.Facts.Epochs {
		s.Epochs[app] = held.Number
	}
	switch problem := s.refuses(); {
	case s.Facts.Split != "":
		s.Phase, s.Why, s.Facts = SplitBrain, s.Facts.Split, Facts{}
	case problem != "":
		s.Phase, s.Why = Failed, problem
	default:
		s.Phase = AwaitingApproval
	}
	return nil
}

// refuses is the first reason not to begin.
func (s *State) refuses() string {
	if len(s.Facts.Problems) > 0 {
		return s.Facts.Problems[0]
	}
	for _, site := range s.Spec.Lost {
		if !s.Facts.holds(site) {
			return fmt.Sprintf("site %q is called lost, and holds nothing that the run takes over", site)
		}
	}
	want := s.Spec.From
	if s.Spec.Verb == plan.Restore {
		want = s.Spec.To
	}
	for _, app := range s.Spec.Applications {
		held, known := s.Facts.Epochs[app]
		switch {
		case s.Spec.Verb == plan.Drill:
		case !known:
			return fmt.Sprintf("nobody could say which site holds %s: look at the vault", app)
		case held.Site != want:
			return fmt.Sprintf("%s is not at site %s but at %q, by epoch %d: run from there", app, want, held.Site, held.Number)
		}
	}
	return ""
}

func (s *State) cancel(e Entry) {
	s.Why = e.Note
	if s.Spec.Verb == plan.Drill && s.Meant() && !s.Canceled { // its sandbox goes first
		s.Fault, s.Canceled = "canceled by "+e.By, true
		if clean := s.Steps[string(plan.KindCleanup)]; clean == nil || clean.Status != Broke {
			s.Pause = nil
		}
		return
	}
	if s.Watches() {
		s.watchNoLonger(e)
		return
	}
	s.Phase = Canceled
}

func (s *State) intended(e Entry) {
	step := s.Steps[e.Step]
	step.Sequence = s.Sequence
	if e.Kind == Undoing {
		step.Undoing = true
		return
	}
	step.Untouched = step.Untouched && step.Status == "" // the try before has ended
	step.Meant, step.Status = true, Doing
	step.Attempts++
	if step.Begun.IsZero() {
		step.Begun = e.At
	}
}

func (s *State) ended(e Entry) {
	step, spec := s.Steps[e.Step], s.Spec.step(e.Step)
	step.Status, step.End, step.Took, step.Note, step.Untouched = e.Status, e.At, e.Took, e.Note, e.Untouched
	if step.Begun.IsZero() {
		step.Begun = e.At
	}
	if e.Point != nil {
		step.Point = e.Point
	}
	if e.Moved != nil {
		step.Moved = e.Moved
	}
	if spec.Kind == plan.KindClaim && e.Status == Succeeded {
		step.Meant = true // also where a look found it there
		s.Epochs[spec.Application] = max(s.Epochs[spec.Application], e.Epoch)
	}
	switch {
	case s.Phase != Running && s.Phase != OutcomeUnknown:
	case s.Spec.Verb == plan.Drill && spec.Kind != plan.KindCleanup && (e.Status == Broke || e.Status == Unknown):
		if spec.OnError != plan.Continue && s.Fault == "" {
			s.Fault = e.Step + ": " + e.Note
		}
	case e.Status == Broke:
		s.broke(e, spec)
	case s.unknown() != "":
		s.Phase = OutcomeUnknown
	default:
		s.Phase = Running
	}
}

// broke decides what follows when a step failed and it is known that it did.
func (s *State) broke(e Entry, spec *plan.Step) {
	s.Phase = Running
	switch {
	case spec.OnError == plan.Continue:
	case spec.OnError == plan.Rollback && s.WayBack() == "" && s.Exposed() == "":
		s.roll()
	default:
		s.Pause = &Pause{ByFailure, e.Step + ": " + e.Note}
	}
	if s.Phase == Running && s.unknown() != "" {
		s.Phase = OutcomeUnknown
	}
}

// unknown is the first step whose outcome is unknown and matters. A drill that has
// a fault is only cleaned up, whatever became of its steps.
func (s *State) unknown() string {
	for _, step := range s.Spec.Steps {
		if s.Spec.Verb == plan.Drill && s.Fault != "" && step.Kind != plan.KindCleanup {
			continue
		}
		if s.Steps[step.Name].Status == Unknown && step.OnError != plan.Continue {
			return step.Name
		}
	}
	return ""
}

// failed is the first step that failed and holds the run up.
func (s *State) failed() string {
	for _, step := range s.Spec.Steps {
		if s.Steps[step.Name].Status == Broke && step.OnError != plan.Continue {
			return step.Name
		}
	}
	return ""
}

func (s *State) fenced(e Entry) {
	if s.Fences[e.Application] == nil {
		s.Fences[e.Application] = map[string]FenceState{}
	}
	if old := s.Fences[e.Application][e.Site]; e.Level > old.Level {
		s.Fences[e.Application][e.Site] = FenceState{e.Level, e.Note}
	}
}

func (s *State) resumed() {
	s.Pause = nil
	switch s.Phase {
	case SplitBrain:
		s.Phase, s.Why = Running, ""
		if s.Facts.Epochs == nil {
			s.Phase = Evaluating
		}
	case RollbackFailed:
		s.Phase, s.Why = RollingBack, ""
	}
}

func (s *State) retried(name string) {
	s.Steps[name].Status, s.Steps[name].Note = "", ""
	delete(s.Agreed, name) // they agree anew
	if s.Phase == OutcomeUnknown && s.unknown() == "" {
		s.Phase = Running
	}
	if s.Pause != nil && s.Pause.Kind == ByFailure && s.failed() == "" {
		s.Pause = nil
	}
}

func (s *State) verified(e Entry) {
	s.Unheard = e.Unheard
	switch {
	case s.Phase != Verifying:
	case e.Note != "":
		s.Pause = &Pause{ByFailure, "verify: " + e.Note}
	case s.Spec.Verb.Moves() && (s.Spec.Commit.Window > 0 || s.Spec.Commit.Then == ""):
		s.Phase, s.Awaiting = AwaitingCommit, s.Sequence
	default:
		s.Phase = Completed
	}
}

func (s *State) roll() { s.Phase, s.Pause = RollingBack, nil }

func (s *State) undone(e Entry) {
	step, spec := s.Steps[e.Step], s.Spec.step(e.Step)
	step.Undoing, step.Undid, step.Stands = false, true, e.Status == Skipped
	switch {
	case spec.Kind != plan.KindFence:
		step.Note, step.Led = e.Note, e.By
	case e.Status == Unknown: // how the fence itself ended stays
		step.Unseen = cmp.Or(e.Note, "nobody says why")
	default:
		step.Note = sentences(step.Note, e.Note)
	}
	if spec.Kind == plan.KindClaim {
		s.Epochs[spec.Application] = max(s.Epochs[spec.Application], e.Epoch)
	}
}

// settle moves on where nothing is left to do.
func (s *State) settle(at time.Time) {
	switch s.Phase {
	case AwaitingApproval:
		if s.Lacks() == "" {
			s.Phase = Running
			s.settle(at)
			return
		}
	case Running:
		s.settleRunning()
	case RollingBack:
		if !slices.ContainsFunc(s.Spec.Steps, func(step plan.Step) bool { return s.toUndo(step) }) {
			s.rolledBack()
		}
	}
	if s.Phase.Over() && s.End.IsZero() {
		s.End = at
	}
}

func (s *State) settleRunning() {
	for _, step := range s.Spec.Steps {
		if st := s.Steps[step.Name]; !st.ended() && (s.Fault == "" || step.Kind == plan.KindCleanup) {
			return
		}
	}
	if s.Pause != nil || s.failed() != "" && s.Fault == "" {
		return
	}
	if clean := s.Steps[string(plan.KindCleanup)]; clean != nil && clean.Status != Succeeded {
		return // a drill is not over while its sandbox is there
	}
	switch {
	case s.Canceled:
		s.Phase, s.Why = Canceled, s.Fault
	case s.Fault != "":
		s.Phase, s.Why = Failed, s.Fault
	case s.Spec.Verb == plan.Drill:
		s.Phase = Completed
	default:
		s.Phase = Verifying
	}
}

// toUndo tells whether a step must still be taken back.
func (s *State) toUndo(step plan.Step) bool {
	st := s.Steps[step.Name]
	if step.Kind == plan.KindFence {
		return s.touched(step.Application) && step.Undoable() && !st.Undid && !s.left(step)
	}
	return st.Meant && step.Undoable() && !st.Undid && !s.left(step)
}

// WayBack says why the run cannot roll back; empty if it can.
func (s *State) WayBack() string {
	if !s.Spec.Verb.Moves() {
		return "a " + string(s.Spec.Verb) + " has nothing to go back to"
	}
	for _, step := range s.Spec.Steps {
		if step.NoWayBack && s.Steps[step.Name].Meant {
			return "there is no way back after " + step.Name
		}
	}
	return ""
}

// Exposed names the step since which clients may have written at the target,
// so that going back would lose what they wrote; empty if there is none.
func (s *State) Exposed() string {
	for _, step := range plan.Entrances(s.Spec.Steps) {
		// What goes on without a name leaves it to people, who may have led it.
		if st := s.Steps[step.Name]; st.Meant && (!st.unmoved() || step.OnError == plan.Continue) {
			return step.Name
		}
	}
	return ""
}

// unmoved tells of a name that it leads where it led: of no order it is unknown what became of it.
func (s StepState) unmoved() bool { return s.Untouched && s.Status != Doing }

// Level is what keeps the former holders of an application from writing: the
// weakest of what is known of each. Without a former holder nobody can.
func (s *State) Level(app string) Level {
	level := Proven
	for _, site := range s.Facts.Holders[app] {
		level = min(level, s.Fences[app][site].Level)
	}
	return level
}

// meets tells whether the fence rule holds for an application: its epoch is
// the target's, and each former holder is proven to have stopped or timed out,
// or a person took it upon himself.
func (s *State) meets(app string) bool {
	if s.Spec.Verb == plan.Drill {
		return true // alone in its sandbox
	}
	if s.Steps[string(plan.KindClaim)+"/"+app].Status != Succeeded {
		return false
	}
	if !s.Spec.Verb.Moves() {
		return true // it stays with the one that may write
	}
	fence := s.Steps[string(plan.KindFence)+"/"+app]
	for _, site := range s.Facts.Holders[app] {
		level := s.Fences[app][site].Level
		accepted := level == Asked && s.Spec.Accept == Asked && fence != nil && fence.ended()
		if level < TimedOut && !accepted && s.Vouched(app, site) == "" {
			return false
		}
	}
	return true
}

// Vouched is who took it upon himself that a former holder of an application has
// stopped, for this run or for good; empty: nobody did.
func (s *State) Vouched(app, site string) string {
	return cmp.Or(s.Consents[site], s.Facts.Words[app][site])
}

// applications are those that a step is about: its own, or all.
func (s *State) applications(step *plan.Step) []string {
	if step.Application != "" {
		return []string{step.Application}
	}
	return s.Spec.Applications
}

// Clone returns a copy that shares nothing that changes.
func (s *State) Clone() *State {
	c := *s
	c.Steps, c.Epochs, c.Consents = map[string]*StepState{}, maps.Clone(s.Epochs), maps.Clone(s.Consents)
	for name, step := range s.Steps {
		copied := *step
		c.Steps[name] = &copied
	}
	c.Fences = map[string]map[string]FenceState{}
	for app, sites := range s.Fences {
		c.Fences[app] = maps.Clone(sites)
	}
	c.Approved, c.Overtaken, c.Denied = slices.Clone(s.Approved), maps.Clone(s.Overtaken), maps.Clone(s.Denied)
	c.Agreed, c.Granted, c.Settled = maps.Clone(s.Agreed), maps.Clone(s.Granted), maps.Clone(s.Settled)
	for step, all := range c.Agreed {
		c.Agreed[step] = slices.Clone(all)
	}
	return &c
}
