package failover

import (
	"davit.dev/davit/internal/failover/approval"
	"davit.dev/davit/internal/plan"
)

// mostDenials bounds how many refusals a run's journal holds.
const mostDenials = 100

// question is what people agree to before the run begins or, of an approval step, goes on.
func (s *State) question(step *plan.Step) approval.Question {
	if step != nil {
		return approval.Question{Asker: s.Spec.By, About: step.Name, Demands: []plan.Approval{approval.Demand(step)}, Agreed: s.Agreed[step.Name]}
	}
	q := approval.Question{Asker: s.Spec.By, About: "the run", Demands: s.Spec.Demands, Agreed: s.Agreed[""]}
	if len(q.Demands) == 0 && s.Spec.Approvals > 0 {
		q.Demands = []plan.Approval{{Count: s.Spec.Approvals}}
	}
	return q
}

// Lacks says whose approval the run waits for; empty if for nobody's.
func (s *State) Lacks() string {
	if s.Phase != AwaitingApproval {
		return ""
	}
	return s.question(nil).Lacks()
}

// agreed adds an agreement.
func (s *State) agreed(e Entry) {
	if s.Agreed == nil {
		s.Agreed = map[string][]approval.Agreement{}
	}
	s.Agreed[e.Step] = append(s.Agreed[e.Step], approval.Agreement{By: e.By, Groups: e.Groups})
	if e.Step == "" {
		s.Approved = append(s.Approved, e.By)
	}
}

// approve lets somebody agree to the run.
func (m *Machine) approve(e Event) string {
	if m.state.Phase != AwaitingApproval {
		return "the run does not wait for an approval"
	}
	e.Outcome = Done
	_, why := m.agree(e, nil)
	return why
}

// agree lets somebody agree to the run, or to an approval step or say no to it. done is false while
// more people must agree.
func (m *Machine) agree(e Event, step *plan.Step) (done bool, why string) {
	q, name := m.state.question(step), ""
	if step != nil {
		name = step.Name
	}
	switch why, right := q.Bars(e.By, e.Groups); {
	case right:
		return true, m.deny(e, name, why)
	case why != "" || e.Outcome != Done:
		return true, why
	}
	a := approval.Agreement{By: e.By, Groups: approval.Named(q.Demands, e.Groups)}
	m.note(Entry{Kind: Approved, Step: name, By: a.By, Groups: a.Groups})
	return q.With(a).Lacks() == "", ""
}

// deny refuses what somebody has no right to, and has the journal keep that he
// wanted it: once, however often he tries.
func (m *Machine) deny(e Event, step, why string) string {
	if m.state.Spec.step(step) == nil {
		step = ""
	}
	entry := Entry{Kind: Denied, By: e.By, Step: step, Note: string(e.Kind) + ": " + why}
	if key := denial(entry); !m.state.Denied[key] && len(m.state.Denied) < mostDenials {
		m.note(entry)
	}
	return why
}

func denial(e Entry) string { return e.By + "\n" + e.Step + "\n" + e.Note }

func (s *State) denied(e Entry) {
	if s.Denied == nil {
		s.Denied = map[string]bool{}
	}
	s.Denied[denial(e)] = true
}
