package report

import (
	"fmt"
	"math"
	"time"

	"davit.dev/davit/internal/failover"
)

// chart is the geometry of the Gantt chart, in units of its own picture.
type chart struct {
	Width, Height, Left, Top, Bottom float64
	Ticks                            []tick
	Rows                             []row
	Marks                            []mark
}

type tick struct {
	X     float64
	Label string
}

type row struct {
	Y, TextY, Base float64
	Odd            bool
	Name           string
	Tone           string
	Bars           []bar
	Label          string // behind the last bar
	LabelX         float64
	Anchor         string
}

type bar struct {
	X, W float64
	Tone string
	Tip  string
}

// mark is a moment across all rows: another process took the run over.
type mark struct {
	X    float64
	Text string
}

// Sizes of the chart.
const (
	chartWidth  = 1000.0
	chartLeft   = 190.0
	chartRight  = 20.0
	chartTop    = 26.0
	rowHeight   = 22.0
	barHeight   = 14.0
	leastBar    = 2.0
	labelRoom   = 70.0
	mostTicks   = 8
	nameLetters = 28
)

// chart lays the steps out along the time from when the run was asked for.
func (r *Report) chart() chart {
	c := chart{Width: chartWidth, Left: chartLeft, Top: chartTop}
	from, until := r.Asked, r.Until
	for _, s := range r.Steps {
		for _, b := range s.Spans {
			if b.Begin.Before(from) {
				from = b.Begin
			}
			for _, t := range []time.Time{b.Begin, b.End} {
				if t.After(until) {
					until = t
				}
			}
		}
	}
	whole := max(until.Sub(from), time.Second)
	x := func(t time.Time) float64 {
		return chartLeft + math.Round((chartWidth-chartLeft-chartRight)*t.Sub(from).Seconds()/whole.Seconds()*10)/10
	}
	every := grid(whole)
	for t := time.Duration(0); t <= whole; t += every {
		c.Ticks = append(c.Ticks, tick{x(from.Add(t)), ago(t)})
	}
	for i, s := range r.Steps {
		line := s.row(chartTop+float64(i)*rowHeight, x, until)
		line.Odd = i%2 == 1
		c.Rows = append(c.Rows, line)
	}
	for i, carrier := range r.Carriers {
		if i > 0 {
			c.Marks = append(c.Marks, mark{x(carrier.Since), carrier.Name + " took the run over"})
		}
	}
	c.Bottom = chartTop + float64(len(r.Steps))*rowHeight
	c.Height = c.Bottom + 8
	return c
}

func (s Step) row(y float64, x func(time.Time) float64, until time.Time) row {
	name := []rune(s.Name)
	if len(name) > nameLetters {
		name = append(name[:nameLetters-1], '…')
	}
	out := row{Y: y + (rowHeight-barHeight)/2, TextY: y + rowHeight/2 + 4, Base: y, Name: string(name), Tone: tone(string(s.Status))}
	var took time.Duration
	for _, b := range s.Spans {
		end := b.End
		if end.IsZero() {
			end = until
		}
		w := math.Round(max(x(end)-x(b.Begin), leastBar)*10) / 10
		t, what := tone(string(b.Status)), string(b.Status)
		if b.Undo {
			t, what = "undo", "taken back"
		}
		if b.Undo && b.Status == failover.Skipped {
			what = "left as it was"
		}
		if b.Status == "" {
			t, what = "open", "goes on"
		}
		out.Bars = append(out.Bars, bar{x(b.Begin), w, t, fmt.Sprintf("%s: %s, %s, from %s", s.Name, what, length(end.Sub(b.Begin)), clock(b.Begin))})
		took += max(end.Sub(b.Begin), 0)
		out.LabelX, out.Anchor = x(b.Begin)+w+5, "start"
	}
	if len(s.Spans) == 0 {
		out.Label, out.LabelX, out.Anchor = "not begun", chartLeft+5, "start"
		if s.Status == failover.Skipped {
			out.Label = "skipped"
		}
		return out
	}
	out.Label = length(took)
	if out.LabelX > chartWidth-labelRoom {
		out.LabelX, out.Anchor = out.Bars[0].X-5, "end"
		if out.LabelX < chartLeft+labelRoom {
			out.LabelX, out.Anchor = chartWidth-chartRight-5, "inside"
		}
	}
	return out
}

// grid is how far the lines of time are apart.
func grid(whole time.Duration) time.Duration {
	for _, d := range []time.Duration{
		time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
		10 * time.Minute, 30 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
	} {
		if whole/d <= mostTicks {
			return d
		}
	}
	return (whole/mostTicks/(24*time.Hour) + 1) * 24 * time.Hour
}

// ago is a moment of the chart: time since the run was asked for.
func ago(t time.Duration) string {
	switch {
	case t == 0:
		return "0"
	case t%time.Minute != 0:
		if t > time.Minute {
			return fmt.Sprintf("%d:%02d", int(t.Minutes()), int(t.Seconds())%60)
		}
		return fmt.Sprintf("%d s", int(t.Seconds()))
	case t%time.Hour != 0:
		return fmt.Sprintf("%d min", int(t.Minutes()))
	}
	return fmt.Sprintf("%d h", int(t.Hours()))
}
