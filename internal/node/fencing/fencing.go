// Package fencing is the node process's own knowledge of who may write: it asks
// the vault by itself, keeps what it learnt on the node's disk, where the
// warden goes by it, and reports to the cluster. Once it has started it works
// on without agent and API server.
package fencing

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/containers"
	"davit.dev/davit/internal/fence"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/promise"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/warden"
)

const (
	beatEvery   = 500 * time.Millisecond
	gatherEvery = 2 * time.Second
	tickEvery   = 100 * time.Millisecond
	askTimeout  = 10 * time.Second
	// atOnce bounds questions to vaults under way.
	atOnce = 8
)

// Bound is the shortest time in which a node can promise that no container of
// an application runs after its lease: the watchdog notices that the node
// process is dead, looks, and kills what does not end when asked. A container runtime that does not answer
// adds nothing: the second that it is given is taken off the grace.
func Bound(grace time.Duration) time.Duration {
	return StaleAfter + time.Second + grace + 2*time.Second
}

// StaleAfter is how long the node process may be silent before the watchdog
// enforces in its place.
const StaleAfter = 2 * time.Second

// Options say how a Keeper works.
type Options struct {
	// Site is this site's name, Node this node's.
	Site, Node string
	Store      fence.Store
	Runtime    interface {
		Sandboxes(ctx context.Context) ([]containers.Sandbox, error)
	}
	Warden *warden.Warden
	// Cache is what is watched of the cluster, Reader asks the API server,
	// Client writes reports.
	Cache, Reader client.Reader
	Client        client.Client
	// Peers is where the sites' peers ask for promises, host:port; empty: nowhere.
	Peers string
	// AskEvery is how often the vault is asked for the epoch of what runs here.
	AskEvery time.Duration
	// Grace is how long a container may take to end by itself.
	Grace time.Duration
	// Uptime is the clock of leases, Now the time of day.
	Uptime func() time.Duration
	Now    func() time.Time
	Log    *slog.Logger
}

// Keeper keeps the record.
type Keeper struct {
	opts   Options
	access *access
	kick   chan struct{}

	questions sync.WaitGroup

	mu      sync.Mutex
	record  *fence.Record
	leases  fence.Leases
	saved   time.Duration            // when the record was last written, by Uptime
	unsaved error                    // why it could not be
	unheld  error                    // why the ends of leases could not be
	asked   map[string]time.Duration // when each application's epoch was last asked for
	busy    map[string]bool          // questions under way
	present map[string]bool          // applications with pods here
	told    map[string]int64         // epochs for which the agent says that peers may be asked
	leaning map[string]bool          // questions to peers under way
	leaned  map[string]time.Duration // when peers were last asked
	owners  map[string]owner

	troubles sync.Mutex
	problem  map[string]string // what was logged already
}

// New makes a Keeper from what an earlier process kept. A record that is damaged
// is set aside: then epochs are asked anew, and until there is an answer the
// warden leaves what is cut off as it is. One that cannot be read for any other
// reason is an error: this process must not go on without it.
func New(opts Options) (*Keeper, error) {
	k := &Keeper{
		opts: opts, kick: make(chan struct{}, 1), leases: opts.Store.LoadLeases(),
		access: &access{reader: opts.Reader, dir: opts.Store.RunDir, uptime: opts.Uptime, site: opts.Site, open: map[string]*door{}, keys: map[string]promise.Keys{}, refreshed: map[string]time.Duration{}},
		told:   map[string]int64{}, leaning: map[string]bool{}, leaned: map[string]time.Duration{},
		asked: map[string]time.Duration{}, busy: map[string]bool{}, present: map[string]bool{}, owners: map[string]owner{}, problem: map[string]string{},
	}
	var err error
	k.record, err = opts.Store.Load()
	if errors.Is(err, fence.ErrDamaged) {
		opts.Log.Error("record of fences set aside: which epochs are superseded is asked anew", "error", err)
		err = opts.Store.SetAside("damaged")
	}
	if err != nil {
		return nil, err
	}
	if k.record.Site == "" {
		k.record.Site = opts.Site
	}
	return k, k.save()
}

// Kick makes the keeper look at the cluster soon.
func (k *Keeper) Kick() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Run works until ctx is done.
func (k *Keeper) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer k.questions.Wait()
	defer running.Wait()
	running.Go(func() { every(ctx, beatEvery, nil, k.beat) })
	running.Go(func() { every(ctx, gatherEvery, k.kick, k.lookAround) })
	running.Go(func() { every(ctx, tickEvery, nil, k.askDue) })
	running.Go(func() { every(ctx, tickEvery, nil, k.lean) })
	if k.opts.Peers != "" {
		running.Go(func() { k.answer(ctx) })
	}
	running.Go(func() { every(ctx, reportEvery, nil, k.report) })
}

func every(ctx context.Context, d time.Duration, kick <-chan struct{}, do func(context.Context)) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		do(ctx)
		select {
		case <-ctx.Done():
			return
		case <-kick:
		case <-tick.C:
		}
	}
}

func (k *Keeper) beat(context.Context) {
	k.trouble("beat", k.opts.Store.Beat(k.opts.Uptime()))
}

// saveLeases saves when leases end. A warden that cannot read them goes by older
// ends, so until it is done nothing is said to be kept.
func (k *Keeper) saveLeases() {
	k.unheld = k.opts.Store.SaveLeases(k.leases)
	k.trouble("leases", k.unheld)
}

// save writes the record; what is not on disk is not proven. Call it with the
// lock held.
func (k *Keeper) save() error {
	k.unsaved = k.opts.Store.Save(k.record)
	if k.unsaved == nil {
		k.saved = k.opts.Uptime()
	}
	return k.unsaved
}

// lookAround takes in what the cluster says, if it answers, and what runs here.
func (k *Keeper) lookAround(ctx context.Context) {
	seen, err := k.gather(ctx)
	if err != nil && ctx.Err() == nil {
		k.trouble("cluster", err)
	} else {
		k.trouble("cluster", nil)
		k.take(seen)
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	pods, err := k.opts.Runtime.Sandboxes(ctx)
	k.trouble("container runtime", err)
	if err != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.present = warden.Present(k.record, pods)
}

// take makes the record say what was seen. The agent's word raises epochs, and
// never lowers or lifts anything: that takes an answer of the vault.
func (k *Keeper) take(s *seen) {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed := false
	if s.cluster != "" && k.record.Cluster != s.cluster {
		if k.record.Cluster != "" {
			k.opts.Log.Warn("record of fences set aside: it is another cluster's", "cluster", k.record.Cluster)
			k.trouble("set aside", k.opts.Store.SetAside("cluster-"+k.record.Cluster))
			k.record = &fence.Record{Format: fence.Format, Site: k.opts.Site}
			k.leases = fence.Leases{}
		}
		k.record.Cluster, changed = s.cluster, true
	}
	if k.record.Site != k.opts.Site {
		k.record.Site, changed = k.opts.Site, true
	}
	names := map[string]bool{}
	for _, app := range s.applications {
		names[app.name] = true
		a := k.record.Ensure(app.name)
		if string(a.Document) != string(app.document) {
			a.Document, changed = app.document, true
		}
		if app.superseded != nil && app.superseded.Newest > a.Newest {
			changed = k.record.Learn(app.name, *app.superseded, k.leases) || changed
		}
		if app.returned > a.Returned {
			changed = k.record.Return(app.name, app.returned) || changed
			k.opts.Log.Warn("fenced: a run gives this site's epoch back", "application", app.name, "epoch", app.returned)
		}
		if app.promised > 0 {
			k.told[app.name] = app.promised
		}
		if a.Floor() > 0 && app.active > a.Newest {
			delete(k.asked, app.name) // it is said to be given back: asked at the next tick, for what starts here is stopped
		}
	}
	if k.hear(s) {
		changed = true
		k.saveLeases()
	}
	before := len(k.record.Applications)
	k.record.Forget(names)
	k.left(names)
	changed = changed || len(k.record.Applications) != before
	if string(k.record.World) != string(s.world) {
		k.record.World, changed = s.world, true
	}
	if changed {
		k.trouble("record", k.save())
	}
}

// hear takes in lease terms that the agent read. A node that cannot ask the
// vault by itself must not miss that the site has put itself under a lease.
func (k *Keeper) hear(s *seen) (changed bool) {
	now := k.opts.Uptime()
	for _, app := range s.applications {
		if app.leased != nil && k.record.Hear(app.name, app.epoch, *app.leased, now, k.leases) {
			changed = true
			delete(k.asked, app.name) // asked at the next tick, so that it need not stop
		}
	}
	return changed
}

// left complains of applications that are under a lease and protected here no more.
func (k *Keeper) left(names map[string]bool) {
	for _, a := range k.record.Applications {
		if what := "lease of " + a.Name; names[a.Name] {
			k.trouble(what, nil)
		} else {
			k.trouble(what, errors.New("the Application is gone from this cluster, and its lease stays: silence of the vault stops what it covered, until `davit plan disarm`"))
		}
	}
}

// askDue asks the vault for the epochs that are due: of what runs here, and of
// what is fenced, for it may be given back.
func (k *Keeper) askDue(ctx context.Context) {
	now := k.opts.Uptime()
	k.mu.Lock()
	defer k.mu.Unlock()
	due := k.due(now)
	for _, a := range due[:min(len(due), max(atOnce-len(k.busy), 0))] {
		k.asked[a.Name], k.busy[a.Name] = now, true
		k.questions.Go(func() { k.ask(ctx, a) })
	}
}

// due are the applications whose turn has come, first those that have waited the longest beyond
// it, by how often each is asked for: where the vault is slow more are due than can be asked for, and
// one whose turn never comes would lose its lease although the vault answers. Of those never asked for, which are
// all where the process has just begun, first come those with a lease; what does not run here has what the others
// leave. Call it with the lock held.
func (k *Keeper) due(now time.Duration) (all []fence.Application) {
	late := map[string]float64{}
	for _, a := range k.record.Applications {
		last, asked := k.asked[a.Name]
		// Once also for what does not run here: a pod of it may come at any time.
		idle := asked && !k.present[a.Name] && a.Floor() == 0 && a.Terms == nil
		if k.busy[a.Name] || idle {
			continue
		}
		switch {
		case asked:
			late[a.Name] = float64(now-last) / float64(a.AskEvery(k.opts.AskEvery))
		case a.Terms != nil:
			late[a.Name] = math.Inf(1)
		case k.present[a.Name] || a.Floor() > 0:
			late[a.Name] = math.MaxFloat64
		default:
			late[a.Name] = 1
		}
		if late[a.Name] >= 1 {
			all = append(all, a)
		}
	}
	slices.SortStableFunc(all, func(a, b fence.Application) int { return cmp.Compare(late[b.Name], late[a.Name]) })
	return all
}

// ask asks for one application's epoch. Without an answer nothing is changed:
// silence fences only where a lease runs out.
func (k *Keeper) ask(ctx context.Context, a fence.Application) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	asked := k.opts.Uptime()
	answer, err := k.standing(ctx, a)
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.busy, a.Name)
	k.trouble("vault: "+a.Name, err)
	if err != nil || k.record.Find(a.Name) == nil {
		return
	}
	answer.Asked = asked
	was := k.record.Find(a.Name).Floor()
	changed := k.record.Learn(a.Name, answer, k.leases)
	if answer.Terms != nil {
		k.saveLeases()
	}
	if changed { // last: what is looked at after it was saved is all of it
		k.trouble("record", k.save())
	}
	switch below := k.record.Find(a.Name).Floor(); {
	case below > was:
		k.opts.Log.Warn("fenced: a newer epoch is another site's", "application", a.Name, "epoch", below, "holder", answer.Holder)
	case below == 0 && was > 0:
		k.opts.Log.Info("no longer fenced: the newest epoch is this site's", "application", a.Name, "epoch", answer.Newest)
	}
}

// standing reads the application's epochs.
func (k *Keeper) standing(ctx context.Context, a fence.Application) (fence.Answer, error) {
	var app v1alpha1.Application
	if err := json.Unmarshal(a.Document, &app); err != nil {
		return fence.Answer{}, fmt.Errorf("read application %s: %w", a.Name, err)
	}
	project, err := k.access.project(ctx, app.Spec.Vault)
	if err != nil {
		return fence.Answer{}, err
	}
	return read(ctx, project, k.identity(), a.Name)
}

func (k *Keeper) identity() (id [2]string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return [2]string{k.record.Site, k.record.Cluster}
}

func read(ctx context.Context, project *vault.Project, id [2]string, app string) (fence.Answer, error) {
	p := protection.New(protection.Options{Project: project, Site: id[0], ClusterID: id[1]})
	s, err := p.Standing(ctx, app)
	if err != nil {
		return fence.Answer{}, err
	}
	answer := fence.Answer{Newest: s.Current.Number, Held: s.Held, Holder: p.Holder(s)}
	answer.Terms = terms(s.Current.Claim.Terms)
	return answer, nil
}

// terms are those of a claim; nil for none, and for those without a lease, by
// which no wait proves anything. A lease longer than longest is kept as that: to
// stop early hurts nobody else.
func terms(t *lease.Terms) *fence.Terms {
	const longest = int64(time.Hour / time.Millisecond)
	if t == nil || t.LeaseMillis <= 0 {
		return nil
	}
	ms := func(n int64) time.Duration { return time.Duration(max(min(n, longest), 0)) * time.Millisecond }
	out := &fence.Terms{Lease: ms(t.LeaseMillis), Bound: ms(t.BoundMillis), Drift: max(t.DriftPPM, 0)}
	for _, p := range t.Peers {
		out.Peers = append(out.Peers, fence.Peer{Site: p.Site, Cluster: p.Cluster, Address: p.Address})
	}
	return out
}

// trouble logs an error when it is new, and when it is over.
func (k *Keeper) trouble(what string, err error) {
	k.troubles.Lock()
	defer k.troubles.Unlock()
	switch was, had := k.problem[what]; {
	case err == nil && had:
		delete(k.problem, what)
		k.opts.Log.Info("works again", "what", what)
	case err != nil && was != err.Error():
		if !had {
			k.opts.Log.Error("fencing by the node is limited", "what", what, "error", err)
		}
		k.problem[what] = err.Error()
	}
}

func trim(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name}
}
