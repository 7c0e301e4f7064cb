package agent

import (
	"context"
	"log/slog"
	"time"

	"davit.dev/davit/internal/kube/quiescer"
	"davit.dev/davit/internal/quiesce"
	"davit.dev/davit/internal/reconcile/measure"
)

// collectEvery is how often what captures that died have done to applications
// is looked for. It adds to the time that one is left at rest.
const collectEvery = 5 * time.Second

// collector undoes what captures that died have done. It needs no vault, and
// runs in the leader only.
type collector struct {
	ledger *quiescer.Ledger
	runner quiesce.Runner
	log    *slog.Logger
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (c *collector) NeedLeaderElection() bool { return true }

// Start collects now and then until ctx is done.
func (c *collector) Start(ctx context.Context) error {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		left, err := c.ledger.Collect(ctx, c.runner)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("hooks of a capture that died", "left", left, "error", err)
		}
		measure.HooksOwed.Set(float64(left))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
