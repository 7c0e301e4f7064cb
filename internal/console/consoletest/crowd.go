package consoletest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vault"
)

// Size is how much Crowd writes.
type Size struct {
	Applications int
	Points       int // of each application, hourly
	Runs         int // that are over, of two plans in turn
	Open         int // runs that are not
	Sites        int
}

// Name is that of Crowd's application of a number.
func Name(i int) string { return fmt.Sprintf("app-%04d", i) }

// Crowd writes a large project, each object of which is as ordinary ones are.
func Crowd(ctx context.Context, p *vault.Project, now time.Time, n Size) error {
	f := filler{ctx: ctx, p: p, now: now}
	for i := range n.Sites {
		f.try(p.Heartbeat(ctx, vault.SiteStatus{Site: fmt.Sprintf("site-%03d", i), Cluster: "uid", Time: now, AgentVersion: "v1.2.0", KubeVersion: "v1.34.1"}))
	}
	var g errgroup.Group
	g.SetLimit(8)
	for i := range n.Applications {
		g.Go(func() error {
			f, app := filler{ctx: ctx, p: p, now: now}, Name(i)
			f.claim(app, fmt.Sprintf("site-%03d", i%max(1, n.Sites)))
			f.policy(app, `{"schedule":{"every":"1h0m0s"},"objectives":{"rpo":"2h0m0s"},"retention":{"last":24,"daily":30}}`)
			for k := range n.Points {
				f.try(AddPoint(ctx, p, app, now.Add(-time.Minute-time.Duration(k)*time.Hour)))
			}
			return f.err
		})
	}
	f.try(g.Wait())
	for i := range n.Runs + n.Open {
		f.past(i, i < n.Runs)
	}
	return f.err
}

// AddPoint writes a manifest as a capture does, without its other requests.
func AddPoint(ctx context.Context, p *vault.Project, app string, at time.Time) error {
	id, err := point.NewID(app, at, zeros{})
	if err != nil {
		return err
	}
	plain, err := json.Marshal(point.Manifest{
		FormatVersion: vault.FormatVersion, Project: p.Name(), Application: app, ID: id, Site: "site-000", Epoch: 1, Trigger: "schedule", Instant: at, CutBy: at, FinishedAt: at.Add(time.Minute),
		Consistency: point.Crash, Namespaces: []string{app}, Bytes: 5 << 20, StoredBytes: 1 << 20,
	})
	if err != nil {
		return err
	}
	return p.WriteSealedOnce(ctx, p.Root()+"manifests/"+app+"/"+id, plain)
}

// zeros is no random source: points of a time are the same each time.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// past writes the journal of a drill: of one that is over the summary too.
func (f *filler) past(i int, over bool) {
	at := f.now.Add(-time.Duration(i+1) * time.Hour)
	of := fmt.Sprintf("plan-%d", i%2)
	spec := &failover.Spec{
		Run: fmt.Sprintf("%s-drill-%s", of, at.UTC().Format("20060102-150405")), Plan: of, Verb: plan.Drill, To: "west", By: "user/anna", At: at, Accept: failover.TimedOut, Applications: []string{Name(0)},
		Steps: []plan.Step{{Name: "sandbox", Kind: plan.KindSandbox, Timeout: time.Minute}, {Name: "cleanup", Kind: plan.KindCleanup, Timeout: time.Minute, After: []string{"sandbox"}}},
	}
	then := failover.Entry{Kind: failover.Rejected, At: at.Add(time.Minute), By: "user/anna", Note: "not today"}
	if !over {
		then = failover.Entry{Kind: failover.PausedBy, At: at, By: "user/anna", Pause: failover.ByOperator, Note: "anna wants to look"}
	}
	j := journal.Create(f.p, spec.Run, "agent west")
	f.try(errors.Join(
		j.Append(f.ctx, []failover.Entry{{Kind: failover.Opened, At: at, Spec: spec}, {Kind: failover.Took, At: at, By: "agent west"}}),
		j.Append(f.ctx, []failover.Entry{then}),
	))
	if !over {
		return
	}
	s, err := journal.Read(f.ctx, f.p, spec.Run)
	if f.try(err); err == nil {
		f.try(register.New(f.p).End(f.ctx, s))
	}
}
