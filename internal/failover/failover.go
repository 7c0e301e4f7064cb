// Package failover decides how a run goes on: failover, switchover, failback,
// drill and restore. It is pure: events and ticks go into a Machine, effects
// come out; it has no clock, no goroutine and does no I/O. The decision record
// is docs/decisions/0011-runs.md.
//
// What a Machine knows for good is its State, and a State is nothing but the
// sum of the entries in the run's journal: whoever reads the journal has it. A
// Machine therefore never acts on what it has decided before the journal holds
// the decision, and after a take-over it looks at every step that was begun
// before it does anything.
package failover

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"davit.dev/davit/internal/plan"
)

// Moment is when something happens. Only Mono, which never jumps, is compared
// and only with other moments of the same process; Wall is for people.
type Moment struct {
	Mono time.Duration
	Wall time.Time
}

// Nobody is whose epochs are in a promoted vault that no site of it holds: a former holder
// that nothing can ask.
const Nobody = "nobody"

// Level says what keeps the former holders of an application from writing.
type Level int

// The levels, weakest first.
const (
	None     Level = iota // nothing: a person forced it
	Asked                 // they were asked, and said that they heard it
	TimedOut              // their lease is over by any clock, and so is their time to stop
	Proven                // they, their storage or their power said that they have stopped
)

// String is the level as runs report it.
func (l Level) String() string {
	return [...]string{"none (forced)", "asked", "timed-out lease", "proven"}[min(max(l, None), Proven)]
}

// Spec is what a run is about. It stands in the journal's first entry, so that
// whoever takes over needs nothing else.
type Spec struct {
	Run    string    `json:"run"`
	Plan   string    `json:"plan"`
	Verb   plan.Verb `json:"verb"`
	From   string    `json:"from,omitempty"` // the site that holds the applications
	To     string    `json:"to"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	// LostAt is when the source was lost, as far as is known: what RPO counts
	// to. At, if it is zero.
	LostAt time.Time `json:"lostAt,omitzero"`
	// Accept is the weakest fence with which the run goes on without asking:
	// TimedOut or, where whoever asked accepted it, Asked. Without any fence a
	// run always asks.
	Accept Level `json:"accept"`
	// Lost are sites of which whoever asked for the run made sure that they have
	// stopped: a consent that was given with the order. Of a planned move they are
	// former holders besides the source, which takes part in it.
	Lost []string `json:"lost,omitempty"`
	// Despite are the checks of the preflight that whoever asked said may fail.
	Despite      []string    `json:"despite,omitempty"`
	Applications []string    `json:"applications"` // sorted
	Steps        []plan.Step `json:"steps"`        // as plan.Graph orders them
	Fence        plan.Fence  `json:"fence"`
	// Points are recovery points that a person chose, by application. Otherwise
	// a planned move takes the one that its sync made, and everything else the
	// newest that may be offered.
	Points    map[string]Point `json:"points,omitempty"`
	Approvals int              `json:"approvals,omitempty"` // people who must agree
	// Demands say whose agreement counts; empty: anybody's who may approve.
	Demands    []plan.Approval `json:"demands,omitempty"`
	Commit     plan.Commit     `json:"commit"`
	Objectives plan.Objectives `json:"objectives"`
}

// Check says what is wrong with a spec.
func (s Spec) Check() error {
	switch {
	case s.Run == "" || s.By == "" || s.To == "":
		return errors.New("open run: a run has a name, a target, and somebody who asked for it")
	case s.Verb.Moves() && (s.From == "" || s.From == s.To):
		return fmt.Errorf("open run %s: a %s goes from one site to another, not from %q to %q", s.Run, s.Verb, s.From, s.To)
	case len(s.Applications) == 0 || !slices.IsSorted(s.Applications):
		return fmt.Errorf("open run %s: its applications are missing or not sorted", s.Run)
	case s.Accept != TimedOut && s.Accept != Asked:
		return fmt.Errorf("open run %s: it may accept %q or %q", s.Run, TimedOut, Asked)
	case s.planned() && slices.Contains(s.Lost, s.From):
		return fmt.Errorf("open run %s: a %s goes from a site that can prove that it has stopped: fail over from one that is lost", s.Run, s.Verb)
	}
	if err := plan.CheckOrder(s.Steps); err != nil {
		return fmt.Errorf("open run %s: %w", s.Run, err)
	}
	for _, app := range s.Applications {
		if s.Verb.Claims() && s.step(string(plan.KindClaim)+"/"+app) == nil {
			return fmt.Errorf("open run %s: nothing claims %s", s.Run, app)
		}
	}
	return nil
}

// planned tells whether the run moves applications away from a site that takes part in it.
func (s *Spec) planned() bool { return s.Verb.Moves() && s.Verb != plan.Failover }

// step returns a step of the spec by its name, or nil.
func (s *Spec) step(name string) *plan.Step {
	for i := range s.Steps {
		if s.Steps[i].Name == name {
			return &s.Steps[i]
		}
	}
	return nil
}

// Held is an application's newest epoch and the site that claimed it.
type Held struct {
	Number int64  `json:"number"`
	Site   string `json:"site"`
}

// Facts are what a run finds before it changes anything.
type Facts struct {
	// Problems are findings of the preflight that refuse the run.
	Problems []string `json:"problems,omitempty"`
	// Split says that two sites write already, and how that was seen.
	Split string `json:"split,omitempty"`
	// Unheard says of which sites nobody can read what they said of themselves, and why
	// not: what only they know was not looked at. It keeps no run from beginning.
	Unheard string          `json:"unheard,omitempty"`
	Epochs  map[string]Held `json:"epochs"` // by application
	// Holders are the sites, by application, that have ever held an epoch of
	// it, the target aside: all of them must be fenced.
	Holders map[string][]string `json:"holders,omitempty"`
	// Terms are the lease terms, by site, under which its newest claims were
	// made. A site without an entry keeps no lease: no wait proves anything.
	Terms map[string]plan.Fence `json:"terms,omitempty"`
	// Shared are the former holders, by application, whose name a cluster shares with
	// sites that nothing can ask: what it proves, it proves of itself alone.
	Shared map[string]string `json:"shared,omitempty"`
	// Words are who took it upon himself for good, by application and former holder, that
	// this one writes no more: of those of a lost vault, whom nothing can ask
	// (docs/decisions/0036-a-word-for-good.md). They prove nothing.
	Words map[string]map[string]string `json:"words,omitempty"`
}

// holds tells whether a site ever held one of the run's applications.
func (f Facts) holds(site string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(f.Holders)), func(sites []string) bool { return slices.Contains(sites, site) })
}

// Proof is that a site does not write an application below an epoch, and keeps
// that in mind across any restart.
type Proof struct {
	Application string `json:"application"`
	Site        string `json:"site"`
	Epoch       int64  `json:"epoch"`
	How         string `json:"how"` // "stopped", "storage", "power"
}

// Point is the state of data that a step brought or made.
type Point struct {
	ID      string    `json:"id"`
	Instant time.Time `json:"instant"`
}

// Moved is how much of the volumes' data a step brought: Bytes of Of. The rest was
// there already.
type Moved struct {
	Bytes int64 `json:"bytes"`
	Of    int64 `json:"of"`
}

// Token goes with every act. Sequence only grows within a run, over all its
// executors. An actuator carries out one act of a step at a time and refuses
// an epoch, or for the same run and step a sequence, below what it has seen: so
// a late act never undoes what came after it. A drill's cleanup is the newest
// order for all of its sandbox. A look that is answered with NotDone refuses, from
// then on, every order of its step up to the look's own sequence.
type Token struct {
	Run      string
	Sequence int64
	Epochs   map[string]int64 // of the applications that the step is about
}

// Phase is where a run is. Docs call it the run's state.
type Phase string

// The phases.
const (
	Pending          Phase = "Pending"
	Evaluating       Phase = "Evaluating"
	AwaitingApproval Phase = "AwaitingApproval"
	Running          Phase = "Running"
	Verifying        Phase = "Verifying"
	AwaitingCommit   Phase = "AwaitingCommit"
	Completed        Phase = "Completed"
	Paused           Phase = "Paused"
	RollingBack      Phase = "RollingBack"
	RolledBack       Phase = "RolledBack"
	RollbackFailed   Phase = "RollbackFailed"
	Failed           Phase = "Failed"
	Canceled         Phase = "Canceled"
	OutcomeUnknown   Phase = "OutcomeUnknown"
	SplitBrain       Phase = "SplitBrain"
)

// Over tells whether nothing comes after the phase.
func (p Phase) Over() bool {
	return p == Completed || p == RolledBack || p == Failed || p == Canceled
}

// PauseKind says who or what made a run pause.
type PauseKind string

// The kinds of pauses.
const (
	ByFailure  PauseKind = "failure"
	ByOperator PauseKind = "operator"
	ForInput   PauseKind = "input"
)
