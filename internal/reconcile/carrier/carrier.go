// Package carrier lets an agent carry runs: those that Run objects of its cluster
// order, and those whose executor has died. It also shows, as Run objects, where
// runs are that others carry. The journals in the vault are the truth.
package carrier

import (
	"context"
	"log/slog"
	"sync"
	"time"

	coordination "k8s.io/api/coordination/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/vault"
)

// Times of a carrier.
const (
	// tick is how often leases and Run objects are looked at, vaultEvery how often
	// the vault is asked which runs there are, and vaultSoon while there are some.
	tick       = time.Second
	vaultEvery = 5 * time.Second
	vaultSoon  = 2 * time.Second
	// lookTimeout bounds one look into a vault.
	lookTimeout = 10 * time.Second
	// foreseePatience bounds how long a planned run is judged beforehand.
	foreseePatience = 30 * time.Second
	// strangeFor is how long the lease of a run that the vault does not know is
	// a reason to ask the vault at once.
	strangeFor = 30 * time.Second
	// StartWithin is how old an order may be that is taken up: who comes back
	// after days must not carry out what others have long seen to.
	StartWithin = time.Hour
	// DeclaredWithin is how old the order of an automatic declaration may be: the
	// site that was lost then may live now. The API server dates the order and this process judges it: by as
	// much as their clocks are apart it may be older. What then lets no order through that its site
	// outlived is that it names source and epochs (commission.Declared), which are asked for anew.
	DeclaredWithin = 2 * time.Minute
)

// leases of runs are named after them.
const leasePrefix = "run-"

// Target is this site, as the target of runs that come through one vault.
type Target interface {
	execute.Survey
	Kinds() execute.Kinds
	// Hold says who carries a run; standby.ErrCarried: another process, that lives.
	Hold(ctx context.Context, run, process string) (held context.Context, release func(), err error)
}

// Carrier carries runs. It runs in the leader only.
type Carrier struct {
	Client client.Client // reads from the cache
	Reader client.Reader // asks the API server
	Site   string
	// Process names this process, and nothing else.
	Process string
	Project func(ctx context.Context, vault string) (*vault.Project, error)
	// Target makes the target with the rights of an account of davit-system.
	Target func(ctx context.Context, vault, account string) (Target, error)
	// Foresee judges a run of a plan to this site beforehand. Nil: nobody does.
	Foresee func(ctx context.Context, vault string, p *plan.Plan, verb plan.Verb) ([]preflight.Finding, error)
	Events  record.EventRecorder
	Now     func() time.Time
	Log     *slog.Logger
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (c *Carrier) NeedLeaderElection() bool { return true }

// Start carries runs until ctx is done. What is under way then is taken over by
// the next leader.
func (c *Carrier) Start(ctx context.Context) error {
	desks := map[string]*desk{}
	var working sync.WaitGroup
	for {
		for _, name := range c.vaults(ctx) {
			if desks[name] != nil {
				continue
			}
			d := &desk{c: c, vault: name, runs: map[string]*followed{}}
			desks[name] = d
			working.Go(func() { d.work(ctx) }) // a silent vault keeps none waiting
		}
		if !pause(ctx, vaultEvery) {
			working.Wait()
			return nil
		}
	}
}

// vaults are those that can hold runs.
func (c *Carrier) vaults(ctx context.Context) []string {
	var list v1alpha1.VaultList
	if err := c.Client.List(ctx, &list); err != nil {
		c.Log.Warn("runs: list vaults", "error", err)
		return nil
	}
	var names []string
	for i := range list.Items {
		if list.Items[i].Spec.CopyOf == "" {
			names = append(names, list.Items[i].Name)
		}
	}
	return names
}

// held names the runs that somebody at this site carries or did.
func (c *Carrier) held(ctx context.Context) []string {
	var list coordination.LeaseList
	if err := c.Reader.List(ctx, &list, client.InNamespace(v1alpha1.SystemNamespace)); err != nil {
		c.Log.Debug("runs: list leases", "error", err)
		return nil
	}
	var runs []string
	for i := range list.Items {
		l := &list.Items[i]
		if len(l.Name) > len(leasePrefix) && l.Name[:len(leasePrefix)] == leasePrefix && l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity != "" {
			runs = append(runs, l.Name[len(leasePrefix):])
		}
	}
	return runs
}

// pause waits, and tells whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
