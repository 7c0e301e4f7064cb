// Package approval counts who has agreed to what a run wants to do. It knows names and
// what a plan demands, and of no run.
package approval

import (
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/internal/failover/name"
	"davit.dev/davit/internal/plan"
)

// Agreement is that a person agreed: to a run, or to one of its approval steps.
type Agreement struct {
	// By is his name, as the cluster or the console knows him.
	By string
	// Groups are those of his groups that the plan names.
	Groups []string
}

// Question is what people are asked to agree to.
type Question struct {
	// Asker is who asked for the run: nobody agrees to what he wants himself.
	Asker string
	// About is what it is about, for people: the run, or the name of a step.
	About   string
	Demands []plan.Approval
	Agreed  []Agreement // so far
}

// Lacks says who must still agree; empty if all have. A person counts for every demand
// that lets him, and for each once.
func (q Question) Lacks() string {
	var all []string
	for _, d := range q.Demands {
		have, spare := people(q.Asker, d, q.Agreed)
		switch {
		case have >= d.Count:
		case spare > 0:
			all = append(all, fmt.Sprintf("%d of %s (%s)", d.Count-have, d.Who(), foreign(q.Asker)))
		default:
			all = append(all, fmt.Sprintf("%d of %s", d.Count-have, d.Who()))
		}
	}
	return strings.Join(all, " and ")
}

// With is the question once one more has agreed.
func (q Question) With(a Agreement) Question {
	q.Agreed = append(slices.Clone(q.Agreed), a)
	return q
}

// Bars says why somebody cannot agree; empty if he can. right tells whether that is for want of
// a right to it.
func (q Question) Bars(by string, groups []string) (why string, right bool) {
	if name.SamePerson(by, q.Asker) {
		return "whoever asked for the run cannot approve it" + Alias(by, q.Asker), true
	}
	if i := slices.IndexFunc(q.Agreed, func(a Agreement) bool { return name.SamePerson(a.By, by) }); i >= 0 {
		return by + " has approved it already" + Alias(by, q.Agreed[i].By), false
	}
	if !slices.ContainsFunc(q.Demands, func(d plan.Approval) bool { return Lets(d, by, groups) }) {
		var who []string
		for _, d := range q.Demands {
			who = append(who, d.Who())
		}
		return fmt.Sprintf("%s is none of those who may approve %s: it takes %s", by, q.About, strings.Join(who, " and ")), true
	}
	return "", false
}

// Demand is whose agreement an approval step takes.
func Demand(step *plan.Step) plan.Approval {
	if step.Approvers == nil {
		return plan.Approval{Count: 1}
	}
	d := *step.Approvers
	d.Count = max(d.Count, 1)
	return d
}

// people is how many people have surely agreed, none of whom is asker. Whoever is
// known at a console and at a cluster has two names, and nothing says which belong
// together: so names of the two are not added up, and of those of the other realm
// than asker's one may be his. spare is how many more names there are.
func people(asker string, d plan.Approval, agreed []Agreement) (have, spare int) {
	own, other := 0, 0
	for _, a := range agreed {
		switch {
		case !Lets(d, a.By, a.Groups):
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

// Lets tells whether somebody's agreement counts. A robot is no person: only a
// plan that names it lets it.
func Lets(d plan.Approval, by string, groups []string) bool {
	if name.IsRobot(by) {
		return slices.Contains(d.Users, by)
	}
	return d.Lets(by, groups)
}

// Alias says that one person is known by two names; empty if it is one.
func Alias(by, other string) string {
	if by == other {
		return ""
	}
	return ": " + by + " is taken for " + other
}

// Named are those groups that the demands name: the journal keeps no others.
func Named(demands []plan.Approval, groups []string) []string {
	var all []string
	for _, g := range groups {
		if slices.ContainsFunc(demands, func(d plan.Approval) bool { return slices.Contains(d.Roles, g) }) && !slices.Contains(all, g) {
			all = append(all, g)
		}
	}
	return all
}
