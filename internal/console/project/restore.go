package project

import (
	"context"
	"errors"
	"fmt"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/journal"
	"davit.dev/davit/internal/console/past"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
)

// ErrSilent says that the vault of the project does not answer. What the project is now, it stays.
var ErrSilent = errors.New("its vault does not answer: nothing was restored")

// Ask is what is wanted of a project that is to be restored while the console is served.
type Ask struct {
	// At, if it is given, has what people defined go back to what it was then. Without, the
	// database becomes what the project's vault has: all that was acknowledged.
	At time.Time `json:"at,omitzero"`
	// Dry has it only be said what would go back.
	Dry bool `json:"dryRun,omitempty"`
	// Confirm is the project's name once more, unless it is a dry run.
	Confirm string `json:"confirm,omitempty"`
}

// Restored is what became of it.
type Restored struct {
	Name string `json:"name"`
	// Revived says that it had been removed, and is one of the console's again.
	Revived bool `json:"revived,omitempty"`
	// Back is what it went back to, or would, and Changes how many those are. They are listed
	// for whoever may read the project's audit log.
	Back    *past.WentBack `json:"wentBack,omitempty"`
	Changes int            `json:"changes"`
}

// restoreLimit is how long a restore may take: one change after the other is put into the vault.
const restoreLimit = 10 * time.Minute

// Restore restores one project, while all others go on. What broke off is done again by the
// same once more: there is nothing that is half true.
func (d *Desk) Restore(ctx context.Context, act audit.Act, name string, ask Ask) (Restored, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := Restored{Name: name}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreLimit) // whoever asked may hang up
	defer cancel()
	l, found, err := d.listed(ctx, name)
	if err == nil && (!found || l.Standing == store.Making) {
		err = store.ErrNotFound
	}
	switch removed := l.Standing == store.Removed; {
	case err != nil:
	case ask.At.IsZero() && ask.Dry:
		err = fmt.Errorf("%w: there is nothing to go back to without a time", store.ErrRefused)
	case !ask.At.IsZero() && removed:
		err = fmt.Errorf("%w: it was removed: bring it back first, as it was then", store.ErrRefused)
	case ask.At.After(act.At):
		err = fmt.Errorf("%w: %s is in the future", store.ErrRefused, ask.At.UTC().Format(time.RFC3339))
	case ask.At.IsZero():
		out.Revived, err = removed, d.renew(ctx, act, l)
	default:
		if out.Back, err = d.goBack(ctx, act, l, ask); err == nil {
			out.Changes = len(out.Back.Changes)
		}
	}
	if errors.Is(err, vault.ErrUnavailable) && !errors.Is(err, store.ErrUnconfirmed) {
		err = fmt.Errorf("%w: %w", ErrSilent, err)
	}
	if errors.Is(err, journal.ErrYounger) {
		err = fmt.Errorf("%w: %w", store.ErrRefused, err)
	}
	if err != nil {
		err = fmt.Errorf("restore project %s: %w", name, err)
	}
	return out, err
}

// renew has the database become what the vault has. It is brought beside the one that is
// served, with its audit log read to the end, and takes its place at one moment; what is
// acknowledged meanwhile is in the vault's journal, and follows.
func (d *Desk) renew(ctx context.Context, act audit.Act, l store.Listing) error {
	record := audit.Record{Action: "project.restore", Object: l.Name, Detail: "to what its vault has"}
	if err := d.Console.Witness(ctx, act, record); err != nil {
		return err
	}
	if err := d.Bring(ctx, l); err != nil {
		return err
	}
	if l.Standing == store.Removed {
		if err := d.Console.Stand(ctx, act, l, record, store.Served, nil, store.Removed); err != nil {
			return err
		}
	}
	p, err := d.Console.Project(ctx, l.Name)
	if errors.Is(err, store.ErrNotFound) || err != nil && l.Standing == store.Removed { // it was swept away as one that is removed
		if err = d.Bring(ctx, l); err == nil {
			p, err = d.Console.Project(ctx, l.Name)
		}
	}
	if err == nil {
		err = p.Leap(ctx) // sites are asked again for what they have
	}
	if err == nil {
		err = p.Note(ctx, act, record)
	}
	if err != nil {
		return err
	}
	return p.Settle(ctx)
}

// goBack has what people defined in a project be what it was at a time, by changes on top of
// what is there: they are journaled, and followed, as any other.
func (d *Desk) goBack(ctx context.Context, act audit.Act, l store.Listing, ask Ask) (w *past.WentBack, err error) {
	p, err := d.Console.Project(ctx, l.Name)
	if err != nil {
		return nil, err
	}
	if err := p.Settle(ctx); err != nil {
		return nil, err
	}
	b, err := d.Book(ctx, p)
	if err != nil {
		return nil, err
	}
	if !ask.Dry {
		record := audit.Record{Action: "project.restore", Object: l.Name, Detail: "to what was defined at " + ask.At.UTC().Format(time.RFC3339)}
		if err := d.Console.Witness(ctx, act, record); err != nil {
			return nil, err
		}
	}
	now := journal.Copy{Document: backup.Document{Database: backup.ProjectDatabase, ID: l.ID, Name: l.Name, Created: l.Created}}
	if now.Audit, err = p.VerifyAudit(ctx); err != nil {
		return nil, err
	}
	err = backup.Scratch(d.Console.Dir(), "past-", func(dir string) (err error) {
		then := &past.Bygone{Time: ask.At, Act: act, Dry: ask.Dry}
		if err := then.Open(dir); err != nil {
			return err
		}
		if w, err = then.Fetch(ctx, b.Shelf, now); err != nil {
			return err
		}
		if w.Younger != "" {
			return fmt.Errorf("%w: %s", store.ErrRefused, w.Younger)
		}
		return then.CarryIn(ctx, d.Console, nil, map[string]*past.WentBack{l.Name: w})
	})
	return w, err
}
