// Package transform changes objects on their way to the target by rules that a
// person wrote: patches, image registries, host names, storage classes. Rules
// are compiled and checked before anything changes. It reads no cluster.
//
// A rule sees an object as it is about to be written, without what the cluster
// assigns, in its namespace at the target. It may not change what the object
// is (version, kind, name, namespace) nor Davit's own marks. What is in an
// object never gets into an error: it may be a Secret.
package transform

import (
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/internal/manuscript"
)

// Document is a set of rules as people write it: a file, or an entry of a
// ConfigMap.
type Document struct {
	// Applications chooses the applications, by their names in the vault,
	// "*" allowed, that an overlay is for. Only overlays have it.
	Applications []string `json:"applications,omitempty"`
	// MirrorImagesFrom has images taken from this mirror, host[:port][/path].
	MirrorImagesFrom string `json:"mirrorImagesFrom,omitempty"`
	Rules            []Rule `json:"rules,omitempty"`
}

// Rule is one change of all objects that it matches.
type Rule struct {
	Name  string `json:"name"`
	Match Match  `json:"match,omitempty"`
	// JSONPatch is an RFC 6902 patch, and MergePatch an RFC 7396 one, as JSON or YAML.
	JSONPatch  string `json:"jsonPatch,omitempty"`
	MergePatch string `json:"mergePatch,omitempty"`
	// Images maps prefixes of image names, by whole parts of the path.
	Images []Mapping `json:"images,omitempty"`
	// Hosts maps host names; one that begins with a dot is a suffix.
	Hosts []Mapping `json:"hosts,omitempty"`
	// StorageClasses maps those of claims and claim templates.
	StorageClasses map[string]string `json:"storageClasses,omitempty"`
	// IngressClasses maps those of Ingresses.
	IngressClasses map[string]string `json:"ingressClasses,omitempty"`
	// NodeLabels maps labels by which pods choose nodes: KEY, or KEY=VALUE.
	NodeLabels []Mapping `json:"nodeLabels,omitempty"`
}

// Match says which objects a rule is for. What is empty matches all.
type Match struct {
	// Kinds are resource.group, "*" allowed, or kinds' names.
	Kinds      []string `json:"kinds,omitempty"`
	Namespaces []string `json:"namespaces,omitempty"` // at the target, "*" allowed
	Names      []string `json:"names,omitempty"`      // "*" allowed

	LabelSelector *metav1.LabelSelector `json:"labelSelector,omitempty"`
	// Condition is a CEL expression over object.
	Condition string `json:"condition,omitempty"`
}

// Mapping replaces one name, or prefix, or suffix.
type Mapping struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// The bounds of what people may write. They are far above what is sensible,
// and keep a mistake from becoming an outage.
const (
	maxDocument   = 1 << 20
	maxRules      = 256
	maxExpression = 4096
	maxMappings   = 256
	maxOperations = 256
)

// Parse reads a document. Fields that nobody knows are errors: a typing error
// must not leave a rule out.
func Parse(text []byte) (Document, error) {
	var d Document
	if len(text) > maxDocument {
		return d, fmt.Errorf("read rules: %d bytes are more than the %d that are read", len(text), maxDocument)
	}
	if err := manuscript.Read(text, &d, manuscript.Strict); err != nil {
		return d, fmt.Errorf("read rules: %w", err)
	}
	if len(d.Rules) == 0 && d.MirrorImagesFrom == "" {
		return d, errors.New(`read rules: there are none: want "rules:" with a list, or "mirrorImagesFrom:"`)
	}
	return d, nil
}
