package document

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/vault"
)

// maxBody bounds what is kept of a document: with what is around it, it fits into
// one frame of an agent's stream.
const maxBody = MaxSize - 64<<10

// Place is what of a document says which sites it concerns.
type Place struct {
	// Sites are those it names: by its annotation, or a plan by its spec.
	Sites []string
	// Policy is the one that an application names.
	Policy string
}

// PlaceOf reads it from what is kept of a document.
func PlaceOf(kind string, kept json.RawMessage) (Place, error) {
	var b struct {
		Metadata meta `json:"metadata"`
		Spec     struct {
			Policy string `json:"policy"`
			Sites  []struct {
				Name string `json:"name"`
			} `json:"sites"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(kept, &b); err != nil {
		return Place{}, fmt.Errorf("read sites of a %s: %w", kind, err)
	}
	if kind == "RecoveryPlan" {
		var p Place
		for _, s := range b.Spec.Sites {
			p.Sites = append(p.Sites, s.Name)
		}
		return p, nil
	}
	sites, err := named(b.Metadata.Annotations)
	return Place{Sites: sites, Policy: b.Spec.Policy}, err
}

// named are the sites that an annotation names.
func named(annotations map[string]string) (all []string, err error) {
	text, ok := annotations[v1alpha1.AnnotationSites]
	if !ok {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		name := strings.TrimSpace(part)
		if err := vault.CheckName(name); err != nil {
			return nil, fmt.Errorf("annotation %s: %q is no list of sites: %w", v1alpha1.AnnotationSites, text, err)
		}
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all, nil
}

// checkSites checks what a document says of its sites.
func checkSites(k *Kind, annotations map[string]string) error {
	all, err := named(annotations)
	switch {
	case err != nil:
		return err
	case k.Name == "RecoveryPlan" && len(all) > 0:
		return fmt.Errorf("annotation %s: a RecoveryPlan goes to the sites of its spec", v1alpha1.AnnotationSites)
	case k.Name == "Application" && len(all) > 1:
		return fmt.Errorf("annotation %s: an Application is at one site, where it runs; a failover makes it at the other", v1alpha1.AnnotationSites)
	}
	return nil
}
