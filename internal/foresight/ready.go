package foresight

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/readiness"
	"davit.dev/davit/internal/vault"
)

// documentGrace is how long after a run its own traces may change the
// application's documents.
const documentGrace = 10 * time.Minute

// Readiness is how ready applications are.
type Readiness struct {
	Rows       []readiness.Row
	Components []readiness.Component
}

// Ready computes how ready applications are to go to every site that a plan names,
// or that the vault knows where no plan has them. The applications of the plans must have been gathered.
func (k *Known) Ready(ctx context.Context, plans []*plan.Plan) Readiness {
	var r Readiness
	c := readiness.Cluster{}
	planned := map[string]bool{}
	missing := map[string]bool{}
	for _, p := range plans {
		for _, site := range k.targets(p) {
			out := k.Judge(ctx, p, plan.Failover, site)
			for _, d := range out.Demands {
				planned[d.Application] = true
				r.Rows = append(r.Rows, readiness.Judge(k.evidence(d, out, p.Name)))
			}
			k.lacking(out, missing)
		}
		count(&c, p)
	}
	for _, app := range sortedKeys(k.Demands) {
		if planned[app] {
			continue
		}
		bare := k.bare(app)
		for _, site := range k.targets(bare) {
			out := k.Judge(ctx, bare, plan.Failover, site)
			r.Rows = append(r.Rows, readiness.Judge(k.evidence(k.Demands[app], out, "")))
			k.lacking(out, missing)
		}
	}
	k.survey(&c, missing)
	r.Components = readiness.Components(c)
	return r
}

// Holds tells whether a site holds the plan's applications.
func (k *Known) Holds(p *plan.Plan, site string) bool { return !slices.Contains(k.targets(p), site) }

// targets are the sites that a plan may bring its applications to now.
func (k *Known) targets(p *plan.Plan) []string {
	var needs []preflight.Need
	for _, app := range applications(p) {
		if d := k.Demands[app]; d != nil {
			needs = append(needs, d.Need)
		}
	}
	from := holder(needs)
	var sites []string
	for _, s := range p.Sites {
		if s.Name != from {
			sites = append(sites, s.Name)
		}
	}
	return sites
}

// bare is a plan of what no plan has: one application, and all sites that are known.
func (k *Known) bare(app string) *plan.Plan {
	p := &plan.Plan{Name: app, Applications: []plan.Application{{Name: app}}}
	for _, site := range sortedKeys(k.Sites) {
		p.Sites = append(p.Sites, plan.Site{Name: site})
	}
	if from := holder([]preflight.Need{k.Demands[app].Need}); len(p.Sites) == 0 || len(p.Sites) == 1 && p.Sites[0].Name == from {
		p.Sites = append(p.Sites, plan.Site{Name: "another"}) // there must be one
	}
	return p
}

// lacking notes images that can be had nowhere.
func (k *Known) lacking(out *Outlook, missing map[string]bool) {
	for _, i := range out.Input.Wanting() {
		if !out.Input.Registries[i.Key()].Present {
			missing[i.Key()] = true
		}
	}
}

func count(c *readiness.Cluster, p *plan.Plan) {
	for _, t := range p.Traffic {
		if t.Record != nil {
			c.Names++
		} else {
			c.Gates++
		}
	}
}

// survey counts what all points hold.
func (k *Known) survey(c *readiness.Cluster, missing map[string]bool) {
	seen := map[string]bool{}
	first := true
	holders := map[string]bool{}
	for _, d := range k.Demands {
		if d.Why != "" {
			continue
		}
		c.Points++
		c.Volumes += len(d.Volumes)
		back := d.readBack()
		if first || back.Before(c.ReadBack) {
			c.ReadBack = back
		}
		first = false
		for _, i := range d.Images {
			seen[i.Key()] = true
		}
		holders[holder([]preflight.Need{d.Need})] = true
	}
	c.Images, c.Asked = len(seen), k.At
	for key := range missing {
		if seen[key] {
			c.Missing++
		}
	}
	for _, name := range sortedKeys(k.Sites) {
		if s := k.Sites[name]; !holders[name] && s.Age(k.At) <= readiness.FreshSite {
			c.Standby = append(c.Standby, name)
			c.Seen = k.At.Add(-s.Age(k.At))
		}
	}
	for _, p := range k.History {
		if p.Good && p.Moved && p.At.After(c.Moved) {
			c.Moved = p.At
		}
	}
}

// infrastructure are the checks that say something of a site itself.
var infrastructure = []string{"facts", "capacity", "storage-classes", "ingress-classes", "node-labels", "kinds", "images", "step-images", "quotas", "rights"}

// evidence is what is known of one application and the site that the outlook is to.
func (k *Known) evidence(d *Demand, out *Outlook, planName string) readiness.Evidence {
	in := out.Input
	e := readiness.Evidence{
		Application: d.Application, Site: in.To, Now: k.At, RPO: d.RPO, Point: d.Instant, ReadBack: d.readBack(), Plan: planName,
		Automatic: planName != "" && in.Plan.Declaration.Automatic,
	}
	if d.Policy != nil && !d.Policy.Spec.Suspend {
		e.Cron = d.Policy.Spec.Schedule.Cron != ""
		if every := d.Policy.Spec.Schedule.Every; every != nil {
			e.Every = every.Duration
		}
	}
	k.ofPlan(&e, d, in.Plan)
	for _, f := range out.Findings {
		mine := (f.Application == "" || f.Application == d.Application) && f.Site == in.To && slices.Contains(infrastructure, f.Check)
		switch {
		case f.Check == "failure-domain" && f.Verdict != preflight.Unknown:
			e.Together, e.Apart = f.Verdict == preflight.Fail, f.Verdict != preflight.Fail
		case mine && f.Verdict == preflight.Fail:
			e.Failures = append(e.Failures, f.Reason)
		case mine && f.Verdict == preflight.Unknown:
			e.Unproven = append(e.Unproven, f.Check+": "+f.Reason)
		}
	}
	if s := in.Sites[in.To]; s != nil {
		e.Standby = k.At.Add(-s.Age(k.At))
	}
	for _, n := range in.Names {
		if n.Err != "" && e.NameFailed == "" && n.Refused {
			e.NameFailed = n.Server + ": " + n.Err
		}
	}
	if len(in.Names) > 0 && !slices.ContainsFunc(in.Names, func(n preflight.Name) bool { return n.Err != "" }) {
		e.Rehearsed = k.At
	}
	if m := d.tested(); m != nil {
		e.Booted, e.Unbooted = m.At, m.Kind == vault.MarkUnbootable
	}
	return e
}

// ofPlan adds what the plan, and the runs of it, say.
func (k *Known) ofPlan(e *readiness.Evidence, d *Demand, p *plan.Plan) {
	if e.Plan == "" {
		return
	}
	if problems := p.Check(); len(problems) > 0 {
		e.PlanFault = problems[0].Error()
		return
	}
	for _, t := range p.Traffic {
		switch {
		case t.Application != "" && t.Application != d.Application:
		case t.Record != nil:
			e.Names++
		default:
			e.Gates++
		}
	}
	g, err := p.Graph(plan.Failover)
	if err != nil {
		e.PlanFault = err.Error()
		return
	}
	for _, s := range g.Steps {
		if s.Asks() {
			e.Tasks++
		}
	}
	drills := 0
	for i := range k.History {
		run := &k.History[i]
		if !run.Good || run.To != e.Site || run.Plan != e.Plan || run.RTO[d.Application] <= 0 {
			continue
		}
		if run.Verb == string(plan.Drill) && k.At.Sub(run.At) <= readiness.FreshRun {
			drills++
		}
		if e.Run == nil {
			e.Run = &readiness.Run{Name: run.Run, Verb: run.Verb, At: run.At, Probed: run.Probed, Moved: run.Moved}
			e.Changed, e.What = k.changed(d, p, run)
		}
	}
	scheduled := p.Drills != nil && !p.Drills.Suspend && (len(p.Drills.Sites) == 0 || slices.Contains(p.Drills.Sites, e.Site))
	e.Drills = drills > 1 || scheduled && drills > 0
}

// changed is what changed since a run, and when.
func (k *Known) changed(d *Demand, p *plan.Plan, run *Past) (time.Time, string) {
	if g, err := p.Graph(plan.Verb(run.Verb)); err == nil {
		if p.Aim(g.Steps, run.To); !sameSteps(g.Steps, run.Steps) {
			return k.At, "the plan's steps changed"
		}
	}
	if d.DocumentAt.After(run.End.Add(documentGrace)) {
		return d.DocumentAt, "the application or its policy changed"
	}
	before := -1
	for i, info := range d.Points {
		if info.ID == run.Points[d.Application] || info.Manifest != nil && !info.Manifest.Instant.After(run.At) && before < i {
			before = i
		}
	}
	if before < 0 || d.Points[before].Manifest == nil {
		return time.Time{}, ""
	}
	was := pictures(d.Points[before].Manifest)
	for _, info := range d.Points[before+1:] {
		if info.Manifest != nil && !slices.Equal(was, pictures(info.Manifest)) {
			return info.Manifest.Instant, "its images or kinds changed"
		}
	}
	return time.Time{}, ""
}

// pictures is what of a point makes another application of it when it changes.
func pictures(m *point.Manifest) []string {
	var all []string
	for _, i := range m.Images {
		all = append(all, i.Reference+"@"+i.Digest)
	}
	for _, r := range m.Resources {
		if !r.Dependency {
			all = append(all, r.Resource+"."+r.Group+"/"+r.Version)
		}
	}
	for _, v := range m.Volumes {
		all = append(all, "volume "+v.Namespace+"/"+v.Claim)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// sameSteps compares steps by what they do, are asked and are taken back by, once both are aimed at a site.
func sameSteps(a, b []plan.Step) bool {
	words := func(steps []plan.Step) []string {
		var all []string
		for _, s := range steps {
			does := plan.Step{
				Name: s.Name, Kind: s.Kind, Application: s.Application, Object: s.Object, After: s.After,
				Command: s.Command, Terraform: s.Terraform, ClusterAPI: s.ClusterAPI, Call: s.Call, Undo: s.Undo, Record: s.Record, Checks: s.Checks,
				Prompt: s.Prompt, Approvers: s.Approvers, Mappings: s.Mappings, Gates: s.Gates,
			}
			word, _ := json.Marshal(does) // as journals hold it
			all = append(all, string(word))
		}
		slices.Sort(all)
		return all
	}
	return slices.Equal(words(a), words(b))
}

// readBack is when a point was last read back whole, or brought up.
func (d *Demand) readBack() time.Time {
	last := time.Time{}
	for _, i := range d.Points {
		if at := i.Verified(); at.After(last) {
			last = at
		}
	}
	return last
}

// tested is the newest verdict of a restore test; nil: there is none.
func (d *Demand) tested() *vault.Mark {
	var newest *vault.Mark
	for _, i := range d.Points {
		if m := i.Tested(); m != nil && (newest == nil || m.At.After(newest.At)) {
			newest = m
		}
	}
	return newest
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
