package failover

import (
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/internal/failover/name"
	"davit.dev/davit/internal/plan"
)

// mostDenials bounds how many refusals a run's journal holds.
const mostDenials = 100

// Agreement is that a person agreed: to a run, or to one of its approval steps.
type Agreement struct {
	By string
	// Groups are those of his groups that the plan names.
	Groups []string
}

// demands are whose agreement the run takes before it begins.
func (s *Spec) demands() []plan.Approval {
	if len(s.Demands) == 0 && s.Approvals > 0 {
		return []plan.Approval{{Count: s.Approvals}}
	}
	return s.Demands
}

// demand is whose agreement an approval step takes.
func demand(step *plan.Step) plan.Approval {
	if step.Approvers == nil {
		return plan.Approval{Count: 1}
	}
	d := *step.Approvers
	d.Count = max(d.Count, 1)
	return d
}

// lacks says who must still agree to what asker asked for; empty if all have. A
// person counts for every demand that lets him, and for each once.
func lacks(asker string, demands []plan.Approval, agreed []Agreement) string {
	var all []string
	for _, d := range demands {
		have, spare := people(asker, d, agreed)
		switch {
		case have >= d.Count:
		case spare > 0:
			all = append(all, fmt.Sprintf("%d of %s (%s)", d.Count-have, d.Who(), foreign(asker)))
		default:
			all = append(all, fmt.Sprintf("%d of %s", d.Count-have, d.Who()))
		}
	}
	return strings.Join(all, " and ")
}

// people is how many people have surely agreed, none of whom is asker. Whoever is
// known at a console and at a cluster has two names, and nothing says which belong
// together: so names of the two are not added up, and of those of the other realm
// than asker's one may be his. spare is how many more names there are.
func people(asker string, d plan.Approval, agreed []Agreement) (have, spare int) {
	own, other := 0, 0
	for _, a := range agreed {
		switch {
		case !lets(d, a.By, a.Groups):
		case name.OfAnyConsole(a.By) == name.OfAnyConsole(asker):
			own++
		default:
			other++
		}
	}
	names := own + other
	if !name.IsNobody(asker) {
		other-- // one of them may be asker's
	}
	have = max(own, other, 0)
	return have, names - have
}

// foreign says why somebody's agreement was not enough.
func foreign(asker string) string {
	if name.OfAnyConsole(asker) {
		return "from the console; with kubeconfigs it takes one more, as one may be of who asked"
	}
	return "with a kubeconfig; from the console it takes one more, as one may be of who asked"
}

// lets tells whether somebody's agreement counts. A robot is no person: only a
// plan that names it lets it.
func lets(d plan.Approval, by string, groups []string) bool {
	if name.IsRobot(by) {
		return slices.Contains(d.Users, by)
	}
	return d.Lets(by, groups)
}

// Lacks says whose approval the run waits for; empty if for nobody's.
func (s *State) Lacks() string {
	if s.Phase != AwaitingApproval {
		return ""
	}
	return lacks(s.Spec.By, s.Spec.demands(), s.Agreed[""])
}

// agreed adds an agreement.
func (s *State) agreed(e Entry) {
	if s.Agreed == nil {
		s.Agreed = map[string][]Agreement{}
	}
	s.Agreed[e.Step] = append(s.Agreed[e.Step], Agreement{By: e.By, Groups: e.Groups})
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
	m.note(Entry{Kind: Approved, By: e.By, Groups: named(demands, e.Groups)})
	return ""
}

// agree lets somebody agree to an approval step, or say no. done is false while
// more people must agree.
func (m *Machine) agree(e Event, step *plan.Step) (done bool, why string) {
	demands := []plan.Approval{demand(step)}
	if why := m.barred(e, step.Name, demands); why != "" || e.Outcome != Done {
		return true, why
	}
	groups := named(demands, e.Groups)
	m.note(Entry{Kind: Approved, Step: step.Name, By: e.By, Groups: groups})
	return lacks(m.state.Spec.By, demands, append(slices.Clone(m.state.Agreed[step.Name]), Agreement{By: e.By, Groups: groups})) == "", ""
}

// barred says why somebody cannot agree; empty if he can.
func (m *Machine) barred(e Event, step string, demands []plan.Approval) string {
	what := "the run"
	if step != "" {
		what = step
	}
	if by := m.state.Spec.By; name.SamePerson(e.By, by) {
		return m.deny(e, step, "whoever asked for the run cannot approve it"+alias(e.By, by))
	}
	if i := slices.IndexFunc(m.state.Agreed[step], func(a Agreement) bool { return name.SamePerson(a.By, e.By) }); i >= 0 {
		return e.By + " has approved it already" + alias(e.By, m.state.Agreed[step][i].By)
	}
	if !slices.ContainsFunc(demands, func(d plan.Approval) bool { return lets(d, e.By, e.Groups) }) {
		var who []string
		for _, d := range demands {
			who = append(who, d.Who())
		}
		return m.deny(e, step, fmt.Sprintf("%s is none of those who may approve %s: it takes %s", e.By, what, strings.Join(who, " and ")))
	}
	return ""
}

// alias says that one person is known by two names.
func alias(name, other string) string {
	if name == other {
		return ""
	}
	return ": " + name + " is taken for " + other
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

// named are those groups that the demands name: the journal keeps no others.
func named(demands []plan.Approval, groups []string) []string {
	var all []string
	for _, g := range groups {
		if slices.ContainsFunc(demands, func(d plan.Approval) bool { return slices.Contains(d.Roles, g) }) && !slices.Contains(all, g) {
			all = append(all, g)
		}
	}
	return all
}
