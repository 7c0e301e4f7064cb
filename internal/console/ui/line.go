package ui

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/failover"
)

// Measures of drawings.
const (
	width  = 1000
	margin = 20
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

// pointLine draws recovery points over time. Every text in it is escaped.
func pointLine(points []fleet.Point, now time.Time) template.HTML {
	from := now
	for _, p := range points {
		if !p.Instant.IsZero() && p.Instant.Before(from) {
			from = p.Instant
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="line" viewBox="0 0 %d 170" role="img"><title>%d recovery points from %s until now</title>`, width, len(points), stamp(from))
	for _, y := range []int{25, 50, 75, 100, notOffered} {
		fmt.Fprintf(&b, `<line class="axis" x1="%d" x2="%d" y1="%d" y2="%d"/>`, margin, width-margin, y, y)
	}
	for _, p := range points {
		if p.Instant.IsZero() {
			continue
		}
		class, y := p.Consistency, heights[p.Consistency]
		if !p.Good || y == 0 {
			class, y = "not", notOffered
		}
		x := scale(p.Instant, from, now)
		fmt.Fprintf(&b, `<circle class="%s" cx="%.1f" cy="%d" r="5"><title>%s, %s</title></circle>`, class, x, y, template.HTMLEscapeString(p.ID), class)
		if !p.Verified.IsZero() {
			fmt.Fprintf(&b, `<circle class="verified" cx="%.1f" cy="%d" r="8"/>`, x, y)
		}
	}
	fmt.Fprintf(&b, `<text x="%d" y="158">%s</text><text x="%d" y="158" text-anchor="end">now</text></svg>`, margin, stamp(from), width-margin)
	return template.HTML(b.String()) //nolint:gosec // made of numbers and escaped text
}

// stepLine draws the steps of a run over time.
func stepLine(r *fleet.Run, now time.Time) template.HTML {
	const row, label = 22, 210
	end := r.End
	if end.IsZero() {
		end = now
	}
	var b strings.Builder
	height := row*len(r.Steps) + 30
	fmt.Fprintf(&b, `<svg class="line" viewBox="0 0 %d %d" role="img"><title>%d steps over %s</title>`, width, height, len(r.Steps), ago(r.Begun, end))
	place := func(at time.Time) float64 {
		return label + (scale(at, r.Begun, end)-margin)*(width-label-margin)/(width-2*margin)
	}
	for i, s := range r.Steps {
		y := row * i
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`, margin, y+17, template.HTMLEscapeString(s.Name))
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
	fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text><text x="%d" y="%d" text-anchor="end">%s</text></svg>`, label, height-8, stamp(r.Begun), width-margin, height-8, stamp(end))
	return template.HTML(b.String()) //nolint:gosec // made of numbers and escaped text
}
