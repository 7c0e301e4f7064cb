package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/probe"
	"davit.dev/davit/internal/vantage"
	"davit.dev/davit/internal/vault"
)

const (
	// lookoutEvery is how often it is looked for new vaults, and for plans that are
	// declared automatically.
	lookoutEvery = 15 * time.Second
)

// lookout makes this site a vantage point, in every vault that holds a plan
// which is declared automatically. It runs in every replica: one speaks, and the
// next goes on when that one is silent, also while the API server does not answer.
type lookout struct {
	client client.Client
	pool   *pool
	log    *slog.Logger
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*lookout) NeedLeaderElection() bool { return false }

// Start watches until ctx is done.
func (l *lookout) Start(ctx context.Context) error {
	stop := map[string]context.CancelFunc{}
	var working sync.WaitGroup
	tick := time.NewTicker(lookoutEvery)
	defer tick.Stop()
	for {
		if wanted, err := l.vaults(ctx); err == nil { // else those that are known stay
			for name := range wanted {
				if stop[name] == nil {
					own, cancel := context.WithCancel(ctx)
					stop[name] = cancel
					working.Go(func() { l.watch(own, name) })
				}
			}
			for name, cancel := range stop {
				if !wanted[name] {
					cancel()
					delete(stop, name)
				}
			}
		}
		select {
		case <-ctx.Done():
			for _, cancel := range stop {
				cancel()
			}
			working.Wait()
			return nil
		case <-tick.C:
		}
	}
}

func (l *lookout) vaults(ctx context.Context) (map[string]bool, error) {
	var list v1alpha1.VaultList
	if err := l.client.List(ctx, &list); err != nil {
		return nil, err
	}
	all := map[string]bool{}
	for i := range list.Items {
		if list.Items[i].Spec.CopyOf == "" {
			all[list.Items[i].Name] = true
		}
	}
	return all, nil
}

func (l *lookout) watch(ctx context.Context, name string) {
	known := &plans.Automatic{Every: lookoutEvery, Now: l.pool.now}
	post := &vantage.Post{
		Name: l.pool.self.Site, Cluster: l.pool.self.Cluster, Idle: known.None, Plans: known.Plans, Ask: askPlainly,
		Now: l.pool.now, Log: l.log.With("vault", name),
	}
	var last *vault.Project
	post.Run(ctx, func(ctx context.Context) (*vault.Project, error) {
		p, err := l.pool.Project(ctx, name)
		if err != nil && (last == nil || errors.Is(err, vaults.ErrNotUsable)) {
			return nil, err
		}
		if err == nil {
			last = p
		} // else the API server is silent, and that is no reason to be
		return last, nil
	})
}

// askPlainly asks a probe from this process, by whatever way its network has.
func askPlainly(ctx context.Context, c plan.Check) error {
	_, err := probe.Asker{}.Ask(ctx, c)
	return err
}
