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
)

// What of a table does not go to the vault: what the console can learn again.
var (
	learnt = map[string][]string{"agent": {"seen", "version", "ends", "said"}, "restoration": {"preview"}}
	only   = map[string]string{"kept": "%s.name LIKE 'secret/%%'"}
)

const triggerPrefix = "journal_"

// triggers note each change of a table in the outbox.
func (t table) triggers() map[string]string {
	var all []column
	var names []string
	for _, c := range t.columns {
		if !slices.Contains(learnt[t.name], c.name) {
			all, names = append(all, c), append(names, c.name)
		}
	}
	keys := slices.DeleteFunc(slices.Clone(t.columns), func(c column) bool { return c.key == 0 })
	when := func(row string) string {
		text := "(SELECT quiet FROM journal_at) = 0"
		if o := only[t.name]; o != "" {
			text += " AND " + fmt.Sprintf(o, row)
		}
		return text
	}
	trigger := func(event, on, row, what string, columns []column) string {
		return fmt.Sprintf("CREATE TRIGGER %s%s_%s AFTER %s ON %s WHEN %s BEGIN INSERT INTO outbox (batch, change) VALUES ((SELECT batch FROM journal_at), json_object('table', '%s', '%s', %s)); END",
			triggerPrefix, t.name, event, on, t.name, when(row), t.name, what, object(row, columns))
	}
	update := "UPDATE"
	if len(all) < len(t.columns) {
		update = "UPDATE OF " + strings.Join(names, ", ")
	}
	return map[string]string{
		triggerPrefix + t.name + "_insert": trigger("insert", "INSERT", "NEW", "put", all),
		triggerPrefix + t.name + "_update": trigger("update", update, "NEW", "put", all),
		triggerPrefix + t.name + "_delete": trigger("delete", "DELETE", "OLD", "delete", keys),
	}
}

// object is a row as JSON.
func object(row string, columns []column) string {
	var parts []string
	for _, c := range columns {
		value := row + "." + c.name
		if c.kind == "BLOB" {
			value = fmt.Sprintf("CASE WHEN %s IS NULL THEN NULL ELSE lower(hex(%s)) END", value, value)
		}
		parts = append(parts, fmt.Sprintf("'%s', %s", c.name, value))
	}
	return "json_object(" + strings.Join(parts, ", ") + ")"
}

// listen makes the triggers be those of today's tables.
func (f *file) listen(ctx context.Context) error {
	tables, err := f.tables(ctx)
	if err != nil {
		return err
	}
	want := map[string]string{}
	for _, t := range tables {
		maps.Copy(want, t.triggers())
	}
	type found struct{ name, text string }
	there, err := query(ctx, f.write, func(row scanner) (t found, err error) { return t, row.Scan(&t.name, &t.text) },
		"SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE ?", triggerPrefix+"%")
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

func become(ctx context.Context, tx *sql.Tx, tables map[string]table) error {
	texts := []string{
		"PRAGMA defer_foreign_keys = 1", "UPDATE journal_at SET quiet = 1", "DROP TRIGGER audit_stays", "DROP TRIGGER audit_keeps",
		"DELETE FROM outbox", "INSERT INTO outbox (number, batch, change) SELECT number, batch, change FROM fresh.outbox",
	}
	for _, t := range tables {
		texts = append(texts, "DELETE FROM main."+t.name)
	}
	for _, t := range tables {
		var names []string
		for _, c := range t.columns {
			names = append(names, c.name)
		}
		list := strings.Join(names, ", ")
		texts = append(texts, "INSERT INTO main."+t.name+" ("+list+") SELECT "+list+" FROM fresh."+t.name)
	}
	return execAll(ctx, tx, append(texts, auditTriggers, "UPDATE journal_at SET (number, epoch, hash, batch, quiet) = (SELECT number, epoch, hash, batch, 0 FROM fresh.journal_at)"))
}
