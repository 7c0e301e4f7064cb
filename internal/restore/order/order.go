// Package order puts what a restore does in order: a graph of what each node
// needs, whose cycles are broken knowingly, and a walk along it on which a node
// may begin as soon as what it needs is done.
//
// It is pure: it knows numbers, not objects. The same edges give the same
// graph, in whatever order they were added, and the same cycles are broken at
// the same places. A node costs some tens of bytes, and an edge some twenty.
package order

import (
	"cmp"
	"fmt"
	"slices"
)

// Node is a number from 0 on.
type Node = int32

// Strength says what is lost when a need is not respected. Where needs form a
// cycle, the weakest of them are given up.
type Strength uint8

// The strengths, from the weakest on.
const (
	// Perhaps: it may matter, as what an operator might look for.
	Perhaps Strength = iota
	// Should: it would be done in vain, or again.
	Should
	// Must: it would be refused, or do harm.
	Must
	strengths
)

// Edge says that From needs To.
type Edge struct {
	From, To Node
	Why      uint8 // the caller's own number of the reason
	Strength Strength
}

// Graph is what everything needs, without cycles.
type Graph struct {
	edges  []Edge  // sorted by From
	from   []int32 // where the edges of a node begin; one more than there are nodes
	into   []Node  // who needs a node, sorted by what is needed
	intoAt []int32
	broken []Edge
}

// Build makes the graph of nodes 0 to n-1. before tells which of two nodes of
// a cycle comes first where nothing else decides; it must be a strict total
// order, and is only asked about nodes of cycles.
func Build(n int, edges []Edge, before func(a, b Node) bool) (*Graph, error) {
	for _, e := range edges {
		if e.From < 0 || e.To < 0 || int(e.From) >= n || int(e.To) >= n || e.Strength >= strengths {
			return nil, fmt.Errorf("order %d nodes: edge from %d to %d of strength %d does not fit", n, e.From, e.To, e.Strength)
		}
	}
	g := &Graph{}
	g.set(n, unique(edges))
	for s := Perhaps; s < strengths; s++ {
		for _, all := range []bool{false, true} {
			if !g.cut(n, s, all, before) {
				return g, nil
			}
		}
	}
	return g, nil
}

// unique sorts the edges, and keeps the strongest of those between two nodes.
func unique(edges []Edge) []Edge {
	edges = slices.Clone(edges)
	slices.SortFunc(edges, func(a, b Edge) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(b.Strength, a.Strength), cmp.Compare(a.Why, b.Why))
	})
	return slices.CompactFunc(edges, func(a, b Edge) bool { return a.From == b.From && a.To == b.To })
}

// cut takes edges of one strength out of the cycles: those that lead against
// before, or all of them. It tells whether there were cycles at all.
func (g *Graph) cut(n int, s Strength, all bool, before func(a, b Node) bool) (cyclic bool) {
	group := g.cycles(n)
	kept := g.edges[:0:0]
	var gone []Edge
	for _, e := range g.edges {
		inside := e.From == e.To || group[e.From] == group[e.To]
		cyclic = cyclic || inside
		if inside && e.Strength == s && (all || e.From == e.To || before(e.From, e.To)) {
			gone = append(gone, e)
			continue
		}
		kept = append(kept, e)
	}
	if len(gone) > 0 {
		g.broken = append(g.broken, gone...)
		g.set(n, kept)
	}
	return cyclic
}

// set takes the edges, which are sorted by From, and finds them both ways.
func (g *Graph) set(n int, edges []Edge) {
	g.edges = edges
	g.from, g.intoAt = make([]int32, n+1), make([]int32, n+1)
	for _, e := range edges {
		g.from[e.From+1]++
		g.intoAt[e.To+1]++
	}
	for i := range n {
		g.from[i+1] += g.from[i]
		g.intoAt[i+1] += g.intoAt[i]
	}
	g.into = make([]Node, len(edges))
	next := slices.Clone(g.intoAt)
	for _, e := range edges {
		g.into[next[e.To]] = e.From
		next[e.To]++
	}
}

// cycles gives the nodes that lie on common cycles the same number. It is
// Tarjan's algorithm, with a stack of its own: outside data may nest deeply.
func (g *Graph) cycles(n int) (group []int32) {
	group = make([]int32, n)
	var (
		index = make([]int32, n) // 0: not seen yet
		low   = make([]int32, n)
		at    = slices.Clone(g.from[:n]) // the next edge to look at
		open  = make([]bool, n)
		stack []Node // of nodes whose group is not known yet
		path  []Node
		seen  int32
	)
	enter := func(v Node) {
		seen++
		index[v], low[v], open[v] = seen, seen, true
		stack, path = append(stack, v), append(path, v)
	}
	for root := range Node(n) {
		if index[root] == 0 {
			enter(root)
		}
		for len(path) > 0 {
			v := path[len(path)-1]
			if at[v] < g.from[v+1] {
				to := g.edges[at[v]].To
				at[v]++
				if index[to] == 0 {
					enter(to)
				} else if open[to] {
					low[v] = min(low[v], index[to])
				}
				continue
			}
			path = path[:len(path)-1]
			if len(path) > 0 {
				up := path[len(path)-1]
				low[up] = min(low[up], low[v])
			}
			if low[v] < index[v] {
				continue
			}
			for w := Node(-1); w != v; {
				w = stack[len(stack)-1]
				stack, open[w], group[w] = stack[:len(stack)-1], false, v
			}
		}
	}
	return group
}

// Len is how many nodes there are.
func (g *Graph) Len() int { return len(g.from) - 1 }

// Needs are what a node needs, sorted.
func (g *Graph) Needs(n Node) []Edge { return g.edges[g.from[n]:g.from[n+1]] }

// NeededBy are the nodes that need one.
func (g *Graph) NeededBy(n Node) []Node { return g.into[g.intoAt[n]:g.intoAt[n+1]] }

// Broken are the needs that are not respected, because they were part of cycles.
func (g *Graph) Broken() []Edge { return g.broken }

// Levels are how many nodes stand above each at the least: 0 needs nothing.
func (g *Graph) Levels() []int32 {
	levels := make([]int32, g.Len())
	w := g.Walk()
	for ready := w.Ready(); len(ready) > 0; {
		n := ready[0]
		ready = ready[1:]
		for _, to := range g.NeededBy(n) {
			levels[to] = max(levels[to], levels[n]+1)
		}
		ready = append(ready, w.Done(n)...)
	}
	return levels
}

// Walk is one way along a graph. It is for one goroutine at a time.
type Walk struct {
	g    *Graph
	left []int32 // how many needs of a node are not done; -1 when itself is
}

// Walk begins at the beginning.
func (g *Graph) Walk() *Walk {
	w := &Walk{g: g, left: make([]int32, g.Len())}
	for n := range w.left {
		w.left[n] = g.from[n+1] - g.from[n]
	}
	return w
}

// Ready are the nodes that need nothing more and are not done.
func (w *Walk) Ready() (ready []Node) {
	for n, left := range w.left {
		if left == 0 {
			ready = append(ready, Node(n))
		}
	}
	return ready
}

// Done says that a node is done, whatever came of it, and returns those that
// may begin because of it. A second time changes nothing.
func (w *Walk) Done(n Node) (ready []Node) {
	if w.left[n] < 0 {
		return nil
	}
	w.left[n] = -1
	for _, to := range w.g.NeededBy(n) {
		if w.left[to]--; w.left[to] == 0 {
			ready = append(ready, to)
		}
	}
	return ready
}

// IsDone tells whether a node is done.
func (w *Walk) IsDone(n Node) bool { return w.left[n] < 0 }
