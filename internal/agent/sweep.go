package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/source"
	"davit.dev/davit/internal/protection"
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

	// What may take long runs beside the sweep, so that scratch volumes do not
	// wait for it; each has an end all the same.
	sweepTimeout   = 5 * time.Minute
	vaultTimeout   = time.Hour
	reclaimTimeout = 24 * time.Hour

	// keepReports is how long what a restore of the command line said is kept,
	// among the newest of its application.
	keepReports = 90 * 24 * time.Hour
)

// sweeper removes what work that died left behind, in the cluster and in the
// vault. It runs in the leader only.
type sweeper struct {
	reader client.Reader
	writer client.Writer
	pool   *pool
	log    *slog.Logger

	tests, vaults, room, space chore

	// roomy are the vaults, as they are open, whose reserve was laid down; of room
	// alone.
	roomy map[*protection.Protector]bool
}

// chore is work that goes on beside the sweep, once at a time.
type chore struct {
	mu      sync.Mutex
	running sync.WaitGroup
}

// begin does the work unless it is being done, and tells whether it does.
func (c *chore) begin(ctx context.Context, limit time.Duration, do func(context.Context)) bool {
	if !c.mu.TryLock() {
		return false
	}
	c.running.Go(func() {
		defer c.mu.Unlock()
		ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %s", limit))
		defer cancel()
		do(ctx)
	})
	return true
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (s *sweeper) NeedLeaderElection() bool { return true }

// Start sweeps now and then until ctx is done.
func (s *sweeper) Start(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	defer func() {
		for _, c := range []*chore{&s.tests, &s.vaults, &s.room, &s.space} {
			c.running.Wait()
		}
	}()
	reclaimed, looked := s.pool.now(), time.Time{}
	for {
		now := s.pool.now()
		s.tests.begin(ctx, trial.RemoveTimeout, s.sweepTests)
		s.room.begin(ctx, vaultTimeout, s.makeRoom)
		s.inCluster(ctx)
		if now.Sub(looked) >= lookIntoVaults && s.vaults.begin(ctx, vaultTimeout, s.inVaults) {
			looked = now
			s.oldReports(ctx)
		}
		if now.Sub(reclaimed) >= reclaimEvery && s.space.begin(ctx, reclaimTimeout, s.reclaim) {
			reclaimed = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// eachVault calls do for every vault that is no copy: that is its copier's.
func (s *sweeper) eachVault(ctx context.Context, do func(ctx context.Context, e *entry, log *slog.Logger)) {
	var list v1alpha1.VaultList
	if err := s.reader.List(ctx, &list); err != nil {
		s.log.Warn("sweep: list vaults", "error", err)
		return
	}
	for i := range list.Items {
		v := &list.Items[i]
		if v.Spec.CopyOf != "" {
			continue
		}
		log := s.log.With("vault", v.Name)
		e, err := s.pool.entry(ctx, v.Name)
		if err != nil {
			log.Warn("sweep: open vault", "error", err)
			continue
		}
		do(ctx, e, log)
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

// inCluster removes what captures that died left in the cluster.
func (s *sweeper) inCluster(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, sweepTimeout, fmt.Errorf("not done within %s", sweepTimeout))
	defer cancel()
	if err := s.sweepKept(ctx); err != nil {
		s.log.Warn("sweep: kept snapshots", "error", err)
	}
	s.eachVault(ctx, func(ctx context.Context, e *entry, log *slog.Logger) {
		if err := e.mover.SweepReads(ctx, s.owners); err != nil {
			log.Warn("sweep: holder pods and tasks", "error", err)
		}
		if err := e.volumes.Sweep(ctx, s.capturing(ctx)); err != nil {
			log.Warn("sweep: leftovers in the cluster", "error", err)
		}
		if err := e.freezer.Sweep(ctx, s.capturing(ctx)); err != nil {
			log.Warn("sweep: freezes", "error", err)
		}
	})
}

// sweepKept removes the snapshots that are kept for captures and are no more of use. It asks no vault: one that
// is silent, or gone, keeps none.
func (s *sweeper) sweepKept(ctx context.Context) error {
	volumes, err := s.pool.keptVolumes()
	if err != nil {
		return err
	}
	keeps, err := s.keeping(ctx)
	if err != nil {
		return fmt.Errorf("list applications: %w", err)
	}
	return volumes.SweepKept(ctx, protection.KeptFor, keeps)
}

// keeping says of which applications a snapshot of each volume is kept for the next
// capture: of those that want it, go by a policy that is there and captures often enough, and are this
// site's to capture.
func (s *sweeper) keeping(ctx context.Context) (func(string) bool, error) {
	var applications v1alpha1.ApplicationList
	var policies v1alpha1.ProtectionPolicyList
	if err := errors.Join(s.reader.List(ctx, &applications), s.reader.List(ctx, &policies)); err != nil {
		return nil, err
	}
	there := map[client.ObjectKey]*v1alpha1.ProtectionPolicy{}
	for i := range policies.Items {
		there[client.ObjectKeyFromObject(&policies.Items[i])] = &policies.Items[i]
	}
	keep := map[string]bool{}
	for i := range applications.Items {
		a := &applications.Items[i]
		policy := there[client.ObjectKey{Namespace: a.Namespace, Name: a.Spec.Policy}]
		if policy != nil && protection.KeepsCuts(a, policy, s.pool.now()) && a.DeletionTimestamp.IsZero() && a.Status.Role == v1alpha1.RoleActive {
			keep[source.PointLabel(a.VaultName())] = true
		}
	}
	return func(label string) bool { return keep[label] }, nil
}

// inVaults removes what captures that died left in the vaults, and deleted
// points whose delay is over, and keeps room there for deleting.
func (s *sweeper) inVaults(ctx context.Context) {
	s.eachVault(ctx, func(ctx context.Context, e *entry, log *slog.Logger) {
		s.sweepPoints(ctx, e, log)
		s.removeDeleted(ctx, e, log)
		if err := e.protector.FillReserve(ctx); err != nil {
			log.Warn("keep room for deleting", "error", err)
		}
	})
}

// makeRoom lays down the reserve of vaults that are new to this process: a vault
// may be full before it is looked into for the first time.
func (s *sweeper) makeRoom(ctx context.Context) {
	roomy := map[*protection.Protector]bool{}
	s.eachVault(ctx, func(ctx context.Context, e *entry, log *slog.Logger) {
		if roomy[e.protector] = s.roomy[e.protector]; roomy[e.protector] {
			return
		}
		err := e.protector.FillReserve(ctx)
		if err != nil {
			log.Warn("keep room for deleting", "error", err)
		}
		roomy[e.protector] = err == nil
	})
	s.roomy = roomy
}

// reclaim frees the space of deleted points.
func (s *sweeper) reclaim(ctx context.Context) {
	s.eachVault(ctx, func(ctx context.Context, e *entry, log *slog.Logger) {
		if report, err := e.protector.Reclaim(ctx, true); err != nil {
			log.Warn("reclaim space", "error", err)
		} else {
			log.Info("reclaimed space", "blobs", report.BlobsDeleted, "bytes", report.BytesDeleted)
		}
	})
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

// removeDeleted removes deleted points of what this site may write.
func (s *sweeper) removeDeleted(ctx context.Context, e *entry, log *slog.Logger) {
	var list v1alpha1.ApplicationList
	if err := s.reader.List(ctx, &list); err != nil {
		log.Warn("sweep: list applications", "error", err)
		return
	}
	for i := range list.Items {
		a := &list.Items[i]
		if a.Spec.Vault != e.opened.Object.Name || a.Status.Role != v1alpha1.RoleActive {
			continue
		}
		gone, err := e.protector.RemoveDeleted(ctx, a.VaultName(), a.Status.HeldEpoch)
		if err != nil {
			log.Warn("sweep: deleted points", "application", a.VaultName(), "error", err)
		}
		if len(gone) > 0 {
			log.Info("removed deleted points, whose delay is over", "application", a.VaultName(), "points", gone)
		}
	}
}

// oldReports removes what restores of the command line said long ago: the
// command itself removes only what its own application has too many of.
func (s *sweeper) oldReports(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, sweepTimeout, fmt.Errorf("not done within %s", sweepTimeout))
	defer cancel()
	list := metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}}
	if err := s.reader.List(ctx, &list, client.InNamespace(v1alpha1.SystemNamespace), client.HasLabels{v1alpha1.LabelRestore}, client.MatchingLabels{"app.kubernetes.io/part-of": "davit"}); err != nil {
		s.log.Warn("sweep: list reports of restores", "error", err)
		return
	}
	for i := range list.Items {
		m := &list.Items[i]
		if !strings.HasPrefix(m.Name, v1alpha1.RestoreReportPrefix) || s.pool.now().Sub(m.CreationTimestamp.Time) < keepReports {
			continue
		}
		old := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name}}
		if err := client.IgnoreNotFound(s.writer.Delete(ctx, old)); err != nil {
			s.log.Warn("sweep: report of a restore", "report", m.Name, "error", err)
		}
	}
}

// capturing says which points are being captured now, by their labels.
func (s *sweeper) capturing(ctx context.Context) func(string) bool {
	return func(label string) bool {
		ids, err := s.owners(ctx)
		// Not known: leave it. Applications of several namespaces may have points of one name.
		return err != nil || slices.ContainsFunc(ids, func(id string) bool { return source.PointLabel(id) == label })
	}
}

// pageOf is how many recovery points are read at a time: there may be thousands, which would take
// as much memory as all else.
const pageOf = 500

// owners are the points being captured now.
func (s *sweeper) owners(ctx context.Context) (ids []string, err error) {
	for page := ""; ; {
		var list v1alpha1.RecoveryPointList
		if err := s.reader.List(ctx, &list, client.Limit(pageOf), client.Continue(page)); err != nil {
			return nil, err
		}
		for i := range list.Items {
			if list.Items[i].Status.Phase == v1alpha1.PointCapturing {
				ids = append(ids, list.Items[i].Name)
			}
		}
		if page = list.Continue; page == "" {
			return ids, nil
		}
	}
}
