package preflight

import (
	"cmp"
	"fmt"
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
	if s.Command != nil || s.Undo != nil || s.Terraform != nil {
		add(system, "jobs.batch", "create", "get", "list", "patch")
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
func (in *Input) stepsAllowed(s *Site, rights Rights) []Finding {
	var all []Finding
	for _, step := range in.Plan.Steps {
		var denied, silent []string
		for _, r := range sortRights(stepRights(step)) {
			allowed, known := rights.Steps[r.String()]
			switch {
			case !known:
				silent = append(silent, r.String())
			case !allowed:
				denied = append(denied, r.String())
			}
		}
		who := cmp.Or(rights.Who, "whoever carries the run")
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
	return all
}

// checkRights looks at what whoever carries runs of the plan may not do: the account that
// the plan names, where an agent carries them; and where a person looked, that person.
func checkRights(in *Input) []Finding {
	s := in.Sites[in.To]
	if s == nil {
		return in.unknownSite(in.To)
	}
	var all []Finding
	account, own := in.Plan.Account, s.Rights
	if account == "" || account == restorer || own.Who != restorer {
		all = in.judgeRights(s, own)
	}
	if account != "" && account != restorer && account != own.Who {
		if r, asked := s.RightsOf[account]; asked {
			all = append(all, in.judgeRights(s, r)...)
		} else {
			all = append(all, unknown(s.Name, "give the site the plan, and an agent of this version there ten minutes; or kubectl auth can-i --list -n NAMESPACE --as system:serviceaccount:"+system+":"+account+" there",
				"nobody asked what ServiceAccount %s may do, whose rights the plan's runs have where an agent carries them", account))
		}
	}
	return all
}

// judgeRights judges those of one who may carry runs.
func (in *Input) judgeRights(s *Site, r Rights) []Finding {
	var all []Finding
	denied := in.concern(r.Denied)
	switch {
	case r.Err != "":
		return []Finding{unknown(s.Name, "ask again", "what %s may do is not known: %s", cmp.Or(r.Who, "whoever restores"), r.Err)}
	case slices.Contains(denied, Impersonated):
		return []Finding{fail(s.Name, fmt.Sprintf("let it, there: kubectl -n %[1]s create role act-as-%[2]s --verb=impersonate --resource=serviceaccounts --resource-name=%[2]s, and kubectl -n %[1]s create rolebinding act-as-%[2]s --role=act-as-%[2]s --serviceaccount=%[1]s:davit-agent", system, r.Who),
			"ServiceAccount %s cannot carry runs: the agent may not act as it", r.Who)}
	case len(denied) > 0:
		all = append(all, fail(s.Name, "grant it, or let somebody carry the run who may", "%s may not %s", r.Who, some(denied)))
	case r.Asked == 0:
		return []Finding{unknown(s.Name, "run an agent of this version there", "nobody asked what a restore may do there")}
	}
	if silent := in.unasked(r); len(silent) > 0 {
		all = append(all, unknown(s.Name, "give the site the plan, and its agent ten minutes", "nobody asked whether %s may restore %s", r.Who, some(silent)))
	}
	all = append(all, in.stepsAllowed(s, r)...)
	if len(all) == 0 {
		all = append(all, ok(s.Name, "%s may do all %d things that a run does", r.Who, r.Asked+len(StepRights(in.Plan))))
	}
	return all
}

// concern are those of denied rights that a run of the plan uses: where an account was
// asked about for other plans as well, what it may not do for them is no matter here.
func (in *Input) concern(denied []string) []string {
	ours := []string{system}
	for _, n := range in.Needs {
		ours = append(ours, n.Namespaces...)
	}
	return slices.DeleteFunc(slices.Clone(denied), func(d string) bool {
		i := strings.LastIndex(d, " in ")
		return i >= 0 && len(ours) > 1 && !slices.Contains(ours, d[i+len(" in "):])
	})
}

// unasked are the plan's applications of which nobody asked.
func (in *Input) unasked(r Rights) []string {
	var all []string
	for _, a := range in.Plan.Applications {
		if r.Applications != nil && !slices.Contains(r.Applications, a.Name) {
			all = append(all, a.Name)
		}
	}
	return all
}

// restorer is the account whose rights agents ask for.
const restorer = "davit-restore"
