package takeover_test

import (
	"compress/gzip"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	_ "modernc.org/sqlite" // to write databases as former versions did

	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fs"
)

// former are formats of the console's own database and of a project's that were there
// together: the last three, and the newest one without a journal, neither here nor in the vault.
var former = []struct {
	own, project int
	journal      bool
}{{3, 6, true}, {3, 5, true}, {3, 4, true}, {2, 3, false}}

// The built command goes on with databases of former formats, with all that is in them,
// and brings a console back from backups that were taken in them.
func TestUpgrade(t *testing.T) {
	for _, f := range former {
		t.Run(fmt.Sprintf("console-%d project-%d", f.own, f.project), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := newLone(t, place{flags: []string{"--vault-url", "file://" + dir}}, 0)
			r.serve(r.a)
			r.trust()
			until(t, "active", func() bool { return r.active(r.a) })
			r.letIn()
			w := r.write(func() {})
			w.more(r.a, 5)
			w.stop()
			r.call(r.a, r.token, "POST", "/backups", nil, nil)
			r.signal(r.a, syscall.SIGTERM) // in order: all is in the vault

			old := t.TempDir()
			own, theirs := filepath.Join(old, "console.db"), filepath.Join(old, "project.db")
			file := r.databases()[0]
			r.must(backdate(t.Context(), filepath.Join(r.a.dir, "console.db"), own, fmt.Sprintf("console-%d", f.own)))
			r.must(backdate(t.Context(), file, theirs, fmt.Sprintf("project-%d", f.project)))
			if !f.journal { // nor had its vault
				r.unjournal(dir)
			}
			saved := filepath.Join(t.TempDir(), "vault")
			r.must(os.CopyFS(saved, os.DirFS(dir)))
			r.shelve(saved, own, theirs, f.journal)

			// The upgrade: the command of today begins in the directory of that day.
			for from, to := range map[string]string{own: filepath.Join(r.a.dir, "console.db"), theirs: file} {
				if v := version(t, from); v >= version(t, to) || v == 0 {
					t.Fatalf("%s is of format %d", from, v)
				}
				for _, tail := range []string{"-wal", "-shm"} {
					if err := os.Remove(to + tail); err != nil && !errors.Is(err, os.ErrNotExist) {
						t.Fatal(err)
					}
				}
				text, err := os.ReadFile(from)
				r.must(err)
				r.must(os.WriteFile(to, text, 0o600))
			}
			r.serve(r.a)
			until(t, "active", func() bool { return r.active(r.a) })
			w.kept(r.a)
			ctx, cancel := r.limited()
			code, err := r.put(ctx, r.a, "upgraded")
			cancel()
			if err != nil || code != http.StatusOK || !r.documents(r.a)["upgraded"] {
				t.Errorf("after the upgrade: %d, %v", code, err)
			}
			r.signal(r.a, syscall.SIGKILL)

			// The spare: a bare machine, and a vault whose backups are of that day.
			b := r.console("b")
			r.must(r.run(b, "console", "restore", "--data", b.dir, "--recovery-key-file", r.dir+"/key", "--vault-url", "file://"+saved))
			r.serve(b)
			r.a = b
			r.trust()
			until(t, "active: the spare", func() bool { return r.active(b) })
			w.kept(b)
			if r.documents(b)["upgraded"] {
				t.Error("it came from somewhere else")
			}
		})
	}
}

// version is the format of a database.
func version(t *testing.T, path string) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.QueryRowContext(t.Context(), "PRAGMA user_version").Scan(&n), db.Close()); err != nil {
		t.Fatal(err)
	}
	return n
}

// backdate writes what a database holds as the davit of a former format would have: into
// the tables, and with the triggers, that one made.
func backdate(ctx context.Context, from, to, format string) (err error) {
	packed, err := os.Open(filepath.Join("..", "store", "testdata", "formats", format+".db.gz"))
	if err != nil {
		return err
	}
	defer packed.Close()
	in, err := gzip.NewReader(packed)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(in)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	list := func(query string) (all []string, err error) {
		rows, err := db.QueryContext(ctx, query)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var one string
			if err := rows.Scan(&one); err != nil {
				return nil, err
			}
			all = append(all, one)
		}
		return all, rows.Err()
	}
	triggers, err := list("SELECT sql FROM sqlite_master WHERE type = 'trigger'")
	if err != nil {
		return err
	}
	names, err := list("SELECT name FROM sqlite_master WHERE type = 'trigger'")
	if err != nil {
		return err
	}
	tables, err := list("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_master'")
	if err != nil {
		return err
	}
	texts := []string{"PRAGMA foreign_keys = 0", "ATTACH '" + from + "' AS today"}
	for _, name := range names {
		texts = append(texts, "DROP TRIGGER "+name)
	}
	for _, table := range tables {
		columns, err := list("SELECT name FROM pragma_table_info('" + table + "')")
		if err != nil {
			return err
		}
		all := strings.Join(columns, ", ")
		texts = append(texts, "DELETE FROM main."+table, "INSERT INTO main."+table+" ("+all+") SELECT "+all+" FROM today."+table)
	}
	for _, text := range append(append(texts, triggers...), "DETACH today", "PRAGMA journal_mode = delete") {
		if _, err := db.ExecContext(ctx, text); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return nil
}

// keeps is where a vault in a directory keeps the console.
func (r *rig) keeps(vault string) string {
	r.t.Helper()
	found, err := filepath.Glob(filepath.Join(vault, "projects", project, "console", "*"))
	if err != nil || len(found) != 1 {
		r.t.Fatal(found, err)
	}
	return found[0]
}

// unjournal takes from a vault what the console of a format without a journal did not write.
func (r *rig) unjournal(vault string) {
	r.t.Helper()
	for _, name := range []string{"journal", "epochs", "beats", "active"} {
		r.must(os.RemoveAll(filepath.Join(r.keeps(vault), name)))
	}
}

// shelve has the backups of a vault be of the databases that are given.
func (r *rig) shelve(dir, own, theirs string, journal bool) {
	r.t.Helper()
	ctx := r.t.Context()
	store, err := fs.Open(dir)
	r.must(err)
	text, err := os.ReadFile(r.dir + "/key")
	r.must(err)
	key, err := vault.ParseIdentity(string(text))
	r.must(err)
	p, err := vault.OpenProject(ctx, store, project, key)
	r.must(err)
	a, err := authority.Read(ctx, p, key)
	r.must(err)
	s := backup.Shelf{Project: p, Authority: a, Console: filepath.Base(r.keeps(dir))}
	documents := map[string]backup.Document{}
	for _, database := range []string{backup.ConsoleDatabase, backup.ProjectDatabase} {
		all, err := s.List(ctx, database)
		r.must(err)
		documents[database], err = s.Document(ctx, database, all[len(all)-1].Number)
		r.must(err)
	}
	r.must(os.RemoveAll(filepath.Join(r.keeps(dir), "backups")))
	for database, path := range map[string]string{backup.ConsoleDatabase: own, backup.ProjectDatabase: theirs} {
		d := documents[database]
		d.Parts, d.Size, d.Journal = nil, 0, position(r.t, path)
		if journal != (d.Journal != nil) {
			r.t.Fatalf("%s: that it has a journal is %t", path, d.Journal != nil)
		}
		d.Audit = tail(r.t, path)
		_, err := s.Write(ctx, path, d, nil)
		r.must(err)
	}
}

// position is up to which record a database has its journal; nil: it has none.
func position(t *testing.T, path string) *int64 {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int64
	if db.QueryRowContext(t.Context(), "SELECT number FROM journal_at").Scan(&n) != nil {
		return nil
	}
	return &n
}

// tail is the end of a database's audit log.
func tail(t *testing.T, path string) (end backup.Tail) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1").Scan(&end.Sequence, &end.Hash); err != nil {
		t.Fatal(err)
	}
	return end
}
