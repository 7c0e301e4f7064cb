package fleet

import (
	"slices"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

// PlannedStep is a step of a run as its journal's opening has it.
type PlannedStep struct {
	Name        string        `json:"name"`
	Kind        plan.Kind     `json:"kind"`
	Application string        `json:"application,omitempty"`
	Side        plan.Side     `json:"side,omitempty"`
	After       []string      `json:"after,omitempty"`
	Timeout     time.Duration `json:"timeout,omitempty"`
	// Prompt is what a person is asked.
	Prompt string `json:"prompt,omitempty"`
	Asks   bool   `json:"asks,omitempty"`
}

func planned(steps []plan.Step) []PlannedStep {
	var all []PlannedStep
	for _, s := range steps {
		all = append(all, PlannedStep{Name: s.Name, Kind: s.Kind, Application: s.Application, Side: s.Side, After: s.After, Timeout: s.Timeout, Prompt: s.Prompt, Asks: s.Asks()})
	}
	return all
}

// Do is something that a person can do, and the command for it.
type Do struct{ What, Command string }

// Waits says what a step that has not begun waits for; empty: for nothing that is
// known, or it has begun.
func (r Run) Waits(step string) (names []string) {
	i := slices.IndexFunc(r.Planned, func(p PlannedStep) bool { return p.Name == step })
	if i < 0 || r.Over {
		return nil
	}
	status := map[string]failover.StepResult{}
	for _, s := range r.Steps {
		status[s.Name] = s
	}
	if status[step].Status != "" {
		return nil
	}
	for _, name := range r.Planned[i].After {
		if st := status[name].Status; st != failover.Succeeded && st != failover.Skipped {
			names = append(names, name)
		}
	}
	return names
}

// PlannedStep is what is known of a step beforehand.
func (r Run) PlannedStep(step string) PlannedStep {
	for _, p := range r.Planned {
		if p.Name == step {
			return p
		}
	}
	return PlannedStep{Name: step}
}

// Waiting tells whether the run does not go on without a person.
func (r Run) Waiting() bool {
	return !r.Over && (r.Pause != "" || r.Fault != "" || slices.Contains([]failover.Phase{failover.AwaitingApproval, failover.AwaitingCommit, failover.SplitBrain, failover.RollbackFailed}, r.State))
}

// Next is what a person can do about the run, the likeliest first. Commands are for
// a machine that reaches the run's target.
func (r Run) Next() []Do {
	run := "davit runs "
	do := func(what, verb string) Do { return Do{what, run + verb} }
	rollback := do("take back what it did", "rollback "+r.Run)
	switch {
	case r.Over:
		return nil
	case r.Fault != "":
		return []Do{do("see what is wrong with its journal", "show "+r.Run)}
	case r.State == failover.SplitBrain:
		return []Do{do("stop one of the two sites, then let the run look again", "resume "+r.Run)}
	case r.State == failover.RollbackFailed:
		return slices.Concat([]Do{do("solve what keeps it from being taken back, then try again", "retry "+r.Run)}, r.names(),
			[]Do{do("leave the rest as it is, if that site is lost for good: then fail over", "cancel "+r.Run)})
	case r.State == failover.AwaitingApproval:
		return []Do{do("agree that it begins (not whoever asked for it)", "approve "+r.Run), do("end it before it changed anything", "cancel "+r.Run)}
	case r.State == failover.AwaitingCommit:
		return []Do{do("end it, when all is well: it can no longer be taken back", "commit "+r.Run), rollback}
	case r.PauseKind == failover.ByFailure:
		return append(r.failed(), rollback)
	case r.PauseKind == failover.ForInput:
		return append(r.asked(), rollback)
	case r.PauseKind == failover.ByOperator:
		return []Do{do("let it go on", "resume "+r.Run), rollback}
	}
	return []Do{
		do("look at it", "show "+r.Run),
		do("carry it on here, if whoever carries it has died", "take-over "+r.Run),
		do("let it begin nothing more", "pause "+r.Run),
	}
}

// failed is what can be done about steps that failed.
func (r Run) failed() (all []Do) {
	for _, s := range r.Steps {
		if s.Status == failover.Broke || s.Status == failover.Unknown {
			all = append(all, Do{"try step " + s.Name + " again, once its cause is gone", "davit runs retry " + r.Run + " " + s.Name})
			if s.Status == failover.Broke {
				all = append(all, Do{"go on without step " + s.Name, "davit runs skip " + r.Run + " " + s.Name})
			}
		}
	}
	return all
}

// names is what can be done about names that a roll-back cannot lead back.
func (r Run) names() (all []Do) {
	for _, s := range r.Steps {
		if r.PlannedStep(s.Name).Kind == plan.KindDNS && s.Attempts > 0 && !s.Undone && !s.Left {
			all = append(all, Do{"lead the name of " + s.Name + " by hand, if its servers never take it back", "davit runs skip " + r.Run + " " + s.Name})
		}
	}
	return all
}

// asked is what answers a run that waits for people.
func (r Run) asked() (all []Do) {
	for _, s := range r.Steps {
		if p := r.PlannedStep(s.Name); p.Asks && s.Status == failover.Doing {
			all = append(all, Do{"do it, and say so: " + p.Prompt, "davit runs answer " + r.Run + " " + s.Name})
		}
	}
	if len(all) > 0 {
		return all
	}
	var sites []string
	for _, a := range r.Applications {
		for site, level := range a.Fences {
			if (level == failover.None.String() || level == failover.Asked.String()) && !slices.Contains(sites, site) {
				sites = append(sites, site)
			}
		}
	}
	slices.Sort(sites)
	for _, site := range sites {
		all = append(all, Do{"make sure that site " + site + " has stopped, and say so", "davit runs consent " + r.Run + " " + site})
	}
	return all
}
