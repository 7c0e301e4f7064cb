// Package declaration lets the agent of the site that would take over declare a
// plan's source lost, where the plan says so and enough vantage points agree, and
// order the failover. Package declare decides.
package declaration

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/declare"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/vantage"
	"davit.dev/davit/internal/vault"
)

const (
	// lookEvery is how often vantage points are listened to, and gatherEvery how
	// often the vault is asked for all else. Before anything is declared, it is
	// asked anew.
	lookEvery     = 2 * time.Second
	gatherEvery   = 20 * time.Second
	lookTimeout   = 5 * time.Second
	gatherTimeout = 15 * time.Second
	// plansAtOnce bounds the plans that are judged at the same time.
	plansAtOnce = 4
)

// Declarer watches the plans of this cluster. It runs in the leader only: whoever
// leads next has heard nothing, and begins to count anew.
type Declarer struct {
	Client client.Client
	// Reader asks the API server itself.
	Reader  client.Reader
	Site    string
	Project func(ctx context.Context, vault string) (*vault.Project, error)
	// Listing gives the same to look at all points again and again; nil: Project does.
	Listing func(ctx context.Context, vault string) (*vault.Project, error)
	Events  record.EventRecorder
	Now     func() time.Time
	Log     *slog.Logger
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*Declarer) NeedLeaderElection() bool { return true }

// Start watches until ctx is done.
func (d *Declarer) Start(ctx context.Context) error {
	var working sync.WaitGroup
	defer working.Wait()
	known := map[string]bool{}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		for _, name := range d.vaults(ctx) {
			if !known[name] {
				known[name] = true
				working.Go(func() { d.newBench(name).work(ctx) }) // a silent vault keeps none waiting
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (d *Declarer) vaults(ctx context.Context) []string {
	var list v1alpha1.VaultList
	if err := d.Client.List(ctx, &list); err != nil {
		d.Log.Warn("declaration: list vaults", "error", err)
		return nil
	}
	var all []string
	for i := range list.Items {
		if list.Items[i].Spec.CopyOf == "" {
			all = append(all, list.Items[i].Name)
		}
	}
	slices.Sort(all)
	return all
}

// bench is what is known of the plans of one vault.
type bench struct {
	d     *Declarer
	vault string
	begun time.Time
	cases map[string]*trial
}

// trial is what is known of one plan.
type trial struct {
	decider    *declare.Decider
	generation int64
	source     string
	outlook    outlook
	gathered   time.Duration
	known      bool // the outlook was read
	begun      time.Duration
	// For people: since when vantage points say what they say, when the source
	// would be declared lost, and until when nothing is.
	since map[string]v1alpha1.PlanObserver
	due   time.Time
	until time.Time
}

func (d *Declarer) newBench(name string) *bench {
	return &bench{d: d, vault: name, begun: d.Now(), cases: map[string]*trial{}}
}

func (b *bench) work(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		b.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look listens once, and does what follows.
func (b *bench) look(ctx context.Context) {
	mine, err := b.plans(ctx)
	if err != nil {
		b.d.Log.Warn("declaration: list plans", "vault", b.vault, "error", err)
		return
	}
	for name := range b.cases {
		if !slices.ContainsFunc(mine, func(p v1alpha1.RecoveryPlan) bool { return p.Name == name }) {
			b.drop(name)
		}
	}
	if len(mine) == 0 {
		return
	}
	n := b.hear(ctx)
	var judging errgroup.Group // what one plan waits for keeps the others not from being heard
	judging.SetLimit(plansAtOnce)
	for i := range mine {
		t := b.trial(&mine[i])
		judging.Go(func() error {
			b.judge(ctx, &mine[i], t, n)
			return nil
		})
	}
	_ = judging.Wait() // what went wrong is in the plans
}

// trial is what is known of a plan; of another version of it, nothing.
func (b *bench) trial(object *v1alpha1.RecoveryPlan) *trial {
	t := b.cases[object.Name]
	if t == nil || t.generation != object.Generation {
		t = &trial{generation: object.Generation, begun: b.now()}
		b.cases[object.Name] = t
	}
	return t
}

// plans are those of this cluster that are declared automatically in the vault.
func (b *bench) plans(ctx context.Context) ([]v1alpha1.RecoveryPlan, error) {
	var list v1alpha1.RecoveryPlanList
	if err := b.d.Client.List(ctx, &list); err != nil {
		return nil, err
	}
	all := b.d.vaults(ctx)
	return slices.DeleteFunc(list.Items, func(p v1alpha1.RecoveryPlan) bool {
		here := p.Spec.Vault == b.vault || p.Spec.Vault == "" && len(all) == 1 && all[0] == b.vault
		return !here || !p.Spec.Declaration.Automatic || !p.DeletionTimestamp.IsZero() || len(document.Convert(&p).Check()) > 0
	}), nil
}

// news is what was heard of vantage points.
type news struct {
	project *vault.Project
	words   map[string]vantage.Word
	silent  error // why the vault could not be read
	// asked is when the vault was asked, and came when it had answered. What was said since it
	// was asked is not in it: it is as old as that.
	asked, came time.Duration
}

// now is the time by the clock of the bench, which does not jump.
func (b *bench) now() time.Duration { return b.d.Now().Sub(b.begun) }

func (b *bench) hear(ctx context.Context) (n news) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	n.asked = b.now()
	if n.project, n.silent = b.d.Project(ctx, b.vault); n.silent == nil {
		n.words, _, n.silent = vantage.Hear(ctx, n.project) // one that cannot be read is silent
	}
	n.came = b.now()
	return n
}

// judge decides about one plan. It may have waited for other plans: what was heard long before
// is heard anew.
func (b *bench) judge(ctx context.Context, object *v1alpha1.RecoveryPlan, t *trial, n news) {
	p := document.Convert(object)
	if n.silent == nil && b.now()-n.came > lookEvery {
		if t.known { // else it would be as young as when it is heard again
			t.listen(p, b.now(), n)
		}
		n = b.hear(ctx)
	}
	now := b.now()
	if n.silent == nil && (!t.known || now-t.gathered >= gatherEvery) {
		if t.known { // to gather takes its time, and what was heard is not as young as that
			t.listen(p, now, n)
		}
		if n.silent = b.gather(ctx, t, p, n); n.silent == nil {
			n = b.hear(ctx)
		}
		now = b.now()
	}
	if !t.known {
		b.tell(ctx, object, p, t, now, declare.Decision{}, n.silent)
		return
	}
	t.watch(p)
	state := t.outlook.state
	state.Vault = n.silent == nil
	if n.silent == nil {
		t.listen(p, now, n)
	}
	decision, silent := t.decider.Decide(now, state), n.silent
	if decision.Declare && b.mine(p, t) {
		decision, silent = b.declare(ctx, object, p, t)
		now = b.now()
	}
	b.tell(ctx, object, p, t, now, decision, silent)
}

// listen takes in what the plan's vantage points said.
func (t *trial) listen(p *plan.Plan, now time.Duration, n news) {
	for _, name := range p.Declaration.Vantages {
		word, ok := n.words[name]
		if !ok {
			continue
		}
		_, probed := p.Declaration.Probes[t.source]
		if s, ok := word.Sighting(p.Name, t.source, probed); ok {
			s.Age = now - n.asked
			t.decider.Hear(now, s)
		}
	}
}

// watch begins to count anew when the source is another one.
func (t *trial) watch(p *plan.Plan) {
	if t.decider != nil && t.source == t.outlook.source {
		return
	}
	d := p.Declaration
	t.source, t.since, t.due = t.outlook.source, map[string]v1alpha1.PlanObserver{}, time.Time{}
	t.decider = declare.New(t.source, declare.Rule{Vantages: d.Vantages, Agree: d.Agree, For: d.For, Block: d.Block, Fresh: vantage.Fresh})
}

func (b *bench) gather(ctx context.Context, t *trial, p *plan.Plan, n news) error {
	ctx, cancel := context.WithTimeout(ctx, gatherTimeout)
	defer cancel()
	listing, err := n.project, error(nil)
	if b.d.Listing != nil {
		listing, err = b.d.Listing(ctx, b.vault)
	}
	if err != nil {
		return err
	}
	o, err := gatherer{n.project, listing, b.d.Site, b.d.Now}.gather(ctx, p, n.words)
	if err != nil {
		return err
	}
	if err := b.ordered(ctx, p, &o.state); err != nil {
		return err
	}
	t.outlook, t.known, t.gathered = o, true, b.now()
	return nil
}

// target is the site that takes over: the first of the plan's that is not the source.
// So never two do.
func target(p *plan.Plan, source string) string {
	i := slices.IndexFunc(p.Sites, func(s plan.Site) bool { return s.Name != source })
	if i < 0 {
		return ""
	}
	return p.Sites[i].Name
}

// mine tells whether this site takes over.
func (b *bench) mine(p *plan.Plan, t *trial) bool {
	return t.source != "" && t.source != b.d.Site && target(p, t.source) == b.d.Site
}

// same tells whether the vault's plan, which a run follows, is the one that was judged.
func (b *bench) same(ctx context.Context, object *v1alpha1.RecoveryPlan, project *vault.Project) (bool, error) {
	found, err := plans.Find(ctx, b.d.Client, project, object.Name)
	if err != nil {
		return false, err
	}
	mine, err := plans.Document(object)
	if err != nil {
		return false, err
	}
	theirs, err := plans.Document(found.Object)
	return string(mine) == string(theirs), err
}
