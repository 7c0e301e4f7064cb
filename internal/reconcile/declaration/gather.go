package declaration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/declare"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vantage"
	"davit.dev/davit/internal/vault"
)

// atOnce bounds what is read at the same time of one plan's applications.
const atOnce = 8

// outlook is what the vault says of a plan, besides what vantage points see.
type outlook struct {
	source string // the site that holds the applications
	why    string // there is no such site
	epoch  int64  // the greatest of its epochs
	epochs map[string]int64
	state  declare.State
}

// gatherer reads outlooks.
type gatherer struct {
	project *vault.Project
	listing *vault.Project // to look at all points again and again
	site    string         // that would take over
	now     func() time.Time
}

// gather reads all that decides about a plan. words are those of the vantage points.
func (g gatherer) gather(ctx context.Context, p *plan.Plan, words map[string]vantage.Word) (outlook, error) {
	o := outlook{epochs: map[string]int64{}, state: declare.State{Vault: true}}
	for _, a := range p.Approvals {
		o.state.Approvals = o.state.Approvals || len(a.Verbs) == 0 || slices.Contains(a.Verbs, plan.Failover)
	}
	movers, err := lease.Movers(ctx, g.project, "")
	if err != nil {
		return o, err
	}
	own, err := lease.Bearer(ctx, g.project, g.site)
	if err != nil {
		return o, err
	}
	all := make([]holding, len(p.Applications))
	err = each(ctx, len(all), func(ctx context.Context, i int) (err error) {
		app := p.Applications[i].Name
		all[i], err = g.holding(ctx, own, app, movers[app])
		return err
	})
	if err != nil {
		return o, err
	}
	for i, a := range p.Applications {
		o.add(a.Name, all[i])
	}
	slices.Sort(o.state.Unleased)
	if err := g.runs(ctx, p, &o.state); err != nil {
		return o, err
	}
	if o.source == "" || p.Objectives.RPO <= 0 {
		return o, nil
	}
	o.state.Late, err = g.late(ctx, p, words[o.source])
	return o, err
}

// each does something so many times, some at once: of a plan with many applications, one read
// after the other would take longer than a look may.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i := range n {
		g.Go(func() error { return do(ctx, i) })
	}
	return g.Wait()
}

// holding is who held an application.
type holding struct {
	newest   lease.Epoch // number 0: nobody
	unleased bool        // no wait would prove that all who ever did have stopped
}

func (g gatherer) holding(ctx context.Context, own lease.Identity, app string, movers []lease.Mover) (holding, error) {
	var h holding
	history, err := lease.New(g.project).History(ctx, app)
	if err != nil || len(history) == 0 {
		return h, err
	}
	h.newest = history[len(history)-1]
	word, said, err := lease.Said(ctx, g.project, app, history)
	if err != nil {
		return h, err
	}
	for _, site := range lease.Holders(history, movers) {
		if site == g.site || said && site == word.Site { // of whom no lease will ever be kept
			continue
		}
		_, kept, err := lease.Leased(ctx, g.project, app, site, own, history, movers)
		if err != nil {
			return h, err
		}
		h.unleased = h.unleased || !kept
	}
	return h, nil
}

// add takes in who holds an application.
func (o *outlook) add(app string, h holding) {
	if h.newest.Number == 0 {
		o.source, o.why = "", "no site ever held "+app
		return
	}
	holder := h.newest.Claim.Site
	switch {
	case o.why != "":
	case o.source != "" && o.source != holder:
		o.source, o.why = "", fmt.Sprintf("%s is at site %s, and others at %s", app, holder, o.source)
	default:
		o.source = holder
	}
	o.epoch = max(o.epoch, h.newest.Number)
	o.epochs[app] = h.newest.Number
	if h.newest.Claim.Terms != nil && !h.newest.Claim.Armed() {
		o.state.Moved = true
	}
	if h.unleased {
		o.state.Unleased = append(o.state.Unleased, app)
	}
}

// runs says which run is in the way, and how long ago the last one ended.
func (g gatherer) runs(ctx context.Context, p *plan.Plan, s *declare.State) error {
	r := register.New(g.project)
	under, err := r.Running(ctx)
	if err != nil {
		return err
	}
	for _, run := range under {
		in, err := g.inTheWay(ctx, r, run, p)
		if err != nil {
			return err
		}
		if in {
			s.Running = run
		}
	}
	clock, err := g.project.Clock(ctx)
	if err != nil {
		return err
	}
	ended, err := r.Since(ctx, clock.Add(-p.Declaration.Block))
	if err != nil {
		return err
	}
	for run, at := range ended {
		was, open, err := g.was(ctx, r, run, p)
		if err != nil {
			return err
		}
		if open {
			s.Running = run
		}
		if !was || open {
			continue
		}
		if ago := max(clock.Sub(at), 0); !s.Ended || ago < s.SinceRun {
			s.Ended, s.SinceRun = true, ago
		}
	}
	return nil
}

// was tells whether a run that is said to have ended moved something of the plan's, and
// whether its journal says that it goes on. A summary that cannot be read keeps no
// other plan from being declared.
func (g gatherer) was(ctx context.Context, r register.Register, run string, p *plan.Plan) (was, open bool, err error) {
	summary, err := r.Summary(ctx, run)
	if register.Unreadable(err) {
		var s *failover.State
		s, err = journal.Read(ctx, g.project, run)
		if register.Unreadable(err) || errors.Is(err, vault.ErrNotFound) {
			return register.MayBeOf(run, p.Name), false, nil
		}
		if err == nil {
			summary, open = register.Of(s), !s.Phase.Over()
		}
	}
	if err != nil {
		return false, false, err
	}
	moved := slices.ContainsFunc(summary.Applications, func(a failover.ApplicationResult) bool { return covers(p, a.Name) })
	was = summary.Verb != plan.Drill && (summary.Plan == p.Name || moved)
	return was, was && open, nil
}

func covers(p *plan.Plan, app string) bool {
	return slices.ContainsFunc(p.Applications, func(a plan.Application) bool { return a.Name == app })
}

// inTheWay tells whether a run that is under way moves something of the plan's.
func (g gatherer) inTheWay(ctx context.Context, r register.Register, run string, p *plan.Plan) (bool, error) {
	s, err := journal.Read(ctx, g.project, run)
	if errors.Is(err, vault.ErrNotFound) || register.Unreadable(err) { // it is about to begin, or its note is all that says something
		note, err := r.Note(ctx, run)
		switch {
		case errors.Is(err, vault.ErrNotFound):
			return false, nil
		case register.Unreadable(err):
			return register.MayBeOf(run, p.Name), nil
		}
		return err == nil && note.Plan == p.Name && note.Verb != plan.Drill, err
	}
	if err != nil {
		return false, err
	}
	if s.Phase.Over() || s.Spec.Verb == plan.Drill || !slices.ContainsFunc(s.Spec.Applications, func(app string) bool { return covers(p, app) }) {
		return false, nil
	}
	gone, err := r.Overtaken(ctx, s) // which keeps the declared run from nothing either
	if err != nil && (ctx.Err() != nil || errors.Is(err, vault.ErrUnavailable)) {
		return false, err
	}
	return !gone, nil
}

// ahead is how much the clock that a point was cut by may be ahead of the one that its site speaks by.
const ahead = time.Minute

// late finds the applications whose newest point loses more than the plan allows, or of which
// nobody knows. Points and the site's last word bear times of one clock, the site's; where that was ahead,
// points bear the vault's, so that they are the older by as much, and none is declared for nothing.
func (g gatherer) late(ctx context.Context, p *plan.Plan, last vantage.Word) ([]string, error) {
	reader := protection.New(protection.Options{Project: g.listing, Site: g.site, Now: g.now})
	all := make([]string, len(p.Applications))
	err := each(ctx, len(all), func(ctx context.Context, i int) error {
		app := p.Applications[i].Name
		_, points, err := reader.Points(ctx, app)
		if err != nil {
			return err
		}
		newest, ok := point.Newest(points, time.Time{})
		switch age := last.At.Sub(newest.Instant); {
		case !ok:
			all[i] = app + " (none may be offered)"
		case last.At.IsZero():
		case age < -ahead:
			all[i] = app + " (it is of a time that was yet to come: a clock was wrong)"
		case age > p.Objectives.RPO:
			all[i] = app
		}
		return nil
	})
	return slices.DeleteFunc(all, func(s string) bool { return s == "" }), err
}
