package consoletest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"davit.dev/davit/internal/bulletin"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vault"
)

// PlanText is the plan of Prepare.
const PlanText = `apiVersion: davit.dev/v1alpha1
kind: RecoveryPlan
metadata: {name: shop}
spec:
  sites: [{name: east}, {name: west}]
  fence: {timeout: 30s}
  objectives: {rpo: 15m0s, rto: 10m0s}
  applications:
    - name: shop
      probes: [{kind: http, target: "http://web.shop/health", timeout: 10s}]
  steps:
    - {name: tell-the-shop, kind: manual, prompt: "Call the shop's staff", side: target, timeout: 30m0s, after: [ready/shop], verbs: [failover]}
  traffic:
    - {name: entrance, kind: gate, object: entrance}
  drills: {schedule: {every: 168h0m0s}}
`

// Prepare writes what belongs to plans into a vault that Fill filled: a plan, facts
// of both sites, a drill that went well and a failover under way.
func Prepare(ctx context.Context, p *vault.Project, now time.Time) error {
	text, err := yaml.YAMLToJSON([]byte(PlanText))
	if err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	of, err := document.Parse(text)
	if err != nil {
		return err
	}
	if _, err := shelf.New(p).Put(ctx, shelf.Sheet{Plan: "shop", At: now.Add(-100 * time.Hour), Site: "east", Document: text}); err != nil {
		return err
	}
	for _, site := range []string{"east", "west"} {
		if err := bulletin.Publish(ctx, p, facts(p, site, now)); err != nil {
			return err
		}
	}
	f := filler{ctx: ctx, p: p, now: now}
	f.carry(of, "drill-shop-20260227-090000", plan.Drill, now.Add(-27*time.Hour), 100)
	f.carry(of, "failover-shop-20260301-115900", plan.Failover, now.Add(-90*time.Second), 3)
	return f.err
}

func facts(p *vault.Project, site string, now time.Time) *preflight.Site {
	return &preflight.Site{
		FormatVersion: 1, Name: site, Cluster: "uid-" + site, At: now, Davit: "v1.2.0", Kubernetes: "v1.34.1", Domain: "region-" + site, VaultDomain: "region-north",
		KeyID: p.NewestKey().KeyID, Nodes: []preflight.Node{{Name: site + "-1", Free: preflight.Room{CPU: 4000, Memory: 8 << 30, Pods: 90}}},
		Classes: []preflight.Class{{Name: "standard", Provisioner: "rancher.io/local-path", Default: true, Room: -1}}, APIs: map[string][]string{"configmaps": {"v1"}},
		Rights: preflight.Rights{Who: "system:serviceaccount:davit-system:davit-agent", Asked: 12},
	}
}

// carry writes the journal of a run that has come so far: each step takes 20 s, and
// the one after the last that is done is under way.
func (f *filler) carry(of *plan.Plan, name string, verb plan.Verb, at time.Time, done int) {
	g, err := of.Graph(verb)
	if err != nil {
		f.try(err)
		return
	}
	spec := &failover.Spec{
		Run: name, Plan: of.Name, Verb: verb, From: "east", To: "west", By: "user/anna", At: at, Accept: failover.TimedOut, Applications: []string{"shop"},
		Steps: g.Steps, Objectives: of.Objectives, Reason: "east does not answer",
	}
	if verb == plan.Failover {
		spec.Lost = []string{"east"}
	}
	entries := []failover.Entry{
		{Kind: failover.Opened, At: at, Spec: spec},
		{Kind: failover.Took, At: at, By: "agent west"},
		{Kind: failover.Evaluated, At: at.Add(time.Second), Facts: &failover.Facts{Epochs: map[string]failover.Held{"shop": {Number: 1, Site: "east"}}, Holders: map[string][]string{"shop": {"east"}}}},
	}
	j := journal.Create(f.p, name, "agent west")
	at = at.Add(2 * time.Second)
	for i, step := range g.Steps {
		if i > done {
			break
		}
		entries = append(entries, failover.Entry{Kind: failover.Intended, At: at, Step: step.Name})
		if i == done {
			break
		}
		const took = 20 * time.Second
		at = at.Add(took)
		end := failover.Entry{Kind: failover.Ended, At: at, Step: step.Name, Status: failover.Succeeded, Took: took, Note: strings.TrimSpace(string(step.Kind) + " done")}
		switch step.Kind {
		case plan.KindClone, plan.KindRestore:
			end.Point = &failover.Point{ID: f.last, Instant: at.Add(-10 * time.Minute)}
		case plan.KindClaim:
			end.Epoch = 2
		case plan.KindReady:
			end.Said = "all pods\nare <b>ready</b>"
		}
		entries = append(entries, end)
	}
	if done >= len(g.Steps) {
		entries = append(entries, failover.Entry{Kind: failover.Verified, At: at})
	}
	f.try(errors.Join(j.Append(f.ctx, entries)))
}
