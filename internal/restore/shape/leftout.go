package shape

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
)

// Excluded is why a kind is left out that a person does not want.
const Excluded = "excluded"

// LeftOut says why a kind is not restored at all, or nothing. Isolated leaves
// out what a copy must not have, too.
func LeftOut(res point.Resource, include, exclude []string, isolated bool) string {
	gr := schema.GroupResource{Group: res.Group, Resource: res.Resource}
	if why, ok := NeverRestored[schema.GroupKind{Group: res.Group, Kind: res.Kind}]; ok {
		return why
	}
	if isolated {
		if why := OutsideOfCopy(res); why != "" {
			return why
		}
	}
	switch {
	case MatchesKind(exclude, gr):
		return Excluded
	case res.Group == GroupDavit && !MatchesKind(include, gr):
		return "Davit's own: the agent makes it from the vault"
	case len(include) > 0 && !MatchesKind(include, gr) && res.Group+"/"+res.Kind != "/Namespace":
		return "not included"
	}
	return ""
}
