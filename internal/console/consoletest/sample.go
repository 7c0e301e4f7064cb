// Package consoletest fills a vault with what a console shows: sites, two
// applications, recovery points and runs. Only tests import it.
package consoletest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
)

// New makes a project in a store that holds no vault yet, and returns it with
// its recovery key.
func New(ctx context.Context, store vault.Store, name string) (*vault.Project, vault.Identity, error) {
	key, err := vault.NewRecoveryKey()
	if err != nil {
		return nil, key, err
	}
	if _, err := vault.Init(ctx, store); err != nil {
		return nil, key, err
	}
	p, err := vault.CreateProject(ctx, store, name, key.Recipient())
	return p, key, err
}

// Fill writes what one would find on an ordinary day: shop is well, wiki lags
// behind its objective and has a damaged promise, a drill is over and a
// failover waits for a person.
func Fill(ctx context.Context, p *vault.Project, now time.Time) error {
	for _, site := range []string{"east", "west"} {
		sign := vault.SiteStatus{Site: site, Cluster: "uid-" + site, Time: now, AgentVersion: "v1.2.0", KubeVersion: "v1.34.1"}
		if err := p.Heartbeat(ctx, sign); err != nil {
			return err
		}
	}
	f := filler{ctx: ctx, p: p, now: now}
	f.claim("shop", "east")
	f.policy("shop", `{"schedule":{"every":"5m0s"},"objectives":{"rpo":"15m0s","rto":"10m0s"},"retention":{"last":6,"daily":7}}`)
	for i := range 10 {
		f.point("shop", time.Duration(45-5*i)*time.Minute+2*time.Minute, point.Application)
	}
	f.claim("wiki", "west")
	f.policy("wiki", `{"schedule":{"every":"30m0s"},"objectives":{"rpo":"1h0m0s"}}`)
	f.point("wiki", 26*time.Hour, point.Crash)
	f.point("wiki", 3*time.Hour, point.PerVolume)
	f.mark("wiki", vault.Mark{Kind: vault.MarkVerified, How: vault.HowFull, Site: "west"})
	f.run("drill-shop-1", plan.Drill, []failover.Entry{
		{Kind: failover.Rejected, At: now.Add(-2 * time.Hour), By: "user/anna", Note: "rejected by anna: not today"},
	})
	f.run("drill-shop-2", plan.Drill, []failover.Entry{
		{Kind: failover.PausedBy, At: now.Add(-time.Minute), By: "user/anna", Pause: failover.ByOperator, Note: "anna wants to look"},
	})
	return f.err
}

type filler struct {
	ctx  context.Context //nolint:containedctx // it lives as long as one call of Fill
	p    *vault.Project
	now  time.Time
	last string // point
	err  error
}

func (f *filler) try(err error) { f.err = errors.Join(f.err, err) }

func (f *filler) claim(app, site string) {
	_, err := lease.New(f.p).Claim(f.ctx, app, 1, lease.Claim{Site: site, Cluster: "uid-" + site, Holder: "agent", Reason: "first", At: f.now.Add(-48 * time.Hour), Request: "r"})
	f.try(err)
}

func (f *filler) policy(app, spec string) {
	objects := []json.RawMessage{
		json.RawMessage(`{"apiVersion":"davit.dev/v1alpha1","kind":"Application","metadata":{"name":"` + app + `","namespace":"davit-system"},"spec":{"vault":"main","policy":"` + app + `","namespaces":["` + app + `"]}}`),
		json.RawMessage(`{"apiVersion":"davit.dev/v1alpha1","kind":"ProtectionPolicy","metadata":{"name":"` + app + `","namespace":"davit-system"},"spec":` + spec + `}`),
	}
	_, err := f.p.PutDocument(f.ctx, vault.Document{Application: app, Site: "east", At: f.now, Objects: objects})
	f.try(err)
}

func (f *filler) point(app string, age time.Duration, promise point.Consistency) {
	at := f.now.Add(-age)
	id, err := point.NewID(app, at, strings.NewReader(fmt.Sprintf("%06d", int(age.Minutes()))))
	f.try(err)
	w, err := f.p.NewWriter(f.ctx, app, id)
	if err != nil {
		f.try(err)
		return
	}
	rw := w.Resource(point.Resource{Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespaced: true})
	f.try(rw.Add(f.ctx, []byte(`{"kind":"ConfigMap"}`)))
	res, err := rw.Close(f.ctx)
	f.try(err)
	m := &point.Manifest{
		Site: "east", Epoch: 1, Trigger: "schedule", Instant: at, CutBy: at, Consistency: promise, Namespaces: []string{app}, Resources: []point.Resource{res},
		Objects: 1, Bytes: 5 << 20, StoredBytes: 1 << 20,
	}
	f.try(w.Publish(f.ctx, m, nil))
	f.last = id
}

func (f *filler) mark(app string, m vault.Mark) { f.try(f.p.Mark(f.ctx, app, f.last, m)) }

func (f *filler) run(name string, verb plan.Verb, then []failover.Entry) {
	spec := &failover.Spec{
		Run: name, Plan: "shop", Verb: verb, To: "west", By: "user/anna", At: then[0].At, Accept: failover.TimedOut, Applications: []string{"shop"},
		Steps: []plan.Step{
			{Name: "sandbox", Kind: plan.KindSandbox, Timeout: time.Minute},
			{Name: "cleanup", Kind: plan.KindCleanup, Timeout: time.Minute, After: []string{"sandbox"}},
		},
	}
	j := journal.Create(f.p, name, "agent west")
	opening := []failover.Entry{{Kind: failover.Opened, At: then[0].At, Spec: spec}, {Kind: failover.Took, At: then[0].At, By: "agent west"}}
	f.try(j.Append(f.ctx, append(opening, then...)))
}
