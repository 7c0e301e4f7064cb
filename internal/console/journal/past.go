package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/store"
)

// ErrYounger says that no backup reaches back to a time.
var ErrYounger = errors.New("what is kept is younger")

// Past is a database as it was at a time, by the clocks of the consoles that wrote it.
type Past struct {
	// Backup is the number of the one from which it was brought back.
	Backup int64
	// Records is how many records of the journal came after that.
	Records int
	// At is when the last of all that was written.
	At time.Time
	// Audit is the end of its audit log.
	Audit audit.Tail
	// Passed are backups that were passed over, because they are damaged.
	Passed []error
	// Short says why there is nothing from between At and the time that was asked for; nil: nothing was written then.
	Short error
}

// At brings a database back, into a file that is not there yet, as it was at a time: from
// the newest backup that is whole and not younger, and the records of the journal up to then.
// ErrYounger says that there is no such one. The file is to be looked at: what it would write
// continues nothing.
func (b Book) At(ctx context.Context, path string, t time.Time) (Past, error) {
	entries, err := b.List(ctx, b.Database)
	if err != nil {
		return Past{}, err
	}
	var passed []error
	for _, e := range slices.Backward(entries) {
		p, err := b.at(ctx, e.Number, path, t)
		if err == nil {
			p.Passed = passed
			return p, nil
		}
		if ctx.Err() != nil || !errors.Is(err, ErrYounger) && !isDamage(err) {
			return p, err
		}
		if !errors.Is(err, ErrYounger) {
			passed = append(passed, err)
		}
		if err := remove(path); err != nil {
			return p, err
		}
	}
	return Past{Passed: passed}, errors.Join(append([]error{fmt.Errorf("bring %s back as of %s: %w", b.Database, t.UTC().Format(time.RFC3339), ErrYounger)}, passed...)...)
}

// at brings one backup back, and carries out what was written up to a time.
func (b Book) at(ctx context.Context, n int64, path string, t time.Time) (p Past, err error) {
	d, err := b.Document(ctx, b.Database, n)
	if err != nil {
		return p, err
	}
	if d.At.After(t) {
		return p, fmt.Errorf("backup %d: %w", n, ErrYounger)
	}
	if _, err := b.Shelf.Read(ctx, b.Database, n, path); err != nil {
		return p, err
	}
	db, err := store.OpenAlone(ctx, path, b.Database == backup.ConsoleDatabase)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	// The time of a backup is from before it was made: something may have come in between.
	last, err := db.Audit(ctx, 0, 1)
	if err != nil {
		return p, err
	}
	if len(last) == 1 && last[0].At.After(t) {
		return p, fmt.Errorf("backup %d: %w", n, ErrYounger)
	}
	p = Past{Backup: n, At: d.At}
	if err := b.until(ctx, db, t, &p); err != nil {
		return p, err
	}
	p.Audit, err = db.VerifyAudit(ctx)
	return p, err
}

// until carries out the records up to a time. A journal that ends before it, because its records
// were trimmed, are damaged or continue another database, is no error: the database is a
// former one, and what it has by then is true.
func (b Book) until(ctx context.Context, db store.Journaled, t time.Time, p *Past) error {
	for {
		at, err := db.Position(ctx)
		if err != nil {
			return err
		}
		pages, readErr := b.pages(ctx, at.Number+1, ahead)
		if later := slices.IndexFunc(pages, func(p page) bool { return p.At.After(t) }); later >= 0 {
			return p.short(b.carry(ctx, db, at, pages[:later], p))
		}
		if err := errors.Join(b.carry(ctx, db, at, pages, p), readErr); err != nil {
			return p.short(err)
		}
		if len(pages) < ahead {
			return p.short(Reached(ctx, b, db))
		}
	}
}

// carry carries records out, and notes how far that went.
func (b Book) carry(ctx context.Context, db store.Journaled, at store.Position, pages []page, p *Past) error {
	for len(pages) > 0 {
		n, err := carryOut(ctx, db, at, pages)
		if err != nil {
			return err
		}
		if last := pages[n-1]; last.At.After(p.At) {
			p.At = last.At
		}
		at, pages, p.Records = pages[n-1].position(), pages[n:], p.Records+n
	}
	return nil
}

// short notes why a journal goes on no further; other errors it returns.
func (p *Past) short(err error) error {
	if errors.Is(err, ErrFork) || isDamage(err) {
		p.Short, err = err, nil
	}
	return err
}
