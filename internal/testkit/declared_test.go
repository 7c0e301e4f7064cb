package testkit

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"davit.dev/davit/internal/declare"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/vantage"

	"davit.dev/davit/internal/testkit/clockwork"
)

// What schedules of automatic declaration have in common.
const (
	lostFor  = 30 * time.Second // how long vantage points must agree
	block    = 5 * time.Minute  // nothing is declared after a run
	lookEach = 2 * time.Second  // of whoever would declare
	witness  = "witness"
)

// watchers are the plan's vantage points: two sites and a witness beside the console.
var watchers = []string{"west", "south", witness}

// observer is a vantage point, or the agent of the site that is watched: its words
// are its sign of life.
type observer struct {
	name  string
	place int
	clock clockwork.Clock
	watch *vantage.Watch
	said  int64
}

// remark is what a decider heard, for the checks.
type remark struct {
	at   time.Duration // by the decider's clock
	name string
	lost bool
}

// judge is the agent of a site that would take over, as it watches one source.
type judge struct {
	s       *site
	source  string
	decider *declare.Decider
	heard   []remark
	numbers map[string]int64
}

// Declared plays the schedule of a seed in which no person asks for a run: vantage
// points watch the sites through the vault, and the site that would take over
// declares.
func Declared(seed uint64, opt Options) Report {
	w := bareWorld(seed, 13, opt, 3)
	w.lease, w.words, w.runEnds = true, map[string]vantage.Word{}, map[string]time.Duration{}
	w.life()
	w.misfortunes()
	for _, name := range append([]string{"east"}, watchers...) {
		o := &observer{name: name, place: w.index(name), watch: vantage.NewWatch()}
		if name == witness {
			o.place = len(w.sites) + 1
			o.clock = w.newClock()
		} else {
			o.clock = w.sites[o.place].clock
		}
		w.every(vantage.Every, func() { w.observe(o) })
	}
	for _, s := range w.sites {
		j := &judge{s: s, numbers: map[string]int64{}}
		w.every(lookEach, j.look)
	}
	w.probed, w.askings = w.chance(50), map[string][]asking{}
	// Whether a site dies decides whether something is declared: half of the schedules
	// have one, and some have one of which only the application is left.
	switch n := w.r.IntN(10); {
	case n < 5 && !opt.Isolated:
		w.after(20*time.Second+w.upTo(40*time.Second), func() { w.sites[0].crash(w.chance(60)) })
	case n < 7 || opt.Isolated:
		w.odd["only the application is left"]++
		w.after(20*time.Second+w.upTo(20*time.Second), func() { w.sites[0].pause(trouble - w.now) })
	}
	w.after(trouble+3*time.Minute, func() { w.ended = w.now })
	w.play()
	rep := Report{Seed: seed, Runs: map[string]failover.Phase{}, Odd: w.odd}
	for _, r := range w.runs {
		w.checkRun(r, &rep)
	}
	rep.Err, rep.Trace = w.err, w.trace
	return rep
}

// at runs something where a process is, when it can.
func (w *world) atPlace(place int, do func()) {
	if place < len(w.sites) {
		w.sites[place].atAgent(do)
		return
	}
	do()
}

// observe looks once, and says what it sees.
func (w *world) observe(o *observer) {
	w.atPlace(o.place, func() {
		w.ask(o.place, func() any { return w.words }, func(x any, ok bool) {
			w.atPlace(o.place, func() {
				now := o.clock.Mono(w.now)
				var views []vantage.View
				if words, is := x.(map[string]vantage.Word); ok && is {
					o.watch.Look(now, words)
					views = o.watch.Views(now, o.name)
				} else {
					o.watch.Miss()
				}
				w.probe(o, views, 0, func() { w.say(o, views) })
			})
		})
	})
}

// say replaces what a vantage point said.
func (w *world) say(o *observer, views []vantage.View) {
	o.said++
	word := vantage.Word{Vantage: o.name, Number: o.said, Views: views}
	if o.name != witness {
		word.Cluster = o.name
	}
	w.ask(o.place, func() any {
		words := maps.Clone(w.words)
		words[o.name] = word // also one that comes late
		w.words = words
		return nil
	}, func(any, bool) {})
}

// probe asks the sites that give no sign of life, one after the other from the one
// numbered so: where the application runs it answers, whether or not the site's agent does.
func (w *world) probe(o *observer, views []vantage.View, from int, then func()) {
	for from < len(views) && views[from].View == declare.Alive {
		from++
	}
	if !w.probed || from >= len(views) {
		then()
		return
	}
	v := &views[from]
	s := w.sites[w.index(v.Site)]
	w.call(o.place, s.n, 2*time.Second, func(reply func(any)) {
		if s.serves() {
			reply(true)
		}
	}, func(_ any, ok bool) {
		w.atPlace(o.place, func() {
			w.askings[o.name] = append(w.askings[o.name], asking{v.Site, w.now, ok})
			if ok && !w.opt.NoProbe {
				w.odd["probe answered"]++
				v.Answers = []string{"p"}
			} else {
				v.Silent = []string{"p"}
			}
			w.probe(o, views, from+1, then)
		})
	})
}

// serves tells whether clients are answered.
func (s *site) serves() bool {
	for _, app := range s.w.apps {
		if a := s.load(app); !s.alive || !a.running || !a.exposed {
			return false
		}
	}
	return true
}

// outlook is what the vault says of the plan.
type outlook struct {
	words  map[string]vantage.Word
	state  declare.State
	source string
	epoch  int64
}

func (w *world) outlook() outlook {
	n, holder := w.vault.newest(w.apps[0])
	o := outlook{words: w.words, source: w.sites[holder].name, epoch: n, state: declare.State{Vault: true}}
	for _, app := range w.apps {
		m, other := w.vault.newest(app)
		if other != holder {
			o.source = "" // no one site holds them
		}
		o.state.Moved = o.state.Moved || w.vault.epochs[app][m-1].request != "first"
	}
	for _, r := range w.runs {
		end, over := w.runEnds[r.spec.Run]
		switch {
		case !over:
			o.state.Running = r.spec.Run
		case !o.state.Ended || w.now-end < o.state.SinceRun:
			o.state.Ended, o.state.SinceRun = true, w.now-end
		}
	}
	if w.opt.Failback {
		o.state.Moved, o.state.Ended = false, false
	}
	return o
}

// look listens to the vantage points, and declares.
func (j *judge) look() {
	w := j.s.w
	j.s.atAgent(func() {
		w.ask(j.s.n, func() any { return w.outlook() }, func(x any, ok bool) {
			j.s.atAgent(func() {
				now := j.s.clock.Mono(w.now)
				o, is := x.(outlook)
				switch {
				case !ok || !is:
					if j.decider != nil {
						j.decider.Decide(now, declare.State{})
					}
					j.heard = append(j.heard, remark{at: now}) // a break
				case o.source != "" && o.source != j.s.name && j.s.name == w.next(o.source):
					j.decide(now, o)
				}
			})
		})
	})
}

// next is the site that takes over from a source.
func (w *world) next(source string) string {
	i := slices.IndexFunc(w.sites, func(s *site) bool { return s.name != source })
	return w.sites[i].name
}

func (j *judge) decide(now time.Duration, o outlook) {
	w := j.s.w
	if j.decider == nil || j.source != o.source {
		rule := declare.Rule{Vantages: watchers, Agree: 2, For: lostFor, Block: block, Fresh: vantage.Fresh}
		if w.opt.NoHysteresis {
			rule.For = 0
		}
		j.source, j.heard, j.decider = o.source, nil, declare.New(o.source, rule)
	}
	for _, name := range watchers {
		word, ok := o.words[name]
		s, sees := word.Sighting("p", o.source, w.probed)
		if !ok || !sees {
			continue
		}
		if s.Number > j.numbers[name] {
			j.numbers[name] = s.Number
			j.heard = append(j.heard, remark{now, name, s.View == declare.Lost})
		}
		j.decider.Hear(now, s)
		if w.opt.NoQuorum { // one vantage point speaks for all
			for _, other := range watchers {
				s.Vantage = other
				j.decider.Hear(now, s)
			}
		}
	}
	d := j.decider.Decide(now, o.state)
	if d.Agree {
		w.odd["they agree"]++
	}
	if d.Person && o.state.Moved {
		w.odd["not taken back"]++
	}
	if d.Declare {
		j.declare(now, o)
	}
}

// declare checks what must hold of every declaration, and orders the run.
func (j *judge) declare(now time.Duration, o outlook) {
	w := j.s.w
	w.odd["declared"]++
	w.log("%s declares %s lost", j.s.name, j.source)
	if n := w.agreed(j.heard, now); n < 2 {
		w.fail("%s declared %s lost, and %d vantage points had said so for %s", j.s.name, j.source, n, lostFor)
	}
	if n := len(watchers) - w.answered(j.source); n < 2 {
		w.fail("%s declared %s lost, and only %d vantage points had no answer of it", j.s.name, j.source, n)
	}
	if w.sites[w.index(j.source)].serves() {
		w.odd["declared while it ran"]++
	}
	if w.vault.epochs[w.apps[0]][o.epoch-1].request != "first" {
		w.fail("%s declared %s lost, to which the applications had come by a failover", j.s.name, j.source)
	}
	for run, end := range w.runEnds {
		if ago := w.now - end; ago < block-10*time.Second {
			w.fail("%s declared %s lost, and %s had ended %s before", j.s.name, j.source, run, ago)
		}
	}
	name := fmt.Sprintf("p-declared-%d", o.epoch)
	if slices.ContainsFunc(w.runs, func(r *run) bool { return r.spec.Run == name }) {
		return // it was ordered
	}
	steps, fence := w.steps(plan.Failover)
	lease := w.terms()
	fence.Lease, fence.Bound, fence.Drift = lease.Lease, lease.Bound, lease.Drift
	r := &run{spec: failover.Spec{
		Run: name, Plan: "p", Verb: plan.Failover, From: j.source, To: j.s.name, By: "declared", At: start.Add(w.now),
		Accept: failover.TimedOut, Applications: w.apps, Steps: steps, Fence: fence, Commit: plan.Commit{Then: plan.ThenCommit},
	}}
	w.runs = append(w.runs, r)
	w.launch(r, j.s.n)
}

// agreed is how many vantage points had said lost, without a break and never for
// longer silent than a word counts, for as long as they must. It goes by the log of
// what was heard, not by what the decider made of it.
func (w *world) agreed(heard []remark, now time.Duration) int {
	most := len(watchers)
	for at := now - lostFor; at <= now; at += time.Second {
		n := 0
		for _, name := range watchers {
			last := remark{}
			for _, r := range heard {
				if r.name == name && r.at <= at {
					last = r
				}
			}
			if last.lost && at-last.at < vantage.Fresh {
				n++
			}
		}
		most = min(most, n)
	}
	return most
}

// answered is how many vantage points had an answer of a site each time they asked,
// for as long as they must agree: none of them can have taken it for lost.
func (w *world) answered(source string) int {
	n := 0
	for _, name := range watchers {
		asked, all := 0, true
		for _, a := range w.askings[name] {
			if a.source == source && a.at > w.now-lostFor {
				asked++
				all = all && a.answered
			}
		}
		if asked >= 3 && all {
			n++
		}
	}
	return n
}
