package commission

import (
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

// Conflict says why a run cannot begin beside those that are under way, nil if
// it can. Runs that move or restore an application exclude each other. A drill
// waits for them, and they never wait for a drill.
func Conflict(s *failover.Spec, under []*failover.State) error {
	for _, other := range under {
		o := &other.Spec
		shared := slices.IndexFunc(s.Applications, func(app string) bool { return slices.Contains(o.Applications, app) })
		switch {
		case other.Phase.Over(), o.Run == s.Run:
		case len(o.Applications) == 0 && mayBe(o, s):
			return Refuse("`verify` says what is damaged; when you are sure that the run is over, delete its note from the vault's store: the object running/"+o.Run+" of the project",
				"run %s is noted as under way with plan %s, and what it does nobody knows: %s", o.Run, s.Plan, other.Why)
		case shared < 0:
		case o.Verb == plan.Drill && s.Verb != plan.Drill:
		case o.Verb == plan.Drill && (o.Plan != s.Plan || o.To != s.To):
		default:
			return Refuse(Next(other), "run %s, a %s of plan %s, is under way with %s: it is %s", o.Run, o.Verb, o.Plan, s.Applications[shared], other.Shown())
		}
	}
	return nil
}

// mayBe tells whether a run of which no journal can be read may be in the way of
// another: one of the same plan, as its note or else its name says.
func mayBe(o, s *failover.Spec) bool {
	if o.Plan == "" {
		return strings.HasPrefix(o.Run, s.Plan+"-")
	}
	return o.Plan == s.Plan && (o.Verb != plan.Drill || s.Verb == plan.Drill && o.To == s.To)
}

// Next is what a person can do about a run that does not go on by itself, how to watch one
// that does, or what one that is over has left to people who have not seen to it; empty: nothing.
func Next(s *failover.State) string {
	run := s.Spec.Run
	switch {
	case s.Phase.Over():
		return unsettled(s)
	case s.Pause != nil:
		return paused(s)
	case s.Phase == failover.AwaitingApproval:
		return "`runs approve " + run + "`, by somebody other than " + s.Spec.By
	case s.Phase == failover.AwaitingCommit:
		back := "`runs rollback " + run + "`"
		if s.Exposed() != "" {
			back = "`runs rollback " + run + " --lose " + s.Spec.To + "`, which loses what clients wrote there,"
		}
		return fmt.Sprintf("`runs commit %s` ends it, %s takes it back", run, back)
	case s.Phase == failover.RollbackFailed:
		return "`runs retry " + run + "` once the cause is gone; " + names(s) + "if it never will be, as that site is lost, `runs cancel " + run + "` leaves what was not taken back as it is, and makes way"
	case s.Watches():
		return "all is taken back, and it is waited for that site " + s.Spec.From + " runs it again: `runs cancel " + run + "` waits no longer, and makes way"
	case s.Phase == failover.SplitBrain:
		return "stop one of the two sites, then `runs resume " + run + "`"
	}
	return "`runs show " + run + "` shows how far it is"
}

// names is what is to be done about those that a roll-back cannot lead back; empty: there are none.
func names(s *failover.State) string {
	for _, o := range s.Offers() {
		if o.Kind == failover.Skip {
			return "`runs skip " + s.Spec.Run + " " + o.Step + "` if its servers never take it back, which goes on without it: " + o.About + "; "
		}
	}
	return ""
}

// unsettled is what is to be done about what a run left, as far as nobody has seen to it.
func unsettled(s *failover.State) string {
	var todo []string
	for _, r := range s.Remaining() {
		if r.Settled == nil {
			todo = append(todo, r.Do)
		}
	}
	if len(todo) == 0 {
		return ""
	}
	return strings.Join(todo, "; ") + "; then `runs settle " + s.Spec.Run + " --reason HOW`"
}

func paused(s *failover.State) string {
	run := s.Spec.Run
	switch s.Pause.Kind {
	case failover.ForInput:
		for _, app := range s.Spec.Applications {
			for _, site := range s.Facts.Holders[app] {
				if s.Vouched(app, site) == "" && s.Fences[app][site].Level < failover.TimedOut {
					return "`runs consent " + run + " " + site + "` if you made sure that it has stopped, `runs answer " + run + " STEP` for a task, or `runs rollback " + run + "`"
				}
			}
		}
		return "`runs answer " + run + " STEP` when it is done"
	case failover.ByOperator:
		return "`runs resume " + run + "`"
	}
	return "`runs retry " + run + "`, `runs skip " + run + " STEP` or `runs rollback " + run + "`"
}
