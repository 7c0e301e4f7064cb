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

// Demand is whose agreement an approval step takes.
func Demand(step *plan.Step) plan.Approval {
	if step.Approvers == nil {
		return plan.Approval{Count: 1}
	}
	d := *step.Approvers
	d.Count = max(d.Count, 1)
	return d
}

// Lacks says who must still agree to what asker asked for; empty if all have. A
// person counts for every demand that lets him, and for each once.
func Lacks(asker string, demands []plan.Approval, agreed []Agreement) string {
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
