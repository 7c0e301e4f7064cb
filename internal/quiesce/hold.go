package quiesce

import (
	"context"
	"errors"
	"fmt"

	"davit.dev/davit/internal/point"
)

// whenHold is what a recovery point says of a session.
const whenHold = "hold"

// hold opens a session and waits until it says that it holds.
func (q *Quiescence) hold(ctx context.Context, p *place) error {
	h := p.hook.Hold.WithDefaults()
	// The session outlives a capture that is called off: After ends it.
	var life context.Context
	life, p.end = context.WithTimeout(context.WithoutCancel(ctx), h.Limit)
	session, err := q.ports.Runner.Hold(life, p.target, h)
	if err != nil {
		p.end()
		err = fmt.Errorf("open hold %s in %s: %w", p.hook.Name, p.target.Key(), err)
		q.record(point.Hook{Name: p.hook.Name, Pod: p.target.Key(), When: whenHold, Error: err.Error()}, p.hook, "", nil)
		return err
	}
	p.session = session
	timeout := min(p.hook.timeout(), h.Limit)
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = p.session.Held(wait)
	if err != nil && ctx.Err() == nil && wait.Err() != nil {
		err = fmt.Errorf("it did not say %q within %s", h.Marker, timeout)
	}
	if err != nil {
		return fmt.Errorf("hold %s in %s: %w%s", p.hook.Name, p.target.Key(), err, printed(p.session))
	}
	p.held = q.ports.Now()
	return nil
}

// printed is the end of what a session printed, for an error.
func printed(s Session) string {
	text := s.Output()
	if text == "" {
		return ""
	}
	const most = 300
	if len(text) > most {
		text = "..." + text[len(text)-most:]
	}
	return fmt.Sprintf("; it printed: %q", text)
}

// Check asks every session whether it has held, and looks whether the pods are
// the same. It is called right after the last cut. What it finds is in Outcome.
func (q *Quiescence) Check(ctx context.Context) {
	var asked []*place
	for _, p := range q.places {
		if !p.held.IsZero() {
			asked = append(asked, p)
		}
	}
	_ = each(asked, func(p *place) error { // what fails is in p.why
		wait, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		if err := p.session.Ask(wait); err != nil {
			p.why = "it held before the cuts, but afterwards: " + err.Error()
			return nil
		}
		p.proven = true
		return nil
	})
	if q.holds {
		q.compare(ctx)
	}
	q.asked = true
	q.report()
}

// report tells people.
func (q *Quiescence) report() {
	if _, out := q.Outcome(); out != nil && out.Held {
		q.ports.Report.Note("info", "", fmt.Sprintf("%d pods were proven to have been at rest from before the first cut until after the last", out.Pods))
	} else if out != nil {
		q.ports.Report.Warn("", "the application was not proven to be at rest: "+out.Reason)
	}
}

// release ends a session, whatever state it is in.
func (q *Quiescence) release(ctx context.Context, p *place) {
	defer p.end()
	limit := p.hook.timeout()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := p.session.Close(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("it did not end within %s after its input had ended, and was cut off", limit)
	}
	outcome := point.Hook{Name: p.hook.Name, Pod: p.target.Key(), When: whenHold, Held: p.proven, Error: p.why}
	if !p.held.IsZero() {
		p.rested = q.ports.Now().Sub(p.held)
		outcome.Duration = p.rested
	}
	if outcome.Error == "" && !p.proven {
		outcome.Error = "it was not asked after the cut"
	}
	if err != nil && p.proven { // that it held is proven all the same
		q.ports.Report.Warn(p.target.object(), fmt.Sprintf("hold %s let go, and then: %v", p.hook.Name, err))
	}
	q.record(outcome, p.hook, p.session.Output(), nil)
}
