package drill

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"davit.dev/davit/internal/commission"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/vault"
)

// Problems say why a drill cannot be.
func (s *Site) Problems(ctx context.Context, spec failover.Spec, facts *failover.Facts) ([]string, error) {
	problems, err := Busy(ctx, s.o.Recovery.Project, spec)
	if err != nil {
		return nil, err
	}
	for _, app := range spec.Applications {
		if facts.Epochs[app].Site == spec.To {
			problems = append(problems, fmt.Sprintf("%s runs at site %s: drill at a site that would take it over (a restore test proves its points here)", app, spec.To))
		}
	}
	if !s.o.Recovery.Coming { // else the nodes have nothing yet that could say so, and are asked before the drill begins
		open, err := s.o.Cluster.Open(ctx)
		if err != nil {
			return nil, err
		}
		if open != "" {
			problems = append(problems, open+reaches)
		}
	}
	for _, app := range spec.Applications {
		problem, err := s.fits(ctx, spec, app)
		if err != nil {
			return nil, err
		}
		if problem != "" {
			problems = append(problems, app+": "+problem)
		}
	}
	return problems, nil
}

// reaches ends a problem of the nodes.
const reaches = ": a clone that runs there could reach production"

// Settles tells whether problems are of the nodes alone: those that have just got Davit say within
// seconds that they isolate a sandbox. Anything else waits for a person.
func Settles(problems []string) bool {
	others := slices.ContainsFunc(problems, func(p string) bool { return !strings.HasSuffix(p, reaches) })
	return len(problems) > 0 && !others
}

// fits looks whether a clone could be made here.
func (s *Site) fits(ctx context.Context, spec failover.Spec, app string) (string, error) {
	opts, err := s.cloning(ctx, spec.Run, app, spec.Points[app].ID)
	var report recovery.Report
	if err == nil {
		report, err = recovery.Check(ctx, opts, s.o.Recovery)
	}
	switch {
	case err != nil && (recovery.Refused(err) || failed(err).Outcome == failover.Refused):
		return err.Error(), nil
	case err != nil:
		return "", err
	}
	if bad := restore.Blocking(report.Findings); len(bad) > 0 {
		return bad[0].String(), nil
	}
	return "", nil
}

// Busy names the runs under way that a drill of the same applications would
// disturb: those that move or restore them, and drills of the same plan at the
// same site.
func Busy(ctx context.Context, p *vault.Project, spec failover.Spec) ([]string, error) {
	under, err := register.New(p).States(ctx, spec.Plan, spec.Run)
	if err != nil {
		return nil, err
	}
	var problems []string
	for _, s := range under {
		conflict := commission.Conflict(&spec, []*failover.State{s})
		switch {
		case conflict == nil:
		case len(s.Spec.Applications) == 0: // nobody knows what it does
			problems = append(problems, conflict.Error())
		case s.Spec.Verb == plan.Drill:
			problems = append(problems, fmt.Sprintf("drill %s is under way, %s: wait for it, or end it with `davit runs cancel %s`", s.Spec.Run, s.Shown(), s.Spec.Run))
		default:
			problems = append(problems, fmt.Sprintf("run %s (%s) is under way, %s: drill when it is over", s.Spec.Run, s.Spec.Verb, s.Shown()))
		}
	}
	return problems, nil
}

// Yield is what people want of a drill, and what events want: when another run
// raises the epoch of an application, the drill makes way. It is canceled, and
// its sandbox removed.
type Yield struct {
	execute.Requests
	Project *vault.Project
	// Epochs are those under which the drill began; empty: those that are newest
	// when it is first asked.
	Epochs map[string]int64
	Apps   []string
	// Stop is closed when whoever carries the drill is told to stop; may be nil.
	Stop <-chan struct{}

	asked    bool
	turn     int // whose epoch is asked for next
	answered atomic.Bool
}

// Answered tells whether the run has heard that it is to make way. Before, that it waits
// for people is no reason to leave it.
func (y *Yield) Answered() bool { return y.answered.Load() }

// Next implements execute.Requests.
func (y *Yield) Next(ctx context.Context, run string) (*execute.Request, error) {
	select {
	case <-y.Stop:
		if !y.asked {
			y.asked = true
			return &execute.Request{Number: yielding, Kind: failover.Cancel, By: "davit: who carried it was told to stop, or died"}, nil
		}
	default:
	}
	r, err := y.Requests.Next(ctx, run)
	if r != nil || err != nil || y.asked {
		return r, err
	}
	if y.Epochs == nil {
		y.Epochs = map[string]int64{}
	}
	asked := 0
	for range y.Apps {
		app := y.Apps[y.turn%len(y.Apps)]
		began, known := y.Epochs[app]
		if known && asked == atOnce {
			break
		}
		current, err := lease.New(y.Project).Current(ctx, app)
		if err != nil {
			return nil, err
		}
		y.turn++
		if known {
			asked++
		}
		if !known {
			y.Epochs[app], began = current.Number, current.Number
		}
		if current.Number > began {
			y.asked = true
			by := fmt.Sprintf("davit: site %s claimed epoch %d of %s", current.Claim.Site, current.Number, app)
			return &execute.Request{Number: yielding, Kind: failover.Cancel, By: by}, nil
		}
	}
	return nil, nil //nolint:nilnil // nobody wants anything
}

// atOnce is how many applications' epochs are asked for each time, which is every second, once those of the
// beginning are known. A run claims all its applications, one after the other.
const atOnce = 5

// yielding is the number of the request that nobody waits for.
const yielding = -1

// Reply implements execute.Requests.
func (y *Yield) Reply(ctx context.Context, run string, n int64, refused string) error {
	if n == yielding {
		y.answered.Store(true)
		return nil
	}
	return y.Requests.Reply(ctx, run, n, refused)
}
