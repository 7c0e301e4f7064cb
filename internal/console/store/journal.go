package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"davit.dev/davit/internal/console/store/table"
)

// journalTables are part of every file from the second console on. What changes
// is noted in outbox in the same transaction, by triggers, until it is in the
// vault. The first hash is random: no other file of the same number continues it.
const journalTables = `
CREATE TABLE outbox (number INTEGER PRIMARY KEY AUTOINCREMENT, batch INTEGER NOT NULL, change TEXT NOT NULL) STRICT;
CREATE TABLE journal_at (
	one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL, epoch INTEGER NOT NULL, hash TEXT NOT NULL, batch INTEGER NOT NULL, quiet INTEGER NOT NULL
) STRICT;
INSERT INTO journal_at (one, number, epoch, hash, batch, quiet) VALUES (1, 0, 0, lower(hex(randomblob(32))), 1, 0);
`

// Errors of the journal, wrapped, by which callers decide.
var (
	// ErrPassive says that this console decides nothing now.
	ErrPassive = errors.New("this console is not the active one")
	// ErrUnconfirmed says that a change is written here, and that the vault has
	// not taken it yet: it may come to count, or not.
	ErrUnconfirmed = errors.New("the change is written here, but the vault has not taken it yet: look again whether it counts")
)

// Guard stands between a change and its acknowledgement.
type Guard interface {
	// Ready says why nothing may be decided now; nil: it may.
	Ready() error
	// Wake says that something waits to go to the vault.
	Wake()
	// Await returns when what waited up to a number is in the vault, and counts.
	Await(ctx context.Context, upto int64) error
}

// alone is the guard of files that no process serves.
type alone struct{}

func (alone) Ready() error                       { return nil }
func (alone) Wake()                              {}
func (alone) Await(context.Context, int64) error { return nil }

// Guard has changes be acknowledged by g from now on.
func (f *file) Guard(g Guard) { f.guard.Store(&g) }

func (f *file) guarded() Guard {
	if g := f.guard.Load(); g != nil {
		return *g
	}
	return alone{}
}

// Guards has changes of all files be acknowledged: guards is asked for each
// project, and with nil for the console's own file. It must not ask the console.
func (c *Console) Guards(guards func(p *Project) Guard) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guards = guards
	c.Guard(guards(nil))
	for _, p := range c.open {
		p.Guard(guards(p))
	}
}

// Journaled is a file whose changes go to the vault.
type Journaled interface {
	Audited
	Snapshot(ctx context.Context, path string) error
	Position(ctx context.Context) (Position, error)
	Waiting(ctx context.Context, most int) ([]Waiting, error)
	Cleared(ctx context.Context) (int64, error)
	Sent(ctx context.Context, upto int64, to Position) error
	Follow(ctx context.Context, changes []string, to Position) error
	Become(ctx context.Context, path string) error
	Restart(ctx context.Context, number, epoch int64) error
}

var (
	_ Journaled = (*Console)(nil)
	_ Journaled = (*Project)(nil)
	_ Journaled = (*Alone)(nil)
)

// Alone is a database that stands alone, such as one that was brought back.
type Alone struct{ *file }

// OpenAlone opens the console's own database, or a project's, and brings it to
// today's format.
func OpenAlone(ctx context.Context, path string, own bool) (*Alone, error) {
	migrations := projectMigrations
	if own {
		migrations = consoleMigrations
	}
	f, err := openFile(ctx, path, false, migrations)
	return &Alone{f}, err
}

// Position is up to where a file has the records of its journal.
type Position struct {
	Number, Epoch int64
	Hash          string
}

// Waiting is a change that is not in the vault, as JSON.
type Waiting struct {
	Number int64
	Change string
	batch  int64
}

// batch runs fn in one transaction and returns the number of the last change
// that waits.
func (f *file) batch(ctx context.Context, fn func(tx *sql.Tx) error) (upto int64, err error) {
	err = f.transact(ctx, func(tx *sql.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		var last, now int64
		err := tx.QueryRowContext(ctx, "SELECT o.number, o.batch, j.batch FROM outbox o, journal_at j ORDER BY o.number DESC LIMIT 1").Scan(&upto, &last, &now)
		if errors.Is(err, sql.ErrNoRows) || err == nil && last != now { // nothing of it goes to the vault
			return nil
		}
		if err != nil {
			return fmt.Errorf("read outbox: %w", err)
		}
		_, err = exec(ctx, tx, "UPDATE journal_at SET batch = batch + 1")
		return err
	})
	if err == nil {
		f.guarded().Wake()
	}
	return upto, err
}

// Position returns up to where the file has the records of its journal.
func (f *file) Position(ctx context.Context) (Position, error) {
	return one(ctx, f.read, func(row scanner) (p Position, err error) { return p, row.Scan(&p.Number, &p.Epoch, &p.Hash) },
		"find position", "SELECT number, epoch, hash FROM journal_at")
}

// Waiting returns changes that wait, oldest first, about most at once: those of
// one transaction are never apart.
func (f *file) Waiting(ctx context.Context, most int) ([]Waiting, error) {
	scan := func(row scanner) (w Waiting, err error) { return w, row.Scan(&w.Number, &w.batch, &w.Change) }
	all, err := query(ctx, f.read, scan, "SELECT number, batch, change FROM outbox ORDER BY number LIMIT ?", most+1)
	if err != nil || len(all) <= most {
		return all, err
	}
	last := all[most].batch
	if whole := slices.IndexFunc(all, func(w Waiting) bool { return w.batch == last }); whole > 0 {
		return all[:whole], nil
	}
	return query(ctx, f.read, scan, "SELECT number, batch, change FROM outbox WHERE batch <= ? ORDER BY number", last)
}

const newestChange = "(SELECT seq FROM sqlite_sequence WHERE name = 'outbox')"

// Settle returns when all that the file holds now counts: no console that takes
// over can know it otherwise. ErrUnconfirmed says that it may come to.
func (f *file) Settle(ctx context.Context) error {
	upto, err := one(ctx, f.read, scanNumber, "find the newest change", "SELECT coalesce("+newestChange+", 0)")
	if err != nil {
		return err
	}
	return f.guarded().Await(ctx, upto)
}

// Cleared is the number up to which no change waits.
func (f *file) Cleared(ctx context.Context) (int64, error) {
	return one(ctx, f.read, scanNumber, "find the oldest change that waits", "SELECT coalesce((SELECT min(number) - 1 FROM outbox), "+newestChange+", 0)")
}

func scanNumber(row scanner) (n int64, err error) { return n, row.Scan(&n) }

// Sent forgets changes that are in the vault now.
func (f *file) Sent(ctx context.Context, upto int64, to Position) error {
	return f.transact(ctx, func(tx *sql.Tx) error {
		if _, err := exec(ctx, tx, "DELETE FROM outbox WHERE number <= ?", upto); err != nil {
			return err
		}
		return move(ctx, tx, to)
	})
}

func move(ctx context.Context, tx *sql.Tx, to Position) error {
	return must(ctx, tx, "note position", "UPDATE journal_at SET number = ?, epoch = ?, hash = ?", to.Number, to.Epoch, to.Hash)
}

// Restart has the file go on at a number, whatever was written before: nothing
// continues it but what it writes itself.
func (f *file) Restart(ctx context.Context, number, epoch int64) error {
	return f.transact(ctx, func(tx *sql.Tx) error {
		return must(ctx, tx, "note position", "UPDATE journal_at SET number = ?, epoch = ?, hash = lower(hex(randomblob(32)))", number, epoch)
	})
}

// quietly runs fn in a transaction of which nothing is noted in the outbox.
func (f *file) quietly(ctx context.Context, fn func(tx *sql.Tx) error) error {
	return f.transact(ctx, func(tx *sql.Tx) error {
		if _, err := exec(ctx, tx, "UPDATE journal_at SET quiet = 1"); err != nil {
			return err
		}
		if err := fn(tx); err != nil {
			return err
		}
		_, err := exec(ctx, tx, "UPDATE journal_at SET quiet = 0")
		return err
	})
}

// Follow carries out what another has written.
func (f *file) Follow(ctx context.Context, changes []string, to Position) error {
	tables, err := f.tables(ctx)
	if err != nil {
		return err
	}
	return f.quietly(ctx, func(tx *sql.Tx) error {
		for _, text := range changes {
			if err := follow(ctx, tx, tables, text); err != nil {
				return err
			}
		}
		return move(ctx, tx, to)
	})
}

func follow(ctx context.Context, tx *sql.Tx, tables map[string]table.Table, change string) error {
	text, args, err := table.Statement(tables, change)
	if err == nil {
		_, err = exec(ctx, tx, text, args...)
	}
	return err
}

// tables are those whose changes go to the vault.
func (f *file) tables(ctx context.Context) (map[string]table.Table, error) {
	type found struct {
		table string
		table.Column
	}
	all, err := query(ctx, f.write, func(row scanner) (c found, err error) { return c, row.Scan(&c.table, &c.Name, &c.Kind, &c.Key) },
		`SELECT m.name, c.name, c.type, c.pk FROM sqlite_master m, pragma_table_info(m.name) c
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name NOT IN ('outbox', 'journal_at') ORDER BY m.name, c.cid`)
	if err != nil {
		return nil, err
	}
	tables := map[string]table.Table{}
	for _, c := range all {
		t := tables[c.table]
		t.Name, t.Columns = c.table, append(t.Columns, c.Column)
		tables[c.table] = t
	}
	return tables, nil
}
