package sequence

import (
	"davit.dev/davit/internal/restore/order"
	"davit.dev/davit/internal/restore/shape"
)

// Stage is how far a restore goes.
type Stage uint8

// The stages, each with all of those before it.
const (
	Whole   Stage = iota // to the end
	Data                 // claims and their data, and what these need
	Objects              // all but workloads, and what waits for them
)

// Within tells which nodes a restore up to a stage does. What one needs is
// within whenever it is itself.
func (s *Sequence) Within(to Stage) func(order.Node) bool {
	if to == Whole {
		return func(order.Node) bool { return true }
	}
	within := make([]bool, s.Graph.Len())
	nodes, _ := s.Levels()
	if to == Objects {
		for _, n := range nodes {
			within[n] = !s.workload(n)
			for _, e := range s.Graph.Needs(n) {
				within[n] = within[n] && within[e.To]
			}
		}
		return func(n order.Node) bool { return within[n] }
	}
	for i := len(nodes) - 1; i >= 0; i-- { // from the last to the first, so that what is needed follows
		n := nodes[i]
		if int(n) < len(s.Entries) && s.KindOf(s.Entries[n]) == shape.KindClaim {
			within[n] = true
		}
		if within[n] {
			for _, e := range s.Graph.Needs(n) {
				within[e.To] = true
			}
		}
	}
	return func(n order.Node) bool { return within[n] }
}

// workload tells whether something is started at a node.
func (s *Sequence) workload(n order.Node) bool {
	if p, is := s.PointOf(n); is {
		return p.Hub == Made || p.Hub == Ready || p.Hub == Answering
	}
	return shape.RankOf(s.KindOf(s.Entries[n])) >= shape.RankWorkloads
}
