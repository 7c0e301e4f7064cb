// Package declare decides when a site counts as lost without a person saying
// so. It is pure: what vantage points saw goes in with the time at which it was
// heard, a decision comes out. Clocks of different processes are not compared.
//
// Sightings come from package vantage; the agent of the site that would take over
// declares by what follows.
package declare

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// View is what a vantage point makes of a site.
type View string

// The views.
const (
	Blind View = "blind" // it cannot tell: the vault does not answer it
	Alive View = "alive"
	Lost  View = "lost"
)

// Observation is what a vantage point knows when it looks.
type Observation struct {
	// Vault says that the vault answered it just now.
	Vault bool
	// HeartAge is for how long, by its own clock, it has seen no new sign of life
	// of the site in the vault.
	HeartAge time.Duration
	// Serves says that the site answered it, directly, that it is active.
	Serves bool
}

// Look is the view that follows. A site whose heart is silent for silent or
// longer, and that serves nobody, is lost. That a site answers is not enough to
// say more than that it lives.
func (o Observation) Look(silent time.Duration) View {
	switch {
	case o.Serves:
		return Alive
	case !o.Vault: // nobody's heart reaches it
		return Blind
	case o.HeartAge < silent:
		return Alive
	}
	return Lost
}

// Sighting is a view that a vantage point published. Number grows with each of
// a vantage point's sightings.
type Sighting struct {
	Vantage string
	Site    string
	Number  int64
	View    View
	Why     string
	// Age is how long ago it was heard, where whoever listens had to wait before it was taken in.
	Age time.Duration
}

// Rule is a plan's.
type Rule struct {
	Vantages []string
	Agree    int
	For      time.Duration // how long they must agree without a break
	Block    time.Duration // how long nothing is declared after a run
	// Fresh is how long a sighting counts from when it was heard. For must be longer:
	// else what was said before a silence would do.
	Fresh time.Duration
}

// State is what else decides, as the site that would take over knows it.
type State struct {
	// Vault says that the vault answers this site: without it nothing can be
	// claimed, and what was heard may be old.
	Vault bool
	// Running is a run of the plan, or that shares applications, that is not over.
	Running string
	// Ended says that there was a run, and SinceRun how long ago the last ended.
	Ended    bool
	SinceRun time.Duration
	// Approvals says that people must agree to a failover.
	Approvals bool
	// Moved says that the applications came to their site by a failover, and that no
	// person has armed the plan since. Going back is never automatic.
	Moved bool
	// Unleased are applications whose holder keeps no lease: no wait would prove
	// that it has stopped.
	Unleased []string
	// Late are applications whose newest recovery point loses more than the
	// plan's RPO allows.
	Late []string
}

// Decision is what is to be done.
type Decision struct {
	Declare bool
	// Person says that the vantage points agree, and that a person must decide
	// all the same. Why says what is waited for, or who agreed.
	Person bool
	// Agree says that enough vantage points say lost, and Due how long they must
	// go on to.
	Agree bool
	Due   time.Duration
	Why   string
}

// heard is the newest sighting of a vantage point, and when it came.
type heard struct {
	Sighting
	at time.Duration
	// undated says that it is the first one heard: nobody knows how old it is, and
	// whether its vantage point still speaks.
	undated bool
}

// Decider watches one site for one plan. Times are those of one clock that
// never jumps.
type Decider struct {
	rule  Rule
	need  int // of the vantage points must agree: never fewer than more than half
	site  string
	seen  map[string]heard
	since time.Duration // when they began to agree
	agree bool
}

// New makes a Decider. Whoever starts anew has heard nothing: they must agree
// for all of the time again.
func New(site string, r Rule) *Decider {
	return &Decider{rule: r, need: max(r.Agree, len(r.Vantages)/2+1, 2), site: site, seen: map[string]heard{}}
}

// Hear takes a sighting in. Those of others, of other sites, and older ones
// than what was heard are nothing. The first of a vantage point does not count:
// it may have been said long ago, by one that is no more.
func (d *Decider) Hear(now time.Duration, s Sighting) {
	if s.Site != d.site || !slices.Contains(d.rule.Vantages, s.Vantage) || s.Number <= d.seen[s.Vantage].Number {
		return
	}
	d.settle(now) // what was fresh until now may have become old before
	_, spoke := d.seen[s.Vantage]
	d.seen[s.Vantage] = heard{s, now - max(s.Age, 0), !spoke}
	d.settle(now)
}

// fresh is what a vantage point said last; false if that does not count.
func (d *Decider) fresh(now time.Duration, name string) (heard, bool) {
	h, ok := d.seen[name]
	return h, ok && !h.undated && now-h.at < d.rule.Fresh
}

// votes are the vantage points that say lost, and are fresh.
func (d *Decider) votes(now time.Duration) (lost []string) {
	for name := range d.seen {
		if h, fresh := d.fresh(now, name); fresh && h.View == Lost {
			lost = append(lost, name)
		}
	}
	slices.Sort(lost)
	return lost
}

// settle notes whether they agree now. Agreement that lapsed, if only between two
// looks, begins anew.
func (d *Decider) settle(now time.Duration) {
	lost := d.votes(now)
	if len(lost) < d.need {
		d.agree = false
		return
	}
	if !d.agree {
		d.agree, d.since = true, now
	}
}

// Decide says what is to be done now.
func (d *Decider) Decide(now time.Duration, s State) Decision {
	if !s.Vault { // a break: what the others say does not arrive
		d.agree = false
		return Decision{Why: "the vault does not answer this site"}
	}
	d.settle(now)
	lost := d.votes(now)
	switch {
	case !d.agree:
		return Decision{Why: fmt.Sprintf("%d of %d vantage points say that site %s is lost, %d must: %s", len(lost), len(d.rule.Vantages), d.site, d.need, d.views(now))}
	case now-d.since < d.rule.For:
		return Decision{Agree: true, Due: d.rule.For - (now - d.since), Why: fmt.Sprintf("site %s is lost for %s, and must be for %s: %s", d.site, now-d.since, d.rule.For, d.views(now))}
	}
	if why := s.Missing(); why != "" {
		return Decision{Person: true, Agree: true, Why: why}
	}
	switch {
	case s.Running != "":
		return Decision{Agree: true, Why: "run " + s.Running + " is not over"}
	case s.Ended && s.SinceRun < d.rule.Block:
		return Decision{Person: true, Agree: true, Why: fmt.Sprintf("a run ended %s ago, and nothing is declared for %s after one", s.SinceRun, d.rule.Block)}
	}
	return Decision{Declare: true, Agree: true, Why: d.views(now)}
}

// Missing says why a person must decide, whatever is seen; empty if none need.
func (s State) Missing() string {
	switch {
	case s.Approvals:
		return "the plan asks people to approve a failover"
	case s.Moved:
		return "the applications came here by a failover: going back is never automatic"
	case len(s.Unleased) > 0:
		return "nothing would prove that the site has stopped: no lease of " + strings.Join(s.Unleased, ", ") + " is kept there"
	case len(s.Late) > 0:
		return "the newest recovery point loses more than the plan's RPO allows: " + strings.Join(s.Late, ", ")
	}
	return ""
}

// Need is how many vantage points must agree.
func (d *Decider) Need() int { return d.need }

// Silent are the vantage points of which nothing was heard that still counts.
func (d *Decider) Silent(now time.Duration) []string {
	var all []string
	for _, name := range d.rule.Vantages {
		if _, fresh := d.fresh(now, name); !fresh {
			all = append(all, name)
		}
	}
	return all
}

// View is what a vantage point said last, if that still counts.
func (d *Decider) View(now time.Duration, name string) (view View, why string, fresh bool) {
	h, fresh := d.fresh(now, name)
	return h.View, h.Why, fresh
}

// views says what each vantage point sees.
func (d *Decider) views(now time.Duration) string {
	all := make([]string, 0, len(d.rule.Vantages))
	for _, name := range d.rule.Vantages {
		h, fresh := d.fresh(now, name)
		view := string(h.View)
		if !fresh {
			view = "silent"
		}
		text := name + ": " + view
		if h.Why != "" && view != "silent" {
			text += " (" + h.Why + ")"
		}
		all = append(all, text)
	}
	slices.SortFunc(all, cmp.Compare[string])
	return strings.Join(all, ", ")
}
