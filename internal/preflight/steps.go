package preflight

import (
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/internal/plan"
)

// checkSteps looks whether what the plan's steps name is there: what makes objects
// from git, the kinds of gates and of names that external-dns keeps, Secrets, the account
// that carries runs. Images and name servers have checks of their own.
func checkSteps(in *Input) []Finding {
	var all []Finding
	asked := map[string]int{} // by site
	say := func(site string, found []Finding) {
		asked[site]++
		all = append(all, found...)
	}
	for _, s := range in.Plan.Steps {
		if s.Kind == plan.KindSuspend || s.Kind == plan.KindResume {
			site := in.sideOf(s)
			say(site, in.reconciler(site, s))
		}
		if s.Kind == plan.KindGate {
			say(in.To, in.gate(s.Name))
		}
		if s.Kind == plan.KindInfra && s.Command == nil {
			say(in.To, in.infrastructure(s))
		}
		if s.Call != nil && s.Call.Exposed() != "" {
			say(in.To, []Finding{warn(in.To, "put it into a Secret, and have a header (from) or the body (bodyFrom) taken from it, if who is called takes it so",
				"step %q: its url holds %s: whoever may read the plan or its runs can read it", s.Name, s.Call.Exposed())})
		}
		if s.Record != nil && s.Record.Provider == plan.ProviderExternalDNS {
			say(in.To, in.endpoint(s.Object, s.Record))
		}
	}
	for _, t := range in.Plan.Traffic {
		if t.Kind == plan.KindGate {
			say(in.To, in.gate(t.Name))
		}
		if t.Record != nil && t.Record.Provider == plan.ProviderExternalDNS {
			say(in.To, in.endpoint(t.Object, t.Record))
		}
	}
	if len(Secrets(in.Plan)) > 0 {
		say(in.To, in.secrets())
	}
	if in.Plan.Account != "" {
		say(in.To, in.account(in.Plan.Account))
	}
	if len(all) > 0 {
		return all
	}
	for _, site := range []string{in.From, in.To} {
		if asked[site] > 0 {
			all = append(all, ok(site, "has all %d that the plan's steps rely on there", asked[site]))
		}
	}
	if len(all) == 0 {
		return []Finding{ok("", "the plan's steps rely on nothing of a site's own")}
	}
	return all
}

// sideOf is the site at which a step of people's acts.
func (in *Input) sideOf(s plan.Step) string {
	if s.Side == plan.Source || s.Side == "" && s.Kind == plan.KindSuspend {
		return in.From
	}
	return in.To
}

// relied is a site as far as its facts say something of what steps rely on.
func (in *Input) relied(site, what string, listed []string) (*Site, []Finding) {
	s := in.Sites[site]
	if s == nil {
		return nil, in.unknownSite(site)
	}
	for _, key := range []string{"apis", what} {
		if why := s.Unread[key]; why != "" {
			return nil, []Finding{unknown(site, "see kubectl get apiservices there, and the rights of davit-capture", "%s could not be read: %s", key, why)}
		}
	}
	if listed == nil && what != "apis" {
		return nil, []Finding{unknown(site, "run an agent of this version there", "its facts do not say which %s it has", what)}
	}
	return s, nil
}

func (s *Site) listed(what string) []string {
	if s == nil {
		return nil
	}
	return map[string][]string{"reconcilers": s.Reconcilers, "accounts": s.Accounts, "names": s.Names, "configMaps": s.ConfigMaps}[what]
}

// reconciler looks for what a suspend or resume step acts on.
func (in *Input) reconciler(site string, step plan.Step) []Finding {
	resource, namespace, name, err := plan.Reconciler(step.Object)
	if err != nil {
		return nil // Plan.Check says so
	}
	s, found := in.relied(site, "reconcilers", in.Sites[site].listed("reconcilers"))
	if s == nil {
		return found
	}
	verdict := fail
	if step.OnError == plan.Continue {
		verdict = warn
	}
	there := func(r string) bool {
		return r == resource+"/"+namespace+"/"+name || namespace == "" && strings.HasPrefix(r, resource+"/") && strings.HasSuffix(r, "/"+name)
	}
	switch {
	case len(s.APIs[resource]) == 0:
		return []Finding{verdict(site, "correct the step's object, or let it continue on errors (onError: continue) where only one site has it",
			"step %q is about %s, and the site serves no %s", step.Name, step.Object, resource)}
	case !slices.ContainsFunc(s.Reconcilers, there):
		return []Finding{verdict(site, "make it there, correct the step's object, or let it continue on errors (onError: continue) where only one site has it",
			"step %q is about %s, which is not there", step.Name, step.Object)}
	}
	return nil
}

// gate looks whether there can be an Application to open it on.
func (in *Input) gate(name string) []Finding {
	s, found := in.relied(in.To, "apis", nil)
	if s == nil {
		return found
	}
	if len(s.APIs["applications.davit.dev"]) == 0 && !in.Coming {
		return []Finding{fail(in.To, "davit install there", "gate %q is opened on Applications, and the site has no such kind", name)}
	}
	return nil
}

// infrastructure looks for what a terraform or clusterAPI step relies on at the target.
// Its image and Secrets are looked for with the others'. What no site's facts say, a
// drill asks: one that has the step.
func (in *Input) infrastructure(step plan.Step) []Finding {
	var all []Finding
	if t := step.Terraform; t != nil && t.ConfigMap != "" {
		s, found := in.relied(in.To, "configMaps", in.Sites[in.To].listed("configMaps"))
		switch {
		case s == nil:
			all = append(all, found...)
		case !slices.Contains(s.ConfigMaps, t.ConfigMap):
			all = append(all, fail(in.To, "kubectl -n davit-system create configmap "+t.ConfigMap+" --from-file=DIR there",
				"step %q applies the configuration in ConfigMap %s, which is not in davit-system there", step.Name, t.ConfigMap))
		}
	}
	if a := step.ClusterAPI; a != nil && a.Kubeconfig == "" {
		s, found := in.relied(in.To, "apis", nil)
		if s == nil {
			return append(all, found...)
		}
		for _, object := range a.Machinery() {
			if resource, _, _, err := plan.Machinery(object); err == nil && len(s.APIs[resource]) == 0 { // Plan.Check speaks of errors
				all = append(all, fail(in.To, "say in the step which Secret has the kubeconfig of the management cluster, or correct the object",
					"step %q is about %s, and the site serves no %s", step.Name, object, resource))
			}
		}
	}
	if !slices.Contains(step.Verbs, plan.Drill) {
		all = append(all, warn(in.To, "add drill to its verbs: a drill plans it, and changes nothing",
			"step %q is never rehearsed: whether its credentials, its state and what it asks for are right shows in a disaster", step.Name))
	}
	return all
}

// endpoint looks whether external-dns can be told at the target, and whether the
// source's can be told to stop.
func (in *Input) endpoint(object string, r *plan.Record) []Finding {
	s, found := in.relied(in.To, "apis", nil)
	if s == nil {
		return found
	}
	var all []Finding
	if !slices.Contains(s.APIs[plan.DNSEndpoints], "v1alpha1") {
		all = append(all, fail(in.To, "install external-dns there with its CRD and --source=crd, or have another provider keep the name",
			"%s is kept by external-dns, and the site serves no %s in v1alpha1", object, plan.DNSEndpoints))
	}
	if in.From == "" {
		return all
	}
	from, found := in.relied(in.From, "names", in.Sites[in.From].listed("names"))
	if from == nil {
		return append(all, found...)
	}
	if !slices.Contains(from.Names, r.Endpoint) {
		all = append(all, warn(in.From, "have the name published by that DNSEndpoint alone, handed over as docs/traffic.md has it",
			"%s is not published there by DNSEndpoint %s with Davit's guard: when the site comes back after a failover, whatever publishes it leads clients there again", object, r.Endpoint))
	}
	return all
}

// account looks for the one with whose rights an agent carries runs of the plan.
func (in *Input) account(name string) []Finding {
	s, found := in.relied(in.To, "accounts", in.Sites[in.To].listed("accounts"))
	if s == nil {
		return found
	}
	if !slices.Contains(s.Accounts, name) && (!in.Coming || name != restorer) {
		return []Finding{fail(in.To, fmt.Sprintf("kubectl -n davit-system create serviceaccount %s there, and grant it what a restore does", name),
			"the plan's runs have the rights of ServiceAccount %s, which is not in davit-system there", name)}
	}
	return nil
}
