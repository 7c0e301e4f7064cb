package plan

import (
	"fmt"
	"html"
	"slices"
	"strings"
	"time"
)

// Text draws the graph for terminals: a wave a paragraph, a step a line.
func (g *Graph) Text() string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s of %s: %d steps in %d waves\n", g.Verb, g.Plan, len(g.Steps), len(g.Waves))
	for i, wave := range g.Waves {
		fmt.Fprintf(&w, "\nwave %d\n", i+1)
		for _, n := range wave {
			s := g.Steps[n]
			fmt.Fprintf(&w, "  %-28s %-6s  %-8s on error %-8s", s.Name, s.Side, span(s.Timeout), s.OnError)
			if marks := s.marks(); marks != "" {
				fmt.Fprintf(&w, "  [%s]", marks)
			}
			if len(s.After) > 0 {
				fmt.Fprintf(&w, "  after %s", strings.Join(s.After, ", "))
			}
			w.WriteString("\n")
		}
	}
	return w.String()
}

// marks is what people should know of a step besides its order.
func (s Step) marks() string {
	var m []string
	if s.Activates() {
		m = append(m, "after the fence")
	}
	if s.NoWayBack {
		m = append(m, "no way back")
	}
	if s.Asks() {
		m = append(m, "asks a person")
	}
	return strings.Join(m, ", ")
}

// DOT draws the graph for Graphviz.
func (g *Graph) DOT() string {
	var w strings.Builder
	fmt.Fprintf(&w, "digraph %q {\n  rankdir=LR;\n  node [shape=box];\n", g.Plan+" "+string(g.Verb))
	for _, wave := range g.Waves {
		w.WriteString("  { rank=same;")
		for _, n := range wave {
			s := g.Steps[n]
			fmt.Fprintf(&w, " %q [label=%q%s];", s.Name, s.Name+"\n"+span(s.Timeout), dotStyle(s))
		}
		w.WriteString(" }\n")
	}
	for _, s := range g.Steps {
		for _, after := range s.After {
			fmt.Fprintf(&w, "  %q -> %q;\n", after, s.Name)
		}
	}
	w.WriteString("}\n")
	return w.String()
}

func dotStyle(s Step) string {
	switch {
	case s.NoWayBack:
		return ` color="red"`
	case s.Activates():
		return ` style="bold"`
	case s.Side == Source:
		return ` style="dashed"`
	}
	return ""
}

// The picture's measures, in pixels.
const (
	boxWide, boxHigh = 190, 40
	gapWide, gapHigh = 70, 16
	margin           = 20
)

// SVG draws the graph by itself: a wave a column, in each the steps in the
// order of the middle of what they wait for, so that few lines cross.
func (g *Graph) SVG() string {
	at, rows := g.layout()
	var w strings.Builder
	wide := 2*margin + len(g.Waves)*(boxWide+gapWide) - gapWide
	high := 2*margin + 30 + rows*(boxHigh+gapHigh)
	fmt.Fprintf(&w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", wide, high, wide, high)
	fmt.Fprintf(&w, `<rect width="100%%" height="100%%" fill="#ffffff"/><text x="%d" y="%d" font-size="15">%s of %s</text>`+"\n", margin, margin+10, html.EscapeString(string(g.Verb)), html.EscapeString(g.Plan))
	for _, s := range g.Steps {
		to := at[s.Name]
		for _, after := range s.After {
			from := at[after]
			x1, y1, x2, y2 := from.x+boxWide, from.y+boxHigh/2, to.x, to.y+boxHigh/2
			fmt.Fprintf(&w, `<path d="M%d %d C%d %d %d %d %d %d" fill="none" stroke="#8a93a0"/>`+"\n", x1, y1, x1+gapWide/2, y1, x2-gapWide/2, y2, x2, y2)
		}
	}
	for _, s := range g.Steps {
		p := at[s.Name]
		fill, stroke := svgColours(s)
		fmt.Fprintf(&w, `<g><title>%s</title><rect x="%d" y="%d" width="%d" height="%d" rx="5" fill="%s" stroke="%s"/>`, html.EscapeString(s.tip()), p.x, p.y, boxWide, boxHigh, fill, stroke)
		fmt.Fprintf(&w, `<text x="%d" y="%d">%s</text><text x="%d" y="%d" fill="#5a6472">%s, %s</text></g>`+"\n", p.x+8, p.y+17, html.EscapeString(short(s.Name)), p.x+8, p.y+32, s.Side, span(s.Timeout))
	}
	w.WriteString("</svg>\n")
	return w.String()
}

func short(name string) string {
	const fits = 27
	if len(name) <= fits {
		return name
	}
	return name[:fits-1] + "…"
}

func (s Step) tip() string {
	tip := fmt.Sprintf("%s (%s, on error %s)", s.Name, s.Kind, s.OnError)
	if marks := s.marks(); marks != "" {
		tip += ": " + marks
	}
	return tip
}

func svgColours(s Step) (fill, stroke string) {
	switch {
	case s.NoWayBack:
		return "#fdecea", "#c0392b"
	case s.Side == Source:
		return "#fff7e6", "#b9770e"
	case s.Activates():
		return "#e8f5ee", "#1e8449"
	}
	return "#eef3fa", "#2e5f8a"
}

type spot struct{ x, y, row int }

// layout places the steps, and returns how many rows there are.
func (g *Graph) layout() (map[string]spot, int) {
	at := map[string]spot{}
	rows := 0
	for column, wave := range g.Waves {
		ordered := slices.Clone(wave)
		middle := func(n int) int { // of what the step waits for, in halves
			sum, count := 0, 0
			for _, after := range g.Steps[n].After {
				sum += 2 * at[after].row
				count++
			}
			return sum / max(count, 1)
		}
		slices.SortStableFunc(ordered, func(a, b int) int { return middle(a) - middle(b) })
		for row, n := range ordered {
			at[g.Steps[n].Name] = spot{margin + column*(boxWide+gapWide), margin + 30 + row*(boxHigh+gapHigh), row}
		}
		rows = max(rows, len(wave))
	}
	return at, rows
}

// span writes a duration as people write it: 1h, not 1h0m0s.
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
