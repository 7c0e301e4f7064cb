package standby

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/bulletin"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/standby/absence"
	"davit.dev/davit/internal/standby/mapping"
	"davit.dev/davit/internal/standby/remains"
)

var _ execute.Survey = (*Site)(nil)

// Evaluate implements execute.Survey: who holds the applications, who ever
// did, and whether this site could take them.
func (s *Site) Evaluate(ctx context.Context, spec failover.Spec) (*failover.Facts, error) {
	facts := &failover.Facts{Epochs: map[string]failover.Held{}, Holders: map[string][]string{}, Terms: map[string]plan.Fence{}}
	facts.Problems = append(s.cannot(spec), mapping.Unfit(spec)...)
	drills := spec.Verb == plan.Drill
	if drills && s.drill == nil {
		facts.Problems = append(facts.Problems, "this davit drills at no site: use a newer one")
	}
	if spec.To != s.o.Recovery.Site {
		facts.Problems = append(facts.Problems, fmt.Sprintf("the run goes to site %s, and this is site %s: give the kubeconfig of %s", spec.To, s.o.Recovery.Site, spec.To))
	}
	movers, err := lease.Movers(ctx, s.project(), "")
	if err != nil {
		return nil, err
	}
	seen, err := s.look(ctx, spec, drills, movers)
	if err != nil {
		return nil, err
	}
	histories := map[string][]lease.Epoch{}
	for i, app := range spec.Applications {
		holders(facts, app, seen[i].history, movers[app], spec.To)
		histories[app] = seen[i].history
		if seen[i].problem != "" {
			facts.Problems = append(facts.Problems, app+": "+seen[i].problem)
		}
	}
	if !drills { // which waits for nobody's lease, and writes nothing that anybody else does
		if err := s.leases(ctx, facts, histories, movers); err != nil {
			return nil, err
		}
		if err := s.words(ctx, facts, spec, histories); err != nil {
			return nil, err
		}
		silent, err := absence.Problems(ctx, s.project(), spec, facts)
		if err != nil {
			return nil, err
		}
		facts.Problems = append(facts.Problems, silent...)
		if err := s.witness(ctx, facts, spec.Lost, histories); err != nil {
			return nil, err
		}
	}
	if drills && s.drill != nil && len(facts.Problems) == 0 {
		if facts.Problems, err = s.drill.Problems(ctx, spec, facts); err != nil {
			return nil, err
		}
	}
	return facts, nil
}

// cannot says which steps of a run this davit does not carry out.
func (s *Site) cannot(spec failover.Spec) []string {
	var problems []string
	kinds := s.of(spec.Verb)
	for _, step := range spec.Steps {
		_, here := kinds[step.Kind]
		if step.Side == plan.Target && !here && !step.Asks() {
			problems = append(problems, fmt.Sprintf("step %s: steps of the kind %q are not carried out by this davit: take it out of the plan", step.Name, step.Kind))
		}
		if step.Side == plan.Source && spec.Verb == plan.Drill {
			problems = append(problems, fmt.Sprintf("step %s: it acts at the source, and a drill asks nothing of it: take drill out of its verbs", step.Name))
		}
		for _, c := range step.Checks {
			if !s.asks(c) {
				problems = append(problems, fmt.Sprintf("step %s: checks of the kind %q are not carried out by this davit: use http or tcp", step.Name, c.Kind))
			}
		}
	}
	return problems
}

// sight is what was seen of one application.
type sight struct {
	history []lease.Epoch
	problem string // why it could not come here
}

// look looks at all applications of a run, as many at once as a run brings data
// of: each is a preflight of its own, and the target's API server and the vault
// have to bear them.
func (s *Site) look(ctx context.Context, spec failover.Spec, historyOnly bool, movers map[string][]lease.Mover) ([]sight, error) {
	seen := make([]sight, len(spec.Applications))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(failover.Abreast)
	for i, app := range spec.Applications {
		g.Go(func() (err error) {
			if seen[i].history, err = lease.New(s.project()).History(ctx, app); err != nil || historyOnly {
				return err
			}
			seen[i].problem, err = s.ready(ctx, app, spec, seen[i].history, movers[app])
			return err
		})
	}
	return seen, g.Wait()
}

// ready looks whether the application could come here, by its epochs.
func (s *Site) ready(ctx context.Context, app string, spec failover.Spec, history []lease.Epoch, movers []lease.Mover) (string, error) {
	opts := recovery.Options{Application: app, Mode: v1alpha1.RestoreTakeOver, Point: spec.Points[app].ID}
	left := remains.In(history, s.self(), math.MaxInt64)
	if !left.Here && slices.Contains(movers, lease.Mover(s.self())) {
		var err error
		if left, err = remains.Noted(ctx, s.project(), app, s.self()); err != nil {
			return "", err
		}
	}
	if spec.Verb == plan.Failback {
		if problem, err := s.returns(ctx, app, left.Here); problem != "" || err != nil {
			return problem, err
		}
	}
	opts.Existing = left.Existing()
	mapping.Call(&opts, mapping.Of(spec, app))
	question := fmt.Sprintf("%s at epoch %d: %+v", app, len(history), opts)
	if s.fit.is(question, s.o.Recovery.Now()) {
		return "", nil
	}
	report, err := s.check(ctx, opts, s.o.Recovery)
	switch {
	case err != nil && recovery.Refused(err):
		return err.Error(), nil
	case err != nil:
		return "", err
	}
	if bad := restore.Blocking(report.Findings); len(bad) > 0 {
		return bad[0].String(), nil
	}
	s.fit.found(question, s.o.Recovery.Now())
	return "", nil
}

// fresh is how long an application that could come here is taken for one that
// still can. Who gives a run has just been told so when the run asks again, and
// its restore looks once more.
const fresh = 30 * time.Second

// fits remembers the applications that could come here, by what was asked. What
// could not is asked again: somebody may have mended it.
type fits struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (f *fits) is(question string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.at[question]
	return ok && now.Sub(at) < fresh
}

func (f *fits) found(question string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == nil {
		f.at = map[string]time.Time{}
	}
	for q, at := range f.at {
		if now.Sub(at) >= fresh {
			delete(f.at, q)
		}
	}
	f.at[question] = now
}

// returns says why an application cannot come back here.
func (s *Site) returns(ctx context.Context, app string, left bool) (string, error) {
	if !left {
		return fmt.Sprintf("site %s never ran it: nothing of it can come back here, use switchover", s.o.Recovery.Site), nil
	}
	_, err := s.applicationHere(ctx, app)
	if errors.Is(err, errNoApplication) {
		return err.Error(), nil
	}
	return "", err
}

// Verify implements execute.Survey: the epochs are still the run's, what was brought
// is ready and the gates that the run opened are open, so that somebody serves, and no
// other site says that it does. That others had stopped was for their fences to
// prove before anything started here; what they say since may only belie that.
func (s *Site) Verify(ctx context.Context, state *failover.State) (outcome failover.Outcome, note, split string) {
	histories := map[string][]lease.Epoch{}
	for _, app := range state.Spec.Applications {
		history, err := lease.New(s.project()).History(ctx, app)
		if err != nil {
			return failover.NoAnswer, err.Error(), ""
		}
		histories[app] = history
		var current lease.Epoch
		if len(history) > 0 {
			current = history[len(history)-1]
		}
		if !s.self().Made(current.Claim) {
			return failover.NotDone, fmt.Sprintf("site %s claimed epoch %d of %s meanwhile", current.Claim.Site, current.Number, app), ""
		}
		data := state.Steps["data/"+app]
		if data == nil || data.Point == nil {
			continue
		}
		late, err := s.late(ctx, app, data.Point.ID)
		if err != nil {
			return failover.NoAnswer, err.Error(), ""
		}
		if late != "" {
			return failover.NotDone, late, ""
		}
	}
	if shut, err := s.shut(ctx, state); shut != "" || err != nil {
		if err != nil {
			return failover.NoAnswer, err.Error(), ""
		}
		return failover.NotDone, shut, ""
	}
	dark, unasked := s.dark(ctx, state)
	if dark != "" {
		return failover.NotDone, dark, ""
	}
	sites, bad, err := bulletin.Read(ctx, s.project())
	if err == nil {
		split, err = s.split(ctx, sites, slices.Collect(maps.Keys(state.Consents)), histories)
	}
	if err != nil {
		return failover.NoAnswer, err.Error(), ""
	}
	return failover.Done, strings.Join(slices.DeleteFunc([]string{unheard(bad), unasked}, func(s string) bool { return s == "" }), "; "), split
}

// shut names a gate of the run that somebody closed since: no load balancer would
// find the applications anywhere.
func (s *Site) shut(ctx context.Context, state *failover.State) (string, error) {
	for _, o := range openings(state) {
		for _, app := range o.apps {
			live, err := s.liveHere(ctx, app)
			if err != nil {
				return "", err
			}
			if live == nil || live.GetAnnotations()[v1alpha1.AnnotationGate+o.gate] != state.Spec.Run {
				return fmt.Sprintf("gate %s is not open on %s any more: clients find it at no site", o.gate, app), nil
			}
		}
	}
	return "", nil
}
