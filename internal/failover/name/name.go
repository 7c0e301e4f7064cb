// Package name tells what the names in runs stand for: people of clusters and of
// consoles, robots, and what asks by itself.
package name

import (
	"slices"
	"strings"
)

// consoleMark is before the project in the names of people who ask at a console.
const consoleMark = "@console/"

// AtConsole is the name in runs of a person of a console: anna@console/shop. With
// a robot, of what the robot asks that he made: anna/nightly@console/shop.
func AtConsole(person, robot, project string) string {
	if robot != "" {
		person += "/" + robot
	}
	return person + consoleMark + project
}

// OfConsole tells whether a name is of that project's console, as AtConsole
// makes it.
func OfConsole(name, project string) bool {
	at := strings.LastIndex(name, consoleMark)
	return at > 0 && name[at+len(consoleMark):] == project
}

// SamePerson tells whether two names may be one person's. Names of clusters are
// compared as they are. A console's are others than a cluster's, so a name of a
// console is compared by what people are called everywhere: without what a
// provider, a domain, a console or a robot adds, and without case.
func SamePerson(a, b string) bool {
	if a == b {
		return true
	}
	if !strings.Contains(a, consoleMark) && !strings.Contains(b, consoleMark) {
		return false
	}
	return called(a) == called(b)
}

// called is what a person is called everywhere.
func called(name string) string {
	if at := strings.LastIndex(name, consoleMark); at >= 0 {
		name, _, _ = strings.Cut(name[:at], "/") // no name of a console has one
	} else if !strings.HasPrefix(name, "system:") {
		// OIDC and the like put an issuer or a prefix before it.
		name = name[strings.LastIndexAny(name, ":#/")+1:]
	}
	name, _, _ = strings.Cut(name, "@")
	return strings.ToLower(name)
}

// OfAnyConsole tells whether a name is of any project's console.
func OfAnyConsole(name string) bool { return strings.LastIndex(name, consoleMark) > 0 }

// IsRobot tells whether a name is a robot's.
func IsRobot(name string) bool {
	at := strings.LastIndex(name, consoleMark)
	return at > 0 && strings.Contains(name[:at], "/")
}

// byItself is before what asks for runs when no person does: a plan's schedule, a
// declaration.
var byItself = []string{"davit: ", "declared automatically by "}

// IsNobody tells whether no person asked.
func IsNobody(asker string) bool {
	return slices.ContainsFunc(byItself, func(mark string) bool { return strings.HasPrefix(asker, mark) })
}
