package carrier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vault"
)

const (
	// adoptEvery is how often runs that the register lacks are looked for, adoptAgain when that
	// failed, and adoptTimeout how long it may take.
	adoptEvery   = time.Hour
	adoptAgain   = time.Minute
	adoptTimeout = 10 * time.Minute
)

// adopter looks for runs that the register lacks, and clears up what those left that ended long
// ago. It goes on beside the desk: a vault has thousands of runs after some years, whoever has just
// begun to lead has read none of their summaries, and what is under way must not wait for that.
type adopter struct {
	next time.Time
	done chan struct{} // closed when it has ended; nil: it does not go on
	err  error         // how it ended
	said string        // the last complaint

	c       *Carrier
	vault   string
	project *vault.Project
	summed  map[string]bool // runs whose summary was read
}

// adopt begins to look for such runs when it is time.
func (d *desk) adopt(ctx context.Context) {
	a := &d.adopter
	if a.done != nil {
		select {
		case <-a.done:
		default:
			return
		}
		a.ended(d.c.Now())
	}
	if a.project != d.project { // what was read is of another
		a.c, a.vault, a.project, a.summed, a.next = d.c, d.vault, d.project, map[string]bool{}, time.Time{}
	}
	if d.c.Now().Before(a.next) {
		return
	}
	a.done = make(chan struct{})
	d.working.Go(func() {
		defer close(a.done)
		ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
		defer cancel()
		a.err = a.adopt(ctx)
	})
}

func (a *adopter) ended(now time.Time) {
	a.done, a.next = nil, now.Add(adoptEvery)
	text := ""
	if a.err != nil {
		a.next, text = now.Add(adoptAgain), a.err.Error()
	}
	if text != "" && text != a.said {
		a.c.Log.Warn("runs: look for those without a note", "vault", a.vault, "error", a.err)
	}
	a.said = text
}

// adopt registers runs that the register lacks: of versions that had none, and
// of executors that died at the wrong moment.
func (a *adopter) adopt(ctx context.Context) error {
	r := register.New(a.project)
	all, err := a.project.Runs(ctx)
	if err != nil {
		return err
	}
	ended, err := r.Ended(ctx)
	if err != nil {
		return err
	}
	running, err := r.Running(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, run := range all {
		if slices.Contains(running, run) {
			continue
		}
		if err = a.note(ctx, r, run, ended); err != nil { // no reason to leave the others alone
			errs = append(errs, fmt.Errorf("run %s: %w", run, err))
		}
		if ctx.Err() != nil || errors.Is(err, vault.ErrUnavailable) { // nor would it answer for those
			return errors.Join(errs...)
		}
	}
	if err := a.clear(ctx); err != nil { // it is tried again in an hour, and holds no run up
		a.c.Log.Warn("runs: clear up what ended runs left", "vault", a.vault, "error", err)
	}
	return errors.Join(append(errs, a.prune(ctx))...)
}

// note registers a run that has no note, unless it is over and summed up. One that cannot be read stays as it is.
func (a *adopter) note(ctx context.Context, r register.Register, run string, ended []string) error {
	if over, err := a.over(ctx, r, run, ended); over || err != nil {
		return err
	}
	s, err := journal.Read(ctx, a.project, run)
	if err == nil && s.Phase.Over() {
		err = r.End(ctx, s)
	} else if err == nil {
		err = r.Begin(ctx, s.Spec)
	}
	switch {
	case errors.Is(err, vault.ErrNotFound): // removed just now
		return nil
	case register.Unreadable(err):
		a.c.Log.Warn("runs: a journal cannot be read", "vault", a.vault, "run", run, "error", err)
		return nil
	}
	return err
}

// over tells whether the register has a run as ended. Each summary is read once: one
// that nobody with the key wrote ends nothing.
func (a *adopter) over(ctx context.Context, r register.Register, run string, ended []string) (bool, error) {
	if !slices.Contains(ended, run) || a.summed[run] {
		return a.summed[run] && slices.Contains(ended, run), nil
	}
	over, err := r.Over(ctx, run)
	if over {
		a.summed[run] = true
	}
	return over, err
}
