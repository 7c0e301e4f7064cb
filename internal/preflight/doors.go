package preflight

import (
	"cmp"
	"slices"

	"davit.dev/davit/internal/plan"
)

// checkDoors looks whether the target has the classes that Ingresses and Gateways name, by
// the names that the plan's mappings give them: without one nothing lets clients in, and
// no run finds out, as all pods are ready.
func checkDoors(in *Input) []Finding {
	s := in.Sites[in.To]
	if s == nil {
		return in.unknownSite(in.To)
	}
	var all []Finding
	count := 0
	for _, n := range in.known() {
		count += len(n.Doors)
		for _, d := range alike(n.Doors) {
			if f, bad := in.judgeDoor(s, n, d); bad {
				all = append(all, f.of(n.Application))
			}
		}
	}
	for _, site := range in.Plan.Sites {
		for _, m := range site.Mappings {
			if site.Name == in.To && m.Kind == plan.MapIngressClass && s.IngressClasses != nil && !s.ingressClass(m.To) {
				all = append(all, fail(in.To, "name a class that is there", "the plan maps ingress class %s to %s, which is not there", m.From, m.To))
			}
		}
	}
	if len(all) == 0 {
		return []Finding{ok(in.To, "has the classes of all %d Ingresses and Gateways of the points", count)}
	}
	return all
}

// alike are doors of which there is the same to say, under the names of all.
func alike(doors []Door) []Door {
	names := map[Door][]string{}
	var all []Door
	for _, d := range doors {
		key := Door{Gateway: d.Gateway, Class: d.Class, Noted: d.Noted}
		if names[key] == nil {
			all = append(all, key)
		}
		names[key] = append(names[key], d.Namespace+"/"+d.Name)
	}
	for i := range all {
		all[i].Name = some(names[all[i]])
	}
	return all
}

func (s *Site) ingressClass(name string) bool {
	return slices.ContainsFunc(s.IngressClasses, func(c IngressClass) bool { return c.Name == name || name == "" && c.Default })
}

func (in *Input) judgeDoor(s *Site, n Need, d Door) (Finding, bool) {
	if d.Gateway {
		return in.judgeGateway(s, d)
	}
	class := in.mapped(plan.MapIngressClass)(d.Class)
	source := in.Sites[in.From]
	without := source != nil && source.IngressClasses != nil && !source.ingressClass(class) && class == d.Class
	name := d.Name
	switch {
	case s.IngressClasses == nil:
		return unknown(s.Name, "run an agent of this version there", "nobody looked whether it has ingress class %s of Ingress %s", cmp.Or(class, "(the default)"), name), true
	case s.ingressClass(class) || class != "" && slices.Contains(n.IngressClasses, class):
		return Finding{}, false
	case class == "" && without, class == "" && d.Noted:
		return Finding{}, false // whoever serves it does so without a class
	case class == "":
		return warn(s.Name, "make one of its ingress classes the default, or know what serves Ingresses without a class there", "Ingress %s names no class, and there is no default one", name), true
	case without, d.Noted:
		return warn(s.Name, "see that something serves class "+class+" there, or map it in the plan (ingressClass)", "Ingress %s names class %s, which is no IngressClass there", name, class), true
	}
	return fail(s.Name, "install its controller there, or map it in the plan (ingressClass)", "there is no ingress class %s, which Ingress %s needs: no client gets in by it", class, name), true
}

func (in *Input) judgeGateway(s *Site, d Door) (Finding, bool) {
	switch {
	case len(s.APIs["gateways.gateway.networking.k8s.io"]) == 0, slices.Contains(s.GatewayClasses, d.Class):
		return Finding{}, false // a kind that is not served is told of by its own check
	case s.GatewayClasses == nil:
		return unknown(s.Name, "run an agent of this version there, with the right to list gatewayclasses", "nobody looked whether it has gateway class %s of Gateway %s", d.Class, d.Name), true
	}
	return fail(s.Name, "install its controller there, or write an overlay of the site (docs/restore.md)", "there is no gateway class %s, which Gateway %s needs: no client gets in by it", d.Class, d.Name), true
}
