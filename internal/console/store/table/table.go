// Package table makes statements of what SQLite says of a table: those that note each
// change of a row for the journal, and those that carry one out.
package table

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Errors, wrapped, by which callers decide.
var (
	// ErrNewer says that a newer davit wrote it.
	ErrNewer = errors.New("written by a newer davit")
	// ErrDamaged says that it is not what was written.
	ErrDamaged = errors.New("database damaged")
)

// Column is one of a table.
type Column struct {
	Name, Kind string
	Key        int // its place in the primary key, from 1; 0: none
}

// Table is one of a database.
type Table struct {
	Name    string
	Columns []Column
}

// Key are the columns of the primary key, in the table's order.
func (t Table) Key() (names []string) {
	for _, c := range t.Columns {
		if c.Key > 0 {
			names = append(names, c.Name)
		}
	}
	return names
}

// Put writes a row, new or changed; columns that are not named stay.
func (t Table) Put(names []string) string {
	var set []string
	for _, name := range names {
		if !slices.Contains(t.Key(), name) {
			set = append(set, name+" = excluded."+name)
		}
	}
	text := "INSERT INTO " + t.Name + " (" + strings.Join(names, ", ") + ") VALUES (?" + strings.Repeat(", ?", len(names)-1) + ")"
	switch {
	case t.Name == "audit": // a record that is there already is another's
		return text
	case len(set) == 0:
		return text + " ON CONFLICT DO NOTHING"
	}
	return text + " ON CONFLICT (" + strings.Join(t.Key(), ", ") + ") DO UPDATE SET " + strings.Join(set, ", ")
}

// What of a table does not go to the vault: what the console can learn again.
var (
	learnt = map[string][]string{"agent": {"seen", "version", "ends", "said"}, "restoration": {"preview"}}
	only   = map[string]string{"kept": "%s.name LIKE 'secret/%%'"}
)

// TriggerPrefix begins the names of all triggers.
const TriggerPrefix = "journal_"

// told are the columns of a table that go to the vault.
func (t Table) told() []Column {
	return slices.DeleteFunc(slices.Clone(t.Columns), func(c Column) bool { return slices.Contains(learnt[t.Name], c.Name) })
}

// Told is what of a row goes to the vault, as JSON, and which rows do, as a condition.
func (t Table) Told(row string) (object, which string) {
	which = "1"
	if o := only[t.Name]; o != "" {
		which = fmt.Sprintf(o, row)
	}
	return asJSON(row, t.told()), which
}

// Triggers note each change of a table in the outbox, by name.
func (t Table) Triggers() map[string]string {
	keys := slices.DeleteFunc(slices.Clone(t.Columns), func(c Column) bool { return c.Key == 0 })
	trigger := func(event, on, row, what string, object string) string {
		when := "(SELECT quiet FROM journal_at) = 0"
		if o := only[t.Name]; o != "" {
			when += " AND " + fmt.Sprintf(o, row)
		}
		return fmt.Sprintf("CREATE TRIGGER %s%s_%s AFTER %s ON %s WHEN %s BEGIN INSERT INTO outbox (batch, change) VALUES ((SELECT batch FROM journal_at), json_object('table', '%s', '%s', %s)); END",
			TriggerPrefix, t.Name, event, on, t.Name, when, t.Name, what, object)
	}
	update, all := "UPDATE", t.told()
	if len(all) < len(t.Columns) {
		var names []string
		for _, c := range all {
			names = append(names, c.Name)
		}
		update = "UPDATE OF " + strings.Join(names, ", ")
	}
	row := asJSON("NEW", all)
	return map[string]string{
		TriggerPrefix + t.Name + "_insert": trigger("insert", "INSERT", "NEW", "put", row),
		TriggerPrefix + t.Name + "_update": trigger("update", update, "NEW", "put", row),
		TriggerPrefix + t.Name + "_delete": trigger("delete", "DELETE", "OLD", "delete", asJSON("OLD", keys)),
	}
}

// asJSON is a row as JSON.
func asJSON(row string, columns []Column) string {
	var parts []string
	for _, c := range columns {
		value := row + "." + c.Name
		if c.Kind == "BLOB" {
			value = fmt.Sprintf("CASE WHEN %s IS NULL THEN NULL ELSE lower(hex(%s)) END", value, value)
		}
		parts = append(parts, fmt.Sprintf("'%s', %s", c.Name, value))
	}
	return "json_object(" + strings.Join(parts, ", ") + ")"
}

// Change is what a trigger notes. Blobs are written as hexadecimal digits.
type Change struct {
	Table  string         `json:"table"`
	Put    map[string]any `json:"put,omitempty"`
	Delete map[string]any `json:"delete,omitempty"` // by primary key
}

// Statement carries a change out that another has noted, with its arguments.
func Statement(tables map[string]Table, text string) (statement string, args []any, err error) {
	var c Change
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&c); err != nil { // its text could hold a secret
		return "", nil, fmt.Errorf("follow a change: %w: it is none", ErrDamaged)
	}
	t, known := tables[c.Table]
	if !known {
		return "", nil, fmt.Errorf("follow a change of %.64q: %w", c.Table, ErrNewer)
	}
	row := c.Put
	if row == nil {
		row = c.Delete
	}
	names, args, err := t.values(row)
	switch {
	case err != nil:
		return "", nil, err
	case c.Put != nil:
		return t.Put(names), args, nil
	case !slices.Equal(names, t.Key()):
		return "", nil, fmt.Errorf("follow a change of %s: %w: it names no row", t.Name, ErrDamaged)
	}
	return "DELETE FROM " + t.Name + " WHERE " + strings.Join(names, " = ? AND ") + " = ?", args, nil
}

// values are the named columns in the table's order. A name or a kind of value
// that the table has not is none of ours.
func (t Table) values(row map[string]any) (names []string, values []any, err error) {
	for _, c := range t.Columns {
		v, given := row[c.Name]
		if !given {
			continue
		}
		if v, err = c.value(v); err != nil {
			return nil, nil, fmt.Errorf("follow a change of %s.%s: %w", t.Name, c.Name, err)
		}
		names, values = append(names, c.Name), append(values, v)
	}
	if len(names) != len(row) {
		return nil, nil, fmt.Errorf("follow a change of %s: %w: it has columns that are not known", t.Name, ErrNewer)
	}
	if len(names) == 0 {
		return nil, nil, fmt.Errorf("follow a change of %s: %w: it is empty", t.Name, ErrDamaged)
	}
	return names, values, nil
}

func (c Column) value(v any) (any, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil //nolint:nilnil // it is NULL
	case json.Number:
		if n, err := v.Int64(); err == nil && c.Kind == "INTEGER" {
			return n, nil
		}
	case string:
		if c.Kind == "TEXT" {
			return v, nil
		}
		if data, err := hex.DecodeString(v); err == nil && c.Kind == "BLOB" {
			return data, nil
		}
	}
	return nil, fmt.Errorf("%w: it is no %s", ErrDamaged, c.Kind)
}
