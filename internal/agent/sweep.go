package agent

import (
	"context"
	"log/slog"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/source"
	"davit.dev/davit/internal/trial"
)

const (
	// sweepEvery is short, as scratch volumes of a capture that died cost space.
	sweepEvery = time.Minute
	// lookIntoVaults is how often leftovers in the vaults are looked for.
	lookIntoVaults = 10 * time.Minute
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
	reclaimed, looked := s.pool.now(), time.Time{}
	for {
		now := s.pool.now()
		d := duties{vault: now.Sub(looked) >= lookIntoVaults, reclaim: now.Sub(reclaimed) >= reclaimEvery}
		s.sweep(ctx, d)
		if d.vault {
			looked = now
		}
		if d.reclaim {
			reclaimed = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// duties are what a sweep does beyond the cluster's leftovers.
type duties struct{ vault, reclaim bool }

func (s *sweeper) sweep(ctx context.Context, d duties) {
	s.sweepTests(ctx)
	var list v1alpha1.VaultList
	if err := s.reader.List(ctx, &list); err != nil {
		s.log.Warn("sweep: list vaults", "error", err)
		return
	}
	for i := range list.Items {
		if list.Items[i].Spec.CopyOf == "" { // a copy is its copier's
			s.sweepVault(ctx, list.Items[i].Name, d)
		}
	}
}

// sweepTests removes the copies of restore tests that nobody runs any more.
func (s *sweeper) sweepTests(ctx context.Context) {
	cluster, err := s.pool.copies()
	if err != nil {
		s.log.Warn("sweep: restore tests", "error", err)
		return
	}
	tests, err := trial.Sweep(ctx, cluster, s.pool.owner, s.pool.now())
	if err != nil {
		s.log.Warn("sweep: restore tests", "error", err)
	}
	if len(tests) > 0 {
		s.log.Info("removed copies of restore tests that were over", "tests", tests)
	}
}

func (s *sweeper) sweepVault(ctx context.Context, name string, d duties) {
	log := s.log.With("vault", name)
	e, err := s.pool.entry(ctx, name)
	if err != nil {
		log.Warn("sweep: open vault", "error", err)
		return
	}
	if err := e.mover.SweepReads(ctx, s.owners); err != nil {
		log.Warn("sweep: holder pods and tasks", "error", err)
	}
	if err := e.volumes.Sweep(ctx, s.capturing(ctx)); err != nil {
		log.Warn("sweep: leftovers in the cluster", "error", err)
	}
	if err := e.freezer.Sweep(ctx, s.capturing(ctx)); err != nil {
		log.Warn("sweep: freezes", "error", err)
	}
	if d.vault {
		s.sweepPoints(ctx, e, log)
	}
	if !d.reclaim {
		return
	}
	if report, err := e.protector.Reclaim(ctx, true); err != nil {
		log.Warn("reclaim space", "error", err)
	} else {
		log.Info("reclaimed space", "blobs", report.BlobsDeleted, "bytes", report.BytesDeleted)
	}
}

// sweepPoints removes what captures that died wrote into the vault.
func (s *sweeper) sweepPoints(ctx context.Context, e *entry, log *slog.Logger) {
	orphans, err := e.protector.SweepVault(ctx, sweepVaultAfter)
	if err != nil {
		log.Warn("sweep: leftovers in the vault", "error", err)
	}
	if len(orphans) > 0 {
		log.Info("swept leftovers in the vault", "points", len(orphans))
	}
}

// capturing says which points are being captured now, by their labels.
func (s *sweeper) capturing(ctx context.Context) func(string) bool {
	return func(label string) bool {
		var list v1alpha1.RecoveryPointList
		if err := s.reader.List(ctx, &list); err != nil {
			return true // not known: leave it
		}
		for i := range list.Items {
			if source.PointLabel(list.Items[i].Name) == label {
				return list.Items[i].Status.Phase == v1alpha1.PointCapturing
			}
		}
		return false
	}
}

// owners are the points being captured now.
func (s *sweeper) owners(ctx context.Context) ([]string, error) {
	var list v1alpha1.RecoveryPointList
	if err := s.reader.List(ctx, &list); err != nil {
		return nil, err
	}
	var ids []string
	for i := range list.Items {
		if list.Items[i].Status.Phase == v1alpha1.PointCapturing {
			ids = append(ids, list.Items[i].Name)
		}
	}
	return ids, nil
}
