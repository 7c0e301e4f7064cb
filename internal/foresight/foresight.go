// Package foresight is the use case of knowing, before a disaster, what a run
// would do and lose: it reads from the vault what sites say, what the newest
// points hold and how earlier runs went, and has the cores judge.
package foresight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/bulletin"
	"davit.dev/davit/internal/demand"
	"davit.dev/davit/internal/images"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/prediction"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/vault"
)

// parallelReads is how many applications are read at once.
const parallelReads = 4

// Options say where to look.
type Options struct {
	Project *vault.Project
	Domain  string // the vault's failure domain, where it is known
	Now     func() time.Time
	// Live takes a census of sites whose cluster can be asked; it knows what the
	// applications need, for rights. nil: no cluster is asked.
	Live func(ctx context.Context, needs []preflight.Need) map[string]*preflight.Site
	// Names asks the servers of a plan's records, from the target. nil: nobody asks.
	Names func(ctx context.Context, p *plan.Plan) []preflight.Name
	// Registry asks an image's own registry. nil: nobody asks.
	Registry func(ctx context.Context, list []preflight.Image) map[string]preflight.Registry
}

// Outlook is what is known beforehand of a run of a plan.
type Outlook struct {
	Input    *preflight.Input
	Findings []preflight.Finding
	Demands  []*Demand
	History  []Past
	RTO      prediction.RTO
	RPO      map[string]prediction.RPO
}

// Look judges a plan for a run of the verb to a site; "": the first that does not
// hold the applications. What cannot be known is in the findings; an error says that
// the vault did not answer.
func Look(ctx context.Context, o Options, p *plan.Plan, verb plan.Verb, to string) (*Outlook, error) {
	in := &preflight.Input{Now: o.Now(), Plan: p, To: to, Silence: map[string]string{}}
	out := &Outlook{Input: in, RPO: map[string]prediction.RPO{}}
	demands, err := Demands(ctx, o.Project, applications(p))
	if err != nil {
		return nil, err
	}
	out.Demands = demands
	tests := map[string][]time.Duration{}
	for _, d := range demands {
		in.Needs = append(in.Needs, d.Need)
		out.RPO[d.Application] = prediction.OfPoints(d.cadence(), in.Now)
		tests[d.Application] = d.tests()
	}
	in.From = holder(in.Needs)
	if in.To == "" {
		in.To = other(p, in.From)
	}
	if err := o.sites(ctx, in); err != nil {
		return nil, err
	}
	o.ask(ctx, in)
	out.Findings = preflight.Judge(in)
	if out.History, err = History(ctx, o.Project); err != nil {
		return nil, err
	}
	out.RTO = prediction.OfRun(measured(out.History), p.Name, string(verb), applications(p))
	if !out.RTO.Known {
		out.RTO = prediction.OfCopies(tests, applications(p))
	}
	return out, nil
}

// Demands reads what applications need, in their order.
func Demands(ctx context.Context, p *vault.Project, applications []string) ([]*Demand, error) {
	all := make([]*Demand, len(applications))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelReads)
	for i, app := range applications {
		g.Go(func() error {
			d, err := demand.Read(ctx, p, app)
			all[i] = &Demand{d}
			return err
		})
	}
	return all, g.Wait()
}

// sites reads what sites say of themselves: live where that can be, else as they
// published it.
func (o Options) sites(ctx context.Context, in *preflight.Input) error {
	var err error
	if in.Sites, in.Silence, err = bulletin.Read(ctx, o.Project); err != nil {
		return err
	}
	if o.Live != nil {
		for name, s := range o.Live(ctx, in.Needs) {
			in.Sites[name] = s
			delete(in.Silence, name)
		}
	}
	for _, s := range in.Plan.Sites {
		if in.Sites[s.Name] == nil && in.Silence[s.Name] == "" {
			in.Silence[s.Name] = fmt.Sprintf("site %s has published no facts in this vault", s.Name)
		}
	}
	in.Vault = preflight.Vault{KeyID: o.Project.NewestKey().KeyID, Domain: o.Domain}
	before := o.Now()
	clock, err := o.Project.Clock(ctx)
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case err != nil:
		in.Vault.Err = err.Error()
	default: // the vault tells whole seconds at worst
		in.Vault.Skew, in.Vault.SkewKnown = before.Sub(clock), true
	}
	return nil
}

// ask asks registries and servers.
func (o Options) ask(ctx context.Context, in *preflight.Input) {
	if o.Names != nil {
		in.Names = o.Names(ctx, in.Plan)
	}
	if o.Registry == nil {
		return
	}
	list := preflight.StepImages(in.Plan)
	for _, n := range in.Needs {
		list = append(list, n.Images...)
	}
	in.Registries = o.Registry(ctx, list)
}

// Registries asks images' own registries with the person's own credentials.
func Registries(own images.Registries, limit time.Duration) func(context.Context, []preflight.Image) map[string]preflight.Registry {
	return func(ctx context.Context, list []preflight.Image) map[string]preflight.Registry {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		answers := map[string]preflight.Registry{}
		for _, w := range images.Look(ctx, points(list), nil, own, nil) {
			key := preflight.Image{Reference: w.Reference, Digest: w.Digest}.Key()
			answers[key] = preflight.Registry{Present: w.Registry == images.Present, Absent: w.Registry == images.Absent, Why: w.Why}
		}
		return answers
	}
}

// holder is the site that holds most of the applications; "": none is held.
func holder(needs []preflight.Need) string {
	count, best := map[string]int{}, ""
	for _, n := range needs {
		if len(n.Epochs) == 0 {
			continue
		}
		site := n.Epochs[len(n.Epochs)-1].Site
		if count[site]++; best == "" || count[site] > count[best] {
			best = site
		}
	}
	return best
}

func other(p *plan.Plan, from string) string {
	i := slices.IndexFunc(p.Sites, func(s plan.Site) bool { return s.Name != from })
	if i < 0 {
		return ""
	}
	return p.Sites[i].Name
}

func applications(p *plan.Plan) []string {
	var all []string
	for _, a := range p.Applications {
		all = append(all, a.Name)
	}
	return all
}
