package testkit

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"

	"davit.dev/davit/internal/testkit/graphs"
	"davit.dev/davit/internal/testkit/safety"
	"davit.dev/davit/internal/testkit/zone"
)

// What all schedules have in common.
const (
	leaseTime = 15 * time.Second
	boundTime = 5 * time.Second
	drift     = 1000 // parts in a million
	horizon   = 20 * time.Minute
	trouble   = 3 * time.Minute  // after that all heals that can
	tail      = 45 * time.Second // late messages arrive
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Options take safety away, one piece at a time.
type Options = safety.Options

// bareWorld has sites, so many or any number, and nothing that happens.
func bareWorld(seed, stream uint64, opt Options, sites int) *world {
	w := &world{opt: opt, r: rand.New(rand.NewPCG(seed, stream)), refusals: rand.New(rand.NewPCG(seed, stream+100)), levels: map[string]map[int64]level{}, odd: map[string]int{}}
	w.lease, w.gated, w.promising = w.chance(50) || opt.Isolated || opt.Leaning, w.chance(50), w.chance(50) || opt.Leaning
	w.apps = [][]string{{"a"}, {"a"}, {"a", "b"}, {"a", "b"}, {"a", "b", "c"}}[w.r.IntN(5)]
	w.early, w.zone = w.chance(60), zone.New("east")
	w.vault = &store{w: w, epochs: map[string][]claim{}, points: map[string][]dataPoint{}, records: map[string][][]byte{}, putAt: map[string][]time.Duration{}}
	if sites == 0 {
		sites = 2 + w.r.IntN(2)
	}
	for n := range sites {
		s := &site{w: w, n: n, name: []string{"east", "west", "south"}[n], clock: w.newClock(), alive: true, apps: map[string]*workload{}, sandboxes: map[string]map[string]bool{}, things: map[string]*thing{}, restoring: map[string]*proc{}}
		s.lead()
		for _, app := range w.apps {
			s.apps[app] = &workload{app: app, seen: 1, holds: map[string]int64{}, exposed: n == 0 || !w.gated, want: n == 0, epoch: 1}
			if n > 0 {
				s.apps[app].epoch = 0
			} else if w.gated {
				s.apps[app].gate = "first"
			}
		}
		w.sites = append(w.sites, s)
	}
	if w.stranger = -1; sites == 3 && rand.New(rand.NewPCG(seed, stream+400)).IntN(3) == 0 {
		w.stranger = 1
	}
	if w.renamed = -1; opt.Renamed || rand.New(rand.NewPCG(seed, stream+500)).IntN(6) == 0 {
		w.renamed = 1
	}
	for _, app := range w.apps {
		w.vault.epochs[app] = []claim{{site: 0, request: "first", peers: w.peersOf(0)}}
	}
	if sites == 3 && rand.New(rand.NewPCG(seed, stream+200)).IntN(3) == 0 {
		w.wasAtSouth()
	}
	w.begun = true
	own := rand.New(rand.NewPCG(seed, stream+300))
	w.calls, w.pool.Heeds, w.asks = own.IntN(6) == 0 || opt.Drowsy == plan.KindHTTP, own.IntN(2) == 0 || opt.NoHeed, own.IntN(24) == 0 || opt.NoAsk
	w.pool.Blind, w.said = opt.NoHeed, map[string]map[string]bool{}
	for range len(w.sites) + 2 {
		w.up = append(w.up, slices.Repeat([]bool{true}, len(w.sites)+2))
		w.loss = append(w.loss, make([]float64, len(w.sites)+2))
	}
	return w
}

// wasAtSouth has the third site be a former holder from the start: neither source nor, for runs to west, target.
func (w *world) wasAtSouth() {
	w.odd["was at a third site"]++
	for _, app := range w.apps {
		w.vault.epochs[app] = []claim{{site: 2, request: "before", peers: w.peersOf(2)}, {site: 0, request: "first", peers: w.peersOf(0)}}
		for _, s := range w.sites {
			s.apps[app].seen = 2
		}
		w.sites[0].apps[app].epoch, w.sites[2].apps[app].epoch = 2, 1
	}
}

// terms are the lease terms of every site.
func (w *world) terms() plan.Fence {
	f := plan.Fence{Lease: leaseTime, Bound: boundTime, Drift: drift}
	if w.opt.ShortWait {
		f = plan.Fence{Lease: time.Second}
	}
	return f
}

// lose makes all links lose so much.
func (w *world) lose(part float64) {
	for _, row := range w.loss {
		for i := range row {
			row[i] = part
		}
	}
}

// cut breaks a link for a while, in one direction or both.
func (w *world) cut(a, b int, oneWay bool) {
	if a == b {
		return
	}
	w.odd["link cut"]++
	w.log("no way from place %d to %d (one way: %v)", a, b, oneWay)
	set := func(up bool) {
		w.up[a][b] = up
		if !oneWay {
			w.up[b][a] = up
		}
	}
	set(false)
	w.after(w.upTo(2*time.Minute), func() { set(true) })
}

// isolate lets a site hear of nobody for so long, and nobody of it.
func (w *world) isolate(s *site, d time.Duration) {
	set := func(up bool) {
		for other := range w.up {
			if other != s.n {
				w.up[s.n][other], w.up[other][s.n] = up, up
			}
		}
	}
	set(false)
	w.after(d, func() { set(true) })
}

// unheard lets all sites but one, and the vault, hear no more of each other for so long.
func (w *world) unheard(but int, d time.Duration) {
	set := func(up bool) {
		for _, s := range w.sites {
			if v := len(w.sites); s.n != but {
				w.up[s.n][v], w.up[v][s.n] = up, up
			}
		}
	}
	set(false)
	w.after(d, func() { set(true) })
}

func (w *world) anyPlace(r *run) int {
	if w.chance(50) {
		return w.index(r.spec.To)
	}
	return len(w.sites) + 1
}

// steps orders a small plan.
func (w *world) steps(verb plan.Verb) ([]plan.Step, plan.Fence) {
	fence := plan.Fence{Timeout: 30 * time.Second}
	if w.lease {
		fence.Lease, fence.Bound, fence.Drift = leaseTime, boundTime, drift
	}
	return graphs.Of(w.apps, verb, fence, graphs.Has{Gate: w.gated, Early: w.early, Call: w.calls, Asks: w.asks}), fence
}

func text(s *failover.State) string {
	data, err := json.Marshal(s)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// twoWriters is called when a workload starts: nobody else may run it, unless
// the run that started the newer one said that it cannot promise that.
func (w *world) twoWriters(app string) {
	var writers []*site
	for _, s := range w.sites {
		if s.load(app).running {
			writers = append(writers, s)
		}
	}
	for i, a := range writers {
		for _, b := range writers[i+1:] {
			old, now := a, b
			if a.load(app).epoch > b.load(app).epoch {
				old, now = b, a
			}
			lv := w.relied(app, old.load(app).epoch, now.load(app).epoch)
			if lv == failover.Proven || lv == failover.TimedOut && !old.wasDeaf {
				w.fail("two writers of %s: %s (epoch %d) and %s (epoch %d), under %q", app, old.name, old.load(app).epoch, now.name, now.load(app).epoch, lv)
			}
			w.odd["two writers, not promised otherwise"]++
		}
	}
}

// relied is what was promised to keep a lower epoch from writing beside a
// higher one: what the run said that activated the higher one, or, where none
// did, the weakest since.
func (w *world) relied(app string, lower, higher int64) level {
	if lv, ok := w.levels[app][higher]; ok {
		return lv
	}
	weakest := failover.Proven
	for n, lv := range w.levels[app] {
		if n > lower && n < higher {
			weakest = min(weakest, lv)
		}
	}
	return weakest
}

// again lets somebody ask for a run once more when it has been rolled back. So often it is looked for that.
func (w *world) again(r *run, times int) {
	if !r.over && times > 0 {
		w.after(10*time.Second, func() { w.again(r, times-1) })
		return
	}
	w.expected--
	if r.phase == failover.RolledBack {
		w.odd["begun anew"]++
		w.order(r.spec.Verb, w.sites[w.index(r.spec.From)], w.sites[w.index(r.spec.To)], w.now+w.upTo(5*time.Second))
	}
}

// order lets somebody ask for a run at a time.
func (w *world) order(verb plan.Verb, from, to *site, at time.Duration) {
	steps, fence := w.steps(verb)
	spec := failover.Spec{
		Run: fmt.Sprintf("%s-%d", verb, len(w.runs)+1), Plan: "p", Verb: verb, From: from.name, To: to.name, By: "ann", At: start.Add(at),
		Accept: failover.TimedOut, Applications: w.apps, Steps: steps, Fence: fence,
		Commit: []plan.Commit{{}, {Window: 30 * time.Second, Then: plan.ThenCommit}, {Then: plan.ThenCommit}}[w.r.IntN(3)],
	}
	if lease := w.terms(); w.lease {
		spec.Fence.Lease, spec.Fence.Bound, spec.Fence.Drift = lease.Lease, lease.Bound, lease.Drift
	}
	if verb == plan.Restore {
		spec.To = "east"
	}
	if w.chance(15) && !w.lease {
		spec.Accept = failover.Asked
	}
	if w.chance(20) {
		spec.Approvals = 1 + w.r.IntN(2)
	}
	r := &run{spec: spec}
	w.runs = append(w.runs, r)
	w.at(at, func() {
		place := w.index(spec.To)
		if w.chance(30) || !w.sites[place].alive {
			place = len(w.sites) + 1
		}
		w.log("%s to %s is asked for at place %d", spec.Run, spec.To, place)
		w.launch(r, place)
	})
	if w.chance(20) { // somebody takes over without need
		w.after(at+w.upTo(time.Minute), func() { w.takeOver(r, w.anyPlace(r)) })
	}
}
