package selection

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// Volumes chooses the volumes whose data is captured, among those of the
// application.
type Volumes struct {
	// Include limits them to those that match at least one; empty: all.
	Include []Volume
	// Exclude leaves these out; it wins.
	Exclude []Volume
}

// Volume is one rule; what it does not say matches every volume.
type Volume struct {
	Claims       []string // names or patterns, with the namespace before them or not: "data-*", "shop/data-db-0"
	StorageClass string   // a name or a pattern
	Labels       labels.Selector
}

// Wants tells whether the data of a claim is captured.
func (v Volumes) Wants(namespace, claim, class string, set map[string]string) bool {
	match := func(r Volume) bool { return r.matches(namespace, claim, class, set) }
	return (len(v.Include) == 0 || slices.ContainsFunc(v.Include, match)) && !slices.ContainsFunc(v.Exclude, match)
}

func (r Volume) matches(namespace, claim, class string, set map[string]string) bool {
	named := len(r.Claims) == 0 || slices.ContainsFunc(r.Claims, func(pattern string) bool {
		if strings.Contains(pattern, "/") {
			return Glob(pattern, namespace+"/"+claim)
		}
		return Glob(pattern, claim)
	})
	return named && (r.StorageClass == "" || Glob(r.StorageClass, class)) &&
		(r.Labels == nil || r.Labels.Matches(labels.Set(set)))
}

// Empty tells whether the rule says nothing, and so would match every volume.
func (r Volume) Empty() bool {
	return len(r.Claims) == 0 && r.StorageClass == "" && (r.Labels == nil || r.Labels.Empty())
}
