// Package drawing draws what pages show as pictures: points and steps in time, and sites.
package drawing

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"

	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/ui/figure"
	"davit.dev/davit/internal/failover"
)

// Measures of drawings.
const (
	width  = 1000
	margin = 20
	names  = 120 // where the time line begins, right of the names of promises
)

// heights are where points of a promise are drawn: the strongest on top.
var heights = map[string]int{"application": 25, "crash": 50, "per-volume": 75, "fuzzy": 100}

// notOffered is where points are drawn that may not be offered.
const notOffered = 130

// scale places an instant between two.
func scale(at, from, to time.Time) float64 {
	span := to.Sub(from).Seconds()
	if span <= 0 {
		return margin
	}
	return margin + (width-2*margin)*min(1, max(0, at.Sub(from).Seconds()/span))
}

// mostDots is how many dots the time line has room for.
const mostDots = 240

// dot is a recovery point on the time line, or several that there is no room between.
type dot struct {
	class          string
	x, radius      float64
	y, count       int
	verified, goes bool
	bytes          int64
	says           string
}

// dots are the points as they are drawn: what promises the same and is too near to be
// told apart is one. It says of all what the strongest of them says, that it is verified
// say, and that it goes only if all do.
func dots(points []fleet.Point, from, now time.Time) (all []*dot) {
	type place struct{ x, y int }
	for wide := 1.0; ; wide *= 2 {
		all = nil
		at, largest := map[place]*dot{}, int64(1)
		for _, p := range points { // newest first
			if p.Instant.IsZero() {
				continue
			}
			class, y := p.Consistency, heights[p.Consistency]
			if !p.Good || y == 0 {
				class, y = "not", notOffered
			}
			x := names + (scale(p.Instant, from, now)-margin)*(width-names-margin)/(width-2*margin)
			d := at[place{int(x / wide), y}]
			if d == nil {
				d = &dot{class: class, x: x, y: y, goes: true, says: pointSays(p, class)}
				at[place{int(x / wide), y}], all = d, append(all, d)
			}
			if d.count++; d.count > 1 {
				d.says = fmt.Sprintf("%d points, %s, the oldest from %s", d.count, class, figure.Stamp(p.Instant))
			}
			d.verified, d.goes, d.bytes = d.verified || !p.Verified.IsZero(), d.goes && !p.Kept, max(d.bytes, p.Bytes)
			largest = max(largest, p.Bytes)
		}
		if len(all) <= mostDots {
			for _, d := range all {
				d.radius = 3 + 5*math.Sqrt(float64(d.bytes)/float64(largest))
			}
			return all
		}
	}
}

func pointSays(p fleet.Point, class string) string {
	text := p.ID + ", " + class + ", " + figure.Bytes(p.Bytes)
	switch {
	case !p.Kept:
		text += ", goes next"
	case !p.Until.IsZero():
		text += ", kept until " + figure.Stamp(p.Until) + " at least"
	}
	return text
}

// Points draws recovery points over time. Every text in it is escaped.
func Points(points []fleet.Point, now time.Time) template.HTML {
	from := now
	for _, p := range points {
		if !p.Instant.IsZero() && p.Instant.Before(from) {
			from = p.Instant
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="line" viewBox="0 0 %d 170" role="img"><title>%d recovery points from %s until now</title>`, width, len(points), figure.Stamp(from))
	for _, row := range []struct {
		y    int
		name string
	}{{25, "application"}, {50, "crash"}, {75, "per-volume"}, {100, "fuzzy"}, {notOffered, "not offered"}} {
		fmt.Fprintf(&b, `<line class="axis" x1="%d" x2="%d" y1="%d" y2="%d"/><text x="%d" y="%d">%s</text>`, names, width-margin, row.y, row.y, margin, row.y+4, row.name)
	}
	for _, d := range dots(points, from, now) {
		class := d.class
		if d.goes {
			class += " goes"
		}
		fmt.Fprintf(&b, `<circle class="%s" cx="%.1f" cy="%d" r="%.1f"><title>%s</title></circle>`, class, d.x, d.y, d.radius, template.HTMLEscapeString(d.says))
		if d.verified {
			fmt.Fprintf(&b, `<circle class="verified" cx="%.1f" cy="%d" r="%.1f"/>`, d.x, d.y, d.radius+3)
		}
	}
	fmt.Fprintf(&b, `<text x="%d" y="158">%s</text><text x="%d" y="158" text-anchor="end">now</text></svg>`, names, figure.Stamp(from), width-margin)
	return template.HTML(b.String()) //nolint:gosec // made of numbers and escaped text
}

// Steps draws the steps of a run over time.
func Steps(r *fleet.Run, now time.Time) template.HTML {
	const row, label = 22, 210
	end := r.End
	if end.IsZero() {
		end = now
	}
	var b strings.Builder
	height := row*len(r.Steps) + 30
	fmt.Fprintf(&b, `<svg class="line" viewBox="0 0 %d %d" role="img"><title>%d steps over %s</title>`, width, height, len(r.Steps), figure.Ago(r.Begun, end))
	place := func(at time.Time) float64 {
		return label + (scale(at, r.Begun, end)-margin)*(width-label-margin)/(width-2*margin)
	}
	for i, s := range r.Steps {
		y := row * i
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`, margin, y+17, template.HTMLEscapeString(short(s.Name)))
		if s.Begun.IsZero() {
			continue
		}
		until := s.Begun.Add(s.Took)
		if s.Status == failover.Doing {
			until = now
		}
		class := "bar"
		if s.Status == failover.Broke || s.Status == failover.Unknown {
			class = "bar failed"
		}
		x := place(s.Begun)
		fmt.Fprintf(&b, `<rect class="%s" x="%.1f" y="%d" width="%.1f" height="14" rx="2"/>`, class, x, y+5, max(3, place(until)-x))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text><text x="%d" y="%d" text-anchor="end">%s</text></svg>`, label, height-8, figure.Stamp(r.Begun), width-margin, height-8, figure.Stamp(end))
	return template.HTML(b.String()) //nolint:gosec // made of numbers and escaped text
}

// short cuts a name that has no room.
func short(name string) string {
	const fits = 28
	if runes := []rune(name); len(runes) > fits {
		return string(runes[:fits-1]) + "…"
	}
	return name
}

// mostDrawn is how many sites a map has room for; the cards below show all.
const mostDrawn = 16

// Sites draws the sites around the vault that they share: who holds what, how far
// behind its newest recovery points are, the round trip to the vault as agents measure
// it, where plans move what a site holds, and who gives no sign of life. Many sites are
// drawn above and below the vault.
func Sites(k fleet.Known, now time.Time) template.HTML {
	const high, wide, gap, above, beside, row = 56, 230, 40, 4, 24, 94
	s := k.Snapshot
	sites := s.Sites[:min(len(s.Sites), mostDrawn)]
	top := len(sites)
	if top > above {
		top = (top + 1) / 2
	}
	full := max(2*margin+top*(wide+gap)-gap, 2*margin+wide)
	links := links(s, now)
	arcs := len(links) * (18 + 10) // first what they say, then a line for each
	vaultY := arcs + margin + high + row
	height := vaultY + high + margin
	if top < len(sites) {
		height += row + high
	}
	place := func(i int) (x, y int) {
		if i < top {
			return margin + i*(wide+gap), arcs + margin
		}
		return margin + (i-top)*(wide+gap), vaultY + high + row
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="line graph" width="%d" height="%d" viewBox="0 0 %d %d" role="img"><title>%d sites and the vault that they share</title>`, full, height, full, height, len(s.Sites))
	fmt.Fprintf(&b, `<rect class="box" x="%d" y="%d" width="%d" height="%d" rx="5"/><text class="name" x="%d" y="%d" text-anchor="middle">vault</text>`, margin, vaultY, full-2*margin, high, full/2, vaultY+22)
	says := "read " + figure.Ago(s.At, now) + " ago"
	if more := len(s.Sites) - len(sites); more > 0 {
		says = fmt.Sprintf("%d more sites below", more)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`, full/2, vaultY+42, says)
	where := map[string]int{}
	for i, site := range sites {
		x, y := place(i)
		if i < top {
			where[site.Name] = x
		}
		box, line, holds, behind := standing(s, site, now)
		from, to, middle := y+high, vaultY, (y+high+vaultY)/2
		if i >= top {
			from, to, middle = vaultY+high, y, (vaultY+high+y)/2
		}
		fmt.Fprintf(&b, `<path class="%s" d="M%d %d V%d"/>`, line, x+beside, from, to)
		fmt.Fprintf(&b, `<rect class="box%s" x="%d" y="%d" width="%d" height="%d" rx="5"/>`, box, x, y, wide, high)
		fmt.Fprintf(&b, `<text class="name" x="%d" y="%d">%s</text><text x="%d" y="%d">%s</text>`, x+10, y+22, template.HTMLEscapeString(short(site.Name)), x+10, y+42, template.HTMLEscapeString(short(holds)))
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`, x+beside+8, middle-4, template.HTMLEscapeString(behind))
		if d := k.RoundTrip(site.Name); d > 0 {
			fmt.Fprintf(&b, `<text x="%d" y="%d">round trip %s</text>`, x+beside+8, middle+14, figure.Trip(d.Microseconds()))
		}
	}
	for i, l := range links {
		from, known := where[l.from]
		to, there := where[l.to]
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`, margin, margin+i*18, template.HTMLEscapeString(l.says))
		if !known || !there { // no line that would cross others
			continue
		}
		y := margin + len(links)*18 + i*10
		fmt.Fprintf(&b, `<path class="standby" d="M%d %d V%d H%d V%d"/>`, from+wide-beside, arcs+margin, y, to+wide-beside-12, arcs+margin)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // made of numbers and escaped text
}

// standing is how a site is drawn: its box, its line to the vault, what it holds, and
// how far behind its newest recovery points are.
func standing(s *fleet.Snapshot, site fleet.Site, now time.Time) (box, line, holds, link string) {
	worst, none := behind(s, site.Name, now)
	line, holds = "standby", "stands by"
	switch n := len(site.Holds); {
	case n == 1:
		line, holds = "held", "holds "+site.Holds[0]
	case n > 1:
		line, holds = "held", fmt.Sprintf("holds %d applications", n)
	}
	switch {
	case site.Silent(now):
		line, box, link = "broken", " bad", "silent for "+figure.Ago(site.Seen, now)
	case none:
		line, link = "broken", "no point of something"
	case len(site.Holds) > 0:
		link = figure.Duration(worst) + " behind, at worst"
	}
	return box, line, holds, link
}

// link is where a plan moves what a site holds.
type link struct{ from, to, says string }

// mostLinks is how many links between sites a map has room for.
const mostLinks = 6

// links are those between sites, and how far behind the target is: by how much work
// would be lost if the plan moved its applications there now.
func links(s *fleet.Snapshot, now time.Time) (all []link) {
	if s.Ahead == nil {
		return nil
	}
	for _, p := range s.Ahead.Plans {
		if p.From == "" || p.To == "" || p.From == p.To || len(all) == mostLinks {
			continue
		}
		got, err := p.Parse()
		if err != nil {
			continue
		}
		lag, none := time.Duration(0), false
		for _, app := range got.Applications {
			if a, ok := s.Application(app.Name); ok && a.Site == p.From {
				lost, known := a.Lost(now)
				lag, none = max(lag, lost), none || !known
			}
		}
		says := p.From + " → " + p.To + " by plan " + p.Name + ": " + figure.Duration(lag) + " behind"
		if none {
			says = p.From + " → " + p.To + " by plan " + p.Name + ": no point of something"
		}
		all = append(all, link{p.From, p.To, says})
	}
	return all
}

// behind is how much of a site's applications would be lost at worst, and whether
// one of them has nothing to be recovered from.
func behind(s *fleet.Snapshot, site string, now time.Time) (worst time.Duration, none bool) {
	for i := range s.Applications {
		if a := &s.Applications[i]; a.Site == site {
			lost, known := a.Lost(now)
			worst, none = max(worst, lost), none || !known
		}
	}
	return worst, none
}
