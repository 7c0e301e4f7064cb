// Package sequence says what each object of a recovery point waits for in a
// restore, and why: the rules behind the order. What it makes is a graph of
// objects, of gathering points such as "the volumes of shop", and of gates at
// which something outside has to be ready.
//
// An object waits for what it names. What may look at the API by itself, as an
// operator does, waits for all that its account's rights let it see. What may
// be a client of something, nobody knows which, waits for the volumes of its
// namespace. The annotation davit.dev/restore-order changes the place of one.
package sequence

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/order"
	"davit.dev/davit/internal/restore/shape"
)

// Hub is what a node is that is no object.
type Hub uint8

// The hubs. Gates are those at which something has to be done or waited for.
const (
	Gathered    Hub = iota // of a group of objects, nothing to do by itself
	Namespace              // gate: the namespace is there, though the point may not hold it
	Definitions            // gate: the kinds that the point defines are served
	Answering              // gate: what serves a Service of the point is ready
	Made                   // gate: all workloads are there, and what they need
	Ready                  // gate: all workloads are ready, or their time is over
)

// Group is what objects are to others, more roughly than their rank.
type Group uint8

// The groups.
const (
	Namespaces Group = iota
	Classes
	Configuration
	Volumes
	Network
	Customs
	Workloads
	Late   // whatever comes after the workloads by order
	Around // what looks at workloads, or is served by them
)

// String names the group for people.
func (g Group) String() string {
	return [...]string{"namespaces", "classes", "configuration", "volumes", "network", "custom resources", "workloads", "latecomers", "surroundings"}[g]
}

// Everywhere stands for all namespaces, and what is in none.
const Everywhere = "*"

// Point is one node that is no object.
type Point struct {
	Hub       Hub
	Group     Group  // of Gathered
	Namespace string // as captured; "" for what is in none, or Everywhere
	Service   string // of Answering
}

// Sequence is the order of one restore.
type Sequence struct {
	Graph   *order.Graph
	Entries []*index.Entry // the objects: nodes 0 to len-1, by Entry.Node
	Points  []Point        // the nodes after them
	// Named are objects that a workload or a claim names: they come first
	// where there are many of their kind.
	Named []bool
	// Members are the workloads behind each Answering gate.
	Members map[order.Node][]*index.Entry
	// Misplaced are objects whose annotation says what it cannot say.
	Misplaced []*index.Entry

	kinds []schema.GroupKind
}

// PointOf is the point behind a node that is no object.
func (s *Sequence) PointOf(n order.Node) (Point, bool) {
	if i := int(n) - len(s.Entries); i >= 0 {
		return s.Points[i], true
	}
	return Point{}, false
}

// KindOf is the kind of an object.
func (s *Sequence) KindOf(en *index.Entry) schema.GroupKind { return s.kinds[en.Res] }

// Build puts the objects of a point in order, and numbers its entries.
func Build(x *index.Index) (*Sequence, error) {
	b := newBuilder(x)
	b.number()
	b.resolve()
	for _, en := range b.s.Entries {
		b.place(en)
	}
	b.gather()
	g, err := order.Build(len(b.s.Entries)+len(b.s.Points), b.edges, b.before)
	if err != nil {
		return nil, fmt.Errorf("put the restore in order: %w", err)
	}
	b.s.Graph = g
	return b.s, nil
}

// before is the rough order, which decides within cycles.
func (b *builder) before(x, y order.Node) bool {
	return cmp.Or(cmp.Compare(b.rank(x), b.rank(y)), cmp.Compare(x, y)) < 0
}

func (b *builder) rank(n order.Node) shape.Rank {
	p, is := b.s.PointOf(n)
	if !is {
		return shape.RankOf(b.s.KindOf(b.s.Entries[n]))
	}
	switch p.Hub {
	case Namespace:
		return shape.RankNamespaces
	case Definitions:
		return shape.RankDefinitions
	case Answering, Made:
		return shape.RankWorkloads
	case Ready:
		return shape.RankServed
	}
	return [...]shape.Rank{
		shape.RankNamespaces, shape.RankClasses, shape.RankBindings, shape.RankClaims, shape.RankNetwork, shape.RankCustom, shape.RankWorkloads, shape.RankServed, shape.RankServed,
	}[p.Group]
}

// groupOf is the group of a rank; ok is false for those that have none.
func groupOf(r shape.Rank) (g Group, ok bool) {
	switch r {
	case shape.RankClasses:
		return Classes, true
	case shape.RankAccounts, shape.RankConfig, shape.RankRoles, shape.RankBindings:
		return Configuration, true
	case shape.RankClaims:
		return Volumes, true
	case shape.RankNetwork:
		return Network, true
	case shape.RankCustom:
		return Customs, true
	case shape.RankWorkloads:
		return Workloads, true
	case shape.RankAround:
		return Around, true
	}
	return 0, false
}

// gather ties every gathering point to what it stands for.
func (b *builder) gather() {
	all := b.hub(Point{Hub: Ready})
	b.need(all, b.hub(Point{Hub: Made}), whyReady)
	b.need(all, b.group(Namespaces, Everywhere), whyReady)
	for _, g := range []Group{Configuration, Volumes, Network, Customs, Workloads} {
		b.need(b.hub(Point{Hub: Made}), b.group(g, Everywhere), whyWhole)
	}
	for _, en := range b.s.Entries {
		b.joinGroup(en)
	}
	for i, p := range b.s.Points { // all are known now
		n := order.Node(len(b.s.Entries) + i)
		switch {
		case p.Hub == Namespace:
			b.need(b.group(Namespaces, Everywhere), n, whyPartStrictly)
			continue
		case p.Hub == Definitions:
			b.need(all, n, whyReady)
			continue
		case p.Hub != Gathered || p.Namespace == Everywhere:
			continue
		}
		b.need(all, n, whyReady)
		if everywhere, known := b.points[Point{Hub: Gathered, Group: p.Group, Namespace: Everywhere}]; known {
			b.need(everywhere, n, max(partOf(p.Group), whyWhole)) // where a cycle is broken, single objects give way
		}
		if p.Group == Late {
			b.need(b.hub(Point{Hub: Made}), n, whyPart)
		}
	}
}

// joinGroup makes an object part of its group in its namespace.
func (b *builder) joinGroup(en *index.Entry) {
	g, ok := groupOf(shape.RankOf(b.s.KindOf(en)))
	if !ok {
		return
	}
	if b.late[en] != 0 {
		g = Late
	}
	b.need(b.group(g, en.Namespace), en.Node, partOf(g))
}

// partOf is why a group waits for its parts. Volumes that are not filled do
// harm; the rest may matter to whoever waits for all of the group.
func partOf(g Group) uint8 {
	if g == Volumes || g == Classes {
		return whyPartStrictly
	}
	return whyPart
}

// Levels returns all nodes, those that may begin first in front.
func (s *Sequence) Levels() ([]order.Node, []int32) {
	levels := s.Graph.Levels()
	nodes := make([]order.Node, len(levels))
	for i := range nodes {
		nodes[i] = order.Node(i)
	}
	slices.SortStableFunc(nodes, func(a, b order.Node) int { return cmp.Compare(levels[a], levels[b]) })
	return nodes, levels
}
