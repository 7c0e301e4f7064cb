// Package store keeps what the console knows on its own disk: users, sessions
// and the list of projects in one SQLite file, and what is a project's in
// another, one for each (docs/formats/console.md). All SQL is here. A change
// and its record in the audit log are in one transaction: both or neither.
package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"modernc.org/sqlite" // also the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store/directory"
	"davit.dev/davit/internal/console/store/table"
)

// Errors, wrapped, by which callers decide.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	// ErrConflict says that what was to be changed is not as the caller saw it.
	ErrConflict = errors.New("changed by another meanwhile")
	// ErrRefused says that a rule forbids the change.
	ErrRefused = directory.ErrRefused
	// ErrNewer says that a newer davit wrote the file.
	ErrNewer = table.ErrNewer
	// ErrDamaged says that a file is not what was written.
	ErrDamaged = table.ErrDamaged
)

// readers is how many requests read one file at a time.
const readers = 4

// file is one SQLite file. One connection writes, others read what was
// committed before they began.
type file struct {
	path        string
	opened      os.FileInfo
	write, read *pool
	guard       atomic.Pointer[Guard]
	// sick says that something was found in it that is not what was written.
	sick atomic.Bool
}

// pool are connections that say of their file what they found.
type pool struct {
	*sql.DB
	sick *atomic.Bool
}

// note looks whether an error says that the file is damaged.
func (p *pool) note(err error) error {
	if isDamage(err) {
		p.sick.Store(true)
	}
	return err
}

// openFile opens a database and brings it up to the newest of its migrations.
// Without create, the file must be there.
func openFile(ctx context.Context, path string, create bool, migrations []string) (*file, error) {
	if _, err := os.Stat(path); err != nil && (!create || !errors.Is(err, os.ErrNotExist)) {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if create { // SQLite would make it readable for others
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open database: %w", err)
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("open database: %w", err)
		}
	}
	f := &file{path: path}
	var err error
	f.write, f.read = &pool{sick: &f.sick}, &pool{sick: &f.sick}
	if f.write.DB, err = sql.Open("sqlite", source(path, "immediate", "foreign_keys(1)", "synchronous(full)")); err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	f.write.SetMaxOpenConns(1)
	if f.read.DB, err = sql.Open("sqlite", source(path, "deferred", "query_only(1)")); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", path, err), f.Close())
	}
	f.read.SetMaxOpenConns(readers)
	f.read.SetMaxIdleConns(readers)
	if err := f.ready(ctx, create, migrations); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", path, err), f.Close())
	}
	if f.opened, err = os.Stat(path); err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), f.Close())
	}
	return f, nil
}

func source(path, lock string, pragmas ...string) string {
	query := url.Values{"_txlock": {lock}, "mode": {"rw"}} // a file that is lost is not made anew, with nothing in it
	for _, p := range append([]string{"busy_timeout(10000)", "journal_mode(wal)"}, pragmas...) {
		query.Add("_pragma", p)
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}).String()
}

// whole says whether a file is one, as a connection reads it.
func whole(ctx context.Context, db *sql.DB) error {
	var says string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&says); err != nil {
		return damage(err)
	}
	if says != "ok" {
		return fmt.Errorf("%w: %s", ErrDamaged, says)
	}
	return nil
}

// Lost says why the file that was opened is not one any more: it is gone, another one
// is in its place, or somebody came upon a damage in it.
func (f *file) Lost(ctx context.Context) error {
	now, err := os.Stat(f.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: %s is gone", ErrDamaged, f.path)
	case err == nil && !os.SameFile(now, f.opened):
		return fmt.Errorf("%w: something else is in the place of %s", ErrDamaged, f.path)
	case err != nil || !f.sick.Load():
		return nil // what cannot be looked at is not lost
	}
	db, err := sql.Open("sqlite", source(f.path, "deferred", "query_only(1)")) // which has read nothing of it yet
	if err == nil {
		err = errors.Join(whole(ctx, db), db.Close())
	}
	if errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.sick.Store(false)
	return nil
}

// ready checks the file and migrates it.
func (f *file) ready(ctx context.Context, create bool, migrations []string) error {
	if err := whole(ctx, f.write.DB); err != nil {
		return err
	}
	var version int
	if err := f.write.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return fmt.Errorf("read its version: %w", err)
	}
	if version == 0 && !create {
		return fmt.Errorf("%w: it is empty", ErrDamaged)
	}
	if version > len(migrations) {
		return fmt.Errorf("%w: its format is %d, this davit knows up to %d: use a newer davit", ErrNewer, version, len(migrations))
	}
	for n := version; n < len(migrations); n++ {
		err := f.transact(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, fmt.Sprintf("%s;\nPRAGMA user_version = %d", migrations[n], n+1))
			return err
		})
		if err != nil {
			return fmt.Errorf("migrate it to format %d: %w", n+1, err)
		}
	}
	return f.listen(ctx)
}

// damage says of an error of SQLite's that the file is damaged, if it means that.
func damage(err error) error {
	if isDamage(err) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return fmt.Errorf("check it: %w", err)
}

func isDamage(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_CORRUPT || e.Code()&0xff == sqlite3.SQLITE_NOTADB)
}

// Close closes the file.
func (f *file) Close() error {
	var errs []error
	for _, db := range []*pool{f.read, f.write} {
		if db.DB != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// transact runs fn in one transaction, which alone writes meanwhile.
func (f *file) transact(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := f.write.BeginTx(ctx, nil)
	if f.write.note(err) != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	if err := f.write.note(fn(tx)); err != nil {
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	if err := f.write.note(tx.Commit()); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// update runs fn in one transaction, and what it changed goes to the vault soon.
func (f *file) update(ctx context.Context, fn func(tx *sql.Tx) error) error {
	_, err := f.batch(ctx, fn)
	return err
}

// ignoreDone forgets that a transaction has ended already.
func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// change runs fn and writes the record of it: both or neither. fn may add to
// the record. It returns once what was changed is in the vault as well.
func (f *file) change(ctx context.Context, act audit.Act, r audit.Record, fn func(tx *sql.Tx, r *audit.Record) error) error {
	guard := f.guarded()
	if err := guard.Ready(); err != nil {
		return err
	}
	upto, err := f.record(ctx, act, r, fn)
	if err != nil {
		return err
	}
	return guard.Await(ctx, upto)
}

// changeSoon is change for what may be lost with this machine: it does not wait
// for the vault.
func (f *file) changeSoon(ctx context.Context, act audit.Act, r audit.Record, fn func(tx *sql.Tx, r *audit.Record) error) error {
	_, err := f.record(ctx, act, r, fn)
	return err
}

func (f *file) record(ctx context.Context, act audit.Act, r audit.Record, fn func(tx *sql.Tx, r *audit.Record) error) (upto int64, err error) {
	return f.batch(ctx, func(tx *sql.Tx) error {
		if err := fn(tx, &r); err != nil {
			return err
		}
		return note(ctx, tx, act, r)
	})
}

// auditTable is part of every file. What is in it stays: only whoever can write
// to the file besides Davit could change it, and the hashes would tell.
const auditTable = `
CREATE TABLE audit (sequence INTEGER PRIMARY KEY, hash TEXT NOT NULL, record TEXT NOT NULL) STRICT;
` + auditTriggers

const auditTriggers = `
CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_keeps BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
`

func note(ctx context.Context, tx *sql.Tx, act audit.Act, r audit.Record) error {
	var tail audit.Tail
	err := tx.QueryRowContext(ctx, "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1").Scan(&tail.Sequence, &tail.Hash)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("read audit log: %w", err)
	}
	r.At, r.By, r.From = act.At, act.By, act.From
	if r, err = tail.Next(r); err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write audit log: %w", err)
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO audit (sequence, hash, record) VALUES (?, ?, ?)", r.Sequence, r.Hash, string(data)); err != nil {
		return fmt.Errorf("write audit log: %w", err)
	}
	return nil
}

// Note writes a record of what changes nothing in this file, such as a login
// that was refused.
func (f *file) Note(ctx context.Context, act audit.Act, r audit.Record) error {
	return f.update(ctx, func(tx *sql.Tx) error { return note(ctx, tx, act, r) })
}

// Witness writes a record of what is about to be done elsewhere. It returns once
// the record is in the vault as well: an error says that it must not be done.
func (f *file) Witness(ctx context.Context, act audit.Act, r audit.Record) error {
	return f.change(ctx, act, r, func(*sql.Tx, *audit.Record) error { return nil })
}

// Audit returns at most limit records before a sequence number, newest first;
// before 0 means from the end.
func (f *file) Audit(ctx context.Context, before int64, limit int) ([]audit.Record, error) {
	if before <= 0 {
		before = 1<<63 - 1
	}
	return query(ctx, f.read, scanRecord, "SELECT record FROM audit WHERE sequence < ? ORDER BY sequence DESC LIMIT ?", before, limit)
}

// AuditAfter returns at most limit records after a sequence number, oldest first.
func (f *file) AuditAfter(ctx context.Context, after int64, limit int) ([]audit.Record, error) {
	return query(ctx, f.read, scanRecord, "SELECT record FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?", after, limit)
}

func scanRecord(row scanner) (r audit.Record, err error) {
	var data string
	if err := row.Scan(&data); err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(data), &r); err != nil {
		return r, fmt.Errorf("%w: %w", audit.ErrBroken, err)
	}
	return r, nil
}

// VerifyAudit reads the whole log and returns its last record's place, or
// audit.ErrBroken.
func (f *file) VerifyAudit(ctx context.Context) (audit.Tail, error) {
	var tail audit.Tail
	_, err := query(ctx, f.read, func(row scanner) (struct{}, error) {
		r, err := scanRecord(row)
		if err == nil {
			tail, err = tail.Follow(r)
		}
		return struct{}{}, err
	}, "SELECT record FROM audit ORDER BY sequence")
	return tail, err
}

// scanner is one row of an answer.
type scanner interface{ Scan(into ...any) error }

type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// query returns all rows of an answer.
func query[T any](ctx context.Context, in queryer, scan func(scanner) (T, error), text string, args ...any) (all []T, err error) {
	if p, ok := in.(*pool); ok { // in a transaction, whoever began it does
		defer func() { _ = p.note(err) }()
	}
	rows, err := in.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, fmt.Errorf("query database: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("read row: %w", err)
		}
		all = append(all, one)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("query database: %w", err)
	}
	return all, nil
}

// one returns the only row of an answer, or ErrNotFound.
func one[T any](ctx context.Context, in queryer, scan func(scanner) (T, error), what, text string, args ...any) (T, error) {
	all, err := query(ctx, in, scan, text, args...)
	if err != nil || len(all) != 1 {
		var none T
		if err == nil {
			err = ErrNotFound
		}
		return none, fmt.Errorf("%s: %w", what, err)
	}
	return all[0], nil
}

// exec changes rows and returns how many.
func exec(ctx context.Context, tx *sql.Tx, text string, args ...any) (int64, error) {
	result, err := tx.ExecContext(ctx, text, args...)
	if err != nil {
		return 0, fmt.Errorf("write database: %w", err)
	}
	return result.RowsAffected()
}

// must is exec where exactly one row has to be there to change.
func must(ctx context.Context, tx *sql.Tx, what, text string, args ...any) error {
	n, err := exec(ctx, tx, text, args...)
	if err == nil && n != 1 {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Times are kept as milliseconds since 1970; 0 is never.
func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

// Audited is whatever has an audit log: the console, and each project.
type Audited interface {
	Audit(ctx context.Context, before int64, limit int) ([]audit.Record, error)
	AuditAfter(ctx context.Context, after int64, limit int) ([]audit.Record, error)
	VerifyAudit(ctx context.Context) (audit.Tail, error)
}

var (
	_ Audited = (*Console)(nil)
	_ Audited = (*Project)(nil)
)
