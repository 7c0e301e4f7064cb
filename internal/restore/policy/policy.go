// Package policy says what happens to objects that exist already at the
// target of a restore, by their kind.
package policy

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/shape"
)

// Existing says what happens to objects that exist already and differ from
// the point's. One that is the same is left alone whatever the policy.
type Existing string

// What happens to objects that exist already. Volumes are left alone by Skip
// and Update, and rolled back in place by Replace and Exact. Cluster-scoped
// objects, which others may need, are changed only by a policy of their kind.
const (
	Skip   Existing = "Skip"   // left alone, with a warning
	Update Existing = "Update" // server-side apply with force
	// Replace deletes and creates. Custom resources are overwritten instead,
	// unless their kind has a policy of its own: their operator may take a
	// deletion for the end of what they stand for.
	Replace Existing = "Replace"
	// Exact overwrites, replaces what cannot be overwritten, and in the end
	// deletes what the application has at the target and not in the point.
	Exact Existing = "Exact"
)

// RollsBack tells whether volumes get the point's data.
func (x Existing) RollsBack() bool { return x == Replace || x == Exact }

// Set is the policy of a restore, and those of single kinds by pattern.
type Set struct {
	Default Existing
	Kinds   map[string]Existing
	// Isolated says that the namespaces were made before the restore began.
	Isolated bool
}

// Of is what happens to objects of a kind, and whether the kind was named.
func (s Set) Of(res point.Resource) (policy Existing, named bool) {
	policy = s.Default
	for _, pattern := range slices.Sorted(maps.Keys(s.Kinds)) {
		if Matches(pattern, res) {
			policy, named = s.Kinds[pattern], true
			if !strings.Contains(pattern, "*") {
				break // an exact name wins over a pattern
			}
		}
	}
	kind := schema.GroupKind{Group: res.Group, Kind: res.Kind}
	switch {
	case res.Dependency && !named:
		return Skip, false
	case kind == shape.KindNamespace && s.Isolated:
		return Update, true // it was made for the lease
	case (kind == shape.KindNamespace || kind == shape.KindCRD) && policy.RollsBack():
		return Update, named // all that is in them would go
	}
	return policy, named
}

// Matches tells whether a pattern means a kind: resource.group with "*"
// allowed, or the kind's own name ("Secret", "Deployment.apps").
func Matches(pattern string, res point.Resource) bool {
	kind := schema.GroupKind{Group: res.Group, Kind: res.Kind}
	return shape.MatchesKind([]string{pattern}, schema.GroupResource{Group: res.Group, Resource: res.Resource}) ||
		strings.EqualFold(pattern, res.Kind) || strings.EqualFold(pattern, kind.String())
}
