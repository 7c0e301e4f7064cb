package rehearse

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"davit.dev/davit/internal/restore/report"
)

// The parts of a plan, one after the other.
const (
	Suspended = iota
	Restored
	Pruned
	LeftOut
)

// Notes collect what a restore decides. A nil one, which is every real
// restore's, forgets it.
type Notes struct {
	mu  sync.Mutex
	all map[string]note // by object
}

type note struct {
	report.Planned
	part  int
	place int
}

// NewNotes begins a plan.
func NewNotes() *Notes { return &Notes{all: map[string]note{}} }

// Note says what is done with an object, or what is after all; place is where
// it stands in its part.
func (n *Notes) Note(part, place int, p report.Planned) {
	if n == nil {
		return
	}
	if p.Action == report.SkipIt && p.Reason == "" {
		p.Action = report.Unchanged
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all[p.Object] = note{p, part, place}
}

// Plan returns all notes in the order of the restore, with what it warned of
// and with the differences, by object.
func (n *Notes) Plan(warnings []report.Problem, diffs map[string]string) []report.Planned {
	n.mu.Lock()
	defer n.mu.Unlock()
	var general []report.Planned
	for _, w := range warnings {
		if w.Object == "" {
			general = append(general, report.Planned{Object: "(all)", Action: report.SkipIt, Reason: w.Message})
		}
		if p, ok := n.all[w.Object]; ok && p.Reason == "" {
			p.Reason = w.Message
			n.all[w.Object] = p
		}
	}
	sorted := slices.SortedFunc(maps.Values(n.all), func(a, b note) int {
		return cmp.Or(cmp.Compare(a.part, b.part), cmp.Compare(a.place, b.place), cmp.Compare(a.Object, b.Object))
	})
	plan := make([]report.Planned, 0, len(sorted))
	for _, p := range sorted {
		p.Diff = diffs[p.Object]
		plan = append(plan, p.Planned)
	}
	return append(plan, general...)
}
