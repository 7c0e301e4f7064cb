package sequence

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/order"
	"davit.dev/davit/internal/restore/shape"
)

// Drawing is an order for people. Objects that nobody names and that wait for
// the same are drawn as one where there are more than a few.
type Drawing struct {
	// Nodes are in the order in which they may begin.
	Nodes []Node `json:"nodes"`
	// Broken are the needs that formed cycles and are not waited for.
	Broken []Broken `json:"broken,omitempty"`
	// Problems are annotations that cannot be followed.
	Problems []string `json:"problems,omitempty"`
}

// Node is one object, one group of them, or a point between them.
type Node struct {
	Name    string `json:"name"`
	Objects int    `json:"objects,omitempty"` // 0 for what is no object
	// Wave is how many others at the least come one after the other before it.
	Wave  int    `json:"wave"`
	After []Wait `json:"after,omitempty"`
}

// Wait is what a node waits for, and why.
type Wait struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// Broken is a need that is not respected.
type Broken struct {
	Name string `json:"name"`
	Wait
}

// few objects are drawn one by one.
const few = 3

// Draw draws the order; object names an object as it is called at the target.
func (s *Sequence) Draw(object func(*index.Entry) string) Drawing {
	nodes, levels := s.Levels()
	p := painter{s: s, object: object, crowds: map[string]int{}}
	for n := range s.Entries {
		p.crowds[p.crowd(order.Node(n))]++
	}
	d := Drawing{Problems: s.Problems()}
	drawn := map[string]bool{}
	for _, n := range nodes {
		name, objects := p.name(n)
		if s.empty(n) || drawn[name] {
			continue
		}
		drawn[name] = true
		d.Nodes = append(d.Nodes, Node{Name: name, Objects: objects, Wave: int(levels[n]), After: p.waits(n)})
	}
	for _, e := range s.Graph.Broken() {
		from, _ := p.name(e.From)
		to, _ := p.name(e.To)
		d.Broken = append(d.Broken, Broken{from, Wait{to, s.Reason(e)}})
	}
	return d
}

// painter names what is drawn.
type painter struct {
	s      *Sequence
	object func(*index.Entry) string
	crowds map[string]int // objects that are drawn as one
}

// name is what a node is drawn as, and for how many objects that stands.
func (p painter) name(n order.Node) (string, int) {
	if int(n) >= len(p.s.Entries) {
		return p.s.Name(n, p.object), 0
	}
	count := p.crowds[p.crowd(n)]
	if count <= few {
		return p.s.Name(n, p.object), 1
	}
	en := p.s.Entries[n]
	name := fmt.Sprintf("%d of %s", count, p.s.KindOf(en))
	if en.Namespace != "" {
		name += " in " + en.Namespace
	}
	return name + p.first(n), count
}

// first tells crowds of one kind and namespace apart, by what they wait for.
func (p painter) first(n order.Node) string {
	for _, e := range p.s.Graph.Needs(n) {
		if int(e.To) < len(p.s.Entries) {
			return " after " + p.s.Name(e.To, p.object)
		}
	}
	return ""
}

// waits are the needs of a node that say something.
func (p painter) waits(n order.Node) (all []Wait) {
	seen := map[Wait]bool{}
	for _, e := range p.s.Graph.Needs(n) {
		if p.s.empty(e.To) {
			continue
		}
		name, _ := p.name(e.To)
		if w := (Wait{name, p.s.Reason(e)}); !seen[w] {
			seen[w] = true
			all = append(all, w)
		}
	}
	return all
}

// empty tells whether a node stands for nothing.
func (s *Sequence) empty(n order.Node) bool {
	p, is := s.PointOf(n)
	if !is || p.Hub != Gathered {
		return false
	}
	return !slices.ContainsFunc(s.Graph.Needs(n), func(e order.Edge) bool { return !s.empty(e.To) })
}

// crowd is equal for objects that are drawn as one: those that no object
// needs, and that wait for the same.
func (p painter) crowd(n order.Node) string {
	for _, by := range p.s.Graph.NeededBy(n) {
		if point, is := p.s.PointOf(by); !is || point.Hub == Answering {
			return fmt.Sprint(n)
		}
	}
	en := p.s.Entries[n]
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", p.s.KindOf(en), en.Namespace)
	for _, e := range p.s.Graph.Needs(n) {
		fmt.Fprintf(&b, " %d", e.To)
	}
	return b.String()
}

// DOT is the drawing for Graphviz: arrows lead from what comes first.
func (d Drawing) DOT() string {
	var b strings.Builder
	b.WriteString("digraph restore {\n  rankdir=LR; node [shape=box, fontname=sans]; edge [fontname=sans, fontsize=9];\n")
	for _, n := range d.Nodes {
		style := ""
		if n.Objects == 0 {
			style = ", style=rounded"
		}
		fmt.Fprintf(&b, "  %q [label=%q%s];\n", n.Name, n.Name, style)
	}
	for _, n := range d.Nodes {
		for _, w := range n.After {
			fmt.Fprintf(&b, "  %q -> %q [label=%q];\n", w.Name, n.Name, w.Why)
		}
	}
	for _, x := range d.Broken {
		fmt.Fprintf(&b, "  %q -> %q [label=%q, style=dashed, color=red];\n", x.Wait.Name, x.Name, x.Why+" (given up: a cycle)")
	}
	b.WriteString("}\n")
	return b.String()
}

// Rows are the drawing as a table: wave, object, what it waits for.
func (d Drawing) Rows() (rows [][]string) {
	for _, n := range d.Nodes {
		after := slices.Clone(n.After)
		slices.SortStableFunc(after, func(a, b Wait) int { return cmp.Compare(a.Why, b.Why) })
		wave, name := fmt.Sprint(n.Wave), n.Name
		if len(after) == 0 {
			rows = append(rows, []string{wave, name, ""})
		}
		for i := 0; i < len(after); {
			var names []string
			why := after[i].Why
			for ; i < len(after) && after[i].Why == why; i++ {
				names = append(names, after[i].Name)
			}
			rows = append(rows, []string{wave, name, shape.Names(names, few) + " (" + why + ")"})
			wave, name = "", ""
		}
	}
	return rows
}
