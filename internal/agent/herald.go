package agent

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/bulletin"
	"davit.dev/davit/internal/foresight"
	"davit.dev/davit/internal/images"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/census"
	"davit.dev/davit/internal/kube/scratch"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/probe"
	"davit.dev/davit/internal/reconcile/measure"
)

const (
	// heraldTick is how often it is looked for new vaults and changed plans.
	heraldTick = 10 * time.Second
	// heraldLook is how often it is looked whether this site's facts changed, and
	// heraldEvery how often they are published and plans judged all the same.
	heraldLook    = 2 * time.Minute
	heraldEvery   = 10 * time.Minute
	heraldTimeout = 2 * time.Minute
	// heraldAbreast is how many vaults are looked at at once.
	heraldAbreast = 8
	// quiet is for how long an agent that has just started says nothing of roles: a
	// site that comes back has those of before in its cluster until it has read the vault.
	quiet = 30 * time.Second
)

// herald publishes in every vault what this site says of itself, and judges the
// cluster's plans. It runs in the leader only.
type herald struct {
	client client.Client
	reader client.Reader // asks the API server itself
	pool   *pool
	log    *slog.Logger

	looker, restorer *kube.Clients
	said             map[string]*heard // by Vault
	hands            chan struct{}     // one for each who looks
	started          time.Time
	registry         func(context.Context, []preflight.Image) map[string]preflight.Registry
	stock            stock
}

// heard is what was said in one vault.
type heard struct {
	chore
	facts  *preflight.Site
	needs  []preflight.Need
	looked time.Time // when the site was last looked at
	whole  time.Time // and when at everything
	plans  string    // that were judged then
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (h *herald) NeedLeaderElection() bool { return true }

// Start publishes and judges until ctx is done.
func (h *herald) Start(ctx context.Context) error {
	h.said, h.hands, h.started = map[string]*heard{}, make(chan struct{}, heraldAbreast), time.Now()
	h.registry = foresight.Registries(images.Registries{}, registriesPatience, registriesRemember)
	tick := time.NewTicker(heraldTick)
	defer tick.Stop()
	defer h.wait()
	for {
		h.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// accounts opens the way as the accounts that may look, and that restore.
func (h *herald) accounts() (err error) {
	if h.looker != nil {
		return nil
	}
	if h.restorer, err = h.as(install.RestoreName); err != nil {
		return err
	}
	h.looker, err = h.as(install.CaptureName)
	return err
}

// as opens the way as an account of Davit's namespace.
func (h *herald) as(name string) (*kube.Clients, error) {
	return h.pool.clients.Impersonate(kube.ServiceAccountUser(v1alpha1.SystemNamespace, name))
}

// named are the accounts that plans name, each with what runs of those plans take, which
// may be less than all that restores do.
func named(plans []*v1alpha1.RecoveryPlan, needs []preflight.Need, as func(string) (*kube.Clients, error)) ([]census.Account, error) {
	var all []census.Account
	for _, p := range plans {
		name := p.Spec.ServiceAccountName
		if name == "" || name == install.RestoreName {
			continue
		}
		i := slices.IndexFunc(all, func(a census.Account) bool { return a.Name == name })
		if i < 0 {
			clients, err := as(name)
			if err != nil {
				return nil, err
			}
			i, all = len(all), append(all, census.Account{Name: name, Clients: clients})
		}
		a := &all[i]
		a.Steps = append(a.Steps, preflight.StepRights(document.Convert(p))...)
		for _, n := range needs {
			is := func(o preflight.Need) bool { return o.Application == n.Application }
			moves := slices.ContainsFunc(p.Spec.Applications, func(o v1alpha1.PlanApplication) bool { return o.Name == n.Application })
			if moves && !slices.ContainsFunc(a.Needs, is) {
				a.Needs = append(a.Needs, n)
			}
		}
	}
	return all, nil
}

func (h *herald) look(ctx context.Context) {
	var list v1alpha1.VaultList
	if err := h.client.List(ctx, &list); err != nil {
		h.log.Warn("facts: list vaults", "error", err)
		return
	}
	if err := h.accounts(); err != nil {
		h.log.Warn("facts: act as davit-capture", "error", err)
		return
	}
	for i := range list.Items {
		v := &list.Items[i]
		if v.Spec.CopyOf != "" {
			continue
		}
		h.beside(ctx, v.Name, func(ctx context.Context, said *heard) {
			if err := h.inVault(ctx, v.Name, said); err != nil && ctx.Err() == nil {
				h.log.Warn("facts of this site", "vault", v.Name, "error", err)
			}
		})
	}
}

// wait waits until nobody looks at a vault any more.
func (h *herald) wait() {
	for _, said := range h.said {
		said.running.Wait()
	}
}

// beside looks at a vault beside the others, unless somebody does still: one that is
// silent keeps whoever asks it for heraldTimeout, and the others are not to wait for it.
func (h *herald) beside(ctx context.Context, name string, look func(context.Context, *heard)) {
	said := h.said[name]
	if said == nil {
		said = &heard{}
		h.said[name] = said
	}
	said.begin(ctx, heraldTimeout, func(ctx context.Context) {
		select {
		case h.hands <- struct{}{}:
			defer func() { <-h.hands }()
			look(ctx, said)
		case <-ctx.Done(): // at the next tick
		}
	})
}

// inVault publishes this site's facts in one vault if they changed or are due,
// and then judges the plans that are kept there.
func (h *herald) inVault(ctx context.Context, name string, said *heard) error {
	e, err := h.pool.entry(ctx, name)
	if err != nil {
		return err
	}
	plans, err := h.plansOf(ctx, e.opened)
	if err != nil {
		return err
	}
	now := h.pool.now()
	whole := now.Sub(said.whole) >= heraldEvery || revisions(plans) != said.plans
	if !whole && now.Sub(said.looked) < heraldLook {
		return nil
	}
	said.looked = now
	if whole {
		if err := said.learn(ctx, e.opened); err != nil {
			return err
		}
	}
	facts, err := h.publish(ctx, e, said, plans, whole)
	if err != nil || !whole {
		return err
	}
	if err := h.judge(ctx, e.opened, facts, plans); err != nil {
		return err
	}
	said.whole, said.plans = now, revisions(plans)
	return nil
}

// publish takes this site's census, and publishes it if it changed or all is looked at.
func (h *herald) publish(ctx context.Context, e *entry, said *heard, plans []*v1alpha1.RecoveryPlan, whole bool) (*preflight.Site, error) {
	o, err := h.about(ctx, e, said.needs)
	if err != nil {
		return nil, err
	}
	if whole {
		o.Restorer, o.Who = h.restorer, install.RestoreName
		for _, p := range plans {
			o.Steps = append(o.Steps, preflight.StepRights(document.Convert(p))...)
		}
		if o.Accounts, err = named(plans, said.needs, h.as); err != nil {
			return nil, err
		}
	}
	facts := census.Take(ctx, o)
	if whole {
		facts.Outside = outside(ctx, plans, h.pool.self.Site, h.pool.now,
			probe.Asker{Cluster: scratch.New(h.restorer, nil).Drills(h.pool.now)}.Ask) // as runs ask
	}
	if whole {
		facts.Peers = pledges(ctx, plans, e.opened, h.pool.self.Site, h.pool.now)
	}
	if !whole && said.facts != nil {
		facts.Outside, facts.Peers = said.facts.Outside, said.facts.Peers
		facts.Rights, facts.RightsOf = said.facts.Rights, said.facts.RightsOf // they are asked for with all else
	}
	if !whole && facts.Same(said.facts) {
		return facts, nil
	}
	if err := bulletin.Publish(ctx, e.opened.Project, facts); err != nil {
		return nil, err
	}
	said.facts = facts
	measure.FactsPublished.WithLabelValues(e.opened.Object.Name).Set(float64(h.pool.now().Unix()))
	return facts, nil
}

// learn reads what the applications of a vault need.
func (s *heard) learn(ctx context.Context, o *vaults.Opened) error {
	apps, err := o.Listing.Apps(ctx)
	if err != nil {
		return err
	}
	demands, err := foresight.Demands(ctx, o.Listing, apps)
	if err != nil {
		return err
	}
	s.needs = nil
	for _, d := range demands {
		s.needs = append(s.needs, d.Need)
	}
	return nil
}

// about says what the census is of.
func (h *herald) about(ctx context.Context, e *entry, needs []preflight.Need) (census.Options, error) {
	o := census.Options{
		Site: h.pool.self.Site, Cluster: h.pool.self.Cluster, Domain: e.key.domain, VaultDomain: e.opened.Object.Spec.FailureDomain,
		KeyID: e.opened.Project.NewestKey().KeyID, Clients: h.looker, Needs: needs, Roles: map[string]string{}, Epochs: map[string]int64{}, Now: h.pool.now,
	}
	var apps v1alpha1.ApplicationList
	if err := h.client.List(ctx, &apps); err != nil {
		return o, err
	}
	for i := range apps.Items {
		if a := &apps.Items[i]; a.Spec.Vault == e.opened.Object.Name && a.Status.Role != "" {
			o.Epochs[a.VaultName()] = a.Status.Epoch
			if time.Since(h.started) >= quiet {
				o.Roles[a.VaultName()] = string(a.Status.Role)
			}
		}
	}
	return o, nil
}
