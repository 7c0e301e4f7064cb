package carrier

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/command"
	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/register"
)

// What of a text an object shows: a condition takes 32 KiB, and one object of the cluster no more
// than 1.5 MiB. One that is refused for its length shows nothing at all.
const (
	mostText = 8 << 10
	mostWait = 1 << 10
)

// told is a text, or as much of it as fits.
func told(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return short(text, most) + " [and more]"
}

// Status is what the journal of a run says, as a Run object shows it.
func Status(o *v1alpha1.Run, s *failover.State, waits []string) {
	r, sum, st := s.Result(), register.Of(s), &o.Status
	st.Phase, st.Why, st.From, st.Executor, st.Sequence = string(r.State), told(r.Why, mostText), s.Spec.From, s.Executor, s.Sequence
	st.Next = told(command.Named(command.Program, commission.Next(s)), mostText)
	st.BegunAt, st.EndedAt, st.Fence = stamp(s.Begun), stamp(s.End), r.Level
	st.ApprovedBy, st.ApprovalsWanted = slices.Clone(s.Approved), int32(s.Spec.Approvals)
	st.WaitsFor = nil
	if !s.Phase.Over() {
		for _, wait := range waits[:min(len(waits), maxWaits)] {
			st.WaitsFor = append(st.WaitsFor, told(wait, mostWait))
		}
	}
	rpo, rto, known := sum.Worst()
	st.RPO, st.RTO = lasted(rpo, known), lasted(rto, rto > 0)
	st.Applications = nil
	for _, a := range r.Applications {
		st.Applications = append(st.Applications, v1alpha1.RunApplication{
			Name: a.Name, Epoch: a.Epoch, Fence: a.Level, Point: a.Point, RPO: lasted(a.RPO, a.RPOKnown), RTO: lasted(a.RTO, a.RTO > 0),
		})
	}
	steps(st, r.Steps)
	conditions(o, s)
}

func lasted(d time.Duration, known bool) *metav1.Duration {
	if !known {
		return nil
	}
	return &metav1.Duration{Duration: d.Round(time.Millisecond)}
}

// steps keeps all, or of a long run those that people look for first.
func steps(st *v1alpha1.RunStatus, all []failover.StepResult) {
	st.Steps, st.StepsTotal, st.StepsDone = nil, int32(len(all)), 0
	urgent := func(s failover.StepResult) int {
		switch s.Status {
		case failover.Broke, failover.Unknown:
			return 0
		case failover.Doing:
			return 1
		case "":
			return 3
		}
		return 2
	}
	order := make([]int, len(all))
	for i := range all {
		order[i] = i
		if s := all[i].Status; s != "" && s != failover.Doing {
			st.StepsDone++
		}
	}
	if len(all) > maxSteps {
		slices.SortStableFunc(order, func(a, b int) int {
			return cmp.Or(urgent(all[a])-urgent(all[b]), all[b].Begun.Compare(all[a].Begun))
		})
		order = order[:maxSteps]
		slices.Sort(order)
	}
	for _, i := range order {
		s := all[i]
		step := v1alpha1.RunStep{Name: s.Name, State: string(s.Status), StartedAt: stamp(s.Begun), Took: lasted(s.Took, s.Took > 0), Attempts: int32(s.Attempts), Message: short(s.Note, 1024)}
		switch {
		case s.Undone:
			step.State = "Undone"
		case s.Left:
			step.State = "Left"
		}
		st.Steps = append(st.Steps, step)
	}
}

func conditions(o *v1alpha1.Run, s *failover.State) {
	set := func(kind string, status metav1.ConditionStatus, reason, message string) {
		meta.SetStatusCondition(&o.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: o.Generation})
	}
	set(v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "the journal in the vault holds it")
	if settled, of := settled(s); of != "" {
		status, reason := metav1.ConditionFalse, v1alpha1.ReasonLeft
		if settled {
			status, reason = metav1.ConditionTrue, v1alpha1.ReasonSucceeded
		}
		set(v1alpha1.ConditionSettled, status, reason, of)
	}
	switch {
	case s.Phase == failover.Completed:
		set(v1alpha1.ConditionSucceeded, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "")
	case s.Phase.Over():
		set(v1alpha1.ConditionSucceeded, metav1.ConditionFalse, string(s.Phase), cmp.Or(o.Status.Why, string(s.Phase)))
	default:
		set(v1alpha1.ConditionSucceeded, metav1.ConditionUnknown, v1alpha1.ReasonProgressing, o.Status.Why)
	}
}

// settled tells whether people have seen to all that a run left to them; of says to what, and how.
// Empty: it left nothing.
func settled(s *failover.State) (all bool, of string) {
	var open, done []string
	for _, r := range s.Remaining() {
		if by := r.Settled; by != nil {
			done = append(done, fmt.Sprintf("%s by %s at %s: %s", r.Step, by.By, by.At.UTC().Format(time.RFC3339), by.Reason))
		} else {
			open = append(open, r.Step)
		}
	}
	if len(open) > 0 {
		return false, short("left to people: "+strings.Join(open, ", "), maxMessage)
	}
	return true, short(strings.Join(done, "; "), maxMessage)
}
