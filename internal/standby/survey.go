package standby

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
)

var _ execute.Survey = (*Site)(nil)

// Evaluate implements execute.Survey: who holds the applications, who ever
// did, and whether this site could take them.
func (s *Site) Evaluate(ctx context.Context, spec failover.Spec) (*failover.Facts, error) {
	facts := &failover.Facts{Epochs: map[string]failover.Held{}, Holders: map[string][]string{}, Terms: map[string]plan.Fence{}}
	facts.Problems = append(s.cannot(spec), unmappable(spec)...)
	drills := spec.Verb == plan.Drill
	if drills && s.drill == nil {
		facts.Problems = append(facts.Problems, "this davit drills at no site: use a newer one")
	}
	if spec.To != s.o.Recovery.Site {
		facts.Problems = append(facts.Problems, fmt.Sprintf("the run goes to site %s, and this is site %s: give the kubeconfig of %s", spec.To, s.o.Recovery.Site, spec.To))
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	errs := make([]error, len(spec.Applications))
	found := make([]string, len(spec.Applications))
	histories := map[string][]lease.Epoch{}
	for i, app := range spec.Applications {
		history, err := lease.New(s.project()).History(ctx, app)
		if err != nil {
			return nil, err
		}
		holders(facts, app, history, spec.To)
		histories[app] = history
		if drills {
			continue
		}
		all.Go(func() {
			problem, err := s.ready(ctx, app, spec)
			mu.Lock()
			defer mu.Unlock()
			errs[i], found[i] = err, problem
		})
	}
	all.Wait()
	if !drills { // which waits for nobody's lease
		if err := s.leases(ctx, facts, histories); err != nil {
			return nil, err
		}
	}
	for i := range errs {
		if errs[i] != nil {
			return nil, errs[i]
		}
		if found[i] != "" {
			facts.Problems = append(facts.Problems, spec.Applications[i]+": "+found[i])
		}
	}
	if drills && s.drill != nil && len(facts.Problems) == 0 {
		var err error
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
		switch git := step.Kind == plan.KindSuspend || step.Kind == plan.KindResume; {
		case step.Side == plan.Source && spec.Verb == plan.Drill:
			problems = append(problems, fmt.Sprintf("step %s: it acts at the source, and a drill asks nothing of it: take drill out of its verbs", step.Name))
		case step.Side == plan.Source && step.OnError != plan.Continue && git:
			problems = append(problems, fmt.Sprintf("step %s: steps of the kind %q are not carried out at the source by this davit: use a command there, or let it continue on errors", step.Name, step.Kind))
		}
		for _, c := range step.Checks {
			if !s.asks(c) {
				problems = append(problems, fmt.Sprintf("step %s: checks of the kind %q are not carried out by this davit: use http or tcp", step.Name, c.Kind))
			}
		}
	}
	return problems
}

// ready looks whether the application could come here.
func (s *Site) ready(ctx context.Context, app string, spec failover.Spec) (string, error) {
	opts := recovery.Options{Application: app, Mode: v1alpha1.RestoreTakeOver, Point: spec.Points[app].ID}
	current, err := s.newest(ctx, app)
	if err != nil {
		return "", err
	}
	left, err := s.leftovers(ctx, app, current+1)
	if err != nil {
		return "", err
	}
	if spec.Verb == plan.Failback {
		if problem, err := s.returns(ctx, app, left); problem != "" || err != nil {
			return problem, err
		}
	}
	if left {
		opts.Existing = v1alpha1.ExistingExact
	}
	called(&opts, mappingsOf(spec, app))
	report, err := recovery.Check(ctx, opts, s.o.Recovery)
	switch {
	case err != nil && recovery.Refused(err):
		return err.Error(), nil
	case err != nil:
		return "", err
	}
	if bad := restore.Blocking(report.Findings); len(bad) > 0 {
		return bad[0].String(), nil
	}
	return "", nil
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

// Verify implements execute.Survey: the epochs are still the run's, and what
// was brought is ready. Whether another site writes is for its fence to say.
func (s *Site) Verify(ctx context.Context, state *failover.State) (outcome failover.Outcome, note, split string) {
	for _, app := range state.Spec.Applications {
		current, err := lease.New(s.project()).Current(ctx, app)
		if err != nil {
			return failover.NoAnswer, err.Error(), ""
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
	return failover.Done, "", ""
}
