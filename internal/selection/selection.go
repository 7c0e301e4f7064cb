// Package selection decides what an application covers: which namespaces,
// which objects in them, and which workloads and pods are its own. It is pure:
// whoever captures, fences or surveys lists the objects and asks here, so that
// all of them mean the same.
package selection

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// ErrInvalid says that a rule is not written as one.
var ErrInvalid = errors.New("selection not valid")

// Selection is what an application covers. Any, Pods and Workloads are joined
// by "or"; without any of them it covers all of its namespaces.
type Selection struct {
	Namespaces Namespaces
	// Any covers objects whose labels match at least one.
	Any []labels.Selector
	// Pods covers the pods whose labels match at least one, and what makes them.
	Pods []labels.Selector
	// Workloads covers objects by name, and the pods they make.
	Workloads []Name
}

// Whole tells whether everything in the namespaces is covered.
func (s Selection) Whole() bool {
	return len(s.Any) == 0 && len(s.Pods) == 0 && len(s.Workloads) == 0
}

// Cluster tells whether the whole cluster is covered, but for namespaces that
// are left out by name.
func (s Selection) Cluster() bool { return s.Whole() && slices.Contains(s.Namespaces.Names, "*") }

// MatchesLabels tells whether one of the label rules covers an object.
func (s Selection) MatchesLabels(set map[string]string) bool { return matchesAny(s.Any, set) }

// MatchesPod tells whether one of the label rules covers a pod, or the pods of
// a template, with these labels.
func (s Selection) MatchesPod(set map[string]string) bool {
	return matchesAny(s.Any, set) || matchesAny(s.Pods, set)
}

// Names tells whether one of the rules names the object.
func (s Selection) Names(group, kind, namespace, name string) bool {
	return slices.ContainsFunc(s.Workloads, func(n Name) bool { return n.Matches(group, kind, namespace, name) })
}

func matchesAny(selectors []labels.Selector, set map[string]string) bool {
	return slices.ContainsFunc(selectors, func(l labels.Selector) bool { return l.Matches(labels.Set(set)) })
}

// The ranks of a selection: how narrow it is. Where two applications cover one
// workload, the narrower one owns it.
const (
	RankCluster   = iota // namespaces by pattern or label
	RankNamespace        // namespaces by name
	RankLabels           // labels, or groups of pods
	RankNamed            // single workloads or pods
)

// Rank says how narrow the selection is.
func (s Selection) Rank() int {
	switch {
	case len(s.Workloads) > 0:
		return RankNamed
	case !s.Whole():
		return RankLabels
	case s.Namespaces.Labels != nil || slices.ContainsFunc(s.Namespaces.Names, IsGlob):
		return RankCluster
	}
	return RankNamespace
}

// Namespaces chooses namespaces.
type Namespaces struct {
	// Names are names, or patterns with "*".
	Names []string
	// Labels chooses namespaces by label, besides Names. Nil chooses none.
	Labels labels.Selector
	// Exclude are names or patterns that are left out again.
	Exclude []string
}

// Static tells whether the namespaces are known without looking at a cluster.
func (n Namespaces) Static() bool {
	return n.Labels == nil && !slices.ContainsFunc(n.Names, IsGlob)
}

// Literal returns the names that are no patterns and are not left out, sorted.
func (n Namespaces) Literal() []string {
	var all []string
	for _, name := range n.Names {
		if !IsGlob(name) && !n.excludes(name) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// LabelCopy is on the namespaces of a restore test's copy of an application.
const LabelCopy = "davit.dev/restore-test"

// Match tells whether a namespace is chosen. Those of the cluster itself,
// Davit's own and a test's copies are chosen only by their very names.
func (n Namespaces) Match(name string, set map[string]string) bool {
	if n.excludes(name) {
		return false
	}
	if slices.Contains(n.Names, name) {
		return true
	}
	if _, copied := set[LabelCopy]; copied || IsSystem(name) {
		return false
	}
	return n.Labels != nil && n.Labels.Matches(labels.Set(set)) ||
		slices.ContainsFunc(n.Names, func(pattern string) bool { return IsGlob(pattern) && Glob(pattern, name) })
}

func (n Namespaces) excludes(name string) bool {
	return slices.ContainsFunc(n.Exclude, func(pattern string) bool { return Glob(pattern, name) })
}

// String says the rule in words.
func (n Namespaces) String() string {
	text := strings.Join(n.Names, ", ")
	if n.Labels != nil {
		if text != "" {
			text += " or "
		}
		text += "labelled " + n.Labels.String()
	}
	if len(n.Exclude) > 0 {
		text += " except " + strings.Join(n.Exclude, ", ")
	}
	return text
}

// IsSystem tells whether a namespace is the cluster's or Davit's own.
func IsSystem(name string) bool {
	switch name {
	case "kube-system", "kube-public", "kube-node-lease", "davit-system":
		return true
	}
	return false
}

// CheckNamespace says what is wrong with a namespace's name or pattern.
func CheckNamespace(pattern string) error {
	if pattern == "" {
		return fmt.Errorf("%w: an empty namespace name", ErrInvalid)
	}
	for i := range len(pattern) {
		if c := pattern[i]; c != '*' && !nameByte(c) || c == '.' {
			return fmt.Errorf("%w: namespace %.80q holds %q: want lower-case letters, digits, '-' and '*'", ErrInvalid, pattern, c)
		}
	}
	if len(pattern) > 63 {
		return fmt.Errorf("%w: namespace %.80q is longer than 63 characters", ErrInvalid, pattern)
	}
	return nil
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.'
}

// Unmet returns the patterns, and the label rule, that choose none of the
// namespaces given with their labels.
func (n Namespaces) Unmet(all map[string]map[string]string) []string {
	var unmet []string
	for _, pattern := range n.Names {
		one := Namespaces{Names: []string{pattern}, Exclude: n.Exclude}
		if IsGlob(pattern) && !one.chooses(all) {
			unmet = append(unmet, pattern)
		}
	}
	if one := (Namespaces{Labels: n.Labels, Exclude: n.Exclude}); n.Labels != nil && !one.chooses(all) {
		unmet = append(unmet, "labels "+n.Labels.String())
	}
	return unmet
}

func (n Namespaces) chooses(all map[string]map[string]string) bool {
	for name, set := range all {
		if n.Match(name, set) {
			return true
		}
	}
	return false
}
