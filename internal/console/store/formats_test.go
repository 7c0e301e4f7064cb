package store

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store/table"
)

var makeFormats = flag.Bool("formats", false, "make what testdata/formats has not yet: the database of each format, and what was changed after it")

// formats are the databases of all formats, as each one's davit wrote them.
const formats = "testdata/formats"

// format is one, such as project-4.
type format struct {
	kind string
	n    int
	all  []string // migrations of today
}

func (f format) String() string          { return fmt.Sprintf("%s-%d", f.kind, f.n) }
func (f format) file(tail string) string { return filepath.Join(formats, f.String()+tail) }
func (f format) own() bool               { return f.kind == "console" }

// sum is of the migration that makes this format of the one before.
func (f format) sum() string { return fmt.Sprintf("%x", sha256.Sum256([]byte(f.all[f.n-1]))) }

func eachFormat(t *testing.T, fn func(t *testing.T, f format)) {
	t.Helper()
	for kind, all := range map[string][]string{"console": consoleMigrations, "project": projectMigrations} {
		for n := range all {
			f := format{kind, n + 1, all}
			t.Run(f.String(), func(t *testing.T) { fn(t, f) })
		}
	}
}

// No migration that was ever written is changed, and none is without the database
// that the davit of its day wrote: that is what upgrades and restores begin from.
func TestFormatsStay(t *testing.T) {
	eachFormat(t, func(t *testing.T, f format) {
		if _, err := os.Stat(f.file(".sum")); *makeFormats && errors.Is(err, os.ErrNotExist) {
			f.make(t)
		}
		want, err := os.ReadFile(f.file(".sum"))
		if err != nil {
			t.Fatalf("%v: make it, and commit it: go test ./internal/console/store -run TestFormats -formats", err)
		}
		if got := f.sum(); got != strings.TrimSpace(string(want)) {
			t.Errorf("migration %d of the %s's database was changed: it was released. Add the next one instead", f.n, f.kind)
		}
		changed := f // the control
		changed.all = append([]string{}, f.all...)
		changed.all[f.n-1] += " "
		if changed.sum() == strings.TrimSpace(string(want)) {
			t.Error("a changed migration is not found")
		}
	})
}

// The database of each earlier format is opened with all that was in it, and goes on
// with what was journaled after it.
func TestFormats(t *testing.T) {
	eachFormat(t, func(t *testing.T, f format) {
		ctx := t.Context()
		path := f.unpack(t)
		before := rows(t, path)
		if len(before) == 0 {
			t.Fatal("it holds nothing")
		}
		db, err := OpenAlone(ctx, path, f.own())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		tail, err := db.VerifyAudit(ctx)
		if err != nil || tail.Sequence != 1 {
			t.Errorf("audit log: %+v, %v", tail, err)
		}
		kept(t, before, rows(t, path))
		var version int
		if err := db.read.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil || version != len(f.all) {
			t.Errorf("it is of format %d, %v", version, err)
		}
		text, err := os.ReadFile(f.file(".journal"))
		if errors.Is(err, os.ErrNotExist) && f.journaled() == 0 {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		changes := strings.Split(strings.TrimSpace(string(text)), "\n")
		at, err := db.Position(ctx)
		if err != nil || at.Number != 3 {
			t.Fatal(at, err)
		}
		if err := db.Follow(ctx, changes, Position{Number: 4, Epoch: 2, Hash: "dd"}); err != nil {
			t.Fatal(err)
		}
		if tail, err := db.VerifyAudit(ctx); err != nil || tail.Sequence != 2 {
			t.Errorf("audit log: %+v, %v", tail, err)
		}
		got := rows(t, path)
		kept(t, before, got)
		for _, c := range changes {
			var one table.Change
			if err := json.Unmarshal([]byte(c), &one); err != nil {
				t.Fatal(err)
			}
			if len(got[one.Table]) < 2 {
				t.Errorf("a change of %s was not carried out", one.Table)
			}
		}
	})
}

// kept fails for what was there and is not.
func kept(t *testing.T, before, after map[string][]map[string]string) {
	t.Helper()
	for table, all := range before {
		for i, row := range all {
			for column, value := range row {
				if i >= len(after[table]) || after[table][i][column] != value {
					t.Errorf("%s.%s is not what it was: %q", table, column, value)
				}
			}
		}
	}
}

// journaled is how many of the migrations before and with this one make the journal.
func (f format) journaled() (n int) {
	for _, m := range f.all[:f.n] {
		n += strings.Count(m, "CREATE TABLE outbox")
	}
	return n
}

func (f format) unpack(t *testing.T) string {
	t.Helper()
	packed, err := os.Open(f.file(".db.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	from, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(from)
	path := filepath.Join(t.TempDir(), "old.db")
	if err := errors.Join(err, os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// rows are those of all tables but what the journal keeps of itself.
func rows(t *testing.T, path string) map[string][]map[string]string {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	f := &file{path: path, write: &pool{DB: db}}
	f.write.sick = &f.sick
	tables, err := f.tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]map[string]string{}
	for name, shape := range tables {
		all[name], err = query(t.Context(), db, func(row scanner) (map[string]string, error) {
			values, into := make([]any, len(shape.Columns)), make([]any, len(shape.Columns))
			for i := range values {
				into[i] = &values[i]
			}
			err := row.Scan(into...)
			out := map[string]string{}
			for i, c := range shape.Columns {
				out[c.Name] = fmt.Sprintf("%T %x", values[i], values[i])
			}
			return out, err
		}, "SELECT * FROM "+name+" ORDER BY rowid")
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// make makes what the davit of the format would have written: by its migrations, and
// its triggers.
func (f format) make(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "made.db")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(path, nil, 0o600))
	in := &file{path: path}
	var err error
	in.write = &pool{sick: &in.sick}
	in.write.DB, err = sql.Open("sqlite", source(path, "immediate", "foreign_keys(1)"))
	must(err)
	in.read = in.write
	in.write.SetMaxOpenConns(1)
	defer in.write.Close()
	run := func(text string) { _, err := in.write.ExecContext(ctx, text); must(err) }
	for _, m := range f.all[:f.n] {
		run(m)
	}
	run(fmt.Sprintf("PRAGMA user_version = %d", f.n))
	if f.journaled() > 0 {
		must(in.listen(ctx))
	}
	must(in.fill(ctx, "before"))
	if f.journaled() > 0 {
		run("DELETE FROM outbox")
		run("UPDATE journal_at SET number = 3, epoch = 1, hash = 'cc'")
	}
	copied := path + ".copy"
	run("VACUUM INTO '" + copied + "'")
	data, err := os.ReadFile(copied)
	must(err)
	var packed bytes.Buffer
	to := gzip.NewWriter(&packed)
	_, err = to.Write(data)
	must(errors.Join(err, to.Close(), os.MkdirAll(formats, 0o755), os.WriteFile(f.file(".db.gz"), packed.Bytes(), 0o644)))
	if f.journaled() > 0 {
		must(in.fill(ctx, "journal"))
		all, err := query(ctx, in.read, func(row scanner) (c string, err error) { return c, row.Scan(&c) }, "SELECT change FROM outbox ORDER BY number")
		must(err)
		must(os.WriteFile(f.file(".journal"), []byte(strings.Join(all, "\n")+"\n"), 0o644))
	}
	must(os.WriteFile(f.file(".sum"), []byte(f.sum()+"\n"), 0o644))
}

// fill writes a row into each table, and one more into the audit log.
func (f *file) fill(ctx context.Context, word string) error {
	tables, err := f.tables(ctx)
	if err != nil {
		return err
	}
	return f.transact(ctx, func(tx *sql.Tx) error {
		first := map[string]int{"user": -1} // others refer to users
		order := slices.SortedFunc(maps.Keys(tables), func(a, b string) int { return cmp.Or(first[a]-first[b], cmp.Compare(a, b)) })
		for _, name := range order {
			t := tables[name]
			if t.Name == "audit" {
				continue
			}
			values := map[string]any{}
			for _, c := range t.Columns {
				switch {
				case c.Kind == "INTEGER" && c.Key > 0:
					values[c.Name] = len(word)
				case c.Kind == "INTEGER":
					values[c.Name] = 1
				case c.Kind == "BLOB":
					values[c.Name] = []byte(word + c.Name)
				case t.Name == "kept" && c.Name == "name":
					values[c.Name] = "secret/" + word
				case c.Name == "user" || t.Name == "user" && c.Name == "id":
					values[c.Name] = word
				default:
					values[c.Name] = word + " " + c.Name
				}
			}
			var names []string
			var args []any
			for name, value := range maps.All(values) {
				names, args = append(names, name), append(args, value)
			}
			text := "INSERT INTO " + t.Name + " (" + strings.Join(names, ", ") + ") VALUES (?" + strings.Repeat(", ?", len(names)-1) + ")"
			if _, err := tx.ExecContext(ctx, "PRAGMA defer_foreign_keys = 1"); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, text, args...); err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
		}
		return note(ctx, tx, audit.Act{By: "user/anna", At: time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)}, audit.Record{Action: word})
	})
}
