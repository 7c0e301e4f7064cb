// Package mapping has a restore call things as they are called at the site that they come to.
package mapping

import (
	"fmt"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore/transform"
)

// Call has a restore call things as they are called at its site. The plan's
// mappings come after the site's overlays.
func Call(o *recovery.Options, mappings []plan.Mapping) {
	rule, any := transform.Rule{Name: "mappings"}, false
	for _, m := range mappings {
		names := transform.Mapping{From: m.From, To: m.To}
		any = any || m.Kind != plan.MapNamespace
		switch m.Kind {
		case plan.MapStorageClass:
			rule.StorageClasses = with(rule.StorageClasses, m)
		case plan.MapIngressClass:
			rule.IngressClasses = with(rule.IngressClasses, m)
		case plan.MapImage:
			rule.Images = append(rule.Images, names)
		case plan.MapHost:
			rule.Hosts = append(rule.Hosts, names)
		case plan.MapNodeLabel:
			rule.NodeLabels = append(rule.NodeLabels, names)
		case plan.MapNamespace: // refused before anything changes: see Unfit
		}
	}
	if any {
		o.Transforms = append(o.Transforms, transform.Source{Name: "plan", Rules: []transform.Rule{rule}})
	}
}

func with(all map[string]string, m plan.Mapping) map[string]string {
	if all == nil {
		all = map[string]string{}
	}
	all[m.From] = m.To
	return all
}

// Unfit says which mappings no run can follow.
func Unfit(spec failover.Spec) []string {
	for _, step := range spec.Steps {
		for _, m := range step.Mappings {
			if m.Kind == plan.MapNamespace && spec.Verb.Moves() {
				return []string{fmt.Sprintf("namespace %s is mapped to %s at site %s: an application that moves keeps its namespaces, as its protection and its fence go by them: "+
					"take the mapping out, or restore a copy (`davit restore --as-clone --map-namespace`)", m.From, m.To, spec.To)}
			}
		}
	}
	return nil
}

// Of are those that an application's data step follows.
func Of(spec failover.Spec, app string) []plan.Mapping {
	for _, step := range spec.Steps {
		if step.Kind == plan.KindRestore && step.Application == app {
			return step.Mappings
		}
	}
	return nil
}
