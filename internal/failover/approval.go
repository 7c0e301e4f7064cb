package failover

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/internal/failover/approval"
	"davit.dev/davit/internal/failover/name"
	"davit.dev/davit/internal/plan"
)

// mostDenials bounds how many refusals a run's journal holds.
const mostDenials = 100

// demands are whose agreement the run takes before it begins.
func (s *Spec) demands() []plan.Approval {
	if len(s.Demands) == 0 && s.Approvals > 0 {
		return []plan.Approval{{Count: s.Approvals}}
	}
	return s.Demands
}

// Lacks says whose approval the run waits for; empty if for nobody's.
func (s *State) Lacks() string {
	if s.Phase != AwaitingApproval {
		return ""
	}
	return approval.Lacks(s.Spec.By, s.Spec.demands(), s.Agreed[""])
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
	demands := m.state.Spec.demands()
	if why := m.barred(e, "", demands); why != "" {
		return why
	}
	m.note(Entry{Kind: Approved, By: e.By, Groups: approval.Named(demands, e.Groups)})
	return ""
}

// agree lets somebody agree to an approval step, or say no. done is false while
// more people must agree.
func (m *Machine) agree(e Event, step *plan.Step) (done bool, why string) {
	demands := []plan.Approval{approval.Demand(step)}
	if why := m.barred(e, step.Name, demands); why != "" || e.Outcome != Done {
		return true, why
	}
	groups := approval.Named(demands, e.Groups)
	m.note(Entry{Kind: Approved, Step: step.Name, By: e.By, Groups: groups})
	return approval.Lacks(m.state.Spec.By, demands, append(slices.Clone(m.state.Agreed[step.Name]), approval.Agreement{By: e.By, Groups: groups})) == "", ""
}

// barred says why somebody cannot agree; empty if he can.
func (m *Machine) barred(e Event, step string, demands []plan.Approval) string {
	if by := m.state.Spec.By; name.SamePerson(e.By, by) {
		return m.deny(e, step, "whoever asked for the run cannot approve it"+approval.Alias(e.By, by))
	}
	if i := slices.IndexFunc(m.state.Agreed[step], func(a approval.Agreement) bool { return name.SamePerson(a.By, e.By) }); i >= 0 {
		return e.By + " has approved it already" + approval.Alias(e.By, m.state.Agreed[step][i].By)
	}
	if !slices.ContainsFunc(demands, func(d plan.Approval) bool { return approval.Lets(d, e.By, e.Groups) }) {
		var who []string
		for _, d := range demands {
			who = append(who, d.Who())
		}
		return m.deny(e, step, fmt.Sprintf("%s is none of those who may approve %s: it takes %s", e.By, cmp.Or(step, "the run"), strings.Join(who, " and ")))
	}
	return ""
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
