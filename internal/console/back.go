package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/journal"
	"davit.dev/davit/internal/console/lead"
	"davit.dev/davit/internal/console/past"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/console/store/directory"
)

func (o Restore) bygone() *past.Bygone {
	return &past.Bygone{Time: o.At, Act: o.Act, Dry: o.Dry}
}

// alone refuses to go back while a console is active.
func (o Restore) alone(ctx context.Context, l lead.Ledger) error {
	if o.At.IsZero() || o.Dry {
		return nil
	}
	patience := o.patience
	if patience == 0 {
		patience = lead.Patience
	}
	return past.Alone(ctx, l, patience)
}

// ledgerOf is the ledger of the home that a console's own files name.
func (o Restore) ledgerOf(c *store.Console) lead.Ledger {
	return ledger{newShelves(Options{Dir: o.Dir, Store: o.Open, Log: slog.New(slog.DiscardHandler)}, c)}
}

// goBack has the databases that were brought back into a directory go back, if that is asked for.
func (r *Restoration) goBack(ctx context.Context, b *past.Bygone, dir string) error {
	var own *past.WentBack
	projects := map[string]*past.WentBack{}
	for _, d := range r.Databases {
		name, is := strings.CutPrefix(d.Database, "project ")
		switch {
		case d.Back == nil:
		case is:
			projects[name] = d.Back
		default:
			own = d.Back
		}
	}
	if own == nil && len(projects) == 0 {
		return nil
	}
	return b.Carry(ctx, dir, own, projects)
}

// renewed is the project as its vault has it, gone back if that is asked for, in a file of its own.
func (o Restore) renewed(ctx context.Context, c *store.Console, s backup.Shelf, id, fresh string) (d journal.Copy, r *Restoration, err error) {
	r = &Restoration{Console: c.ID(), Dir: o.Dir, Dry: o.Dry}
	if o.At.IsZero() {
		d, err = newest(ctx, s, backup.ProjectDatabase, fresh)
		r.add("project "+o.Only, d, nil)
		return d, r, err
	}
	b, dir := o.bygone(), filepath.Join(o.Dir, "restoring")
	err = errors.Join(os.RemoveAll(dir), directory.Prepare(dir), b.Open(filepath.Join(dir, "before")), c.Snapshot(ctx, directory.Console(dir)), directory.WriteKey(dir, c.Key()))
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err != nil {
		return d, r, fmt.Errorf("restore project %s: %w", o.Only, err)
	}
	path := directory.Project(dir, id)
	if d, err = newest(ctx, s, backup.ProjectDatabase, path); err != nil {
		return d, r, err
	}
	r.add("project "+o.Only, d, nil)
	if r.Databases[0].Back, err = b.Fetch(ctx, s, d); err != nil {
		return d, r, err
	}
	if err := r.goBack(ctx, b, dir); err != nil || o.Dry {
		return d, r, err
	}
	return d, r, os.Rename(path, fresh)
}

// List says which backups there are to go back to: of the console and all of its projects, or of
// one. A project whose vault does not answer is named.
func (o Restore) List(ctx context.Context) ([]past.Shelved, error) {
	if held, err := directory.Holds(o.Dir); o.Dir != "" && o.Only != "" && (held || err != nil) {
		key, err := directory.ReadKey(o.Dir)
		if err != nil {
			return nil, err
		}
		s, err := o.shelf(ctx, backup.Home{Console: key.ID().String(), Project: o.Only})
		if err != nil {
			return nil, err
		}
		return []past.Shelved{past.List(ctx, s, backup.ProjectDatabase, "project "+o.Only, nil)}, nil
	}
	h, err := o.home(ctx)
	if err != nil {
		return nil, err
	}
	shelf, err := o.shelf(ctx, h)
	if err != nil {
		return nil, err
	}
	entries, err := shelf.List(ctx, backup.ConsoleDatabase)
	if err != nil {
		return nil, err
	}
	all := []past.Shelved{past.List(ctx, shelf, backup.ConsoleDatabase, "console", nil)}
	for _, e := range slices.Backward(entries) {
		d, err := shelf.Document(ctx, backup.ConsoleDatabase, e.Number)
		if err != nil && ctx.Err() == nil { // it is damaged: the one before may say it
			continue
		}
		for _, b := range d.Projects {
			if o.Only == "" || b.Name == o.Only {
				s, err := o.shelfOf(ctx, b, shelf)
				all = append(all, past.List(ctx, s, backup.ProjectDatabase, "project "+b.Name, err))
			}
		}
		break
	}
	return all, ctx.Err()
}
