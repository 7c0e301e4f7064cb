package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/uplink/dial/dialtest"
	"davit.dev/davit/internal/uplink/outbox"
)

// site is one without a cluster. It says that it begins drills, and refuses all
// else.
type site struct{}

// Begin implements dial.Begins.
func (site) Begin(_ context.Context, b uplink.Begin, refuse dial.Refusal) (uplink.Begun, error) {
	switch {
	case refuse != (dial.Refusal{}):
		return uplink.Begun{State: uplink.Refused, Why: refuse.Why, Do: refuse.Do}, nil
	case b.Verb != "drill":
		return uplink.Begun{State: uplink.Refused, Why: "the site has no room", Do: "add a node"}, nil
	}
	return uplink.Begun{State: uplink.Created}, nil
}

// Restore implements dial.Restores: it foretells a little, and does what it is asked
// for at once.
func (site) Restore(_ context.Context, r uplink.Restore, refuse dial.Refusal, say func(uplink.Restored)) error {
	switch {
	case refuse != (dial.Refusal{}):
		say(uplink.Restored{State: uplink.Refused, Why: refuse.Why, Do: refuse.Do})
		return nil
	case r.Cancel:
		say(uplink.Restored{State: uplink.Canceled, Why: "it was taken back before it began: nothing was changed"})
		return nil
	case !r.DryRun && r.Reason == "later": // as if others ran there
		say(uplink.Restored{State: uplink.Running, Result: []byte(`{}`)})
		return nil
	case !r.DryRun:
		say(uplink.Restored{State: uplink.Running, Result: []byte(`{"step":"objects","restored":3}`)})
		say(uplink.Restored{State: uplink.Completed, Result: []byte(`{"restored":7,"bytes":5242880,"rpoMillis":120000,"rtoMillis":41000}`)})
		return nil
	}
	result, err := json.Marshal(uplink.Preview{
		Site: "east", Point: r.Point, Account: "davit-restore", Epoch: 1, Holder: "east", Checks: []uplink.Check{{Severity: "warning", Message: "the ingress class of web is not there", Remedy: "make it"}},
		Counts: map[string]int{"prune": 1, "roll back": 1, "update": 2, "create": 1, "unchanged": 4},
		Objects: []uplink.Planning{
			{Object: "ConfigMap shop/experiment", Action: "prune"},
			{Object: "PersistentVolumeClaim shop/db", Action: "roll back"},
			{Object: "ConfigMap shop/settings", Action: "update", Diff: "--- here\n+++ restored\n@@ -1,4 +1,4 @@\n apiVersion: v1\n data:\n-  colour: red\n+  colour: green\n kind: ConfigMap\n"},
			{Object: "Secret shop/db", Action: "update", Diff: "--- here\n+++ restored\n@@ -1,4 +1,4 @@\n apiVersion: v1\n data:\n-  password: (hidden)\n+  password: (hidden, differs)\n kind: Secret\n"},
			{Object: "Deployment.apps shop/web", Action: "create"},
			{Object: "Service shop/web", Action: "unchanged"},
		},
		Left: 3,
	})
	if err != nil {
		return err
	}
	say(uplink.Restored{State: uplink.Planned, Result: result})
	return nil
}

// call is a site's agent at a console, which may begin and restore all there, until it is
// told to end. It says when it is connected.
func call(ctx context.Context, dir, url, name, token string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	text, err := os.ReadFile(token)
	if err != nil {
		return err
	}
	t, err := uplink.ParseToken(string(text))
	if err != nil {
		return err
	}
	box, err := outbox.Open(filepath.Join(dir, "outbox-"+name), 0)
	if err != nil {
		return err
	}
	defer box.Close()
	board := dial.NewBoard()
	board.Put([]uplink.Object{{
		Key: uplink.Key{Kind: "ProtectionPolicy", Namespace: "davit-system", Name: "kept-in-git"}, Git: "Argo CD application shops", Foreign: true,
		Spec: json.RawMessage(`{"schedule":{"every":"1h"},"retention":{"last":24,"daily":14},"objectives":{"rpo":"2h"},"hooks":[{"name":"` + strings.Repeat("long-", 40) + `"}]}`),
	}})
	(&dial.Client{
		Begins: site{}, Restores: site{}, Site: name, Version: "v1.2.0", Board: board, Outbox: box, Now: time.Now,
		Keep: dialtest.Keep(dial.Link{URLs: []string{url}, Token: t.String(), Runs: uplink.RunsAll, Restores: uplink.RestoresAll}),
		Tell: func(s dial.Status) {
			if s.Connected {
				fmt.Fprintln(os.Stdout, "connected")
			} else {
				fmt.Fprintln(os.Stdout, "not connected:", s.Fault)
			}
		},
	}).Run(ctx)
	return nil
}
