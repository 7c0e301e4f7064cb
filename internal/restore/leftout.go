package restore

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/shape"
)

// leftOut says why a kind is not restored at all, or nothing.
func (e *Engine) leftOut(res point.Resource) string {
	gr := schema.GroupResource{Group: res.Group, Resource: res.Resource}
	if why, ok := shape.NeverRestored[schema.GroupKind{Group: res.Group, Kind: res.Kind}]; ok {
		return why
	}
	if e.opts.Isolation != nil {
		if why := shape.OutsideOfCopy(res); why != "" {
			return why
		}
	}
	switch {
	case shape.MatchesKind(e.opts.ExcludeKinds, gr):
		return "excluded"
	case res.Group == shape.GroupDavit && !shape.MatchesKind(e.opts.IncludeKinds, gr):
		return "Davit's own: the agent makes it from the vault"
	case len(e.opts.IncludeKinds) > 0 && !shape.MatchesKind(e.opts.IncludeKinds, gr) && res.Group+"/"+res.Kind != "/Namespace":
		return "not included"
	}
	return ""
}
