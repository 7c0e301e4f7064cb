package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/document"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/vault"
)

// furnish gives a console's project what no vault holds: a document, and a site
// whose agent told something.
func furnish(ctx context.Context, p *store.Project, act audit.Act) error {
	d, err := document.Parse(ctx, []byte(policy))
	if err != nil {
		return err
	}
	key := store.Key{Kind: d.Kind.Name, Namespace: d.Namespace, Name: d.Name}
	if _, err := p.Apply(ctx, act, key, d.Body, store.Expect{}); err != nil {
		return err
	}
	return told(ctx, p, act)
}

// waiting writes two runs that wait for people: one to be approved, one to hear that
// a site has stopped and that a task is done.
func waiting(ctx context.Context, p *vault.Project, now time.Time) error {
	at := now.Add(-time.Minute)
	spec := failover.Spec{
		Run: "failover-wiki-1", Plan: "wiki", Verb: plan.Failover, From: "west", To: "east", By: "zoe@console/acme", At: at, Accept: failover.TimedOut, Applications: []string{"wiki"}, Approvals: 1,
		Steps: []plan.Step{
			{Name: "call", Kind: plan.KindManual, Prompt: "Call the wiki's readers", Timeout: time.Hour},
			{Name: "claim/wiki", Kind: plan.KindClaim, Application: "wiki", Timeout: time.Minute, After: []string{"call"}},
		},
	}
	facts := &failover.Facts{Epochs: map[string]failover.Held{"wiki": {Number: 1, Site: "west"}}, Holders: map[string][]string{"wiki": {"west"}}}
	asks := spec
	asks.Run = "failover-wiki-2"
	entries := func(s *failover.Spec) []failover.Entry {
		return []failover.Entry{{Kind: failover.Opened, At: at, Spec: s}, {Kind: failover.Took, At: at, By: "agent east"}, {Kind: failover.Evaluated, At: at, Facts: facts}}
	}
	more := []failover.Entry{
		{Kind: failover.Approved, At: at, By: "bob@console/acme"},
		{Kind: failover.PausedBy, At: at, Pause: failover.ForInput, Note: "nothing proves that west has stopped"},
	}
	return errors.Join(
		journal.Create(p, spec.Run, "agent east").Append(ctx, entries(&spec)),
		journal.Create(p, asks.Run, "agent east").Append(ctx, append(entries(&asks), more...)))
}

const policy = `apiVersion: davit.dev/v1alpha1
kind: ProtectionPolicy
metadata: {name: hourly, namespace: davit-system}
spec: {schedule: {every: 1h0m0s}, objectives: {rpo: 2h0m0s}}
`

// told is what the agent of site west said before it went away.
func told(ctx context.Context, p *store.Project, act audit.Act) error {
	const site = "west"
	if err := p.AdmitAgent(ctx, act, site, "0001"); err != nil {
		return err
	}
	shop := uplink.Key{Kind: "Application", Namespace: "davit-system", Name: "shop"}
	wiki := uplink.Key{Kind: "Application", Namespace: "davit-system", Name: "wiki"}
	var events []store.SentEvent
	for i, e := range []uplink.Event{
		{Type: "Normal", Reason: "Captured", Message: "recovery point of shop is whole", Object: shop},
		{Type: "Warning", Reason: "CaptureFailed", Message: "capture wiki: volume wiki/data: no snapshot class for its driver", Object: wiki},
		{Type: "Normal", Reason: "Paused", Message: "anna wants to look", Object: uplink.Key{Kind: "Run", Name: "drill-shop-2"}, Lost: 3},
	} {
		e.Seq, e.At = int64(i+1), act.At.Add(time.Duration(i-3)*time.Minute)
		body, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("write event: %w", err)
		}
		events = append(events, store.SentEvent{Seq: e.Seq, Body: body})
	}
	said, err := json.Marshal([]fleet.Heard{
		{Heard: act.At, Object: uplink.Object{Key: uplink.Key{Kind: "Vault", Name: "main"}, State: "Ready", Vault: &uplink.Reach{RoundTrip: 4200, KeyVersion: 1, Checked: act.At}}},
		{Heard: act.At, Object: uplink.Object{Key: uplink.Key{Kind: "Application", Namespace: "davit-system", Name: "wiki"}, VaultName: "wiki", State: "Protected", Git: "Argo CD application wikis"}},
		{Heard: act.At, Object: uplink.Object{Key: uplink.Key{Kind: "ProtectionPolicy", Namespace: "davit-system", Name: "hourly"}, Git: "Argo CD application policies"}},
	})
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return p.HearAgents(ctx, []store.Word{{Site: site, At: act.At, Version: "v1.2.0", Said: said, Ends: act.At.Add(30 * 24 * time.Hour), Outbox: "sample", Events: events}})
}
