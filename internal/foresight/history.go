package foresight

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/demand"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/prediction"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/vault"
)

// mostRuns bounds how many journals are read, the newest first.
const mostRuns = 100

// Demand is what the vault says of an application.
type Demand struct{ *demand.Demand }

// cadence is when points were cut, and when they were whole.
func (d *Demand) cadence() []prediction.Point {
	var all []prediction.Point
	for _, i := range d.Points {
		if m := i.Manifest; m != nil && m.Trigger == "schedule" {
			all = append(all, prediction.Point{Instant: m.Instant, Whole: m.FinishedAt})
		}
	}
	return all
}

// tests are how long copies took until they worked, of the newest.
func (d *Demand) tests() []time.Duration {
	var all []time.Duration
	for _, i := range slices.Backward(d.Points) {
		if m := i.Tested(); m != nil && m.Kind == vault.MarkVerified && m.RTO > 0 && len(all) < prediction.Considered {
			all = append(all, m.RTO)
		}
	}
	return all
}

// Past is a run that is over, or only waits for a commit.
type Past struct {
	prediction.Past
	To         string
	End        time.Time // when it was over, or all was up
	Good       bool      // it did all that it was to do
	Canceled   bool      // it was rejected or given up, and shows nothing
	Probed     bool      // of the applications: every one was asked something
	Moved      bool      // it moved a name; a drill only asks its servers
	Objectives plan.Objectives
	Steps      []plan.Step
	Points     map[string]string // that it was brought up from, by application
}

// History are the newest runs that are over, the newest first. A journal that
// cannot be read is left out: it proves nothing.
func History(ctx context.Context, p *vault.Project) ([]Past, error) {
	names, err := p.Runs(ctx)
	if err != nil {
		return nil, fmt.Errorf("read history of runs: %w", err)
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(stamp(b), stamp(a)) })
	var all []Past
	for _, name := range names[:min(len(names), mostRuns)] {
		s, err := journal.Read(ctx, p, name)
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("read history of runs: %w", context.Cause(ctx))
		case err == nil && (s.Phase.Over() || s.Phase == failover.AwaitingCommit):
			all = append(all, past(s))
		}
	}
	slices.SortStableFunc(all, func(a, b Past) int { return b.At.Compare(a.At) })
	return all, nil
}

// stamp is the time in a run's name, which ends in date and time.
func stamp(run string) string {
	const digits = len("20060102-150405")
	return run[max(0, len(run)-digits):]
}

func past(s *failover.State) Past {
	r := s.Result()
	p := Past{
		Past: prediction.Past{Run: r.Run, Plan: r.Plan, Verb: string(r.Verb), At: s.Begun, RTO: map[string]time.Duration{}},
		To:   s.Spec.To, Good: s.Phase == failover.Completed || s.Phase == failover.AwaitingCommit, Canceled: s.Phase == failover.Canceled, Objectives: s.Spec.Objectives, Steps: s.Spec.Steps, Points: map[string]string{},
	}
	for _, a := range r.Applications {
		p.RTO[a.Name] = a.RTO
		p.Points[a.Name] = a.Point
	}
	p.End = s.End
	for _, step := range s.Spec.Steps {
		if end := s.Steps[step.Name].End; end.After(p.End) {
			p.End = end
		}
	}
	p.Probed = len(r.Applications) > 0
	for _, app := range s.Spec.Applications {
		p.Probed = p.Probed && slices.ContainsFunc(s.Spec.Steps, func(step plan.Step) bool {
			return step.Kind == plan.KindProbe && step.Application == app && len(step.Checks) > 0 && s.Steps[step.Name].Status == failover.Succeeded
		})
	}
	for _, step := range s.Spec.Steps {
		st := s.Steps[step.Name]
		p.Moved = p.Moved || s.Spec.Verb != plan.Drill && step.Kind == plan.KindDNS && st.Status == failover.Succeeded && !st.Undid
	}
	return p
}

// measured are the runs that predictions may look back at.
func measured(all []Past) []prediction.Past {
	var out []prediction.Past
	for _, p := range all {
		if p.Good {
			out = append(out, p.Past)
		}
	}
	return out
}

// Last is the newest good run of one of the verbs; nil: there is none.
func Last(all []Past, planName string, verbs ...plan.Verb) *Past {
	for i := range all {
		if all[i].Good && all[i].Plan == planName && slices.Contains(verbs, plan.Verb(all[i].Verb)) {
			return &all[i]
		}
	}
	return nil
}

func points(list []preflight.Image) []point.Image {
	var all []point.Image
	for _, i := range list {
		if p := point.Image(i); !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}
