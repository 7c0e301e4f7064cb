package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"davit.dev/davit/internal/console/store/table"
)

// listen makes the triggers be those of today's tables.
func (f *file) listen(ctx context.Context) error {
	tables, err := f.tables(ctx)
	if err != nil {
		return err
	}
	want := map[string]string{}
	for _, t := range tables {
		maps.Copy(want, t.Triggers())
	}
	type found struct{ name, text string }
	there, err := query(ctx, f.write, func(row scanner) (t found, err error) { return t, row.Scan(&t.name, &t.text) },
		"SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE ?", table.TriggerPrefix+"%")
	if err != nil {
		return err
	}
	var stale []string
	for _, t := range there {
		if want[t.name] == t.text {
			delete(want, t.name)
		} else {
			stale = append(stale, "DROP TRIGGER "+t.name)
		}
	}
	if len(stale) == 0 && len(want) == 0 {
		return nil
	}
	return f.transact(ctx, func(tx *sql.Tx) error { return execAll(ctx, tx, slices.AppendSeq(stale, maps.Values(want))) })
}

// execAll carries out statements, one after the other.
func execAll(ctx context.Context, tx *sql.Tx, texts []string) error {
	for _, text := range texts {
		if _, err := exec(ctx, tx, text); err != nil {
			return err
		}
	}
	return nil
}

// Become makes the file hold what another one holds, at one instant: who reads
// it finds the old or the new.
func (f *file) Become(ctx context.Context, path string) (err error) {
	if _, err := os.Stat(path); err != nil { // SQLite would make it
		return fmt.Errorf("take up a database: %w", err)
	}
	tables, err := f.tables(ctx)
	if err != nil {
		return err
	}
	conn, err := f.write.Conn(ctx)
	if err != nil {
		return fmt.Errorf("take up a database: %w", err)
	}
	_, err = conn.ExecContext(ctx, "ATTACH ? AS fresh", path)
	if err := errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("take up a database: %w", err)
	}
	defer func() {
		_, end := f.write.ExecContext(context.WithoutCancel(ctx), "DETACH fresh")
		err = errors.Join(err, end)
	}()
	return f.transact(ctx, func(tx *sql.Tx) error { return become(ctx, tx, tables) })
}

func become(ctx context.Context, tx *sql.Tx, tables map[string]table.Table) error {
	texts := []string{
		"PRAGMA defer_foreign_keys = 1", "UPDATE journal_at SET quiet = 1", "DROP TRIGGER audit_stays", "DROP TRIGGER audit_keeps",
		"DELETE FROM outbox", "INSERT INTO outbox (number, batch, change) SELECT number, batch, change FROM fresh.outbox",
	}
	for _, t := range tables {
		texts = append(texts, "DELETE FROM main."+t.Name)
	}
	for _, t := range tables {
		var names []string
		for _, c := range t.Columns {
			names = append(names, c.Name)
		}
		list := strings.Join(names, ", ")
		texts = append(texts, "INSERT INTO main."+t.Name+" ("+list+") SELECT "+list+" FROM fresh."+t.Name)
	}
	return execAll(ctx, tx, append(texts, auditTriggers, "UPDATE journal_at SET (number, epoch, hash, batch, quiet) = (SELECT number, epoch, hash, batch, 0 FROM fresh.journal_at)"))
}
