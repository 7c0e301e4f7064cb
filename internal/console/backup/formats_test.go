package backup_test

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/journal"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault/mem"
)

// A backup that was taken in any earlier format of a database is brought back as `console
// restore` does it, with its whole audit log, and opens in the format of today.
func TestBackupsOfFormerFormats(t *testing.T) {
	all, err := filepath.Glob("../store/testdata/formats/*.db.gz")
	if err != nil || len(all) < 3 {
		t.Fatal(all, err)
	}
	for _, fixture := range all {
		t.Run(strings.TrimSuffix(filepath.Base(fixture), ".db.gz"), func(t *testing.T) {
			ctx, path := t.Context(), filepath.Join(t.TempDir(), "was.db")
			unpack(t, fixture, path)
			database, look := backup.ProjectDatabase, store.CheckProject
			if strings.HasPrefix(filepath.Base(fixture), "console") {
				database, look = backup.ConsoleDatabase, store.CheckConsole
			}
			tail, err := look(ctx, path)
			if err != nil || tail.Sequence == 0 {
				t.Fatalf("%+v, %v", tail, err)
			}
			p, key, err := consoletest.New(ctx, mem.New(nil), "acme")
			if err != nil {
				t.Fatal(err)
			}
			a, err := authority.Ensure(ctx, p, key, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			s := backup.Shelf{Project: p, Authority: a, Console: "c0ffee"}
			d := backup.Document{Database: database, At: time.Now(), Audit: backup.Tail{Sequence: tail.Sequence, Hash: tail.Hash}}
			if _, err := s.Write(ctx, path, d, nil); err != nil {
				t.Fatal(err)
			}
			fresh := filepath.Join(t.TempDir(), "fresh.db")
			if c, err := (journal.Book{Shelf: s, Database: database}).Newest(ctx, fresh); err != nil || c.Lost != nil {
				t.Fatalf("%+v, %v", c, err)
			}
			db, err := store.OpenAlone(ctx, fresh, database == backup.ConsoleDatabase)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if now, err := look(ctx, fresh); err != nil || now.Sequence < tail.Sequence {
				t.Errorf("its audit log ends with %d, want %d: %v", now.Sequence, tail.Sequence, err)
			}
		})
	}
}

func unpack(t *testing.T, from, to string) {
	t.Helper()
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(in)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
