package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/document"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
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
	return p.HearAgents(ctx, []store.Word{{Site: site, At: act.At, Version: "v1.2.0", Ends: act.At.Add(30 * 24 * time.Hour), Outbox: "sample", Events: events}})
}
