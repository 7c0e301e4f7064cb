package preflight

import (
	"cmp"
	"slices"
	"strings"

	"davit.dev/davit/internal/plan"
)

// system is Davit's namespace, where Jobs of steps run.
const system = "davit-system"

// Right is one that a step of a plan takes at the cluster of the target.
type Right struct {
	Verb string
	// Resource is RESOURCE[/SUBRESOURCE].GROUP, without the dot where the group is empty.
	Resource  string
	Namespace string
}

// String is how people are told of it, and how it is named in facts.
func (r Right) String() string { return r.Verb + " " + r.Resource + " in " + r.Namespace }

// StepRights are the rights that a plan's own steps take, beyond those of a restore: to
// make Jobs, follow them and read what they say; to read what a call takes from Secrets; to ask a management cluster of Cluster API
// that the target itself is. One elsewhere is asked with the rights of its kubeconfig, which
// a drill shows.
func StepRights(p *plan.Plan) []Right {
	var all []Right
	for _, s := range p.Steps {
		all = append(all, stepRights(s)...)
	}
	return sortRights(all)
}

func sortRights(all []Right) []Right {
	slices.SortFunc(all, func(a, b Right) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Verb, b.Verb))
	})
	return slices.Compact(all)
}

func stepRights(s plan.Step) []Right {
	var all []Right
	add := func(namespace, resource string, verbs ...string) {
		for _, verb := range verbs {
			all = append(all, Right{verb, resource, namespace})
		}
	}
	if s.Command != nil || s.Terraform != nil {
		add(system, "jobs.batch", "create", "get", "list")
		add(system, "pods", "list")
		add(system, "pods/log", "get")
	}
	if len(s.Call.Secrets()) > 0 {
		add(system, "secrets", "get")
	}
	a := s.ClusterAPI
	switch {
	case a == nil:
		return all
	case a.Kubeconfig != "":
		add(system, "secrets", "get")
		return all
	}
	for _, object := range a.Machinery() {
		if resource, namespace, _, err := plan.Machinery(object); err == nil { // Plan.Check speaks of errors
			add(namespace, resource, "get")
		}
	}
	for _, m := range a.Scale {
		if resource, namespace, _, err := plan.Machinery(m.Object); err == nil {
			add(namespace, resource, "patch")
		}
	}
	for _, raw := range a.Apply {
		head, err := plan.ReadMachinery(raw)
		if err != nil {
			continue
		}
		group, _, _ := strings.Cut(head.APIVersion, "/")
		resource := strings.ToLower(head.Kind) + "s." + group // Cluster API's kinds are all named so
		add(head.Metadata.Namespace, resource, "get", "create", "patch")
		if a.Destroy {
			add(head.Metadata.Namespace, resource, "delete")
		}
	}
	return all
}

// stepsAllowed looks whether whoever carries the run may do what the plan's steps take.
func (in *Input) stepsAllowed(s *Site) []Finding {
	var all []Finding
	for _, step := range in.Plan.Steps {
		var denied, silent []string
		for _, r := range sortRights(stepRights(step)) {
			allowed, known := s.Rights.Steps[r.String()]
			switch {
			case !known:
				silent = append(silent, r.String())
			case !allowed:
				denied = append(denied, r.String())
			}
		}
		who := cmp.Or(s.Rights.Who, "whoever carries the run")
		verdict := fail
		if step.OnError == plan.Continue {
			verdict = warn
		}
		if len(denied) > 0 {
			all = append(all, verdict(s.Name, "grant it there by a Role of that namespace (docs/plans.md, Infrastructure), or let somebody carry the run who may",
				"step %q takes rights that %s has not: %s", step.Name, who, some(denied)))
		}
		if len(silent) > 0 {
			all = append(all, unknown(s.Name, "give the site the plan, and its agent ten minutes; or ask with that cluster's kubeconfig",
				"nobody asked whether %s may do what step %q takes: %s", who, step.Name, some(silent)))
		}
	}
	if p := in.Plan.Account; p != "" && p != restorer && s.Rights.Who == restorer && len(StepRights(in.Plan)) > 0 {
		all = append(all, unknown(s.Name, "kubectl auth can-i --list -n davit-system --as system:serviceaccount:davit-system:"+p+" there",
			"the plan's runs have the rights of ServiceAccount %s, and those of %s were asked for", p, restorer))
	}
	return all
}

// restorer is the account whose rights agents ask for.
const restorer = "davit-restore"
