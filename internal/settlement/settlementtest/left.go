// Package settlementtest has runs for tests that are over and left something to people.
package settlementtest

import (
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

// Left is the journal of a failover of plan shop from east to west that was rolled back, when
// the source had claimed anew: what its steps warm-up and mail did is left to people. The first
// two entries are the opening and that an executor took it.
func Left(run, executor string, at time.Time) []failover.Entry {
	command := &plan.Command{Image: "tools"}
	spec := &failover.Spec{
		Run: run, Plan: "shop", Verb: plan.Failover, From: "east", To: "west", By: "ann", At: at, Accept: failover.TimedOut, Applications: []string{"shop"},
		Steps: []plan.Step{
			{Name: "claim/shop", Kind: plan.KindClaim, Application: "shop", Side: plan.Target, Timeout: time.Minute},
			{Name: "warm-up", Kind: plan.KindCommand, Command: command, Undo: command, Application: "shop", Side: plan.Target, Timeout: time.Minute, After: []string{"claim/shop"}},
			{Name: "mail", Kind: plan.KindCommand, Command: command, Undo: command, Application: "shop", Side: plan.Target, Timeout: time.Minute, After: []string{"warm-up"}},
		},
	}
	entries := []failover.Entry{
		{Kind: failover.Opened, Spec: spec},
		{Kind: failover.Took, By: executor},
		{Kind: failover.Evaluated, Facts: &failover.Facts{Epochs: map[string]failover.Held{"shop": {Number: 1, Site: "east"}}, Holders: map[string][]string{"shop": {"east"}}}},
	}
	for _, step := range spec.Steps {
		entries = append(entries, failover.Entry{Kind: failover.Intended, Step: step.Name}, failover.Entry{Kind: failover.Ended, Step: step.Name, Status: failover.Succeeded, Epoch: 2})
	}
	entries = append(
		entries,
		failover.Entry{Kind: failover.Verified},
		failover.Entry{Kind: failover.Rolling, By: "ann"},
		failover.Entry{Kind: failover.Undone, Step: "claim/shop", Status: failover.Skipped, Note: "site east holds epoch 3 of shop", Epoch: 3},
		failover.Entry{Kind: failover.Undoing, Step: "mail"},
		failover.Entry{Kind: failover.Undone, Step: "mail", Status: failover.Skipped, Note: "epoch 3 of shop is known here, the order has 2"},
		failover.Entry{Kind: failover.Undoing, Step: "warm-up"},
		failover.Entry{Kind: failover.Undone, Step: "warm-up", Status: failover.Skipped, Note: "epoch 3 of shop is known here, the order has 2"},
	)
	for i := range entries {
		entries[i].At = at
	}
	return entries
}
