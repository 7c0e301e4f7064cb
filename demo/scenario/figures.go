package scenario

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

// move is a run with the times of whoever gave the command.
type move struct {
	moveReport
	began, ended time.Time
	killed       time.Time // the source's site, in a failover
	left         time.Time // the command that carried it was killed; zero: it was not
}

// Steps that wait for pods to start or to stop, and those that carry data: what a
// run would take if Davit itself took no time. scale starts workloads in their order,
// and waits for each.
var (
	podSteps  = []string{"quiesce", "scale", "ready"}
	dataSteps = []string{"pin", "catch-up", "sync", "restore", "clone"}
)

// covered is how much of a time one or more steps of the kinds ran.
func (m moveReport) covered(until time.Time, kinds ...string) time.Duration {
	var spans []span
	for _, s := range m.Steps {
		if !slices.Contains(kinds, s.Kind) {
			continue
		}
		for _, try := range s.Spans {
			if to := try.End; try.Begin.Before(until) {
				if to.IsZero() || to.After(until) {
					to = until
				}
				spans = append(spans, span{from: try.Begin, to: to})
			}
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	var sum time.Duration
	var reached time.Time
	for _, s := range spans {
		if s.from.Before(reached) {
			s.from = reached
		}
		if s.to.After(s.from) {
			sum += s.to.Sub(s.from)
			reached = s.to
		}
	}
	return sum
}

// silence is the longest time without an acknowledged order while a run was under way.
func silence(acks []Ack, began, ended time.Time) time.Duration {
	acks = slices.Clone(acks)
	slices.SortFunc(acks, func(a, b Ack) int { return a.At.Compare(b.At) })
	var longest time.Duration
	for i := range len(acks) - 1 {
		from, to := acks[i].At, acks[i+1].At
		if to.After(began) && from.Before(ended) {
			longest = max(longest, to.Sub(from))
		}
	}
	return longest
}

// Figures prints what each run took, in a table of Markdown: whole, from the command
// or the site's death until all was ready, and what of it was pods, data, and Davit's own.
func (r *Run) Figures(ctx context.Context, w io.Writer) error {
	acks, err := r.ledger.All(ctx)
	if err != nil {
		return err
	}
	fmt.Fprint(w, "\n| run | in all | data | pods start and stop | Davit's own | no order was acknowledged for |\n|---|---|---|---|---|---|\n")
	for _, m := range r.moves {
		from, until := m.began, m.ended
		if m.Verb == "failover" {
			from, until = m.killed, m.Asked.Add(m.Applications[0].RTO)
		}
		data, both := m.covered(until, dataSteps...), m.covered(until, append(slices.Clone(podSteps), dataSteps...)...)
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", m.Verb, seconds(until.Sub(from)), seconds(data), seconds(both-data), seconds(until.Sub(from)-both),
			seconds(silence(acks, from, m.ended.Add(time.Second))))
	}
	for _, m := range r.moves {
		if !m.left.IsZero() {
			fmt.Fprintf(w, "\n%s: the command was killed; the agent carried the run %s later, its first step began after %s\n", m.Verb,
				seconds(m.Carriers[1].Since.Sub(m.left)), seconds(m.resumed().Sub(m.left)))
		}
	}
	for _, m := range r.moves {
		fmt.Fprintf(w, "\n%s, step by step\n", m.Verb)
		for _, s := range m.Steps {
			for _, try := range s.Spans {
				fmt.Fprintf(w, "  %8s  %8s  %s\n", seconds(try.Begin.Sub(m.began)), seconds(try.End.Sub(try.Begin)), s.Name)
			}
		}
	}
	return nil
}

// resumed is when the second process that carried the run began its first step.
func (m moveReport) resumed() time.Time {
	for _, e := range m.Events {
		if e.Kind == "intended" && !e.At.Before(m.Carriers[1].Since) {
			return e.At
		}
	}
	return m.Until
}
