// Package prediction says, from what was measured before, how long a run will
// take and how much it will lose. It promises nothing: without history it says
// so. Pure.
package prediction

import (
	"fmt"
	"slices"
	"time"
)

// Past is one run that came to its end well, as its journal measured it.
type Past struct {
	Run  string    `json:"run"`
	Plan string    `json:"plan"`
	Verb string    `json:"verb"`
	At   time.Time `json:"at"`
	// RTO is of each application, from when the run was asked for.
	RTO map[string]time.Duration `json:"rto"`
}

// Considered is how many runs are looked back at.
const Considered = 10

// RTO is how long bringing applications up will take.
type RTO struct {
	Known   bool          `json:"known"`
	Typical time.Duration `json:"typical,omitempty"` // the median
	Worst   time.Duration `json:"worst,omitempty"`   // of those looked back at
	Runs    int           `json:"runs,omitempty"`
	Last    time.Time     `json:"last,omitzero"`
	Basis   string        `json:"basis"` // in words
}

// bases are which runs say something of a verb, from the nearest. A drill
// restores and starts as a failover does, but claims, fences and moves nothing.
var bases = map[string][][]string{
	"failover":   {{"failover"}, {"switchover", "failback"}, {"drill"}},
	"switchover": {{"switchover", "failback"}, {"failover"}, {"drill"}},
	"failback":   {{"failback", "switchover"}, {"failover"}, {"drill"}},
	"drill":      {{"drill"}, {"failover"}, {"switchover", "failback"}},
}

// OfRun predicts a run of a plan for these applications: by runs of the plan and the
// verb if there are any, else of a verb that comes near. A run counts if it brought all of
// the applications up.
func OfRun(past []Past, plan, verb string, applications []string) RTO {
	for i, verbs := range bases[verb] {
		var times []time.Duration
		last := time.Time{}
		for _, p := range newest(past) {
			took, whole := p.longest(applications)
			if p.Plan != plan || !whole || !slices.Contains(verbs, p.Verb) || len(times) == Considered {
				continue
			}
			times = append(times, took)
			if p.At.After(last) {
				last = p.At
			}
		}
		if len(times) == 0 {
			continue
		}
		r := spread(times)
		r.Last, r.Basis = last, fmt.Sprintf("%d runs of the verb %s", len(times), verbs[0])
		if len(times) == 1 {
			r.Basis = "one run of the verb " + verbs[0]
		}
		if verbs[0] == "drill" && i > 0 {
			r.Basis += ", which claims, fences and moves nothing"
		}
		return r
	}
	return RTO{Basis: "no history"}
}

// OfCopies predicts from restore tests where no run ever was: how long the
// copies took until they worked, the slowest counting. All applications must have one.
func OfCopies(tests map[string][]time.Duration, applications []string) RTO {
	r := RTO{Known: len(applications) > 0, Basis: "restore tests of copies, one application at a time"}
	for _, app := range applications {
		if len(tests[app]) == 0 {
			return RTO{Basis: "no history"}
		}
		of := spread(tests[app])
		r.Typical, r.Worst, r.Runs = max(r.Typical, of.Typical), max(r.Worst, of.Worst), r.Runs+of.Runs
	}
	if !r.Known {
		return RTO{Basis: "no history"}
	}
	return r
}

func (p Past) longest(applications []string) (time.Duration, bool) {
	longest := time.Duration(0)
	for _, app := range applications {
		took := p.RTO[app]
		if took <= 0 {
			return 0, false
		}
		longest = max(longest, took)
	}
	return longest, len(applications) > 0
}

func newest(past []Past) []Past {
	sorted := slices.Clone(past)
	slices.SortStableFunc(sorted, func(a, b Past) int { return b.At.Compare(a.At) })
	return sorted
}

func spread(times []time.Duration) RTO {
	sorted := slices.Clone(times)
	slices.Sort(sorted)
	return RTO{Known: true, Typical: sorted[len(sorted)/2], Worst: sorted[len(sorted)-1], Runs: len(sorted)}
}

// RPO is how much work a disaster would cost: the longest that the newest
// point was old, shortly before the next one was there.
type RPO struct {
	Known   bool          `json:"known"`
	Typical time.Duration `json:"typical,omitempty"`
	Worst   time.Duration `json:"worst,omitempty"`
	Points  int           `json:"points,omitempty"`
	Basis   string        `json:"basis"`
}

// Point is a recovery point: when it was cut, and when it was whole in the vault.
type Point struct{ Instant, Whole time.Time }

// pointsConsidered is how many points are looked back at.
const pointsConsidered = 50

// OfPoints predicts from the cadence of the newest points. Just before a point
// is whole, all since the instant of the one before it would be lost. The time
// since the newest one counts as well: captures that stopped are no good cadence.
func OfPoints(points []Point, now time.Time) RPO {
	sorted := slices.Clone(points)
	slices.SortFunc(sorted, func(a, b Point) int { return a.Instant.Compare(b.Instant) })
	sorted = sorted[max(0, len(sorted)-pointsConsidered):]
	if len(sorted) < 2 {
		return RPO{Basis: "no history: fewer than two recovery points"}
	}
	var gaps []time.Duration
	for i := 1; i < len(sorted); i++ {
		whole := sorted[i].Whole
		if whole.Before(sorted[i].Instant) {
			whole = sorted[i].Instant
		}
		gaps = append(gaps, whole.Sub(sorted[i-1].Instant))
	}
	of := spread(gaps)
	return RPO{
		Known: true, Typical: of.Typical, Worst: max(of.Worst, now.Sub(sorted[len(sorted)-1].Instant)),
		Points: len(sorted), Basis: fmt.Sprintf("the newest %d recovery points", len(sorted)),
	}
}

// Against compares a prediction with an objective, in words. met is false only
// if both are known.
func Against(known bool, worst, objective time.Duration) (met bool, words string) {
	switch {
	case objective <= 0:
		return true, "no objective"
	case !known:
		return true, "not known whether it keeps the objective"
	case worst > objective:
		return false, "beyond the objective"
	}
	return true, "within the objective"
}
