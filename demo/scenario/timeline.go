package scenario

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Timeline runs steps, shows them while they run, and prints them afterwards.
type Timeline struct {
	Out  io.Writer
	Live bool // Out is a terminal: redraw the running step's line
	// Detail says in a few words what a running step is at; nil says nothing.
	Detail func() string
	// Began is told of each step; nil is not.
	Began func(name string)
	start time.Time
	steps []step
}

type step struct {
	name  string
	begin time.Duration
	took  time.Duration
	note  string
	err   error
}

// Do runs one step. fn may return a note that is printed beside it.
func (t *Timeline) Do(ctx context.Context, name string, fn func(context.Context) (string, error)) error {
	if t.start.IsZero() {
		t.start = time.Now()
	}
	if t.Began != nil {
		t.Began(name)
	}
	begin := time.Now()
	stop := t.show(name, begin)
	note, err := fn(ctx)
	stop()
	s := step{name: name, begin: begin.Sub(t.start), took: time.Since(begin), note: note, err: err}
	t.steps = append(t.steps, s)
	mark := "ok  "
	if err != nil {
		mark = "FAIL"
	}
	fmt.Fprintf(t.Out, "%s %-58s %8s  %s\n", mark, name, seconds(s.took), note)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// show keeps a running step visible, so that nobody wonders whether it hangs.
func (t *Timeline) show(name string, begin time.Time) (stop func()) {
	every := 15 * time.Second
	if t.Live {
		every = time.Second
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				if t.Live {
					fmt.Fprint(t.Out, "\r\033[K")
				}
				return
			case <-tick.C:
				line := fmt.Sprintf("...  %-58s %8s%s", name, seconds(time.Since(begin)), t.detail())
				if t.Live {
					fmt.Fprint(t.Out, "\r\033[K"+line)
				} else {
					fmt.Fprintln(t.Out, line)
				}
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// detail is at most so long that the line stays one line on a usual terminal.
func (t *Timeline) detail() string {
	if t.Detail == nil {
		return ""
	}
	const most = 48
	said := []rune(t.Detail())
	if len(said) > most {
		said = append(said[:most-1], '…')
	}
	return "  " + string(said)
}

// Print shows all steps with bars, longest first visible at a glance.
func (t *Timeline) Print() {
	total := time.Since(t.start)
	const width = 40
	fmt.Fprintf(t.Out, "\nTimeline (%s in all)\n", seconds(total))
	for _, s := range t.steps {
		from := int(float64(width) * s.begin.Seconds() / total.Seconds())
		length := max(1, int(float64(width)*s.took.Seconds()/total.Seconds()))
		length = min(length, width-min(from, width-1))
		bar := strings.Repeat(" ", min(from, width-1)) + strings.Repeat("#", length)
		fmt.Fprintf(t.Out, "  %8s  %-*s  %s\n", seconds(s.took), width, bar, s.name)
	}
}

func seconds(d time.Duration) string {
	return fmt.Sprintf("%.1f s", d.Seconds())
}
