package preflight

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/plan"
)

// checkFacts says what is known of each site of the plan, and how old that is.
func checkFacts(in *Input) []Finding {
	var all []Finding
	for _, site := range []string{in.From, in.To} {
		s := in.Sites[site]
		switch {
		case site == "":
			all = append(all, unknown("", "protect the applications first", "no one site holds the applications, so nothing is known of the source"))
		case s == nil:
			all = append(all, in.unknownSite(site)...)
		case s.Age(in.Now) > Fresh:
			all = append(all, warn(site, "see `davit status` there: its agent publishes every ten minutes",
				"its facts are %s old", Span(s.Age(in.Now))))
		case len(s.Unread) > 0:
			all = append(all, warn(site, "run davit install there again, for its rights", "not everything there could be read: %s", unread(s)))
		default:
			all = append(all, ok(site, "facts are %s old: Kubernetes %s, davit %s, %s", Span(s.Age(in.Now)), s.Kubernetes, s.Davit, nodes(len(s.Nodes))))
		}
	}
	from, to := in.Sites[in.From], in.Sites[in.To]
	if from != nil && to != nil && from.Davit != to.Davit {
		all = append(all, warn(in.To, "install one version at both", "runs davit %s, and site %s davit %s", to.Davit, in.From, from.Davit))
	}
	return all
}

func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

func unread(s *Site) string {
	var all []string
	for what, why := range s.Unread {
		all = append(all, what+": "+why)
	}
	slices.Sort(all)
	return some(all)
}

// checkVault looks whether the vault answers, and whether every site has its
// newest key: one that has not cannot read what is written from now on.
func checkVault(in *Input) []Finding {
	if in.Vault.Err != "" {
		return []Finding{fail("", "davit vault check", "the vault cannot be used: %s", in.Vault.Err)}
	}
	var all []Finding
	for _, site := range in.Plan.Sites {
		s := in.Sites[site.Name]
		if s == nil || s.KeyID == "" || in.Vault.KeyID == "" || s.KeyID == in.Vault.KeyID {
			continue
		}
		all = append(all, warn(site.Name, "wait until its agent has read it; davit vault key ls shows who has", "knows key %.8s, and the newest is %.8s", s.KeyID, in.Vault.KeyID))
	}
	if len(all) == 0 {
		return []Finding{ok("", "it answers, opens with the key, and no site has an old one")}
	}
	return all
}

// checkDomain looks whether source and vault are lost together, or source and
// target.
func checkDomain(in *Input) []Finding {
	from, to := in.Sites[in.From], in.Sites[in.To]
	if from == nil {
		return in.unknownSite(in.From)
	}
	domain := cmp.Or(in.Vault.Domain, from.VaultDomain)
	if domain == "" && to != nil {
		domain = to.VaultDomain
	}
	switch {
	case from.Domain == "" || domain == "":
		return []Finding{unknown(in.From, "say it: davit install --failure-domain, davit vault add --failure-domain", "nobody said in which failure domains site and vault are")}
	case from.Domain == domain:
		return []Finding{fail(in.From, "move the vault, or add a second copy elsewhere", "the vault is in the source's own failure domain %s: both are lost together", domain)}
	case to != nil && to.Domain == from.Domain:
		return []Finding{warn(in.To, "choose a target elsewhere", "source and target are both in failure domain %s", from.Domain)}
	}
	return []Finding{ok(in.From, "the vault is in failure domain %s, the source in %s", domain, from.Domain)}
}

// checkClocks compares the clocks of sites and of the one who judges with the vault's.
func checkClocks(in *Input) []Finding {
	signed := slices.ContainsFunc(in.Plan.Traffic, func(t plan.Traffic) bool { return t.Record != nil })
	var all []Finding
	judge := func(site, who string, apart time.Duration) {
		switch {
		case apart.Abs() > clockFail && signed:
			all = append(all, fail(site, "mend time synchronisation", "%s clock is %s from the vault's: servers refuse signed updates of names beyond 5m", who, Span(apart)))
		case apart.Abs() > clockWarn:
			all = append(all, warn(site, "mend time synchronisation", "%s clock is %s from the vault's: ages and RPO are wrong by as much", who, Span(apart)))
		}
	}
	known := 0
	for _, site := range in.Plan.Sites {
		if s := in.Sites[site.Name]; s != nil && !s.Written.IsZero() {
			known++
			judge(site.Name, "its", s.At.Sub(s.Written))
		}
	}
	if in.Vault.SkewKnown {
		known++
		judge("", "this machine's", in.Vault.Skew)
	}
	switch {
	case len(all) > 0:
		return all
	case known == 0:
		return []Finding{unknown("", "let the sites' agents run", "no clock could be compared with the vault's")}
	}
	return []Finding{ok("", "%d clocks are within %s of the vault's", known, clockWarn)}
}

// checkEpochs looks whether each application has one holder, all the same one,
// whether its epochs are without a gap, and whether two sites believe that they run it.
func checkEpochs(in *Input) []Finding {
	var all []Finding
	for _, n := range in.Needs {
		all = append(all, in.judgeEpochs(n)...)
	}
	if len(all) == 0 {
		return []Finding{ok(in.From, "holds all %d applications", len(in.Needs))}
	}
	return all
}

func (in *Input) judgeEpochs(n Need) []Finding {
	if len(n.Epochs) == 0 {
		return []Finding{fail("", "protect it with davit protect", "no site ever held it").of(n.Application)}
	}
	var all []Finding
	last := n.Epochs[len(n.Epochs)-1]
	if first := n.Epochs[0].Number; last.Number-first+1 != int64(len(n.Epochs)) || first != 1 {
		all = append(all, fail("", "bring the epochs back, from the store's versions or a backup of the store, or else promote a second copy: docs/vaults.md",
			"of %d epochs %d are in the vault: some were deleted", last.Number, len(n.Epochs)).of(n.Application))
	}
	for _, name := range slices.Sorted(maps.Keys(in.Sites)) {
		if s := in.Sites[name]; s != nil && s.Epochs[n.Application] > last.Number {
			all = append(all, fail(name, "bring the newer epochs back, from the store's versions or a backup of the store, or else promote a second copy, docs/vaults.md: a run is refused until then",
				"has heard of epoch %d, and the vault's newest is %d: epochs were deleted, or an older state of the vault was put back", s.Epochs[n.Application], last.Number).of(n.Application))
		}
	}
	if in.From != "" && last.Site != in.From {
		all = append(all, fail(last.Site, "make a plan for each site's applications", "holds it, and others are at site %s", in.From).of(n.Application))
	}
	var active []string
	for name, s := range in.Sites {
		if s != nil && s.Roles[n.Application] == "Active" && s.Age(in.Now) <= Fresh {
			active = append(active, name)
		}
	}
	if slices.Sort(active); len(active) > 1 {
		all = append(all, fail(last.Site, "davit describe "+n.Application+" at both: the one without epoch must stop", "%s all believe that they run it", strings.Join(active, " and ")).of(n.Application))
	}
	return slices.Concat(all, in.strangers(n), in.moved(n), shared(n))
}

// strangers are former holders that the plan does not name: a run has to know
// of each that it has stopped.
func (in *Input) strangers(n Need) []Finding {
	var names []string
	for _, e := range n.Epochs {
		named := slices.ContainsFunc(in.Plan.Sites, func(s plan.Site) bool { return s.Name == e.Site })
		if !named && !e.Vouched && !slices.Contains(names, e.Site) {
			names = append(names, e.Site)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []Finding{warn("", "know what became of it, and be ready to give --lost for it", "site %s held it once and is not in the plan: a run waits for its proof or your word", some(names)).of(n.Application)}
}

// moved are former holders that claimed nothing in this vault, and of which nothing is
// known that proves that they have stopped. One that is the target need not prove it.
func (in *Input) moved(n Need) []Finding {
	var all []Finding
	for _, site := range n.Moved {
		s := in.Sites[site]
		switch {
		case site == in.To || slices.ContainsFunc(n.Epochs, func(e Epoch) bool { return e.Site == site }):
		case s != nil && s.Roles[n.Application] == "Superseded" && s.Age(in.Now) <= Fresh: // its agent answers, and stops it
		default:
			all = append(all, warn(site, "see `davit describe application "+n.Application+"` there, or be ready to give --lost for it",
				"held it in the lost vault, and has not said since that it stops it: a run waits for its proof or your word").of(n.Application))
		}
	}
	return all
}

// shared says that a cluster bears the name of the sites that were not moved over to a
// promoted vault.
func shared(n Need) []Finding {
	for _, e := range n.Epochs {
		if e.Shared {
			return []Finding{fail("", "give the cluster another name (davit uninstall there, then install --site); a failover goes with --lost "+e.Site,
				"a cluster bears the name %s, by which this vault calls the lost one's sites: nothing can prove or say for good that those have stopped, and a planned run is refused", e.Site).of(n.Application)}
		}
	}
	return nil
}

// checkPoints looks whether each application has a point that a failover
// takes, and whether it is within the objective.
func checkPoints(in *Input) []Finding {
	var all []Finding
	for _, n := range in.Needs {
		all = append(all, in.judgePoint(n))
	}
	return all
}

func (in *Input) judgePoint(n Need) Finding {
	if n.Why != "" {
		return fail("", "davit backup "+n.Application, "%s", n.Why).of(n.Application)
	}
	age, objective := max(0, in.Now.Sub(n.Instant)), in.Plan.Objectives.RPO
	if n.RPO > 0 && (objective == 0 || n.RPO < objective) {
		objective = n.RPO
	}
	switch {
	case n.Consistency == "fuzzy":
		return fail(n.Site, "move its volumes to a storage class with snapshots", "newest point %s was read while being written: a failover refuses it", n.Point).of(n.Application)
	case objective > 0 && age > objective:
		return fail(n.Site, "davit describe "+n.Application+" says what keeps captures", "newest point is %s old, %s beyond its RPO of %s", Span(age), Span(age-objective), Span(objective)).of(n.Application)
	case objective == 0:
		return warn(n.Site, "give objectives.rpo in the plan or the policy", "newest point is %s old, and there is no RPO to compare with", Span(age)).of(n.Application)
	}
	return ok(n.Site, "newest point is %s old, within its RPO of %s", Span(age), Span(objective)).of(n.Application)
}

// checkNames reports what the zone's servers said to an update that changes nothing.
func checkNames(in *Input) []Finding {
	if len(in.Plan.Traffic) == 0 {
		return []Finding{warn("", "add traffic to the plan, or know how clients find the target", "the plan moves no name: clients stay with the old site")}
	}
	var all []Finding
	asked := 0
	for _, n := range in.Names {
		switch {
		case n.Err == "":
			asked++
		case n.Refused:
			all = append(all, fail(in.To, cmp.Or(n.Do, "allow the key to update the name and its guard"), "%s: %s: %s", n.Traffic, n.Server, n.Err))
		default:
			all = append(all, unknown(in.To, cmp.Or(n.Do, "see why the server does not answer from here"), "%s: %s: %s", n.Traffic, n.Server, n.Err))
		}
	}
	switch {
	case len(all) > 0:
		return all
	case asked == 0 && slices.ContainsFunc(in.Plan.Traffic, func(t plan.Traffic) bool { return t.Record != nil }):
		return []Finding{unknown(in.To, "run this with the target's kubeconfig, which has the key", "nobody asked the zone's servers")}
	}
	return []Finding{ok(in.To, "%d answers of servers: they would take its updates", asked)}
}

// checkTTL advises on how long resolvers keep the old address.
func checkTTL(in *Input) []Finding {
	const advice = time.Minute
	var all []Finding
	for _, t := range in.Plan.Traffic {
		if t.Record == nil {
			continue
		}
		most := advice
		if rto := in.Plan.Objectives.RTO; rto > 0 {
			most = min(most, rto/4)
		}
		served := time.Duration(0)
		for _, n := range in.Names {
			if n.Traffic == t.Name {
				served = max(served, n.TTL)
			}
		}
		switch life := t.Record.Life(); {
		case served > max(most, life):
			all = append(all, warn("", "lower it now: until it has expired everywhere, a lower one helps nobody", "%s is served with a TTL of %s: resolvers keep the old address for so long", t.Object, Span(served)))
		case life > most:
			all = append(all, warn("", fmt.Sprintf("write ttl: %s in the plan", Span(most)), "%s gets a TTL of %s: clients come that much later", t.Object, Span(life)))
		}
	}
	if len(all) == 0 {
		return []Finding{ok("", "resolvers let go within a minute, or nothing is moved")}
	}
	return all
}

// checkOutside looks whether all that applications need besides can be asked
// from the target, and what it answered there.
func checkOutside(in *Input) []Finding {
	var all []Finding
	for _, o := range in.Plan.Outside {
		c, found := o.Probes[in.To]
		if !found {
			all = append(all, warn(in.To, "give it a probe for site "+in.To, "outside dependency %s has no probe from there", o.Name))
			continue
		}
		if f, bad := in.judgeOutside(o.Name, c); bad {
			all = append(all, f)
		}
	}
	if len(all) == 0 {
		return []Finding{ok(in.To, "%d outside dependencies answer there, and are asked again before anything changes", len(in.Plan.Outside))}
	}
	return all
}

func (in *Input) judgeOutside(name string, c plan.Check) (Finding, bool) {
	if c.Kind != plan.CheckHTTP && c.Kind != plan.CheckTCP {
		return unknown(in.To, "ask it there by hand; a run asks it before anything changes", "outside dependency %s is asked by %s, which no agent does ahead of a run", name, c.Kind), true
	}
	s := in.Sites[in.To]
	if s == nil {
		return in.unknownSite(in.To)[0], true
	}
	i := slices.IndexFunc(s.Outside, func(a Answer) bool {
		return a.Kind == string(c.Kind) && a.Target == c.Target && a.Expect == c.Expect
	})
	if i < 0 {
		return unknown(in.To, "give the site the plan, and an agent of this version there ten minutes", "nobody asked outside dependency %s from there", name), true
	}
	a := s.Outside[i]
	ago := Span(max(0, in.Now.Sub(a.At)))
	switch {
	case a.Err != "":
		return fail(in.To, "let it answer that site, or correct the probe: a run stops there before anything changes", "outside dependency %s did not answer there as it should, %s ago: %s", name, ago, a.Err), true
	case in.Now.Sub(a.At) > Fresh:
		return unknown(in.To, "look why the agent of site "+in.To+" publishes nothing newer", "outside dependency %s answered there %s ago", name, ago), true
	}
	return Finding{}, false
}
