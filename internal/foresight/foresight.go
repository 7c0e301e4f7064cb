// Package foresight is the use case of knowing, before a disaster, what a run
// would do and lose: it reads from the vault what sites say, what the newest
// points hold and how earlier runs went, and has the cores judge.
package foresight

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/bulletin"
	"davit.dev/davit/internal/demand"
	"davit.dev/davit/internal/images"
	"davit.dev/davit/internal/lease"
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
	// Coming says that Davit is put to the target before the run begins.
	Coming bool
	Now    func() time.Time
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

// Known is what the vault, and whoever could be asked, says of applications.
type Known struct {
	Options
	At      time.Time
	Demands map[string]*Demand
	History []Past
	Sites   map[string]*preflight.Site
	Silence map[string]string
	Vault   preflight.Vault
	heard   map[string]preflight.Voice // vantage points that were asked for
}

// Gather reads what is known of applications. What cannot be known is said so
// later; an error says that the vault did not answer.
func Gather(ctx context.Context, o Options, applications []string) (*Known, error) {
	k := &Known{Options: o, At: o.Now(), Demands: map[string]*Demand{}, heard: map[string]preflight.Voice{}}
	demands, err := Demands(ctx, o.Project, applications)
	if err != nil {
		return nil, err
	}
	var needs []preflight.Need
	for _, d := range demands {
		k.Demands[d.Application] = d
		needs = append(needs, d.Need)
	}
	if err := k.sites(ctx, needs); err != nil {
		return nil, err
	}
	k.History, err = History(ctx, o.Project)
	return k, err
}

// Look gathers and judges one plan for a run of the verb to a site; "": the first
// that does not hold its applications.
func Look(ctx context.Context, o Options, p *plan.Plan, verb plan.Verb, to string) (*Outlook, error) {
	k, err := Gather(ctx, o, applications(p))
	if err != nil {
		return nil, err
	}
	return k.Judge(ctx, p, verb, to), nil
}

// Judge judges a plan, all of whose applications were gathered. Plans are judged one after
// the other.
func (k *Known) Judge(ctx context.Context, p *plan.Plan, verb plan.Verb, to string) *Outlook {
	in := &preflight.Input{Now: k.At, Plan: p, To: to, Coming: k.Coming, Sites: k.Sites, Silence: map[string]string{}, Vault: k.Vault}
	out := &Outlook{Input: in, RPO: map[string]prediction.RPO{}, History: k.History}
	tests := map[string][]time.Duration{}
	for _, app := range applications(p) {
		d := k.Demands[app]
		if d == nil {
			continue
		}
		out.Demands = append(out.Demands, d)
		in.Needs = append(in.Needs, d.Need)
		out.RPO[app] = prediction.OfPoints(d.cadence(), k.At)
		tests[app] = d.tests()
	}
	in.From = holder(in.Needs)
	if in.To == "" {
		in.To = Other(p, in.From)
	}
	for _, s := range p.Sites {
		if why := k.Silence[s.Name]; k.Sites[s.Name] == nil {
			in.Silence[s.Name] = cmp.Or(why, fmt.Sprintf("site %s has published no facts in this vault", s.Name))
		}
	}
	k.ask(ctx, in)
	k.voices(ctx, in)
	k.promises(ctx, in)
	out.Findings = preflight.Judge(in)
	out.RTO = prediction.OfRun(measured(k.History), p.Name, string(verb), applications(p))
	if !out.RTO.Known {
		out.RTO = prediction.OfCopies(tests, applications(p))
	}
	return out
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
func (k *Known) sites(ctx context.Context, needs []preflight.Need) error {
	var err error
	if k.Sites, k.Silence, err = bulletin.Read(ctx, k.Project); err != nil {
		return err
	}
	if k.Live != nil {
		for name, s := range k.Live(ctx, needs) {
			k.Sites[name] = s.Recalling(k.Sites[name], k.At)
			delete(k.Silence, name)
		}
	}
	k.Vault = preflight.Vault{KeyID: k.Project.NewestKey().KeyID, Domain: k.Domain}
	before := k.Now()
	clock, err := k.Project.Clock(ctx)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("ask the vault: %w", context.Cause(ctx))
	case err != nil:
		k.Vault.Err = err.Error()
	default: // some vaults tell whole seconds only
		k.Vault.Skew, k.Vault.SkewKnown = before.Sub(clock), true
	}
	return nil
}

// ask asks registries and servers.
func (k *Known) ask(ctx context.Context, in *preflight.Input) {
	if k.Names != nil {
		in.Names = k.Names(ctx, in.Plan)
	}
	if list := in.Wanting(); k.Registry != nil && len(list) > 0 {
		in.Registries = k.Registry(ctx, list)
	}
}

// Registries asks images' own registries. It remembers what they said for the
// time given, as they are asked of many plans, one after the other: the limit is for each.
func Registries(own images.Registries, limit, remember time.Duration) func(context.Context, []preflight.Image) map[string]preflight.Registry {
	type answer struct {
		preflight.Registry
		at time.Time
	}
	turn := make(chan struct{}, 1)
	known := map[string]answer{}
	return func(ctx context.Context, list []preflight.Image) map[string]preflight.Registry {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, limit) // whoever waits for his turn has all of it still
		defer cancel()
		out := map[string]preflight.Registry{}
		list = slices.DeleteFunc(slices.Clone(list), func(i preflight.Image) bool {
			a, found := known[i.Key()]
			if found && time.Since(a.at) < remember {
				out[i.Key()] = a.Registry
				return true
			}
			return false
		})
		for _, w := range images.Look(ctx, points(list), nil, own, nil) {
			key := preflight.Image{Reference: w.Reference, Digest: w.Digest}.Key()
			out[key] = preflight.Registry{Present: w.Registry == images.Present, Absent: w.Registry == images.Absent, Why: w.Why}
			known[key] = answer{out[key], time.Now()}
		}
		return out
	}
}

// Holder is the site that holds most of a plan's applications; "": none is held.
func Holder(ctx context.Context, p *vault.Project, of *plan.Plan) (string, error) {
	var needs []preflight.Need
	for _, app := range applications(of) {
		current, err := lease.New(p).Current(ctx, app)
		if err != nil {
			return "", fmt.Errorf("read who holds %s: %w", app, err)
		}
		if current.Number > 0 {
			needs = append(needs, preflight.Need{Epochs: []preflight.Epoch{{Number: current.Number, Site: current.Claim.Site}}})
		}
	}
	return holder(needs), nil
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

// Other is the first site of the plan that is not this one.
func Other(p *plan.Plan, from string) string {
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
