package agent

import (
	"context"
	"log/slog"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
)

const (
	sweepEvery = 10 * time.Minute
	// sweepVaultAfter is how long a capture in the vault must be silent.
	sweepVaultAfter = time.Hour
	// reclaimEvery is how often the space of deleted points is freed.
	reclaimEvery = 6 * time.Hour
)

// sweeper removes what work that died left behind, in the cluster and in the
// vault. It runs in the leader only.
type sweeper struct {
	reader client.Reader
	pool   *pool
	log    *slog.Logger
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (s *sweeper) NeedLeaderElection() bool { return true }

// Start sweeps now and then until ctx is done.
func (s *sweeper) Start(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	reclaimed := s.pool.now()
	for {
		reclaim := s.pool.now().Sub(reclaimed) >= reclaimEvery
		s.sweep(ctx, reclaim)
		if reclaim {
			reclaimed = s.pool.now()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *sweeper) sweep(ctx context.Context, reclaim bool) {
	var list v1alpha1.VaultList
	if err := s.reader.List(ctx, &list); err != nil {
		s.log.Warn("sweep: list vaults", "error", err)
		return
	}
	for i := range list.Items {
		s.sweepVault(ctx, list.Items[i].Name, reclaim)
	}
}

func (s *sweeper) sweepVault(ctx context.Context, name string, reclaim bool) {
	log := s.log.With("vault", name)
	e, err := s.pool.entry(ctx, name)
	if err != nil {
		log.Warn("sweep: open vault", "error", err)
		return
	}
	if err := e.volumes.Sweep(ctx, s.capturing(ctx)); err != nil {
		log.Warn("sweep: leftovers in the cluster", "error", err)
	}
	orphans, err := e.protector.SweepVault(ctx, sweepVaultAfter)
	if err != nil {
		log.Warn("sweep: leftovers in the vault", "error", err)
	}
	if len(orphans) > 0 {
		log.Info("swept leftovers in the vault", "points", len(orphans))
	}
	if !reclaim {
		return
	}
	if report, err := e.protector.Reclaim(ctx, true); err != nil {
		log.Warn("reclaim space", "error", err)
	} else {
		log.Info("reclaimed space", "blobs", report.BlobsDeleted, "bytes", report.BytesDeleted)
	}
}

// capturing says which points are being captured now, whoever looks.
func (s *sweeper) capturing(ctx context.Context) func(string) bool {
	return func(id string) bool {
		var list v1alpha1.RecoveryPointList
		if err := s.reader.List(ctx, &list); err != nil {
			return true // not known: leave it
		}
		for i := range list.Items {
			if list.Items[i].Name == id {
				return list.Items[i].Status.Phase == v1alpha1.PointCapturing
			}
		}
		return false
	}
}
