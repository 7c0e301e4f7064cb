package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
)

// Copy is a database that was brought back.
type Copy struct {
	backup.Document
	// Records is how many records of the journal came after the backup.
	Records int
	// Position is where the database is in its journal.
	Position store.Position
	// Audit is the end of its audit log now.
	Audit audit.Tail
	// Passed are newer backups that were passed over.
	Passed []error
	// Lost says why the journal could not be carried out to its end; nil: it was.
	Lost error
}

// Newest brings a database back into a file that is not there yet: from the newest
// backup from which the journal goes on to its end, and what the journal holds.
// If there is no such one, the newest backup that is whole, with what could be
// carried out, is there; Lost says so.
func (b Book) Newest(ctx context.Context, path string) (Copy, error) {
	entries, err := b.List(ctx, b.Database)
	if err != nil {
		return Copy{}, err
	}
	var passed, forked []error
	var first int64
	for _, e := range slices.Backward(entries) {
		c, err := b.from(ctx, e.Number, path)
		if err == nil && c.Lost == nil {
			c.Passed = append(passed, forked...)
			return c, nil
		}
		if ctx.Err() != nil || err != nil && !isDamage(err) {
			return c, err
		}
		if err != nil {
			passed = append(passed, err)
		} else {
			forked = append(forked, fmt.Errorf("backup %d: %w", e.Number, c.Lost))
			first = max(first, e.Number)
		}
		if err := remove(path); err != nil {
			return c, err
		}
		if len(forked) > spare { // the journal reaches no further back
			break
		}
	}
	if first == 0 {
		return Copy{Passed: passed}, errors.Join(append([]error{fmt.Errorf("restore %s: %w", b.Database, backup.ErrNone)}, passed...)...)
	}
	c, err := b.from(ctx, first, path)
	c.Passed = passed
	return c, err
}

// from brings one backup back, and carries out what follows.
func (b Book) from(ctx context.Context, n int64, path string) (c Copy, err error) {
	if c.Document, err = b.Shelf.Read(ctx, b.Database, n, path); err != nil {
		return c, err
	}
	db, err := store.OpenAlone(ctx, path, b.Database == backup.ConsoleDatabase)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	c.Records, c.Lost = CatchUp(ctx, b, db)
	if c.Lost == nil {
		c.Lost = Reached(ctx, b, db)
	}
	if c.Lost != nil && !errors.Is(c.Lost, ErrFork) && !isDamage(c.Lost) {
		return c, c.Lost
	}
	if c.Position, err = db.Position(ctx); err != nil {
		return c, err
	}
	c.Audit, err = db.VerifyAudit(ctx)
	return c, err
}

// Skip has a database that was brought back without the end of its journal go on
// after it: what could not be carried out is given up for good.
func (b Book) Skip(ctx context.Context, db store.Journaled) error {
	head, err := b.Head(ctx)
	if err != nil {
		return err
	}
	at, err := db.Position(ctx)
	if err != nil {
		return err
	}
	return db.Restart(ctx, max(head, at.Number), at.Epoch)
}

func isDamage(err error) bool {
	for _, is := range []error{vault.ErrDamaged, vault.ErrNotFound, store.ErrDamaged, audit.ErrBroken} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// remove takes a database away, with what SQLite keeps beside it.
func remove(path string) error {
	for _, tail := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + tail); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove what was not restored: %w", err)
		}
	}
	return nil
}

// Rebuild makes a database in use what a backup of its vault holds, from which its
// journal goes on; CatchUp does the rest, so that what was carried out stays however
// long that takes. What it has beyond that is gone: nobody was told that it counts.
func (b Book) Rebuild(ctx context.Context, db store.Journaled, dir string) error {
	return backup.Scratch(dir, "follow-"+b.Database+"-", func(dir string) error {
		path := dir + "/fresh.db"
		if err := b.Base(ctx, path); err != nil {
			return err
		}
		return db.Become(ctx, path)
	})
}

// Base brings a database back into a file that is not there yet, as the newest
// backup has it from which the journal goes on.
func (b Book) Base(ctx context.Context, path string) error {
	for tried := int64(0); ; {
		entries, err := b.List(ctx, b.Database)
		if err != nil {
			return err
		}
		entries = slices.DeleteFunc(entries, func(e backup.Entry) bool { return e.Number <= tried })
		if len(entries) == 0 {
			return fmt.Errorf("the journal goes on from no backup of %s: %w: wait for the next one of the active console, or bring it back with `davit console restore`", b.Database, backup.ErrNone)
		}
		if found, err := b.newestBase(ctx, entries, path); found || err != nil {
			return err
		}
		tried = entries[len(entries)-1].Number // one that was made meanwhile may go on
	}
}

// newestBase brings back the newest of some backups from which the journal goes on.
func (b Book) newestBase(ctx context.Context, entries []backup.Entry, path string) (found bool, err error) {
	forked := 0
	for _, e := range slices.Backward(entries) {
		err := b.base(ctx, e.Number, path)
		switch {
		case err == nil:
			return true, nil
		case ctx.Err() != nil || !errors.Is(err, ErrFork) && !isDamage(err):
			return false, err
		case errors.Is(err, ErrFork):
			forked++
		}
		if err := remove(path); err != nil || forked > spare { // the journal reaches no further back
			return false, err
		}
	}
	return false, nil
}

// base brings one backup back, and looks whether the journal goes on from there.
func (b Book) base(ctx context.Context, n int64, path string) (err error) {
	if _, err := b.Shelf.Read(ctx, b.Database, n, path); err != nil {
		return err
	}
	db, err := store.OpenAlone(ctx, path, b.Database == backup.ConsoleDatabase)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	at, err := db.Position(ctx)
	if err != nil {
		return err
	}
	numbers, err := b.numbers(ctx)
	if err != nil {
		return err
	}
	next := at.Number
	for _, k := range numbers {
		if k.number > at.Number {
			next++
		}
		if k.number > next {
			return fmt.Errorf("%w: record %d is missing", ErrFork, next)
		}
	}
	_, err = advance(ctx, b, db, 1)
	return err
}
