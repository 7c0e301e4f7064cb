package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/console/ahead"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vault"
)

// Reader reads a project again and again. It remembers runs that are over, for
// their journals do not change. One goroutine uses it at a time.
type Reader struct {
	project *vault.Project
	over    map[string]Run
	ahead   *ahead.View // as it was last computed
}

// NewReader returns a reader of the project.
func NewReader(p *vault.Project) *Reader { return &Reader{project: p, over: map[string]Run{}} }

// Read reads the whole project. One application or run that is damaged is a
// fault of its own; a vault that does not answer is an error.
func (r *Reader) Read(ctx context.Context, now time.Time) (*Snapshot, error) {
	p := r.project
	s := &Snapshot{Project: p.Name(), Vault: p.Store().String(), At: now.UTC(), Copy: p.IsCopy(), Sites: []Site{}, Applications: []Application{}, Runs: []Run{}}
	names, err := p.Apps(ctx)
	if err != nil {
		return nil, fmt.Errorf("read fleet: %w", err)
	}
	for _, name := range names {
		a, err := r.application(ctx, name, now)
		if err != nil {
			return nil, fmt.Errorf("read fleet: %w", err)
		}
		s.Applications = append(s.Applications, a)
	}
	if err := r.sites(ctx, s); err != nil {
		return nil, fmt.Errorf("read fleet: %w", err)
	}
	if err := r.runs(ctx, s); err != nil {
		return nil, fmt.Errorf("read fleet: %w", err)
	}
	return s, r.foretell(ctx, s, now)
}

// How often plans are judged anew though nothing is known to have changed, and
// how long that may take.
const (
	aheadEvery = 5 * time.Minute
	aheadLimit = 30 * time.Second
)

// foretell notes what is known beforehand. It is judged anew when a plan has
// changed or a run is over, and when it is old. That it cannot be is a fault in
// what is shown.
func (r *Reader) foretell(ctx context.Context, s *Snapshot, now time.Time) error {
	revisions, err := shelf.New(r.project).Revisions(ctx)
	if err != nil {
		return fmt.Errorf("read fleet: %w", err)
	}
	s.Ahead = r.ahead
	if r.ahead != nil && r.ahead.Fault == "" && r.ahead.Runs == len(r.over) && maps.Equal(r.ahead.Revisions, revisions) && now.Sub(r.ahead.At) < aheadEvery {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, aheadLimit)
	defer cancel()
	var apps []string
	for _, a := range s.Applications {
		apps = append(apps, a.Name)
	}
	view, err := ahead.Read(limited, r.project, apps, func() time.Time { return now })
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("read fleet: %w", err)
		}
		old := ahead.View{Plans: []ahead.Plan{}, Rows: []ahead.Row{}}
		if r.ahead != nil {
			old = *r.ahead
		}
		old.Fault = err.Error()
		view = &old
	}
	view.Runs = len(r.over)
	r.ahead, s.Ahead = view, view
	return nil
}

// ours tells whether an error says something of one object alone, and not that
// the vault, or the time, is at an end.
func ours(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !errors.Is(err, vault.ErrUnavailable) && !errors.Is(err, vault.ErrDenied)
}

func (r *Reader) sites(ctx context.Context, s *Snapshot) error {
	signs, err := r.project.Sites(ctx)
	if err != nil {
		return err
	}
	for _, sign := range signs {
		site := Site{Name: sign.Site, Cluster: sign.Cluster, Seen: sign.Written.UTC(), Davit: sign.AgentVersion, Kube: sign.KubeVersion, Holds: []string{}}
		for _, a := range s.Applications {
			if a.Site == site.Name {
				site.Holds = append(site.Holds, a.Name)
			}
		}
		s.Sites = append(s.Sites, site)
	}
	return nil
}

func (r *Reader) application(ctx context.Context, name string, now time.Time) (Application, error) {
	a := Application{Name: name, Points: []Point{}}
	err := r.fill(ctx, &a, now)
	if err != nil && !ours(ctx, err) {
		return a, err
	}
	if err != nil {
		a.Fault = err.Error()
	}
	return a, nil
}

func (r *Reader) fill(ctx context.Context, a *Application, now time.Time) error {
	infos, err := r.project.Points(ctx, a.Name)
	if err != nil {
		return err
	}
	history, err := lease.New(r.project).History(ctx, a.Name) // after the manifests: see point.Quarantined
	if err != nil {
		return err
	}
	if n := len(history); n > 0 {
		newest := history[n-1]
		a.Site, a.Epoch, a.Since = newest.Claim.Site, newest.Number, newest.Claim.At.UTC()
	}
	rules, err := r.policy(ctx, a)
	if err != nil {
		return err
	}
	a.Points = points(infos, history, rules, now)
	return nil
}

// policy reads what the application's newest document says of it.
func (r *Reader) policy(ctx context.Context, a *Application) (point.Retention, error) {
	d, err := r.project.GetDocument(ctx, a.Name)
	if errors.Is(err, vault.ErrNotFound) { // captured by hand alone
		return point.Retention{}, nil
	}
	if err != nil {
		return point.Retention{}, err
	}
	for _, raw := range d.Objects {
		var policy v1alpha1.ProtectionPolicy
		if err := json.Unmarshal(raw, &policy); err != nil {
			return point.Retention{}, fmt.Errorf("read document of %s: %w: %w", a.Name, vault.ErrDamaged, err)
		}
		if policy.Kind != "ProtectionPolicy" {
			continue
		}
		spec := policy.Spec
		a.Policy, a.Suspended, a.Cron = policy.Name, spec.Suspend, spec.Schedule.Cron
		if d := spec.Objectives.RPO; d != nil {
			a.RPO = d.Duration
		}
		if d := spec.Objectives.RTO; d != nil {
			a.RTO = d.Duration
		}
		if d := spec.Schedule.Every; d != nil {
			a.Every = d.Duration
		}
		return protection.Rules(spec), nil
	}
	return point.Retention{}, nil
}

// points are what people see of recovery points, newest first.
func points(infos []vault.PointInfo, history []lease.Epoch, rules point.Retention, now time.Time) []Point {
	summaries := make([]point.Point, 0, len(infos))
	byID := make(map[string]vault.PointInfo, len(infos))
	for _, info := range infos {
		summaries = append(summaries, info.Point())
		byID[info.ID] = info
	}
	all := make([]Point, 0, len(infos))
	for _, d := range point.Keep(point.Quarantine(summaries, lease.Summaries(history)), rules, now) {
		p := describe(byID[d.Point.ID], d.Point)
		p.Kept, p.Because = d.Keep, d.Reason
		all = append(all, p)
	}
	return all
}

func describe(info vault.PointInfo, summary point.Point) Point {
	p := Point{ID: info.ID, Verified: summary.Verified.UTC(), Pinned: summary.Pinned, Good: summary.Good()}
	if summary.Verified.IsZero() {
		p.Verified = time.Time{}
	}
	if m := info.Manifest; m != nil {
		p.Instant, p.Site, p.Epoch, p.Consistency = m.Instant.UTC(), m.Site, m.Epoch, string(m.Consistency)
		p.Objects, p.Volumes, p.Bytes, p.Stored, p.Warnings = m.Objects, len(m.Volumes), m.Bytes, m.StoredBytes, len(m.Warnings)
	}
	if t := info.Tested(); t != nil {
		p.Tested, p.Passed, p.RTO = t.At.UTC(), t.Kind == vault.MarkVerified, t.RTO
	}
	switch {
	case summary.Deleting:
		p.Why = "it is being deleted"
	case summary.Damaged && info.Err != nil:
		p.Why = "damaged: " + info.Err.Error()
	case summary.Damaged:
		p.Why = "damaged"
	case summary.Quarantined:
		p.Why = "written under an epoch that had been superseded"
		for _, mark := range info.Quarantines() {
			p.Why = "quarantined: " + mark.Note
		}
	}
	return p
}

func (r *Reader) runs(ctx context.Context, s *Snapshot) error {
	names, err := r.project.Runs(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		run, known := r.over[name]
		if !known {
			state, err := journal.Read(ctx, r.project, name)
			switch {
			case err == nil:
				run = RunOf(state)
			case !ours(ctx, err):
				return err
			default:
				run = Run{Result: failover.Result{Run: name}, Fault: err.Error()}
			}
			if run.Over && run.Fault == "" {
				r.over[name] = run
			}
		}
		s.Runs = append(s.Runs, run)
	}
	slices.SortStableFunc(s.Runs, func(a, b Run) int { return b.Begun.Compare(a.Begun) })
	return nil
}

// RunOf is a run as its state says.
func RunOf(s *failover.State) Run {
	r := Run{
		Result: s.Result(), From: s.Spec.From, To: s.Spec.To, Begun: s.Begun.UTC(), Executor: s.Executor, By: s.Spec.By, Over: s.Phase.Over(), Reason: s.Spec.Reason,
		Planned: planned(s.Spec.Steps),
	}
	if !s.End.IsZero() {
		r.End = s.End.UTC()
	}
	if s.Pause != nil && !r.Over {
		r.Pause, r.PauseKind = s.Pause.Why, s.Pause.Kind
	}
	return r
}
