package carrier

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/vault"
)

// desk is what is done about the runs of one vault. Its methods are called from
// one goroutine; those of what it carries run beside it.
type desk struct {
	c       *Carrier
	vault   string
	project *vault.Project
	runs    map[string]*followed
	listed  time.Time // when the vault was last asked which runs there are
	adopter adopter
	strange map[string]time.Time // leases of runs that the vault does not know, since when
	bygone  map[string]*bygone   // by name: runs that are over, and left something to people
	turn    string               // the one of them that was looked at last, and settled when that was
	settled time.Time
	working sync.WaitGroup
	said    string // the last complaint, which is not said again
}

// followed is a run that is under way, or about to be.
type followed struct {
	run      string
	to, from string // empty: not known yet
	plan     string
	missed   time.Time // since when this process finds no journal, asked is when it last asked for the note
	asked    time.Time
	order    *v1alpha1.Run // not taken up yet
	reader   *journal.Reader
	state    *failover.State // as the reader last saw it; the desk's own
	shown    shown
	// carried is closed when this process has stopped to carry the run; nil: it
	// does not.
	carried chan struct{}
	again   time.Time   // not to be taken up before
	refused atomic.Bool // its order was refused, or called off
	// complained is why its order has not begun, as its object says it; of whoever carries.
	complained string
	// waits is what the machine waits for, while this process carries the run.
	waits atomic.Pointer[[]string]
	// stuck is why this process, which is to carry the run, cannot; nil: it can, or another does.
	stuck atomic.Pointer[[]string]
}

// shown is what of a run its object says.
type shown struct {
	sequence int64
	waits    *[]string
}

// mine tells whether this process carries the run, or waits to.
func (f *followed) mine() bool {
	if f.carried == nil {
		return false
	}
	select {
	case <-f.carried:
		f.carried = nil
		return false
	default:
		return true
	}
}

// work looks after the vault's runs until ctx is done.
func (d *desk) work(ctx context.Context) {
	defer d.working.Wait()
	for pause(ctx, tick) {
		if err := d.look(ctx); err != nil && ctx.Err() == nil {
			if err.Error() != d.said {
				d.c.Log.Warn("runs: look into vault", "vault", d.vault, "error", err)
			}
			d.said = err.Error()
			continue
		}
		d.said = ""
	}
}

func (d *desk) look(ctx context.Context) error {
	p, err := d.c.Project(ctx, d.vault)
	if err != nil {
		return err
	}
	if d.project != p { // readers belong to the project that they read
		d.project, d.bygone = p, nil
		for _, f := range d.runs {
			f.reader = journal.Follow(p, f.run)
		}
	}
	d.adopt(ctx)
	objects, err := d.objects(ctx)
	if err != nil {
		return err
	}
	looking, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	if err := d.list(looking); err != nil {
		return err
	}
	for i := range objects {
		d.meet(&objects[i])
	}
	var errs []error
	for _, f := range d.runs {
		if f.refused.Load() {
			delete(d.runs, f.run)
			continue
		}
		errs = append(errs, d.follow(looking, f))
		if f.to == d.c.Site && !f.mine() && !d.c.Now().Before(f.again) && d.runs[f.run] == f {
			d.take(ctx, f)
		}
	}
	return errors.Join(append(errs, d.unsettled(looking))...)
}

// list asks the vault which runs are under way, when it is time.
func (d *desk) list(ctx context.Context) error {
	now := d.c.Now()
	every := vaultEvery
	if len(d.runs) > 0 {
		every = vaultSoon
	}
	if now.Sub(d.listed) < every && !d.unknown(ctx, now) {
		return nil
	}
	r := register.New(d.project)
	running, err := r.Running(ctx)
	if err != nil {
		return err
	}
	d.listed = now
	for _, run := range running {
		if d.runs[run] != nil {
			continue
		}
		note, err := r.Note(ctx, run)
		if errors.Is(err, vault.ErrNotFound) {
			continue // it ended just now
		}
		if register.Unreadable(err) { // its journal says the same, and more
			d.c.Log.Warn("runs: the note of a run cannot be read", "vault", d.vault, "run", run, "error", err)
			note = register.Note{}
		} else if err != nil {
			return err
		}
		d.add(&followed{run: run, plan: note.Plan, from: note.From, to: note.To})
	}
	return nil
}

// unknown tells whether somebody at this site has just begun to carry a run that
// is not followed yet.
func (d *desk) unknown(ctx context.Context, now time.Time) bool {
	found := map[string]time.Time{}
	fresh := false
	for _, run := range d.c.held(ctx) {
		if d.runs[run] != nil {
			continue
		}
		since, ok := d.strange[run]
		if !ok {
			since = now
		}
		found[run] = since
		fresh = fresh || now.Sub(since) < strangeFor
	}
	d.strange = found
	return fresh
}

func (d *desk) add(f *followed) {
	f.reader = journal.Follow(d.project, f.run)
	d.runs[f.run] = f
}

// follow reads what the journal of a run says, and shows it. A run that is over
// is followed no more.
func (d *desk) follow(ctx context.Context, f *followed) error {
	s, err := f.reader.Next(ctx)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return d.missing(ctx, f)
	case err != nil:
		return err
	}
	f.state, f.order, f.missed = s, nil, time.Time{}
	f.plan, f.from, f.to = s.Spec.Plan, s.Spec.From, s.Spec.To
	if err := d.show(ctx, f); err != nil {
		return err
	}
	if !s.Phase.Over() || f.mine() {
		return nil
	}
	if err := register.New(d.project).End(ctx, s); err != nil {
		return err
	}
	delete(d.runs, f.run)
	return nil
}
