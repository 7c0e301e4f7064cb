package order

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func byNumber(a, b Node) bool { return a < b }

func draw(t *rapid.T) (int, []Edge) {
	n := rapid.IntRange(1, 30).Draw(t, "nodes")
	node := rapid.Int32Range(0, int32(n-1))
	edges := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Edge {
		return Edge{
			From: node.Draw(t, "from"), To: node.Draw(t, "to"), Why: rapid.Uint8Range(0, 3).Draw(t, "why"),
			Strength: Strength(rapid.Uint8Range(0, uint8(Must)).Draw(t, "strength")),
		}
	}), 0, 80).Draw(t, "edges")
	return n, edges
}

// walk goes along the graph, taking the drawn one of what is ready, and
// returns the nodes in the order in which they were done.
func walk(t *rapid.T, g *Graph) (done []Node) {
	w := g.Walk()
	ready := w.Ready()
	for len(ready) > 0 {
		i := rapid.IntRange(0, len(ready)-1).Draw(t, "next")
		n := ready[i]
		ready = slices.Delete(ready, i, i+1)
		done = append(done, n)
		ready = append(ready, w.Done(n)...)
		if again := w.Done(n); len(again) > 0 {
			t.Fatalf("done twice: %v became ready again", again)
		}
	}
	return done
}

// Whatever the edges: every node is done once, after all that it needs, and
// each edge is either respected or reported as broken.
func TestWalkRespectsEveryEdge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, edges := draw(t)
		g, err := Build(n, edges, byNumber)
		if err != nil {
			t.Fatal(err)
		}
		done := walk(t, g)
		place := map[Node]int{}
		for i, v := range done {
			place[v] = i
		}
		if len(done) != n || len(place) != n {
			t.Fatalf("%d of %d nodes are done: %v", len(place), n, done)
		}
		broken := map[[2]Node]bool{}
		for _, e := range g.Broken() {
			broken[[2]Node{e.From, e.To}] = true
		}
		for _, e := range edges {
			if !broken[[2]Node{e.From, e.To}] && place[e.To] >= place[e.From] {
				t.Fatalf("%d is done before %d, which it needs", e.From, e.To)
			}
		}
		levels := g.Levels()
		for v := range Node(n) {
			for _, e := range g.Needs(v) {
				if levels[v] <= levels[e.To] {
					t.Fatalf("level of %d is %d, of %d, which it needs, %d", v, levels[v], e.To, levels[e.To])
				}
			}
		}
	})
}

// The order of the edges makes no difference, nor does saying one twice.
func TestSameEdgesSameGraph(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, edges := draw(t)
		a, _ := Build(n, edges, byNumber)
		b, _ := Build(n, append(rapid.Permutation(edges).Draw(t, "order"), edges...), byNumber)
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("%+v\n%+v", a, b)
		}
	})
}

// Without cycles nothing is given up.
func TestNothingIsBrokenWithoutCycle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, edges := draw(t)
		edges = slices.DeleteFunc(edges, func(e Edge) bool { return e.To >= e.From })
		g, _ := Build(n, edges, func(a, b Node) bool { return b < a })
		if len(g.Broken()) > 0 {
			t.Fatalf("broken: %v", g.Broken())
		}
	})
}

func TestWeakestIsGivenUp(t *testing.T) {
	for _, c := range []struct {
		name  string
		edges []Edge
		want  [][2]Node
	}{
		{"one of three", []Edge{{From: 0, To: 1, Strength: Must}, {From: 1, To: 2, Strength: Perhaps}, {From: 2, To: 0, Strength: Should}}, [][2]Node{{1, 2}}},
		{"of equal ones that against the order", []Edge{{From: 0, To: 1, Strength: Should}, {From: 1, To: 0, Strength: Should}}, [][2]Node{{0, 1}}},
		{"the weak one, though it leads along the order", []Edge{{From: 0, To: 1, Strength: Must}, {From: 1, To: 0, Strength: Perhaps}}, [][2]Node{{1, 0}}},
		{"itself", []Edge{{From: 2, To: 2, Strength: Must}}, [][2]Node{{2, 2}}},
		{"outside of the cycle nothing", []Edge{{From: 0, To: 1, Strength: Must}, {From: 1, To: 0, Strength: Should}, {From: 1, To: 2, Strength: Perhaps}}, [][2]Node{{1, 0}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := Build(3, c.edges, byNumber)
			if err != nil {
				t.Fatal(err)
			}
			var got [][2]Node
			for _, e := range g.Broken() {
				got = append(got, [2]Node{e.From, e.To})
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("broken %v, want %v", got, c.want)
			}
		})
	}
}

func TestEdgesThatDoNotFit(t *testing.T) {
	for _, e := range []Edge{{From: 3}, {To: 3}, {From: -1}, {Strength: strengths}} {
		if _, err := Build(3, []Edge{e}, byNumber); err == nil {
			t.Errorf("%+v is taken", e)
		}
	}
}

// A chain of 300,000, a cycle of as many, and a hub that all need: none takes
// a stack, and memory stays in proportion.
func TestLargeGraphs(t *testing.T) {
	const n = 300_000
	chain := make([]Edge, 0, n)
	for i := range Node(n - 1) {
		chain = append(chain, Edge{From: i, To: i + 1, Strength: Should})
	}
	hub := make([]Edge, 0, n)
	for i := range Node(n - 1) {
		hub = append(hub, Edge{From: i + 1, To: 0, Strength: Must})
	}
	for _, c := range []struct {
		name   string
		edges  []Edge
		broken int
		levels int32
	}{
		{"chain", chain, 0, n - 1},
		{"cycle", append(slices.Clone(chain), Edge{From: n - 1, To: 0, Strength: Perhaps}), 1, n - 1},
		{"hub", hub, 0, 1},
	} {
		g, err := Build(n, c.edges, byNumber)
		if err != nil {
			t.Fatal(err)
		}
		if levels := slices.Max(g.Levels()); len(g.Broken()) != c.broken || levels != c.levels {
			t.Errorf("%s: %d broken, %d levels", c.name, len(g.Broken()), levels)
		}
	}
}
