package vantage

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"davit.dev/davit/internal/declare"
	"davit.dev/davit/internal/plan"
)

// Times of vantage points.
const (
	// Every is how often a vantage point looks and says what it sees.
	Every = 5 * time.Second
	// Silent is how long a site must give no sign of life to be lost.
	Silent = 30 * time.Second
	// Fresh is how long a word counts.
	Fresh = plan.Fresh
	// gap is how long may lie between two looks: silence that nobody watched
	// is not the site's.
	gap = 3 * Every
	// patience is how long plans, the words of others, and answers to probes may take
	// each: what gives the sign of life comes after them.
	patience = 4 * time.Second
	// yield is how long a process that serves the same name must have been
	// silent before this one speaks.
	yield = 12 * time.Second
)

// heart is what is known of one site's signs of life.
type heart struct {
	number int64
	since  time.Duration // of the last new one, or when this one began to watch
	beaten bool          // there was one since
	here   bool          // the vault held one at the last look
}

// Watch keeps how long sites gave no sign of life. Times are those of one clock
// that never jumps.
type Watch struct {
	hearts map[string]*heart
	last   time.Duration
	begun  bool
}

// NewWatch makes a Watch that has seen nothing yet.
func NewWatch() *Watch { return &Watch{hearts: map[string]*heart{}} }

// Miss says that the vault did not answer: whose silence it was nobody knows.
func (w *Watch) Miss() { w.begun = false }

// Look takes in what the vault held.
func (w *Watch) Look(now time.Duration, words map[string]Word) {
	if !w.begun || now-w.last > gap {
		for _, h := range w.hearts {
			h.since, h.beaten = now, false
		}
	}
	w.begun, w.last = true, now
	for _, h := range w.hearts {
		h.here = false
	}
	for name, word := range words {
		if word.Cluster == "" {
			continue
		}
		h := w.hearts[name]
		if h == nil {
			h = &heart{number: word.Number, since: now} // it may be old
			w.hearts[name] = h
		}
		h.here = true
		if word.Number > h.number {
			h.number, h.since, h.beaten = word.Number, now, true
		}
	}
}

// Views are what follows for each site but the watcher's own.
func (w *Watch) Views(now time.Duration, self string) []View {
	var all []View
	for _, name := range slices.Sorted(maps.Keys(w.hearts)) {
		h := w.hearts[name]
		if name == self || !w.begun || !h.here {
			continue
		}
		age := now - h.since
		seen := h.beaten || age >= Silent // until then nothing is known of it
		v := View{Site: name, View: declare.Observation{Vault: seen, HeartAge: age}.Look(Silent)}
		switch v.View {
		case declare.Lost:
			v.Why = fmt.Sprintf("no sign of life for %s or longer", Silent)
		case declare.Blind:
			v.Why = "it began to watch, or could not reach the vault, a moment ago"
		case declare.Alive:
		}
		all = append(all, v)
	}
	return all[:min(len(all), maxViews)]
}
