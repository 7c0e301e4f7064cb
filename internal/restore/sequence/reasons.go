package sequence

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/order"
	"davit.dev/davit/internal/restore/shape"
)

// What the annotation davit.dev/restore-order may say.
const (
	// Sooner of a workload: it waits for nothing but what it names. Of a custom
	// resource, or of its definition: it comes before its operator, whatever
	// the profile says.
	Sooner = "sooner"
	// Later: it comes after all other workloads.
	Later = "later"
)

// Profile is the known place of a kind that is not the usual one. Usually custom
// resources come before all that may look at them.
type Profile struct {
	Group, Kind string // Kind "" is all of the group's
	Why         string
}

// Profiles are what is known. They are printed with the order.
var Profiles = []Profile{
	{"kustomize.toolkit.fluxcd.io", "", "it makes objects from git, and would start workloads before their volumes are filled"},
	{"helm.toolkit.fluxcd.io", "", "it makes objects from charts, and would start workloads before their volumes are filled"},
	{"argoproj.io", "Application", "it makes objects from git, and would start workloads before their volumes are filled"},
	{"argoproj.io", "ApplicationSet", "it makes Applications, which make objects from git"},
}

// ProfileOf is a kind's profile, or nil.
func ProfileOf(kind schema.GroupKind) *Profile {
	for i, p := range Profiles {
		if p.Group == kind.Group && (p.Kind == "" || p.Kind == kind.Kind) {
			return &Profiles[i]
		}
	}
	return nil
}

// Why one node waits for another.
const (
	whyPart uint8 = iota
	whyWhole
	whyPartStrictly
	whyIn
	whyDefined
	whyAllowed
	whyOwned
	whyNames
	whyMounts
	whyClasses
	whyNetwork
	whyOperator
	whyRights
	whySees
	whyClient
	whyMayBeClient
	whyLooksAt
	whyServed
	whyConverted
	whyRefuses
	whyReady
	whyProfile
	whyAnnotated
)

var reasons = [...]struct {
	text     string
	strength order.Strength
}{
	whyPart:         {"part of it", order.Perhaps},
	whyWhole:        {"part of it", order.Should},
	whyPartStrictly: {"part of it", order.Must},
	whyIn:           {"is in it", order.Must},
	whyDefined:      {"is of a kind that the point defines", order.Must},
	whyAllowed:      {"is let run when they are there", order.Must},
	whyOwned:        {"is owned by it", order.Should},
	whyNames:        {"names it", order.Must},
	whyMounts:       {"its pods mount it", order.Must},
	whyClasses:      {"may name one", order.Must},
	whyNetwork:      {"finds them from its first second", order.Should},
	whyOperator:     {"its operator looks for them", order.Must},
	whyRights:       {"gives it its rights", order.Should},
	whySees:         {"its account may look at them", order.Should},
	whyClient:       {"speaks of its Service", order.Perhaps},
	whyMayBeClient:  {"may be a client of what runs on them", order.Perhaps},
	whyLooksAt:      {"looks at them", order.Should},
	whyServed:       {"is served by it", order.Should},
	whyConverted:    {"is converted by it", order.Must},
	whyRefuses:      {"could refuse it", order.Must},
	whyReady:        {"is waited for", order.Should},
	whyProfile:      {"profile", order.Should},
	whyAnnotated:    {"annotation " + shape.AnnotationOrder, order.Should},
}

// Reason says in words why one object waits.
func (s *Sequence) Reason(e order.Edge) string {
	if e.Why == whyProfile && int(e.From) < len(s.Entries) {
		if p := ProfileOf(s.KindOf(s.Entries[e.From])); p != nil {
			return "profile: " + p.Why
		}
	}
	return reasons[e.Why].text
}

func (s *Sequence) name(en *index.Entry) string {
	name := en.Name
	if en.Namespace != "" {
		name = en.Namespace + "/" + name
	}
	return s.KindOf(en).String() + " " + name
}

// Name names a node for people; object names an object, as it is called at the
// target, and nil names it as captured.
func (s *Sequence) Name(n order.Node, object func(*index.Entry) string) string {
	p, is := s.PointOf(n)
	switch {
	case !is && object == nil:
		return s.name(s.Entries[n])
	case !is:
		return object(s.Entries[n])
	}
	switch p.Hub {
	case Namespace:
		return "namespace " + p.Namespace + " is there"
	case Definitions:
		return "definitions are served"
	case Answering:
		return "Service " + p.Namespace + "/" + p.Service + " answers"
	case Made:
		return "all workloads are there"
	case Ready:
		return "all workloads are ready"
	}
	switch p.Namespace {
	case Everywhere:
		return p.Group.String() + " everywhere"
	case "":
		return p.Group.String() + " of the cluster"
	}
	return p.Group.String() + " of " + p.Namespace
}
