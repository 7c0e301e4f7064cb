package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"davit.dev/davit/internal/vault/mem"
)

// TestPaceCountsWhatTheDiskDoes: all that is read of files, and all that is written
// of them; what a second backup does not read, and a hole, is not counted.
func TestPaceCountsWhatTheDiskDoes(t *testing.T) {
	root := t.TempDir()
	const small, large = 5000, 3 << 20
	put(t, filepath.Join(root, "small"), random(1, small))
	put(t, filepath.Join(root, "large"), random(2, large))
	put(t, filepath.Join(root, "blank"), make([]byte, large))
	old := time.Now().Add(-time.Hour) // else the second backup would not trust them
	for _, name := range []string{"small", "large", "blank"} {
		if err := os.Chtimes(filepath.Join(root, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	r := openTest(t, mem.New(nil))
	var passed atomic.Int64
	count := func(_ context.Context, bytes int) error { passed.Add(int64(bytes)); return nil }
	passes := func(what string, want int64) {
		t.Helper()
		if got := passed.Swap(0); got != want {
			t.Errorf("%s: %d bytes passed, want %d", what, got, want)
		}
	}
	paced := func(o *WriteOptions) { o.Pace = count }
	snap := write(t, r, root, paced)
	passes("backup", small+2*large)
	write(t, r, root, paced, func(o *WriteOptions) { o.Previous = &snap })
	passes("second backup", 0)
	target := t.TempDir()
	read := func(pace Pace, resume bool) error {
		return r.Read(t.Context(), snap, target, ReadOptions{Pace: pace, Resume: resume})
	}
	if err := read(count, false); err != nil {
		t.Fatal(err)
	}
	passes("restore", small+large)
	if err := read(count, false); err != nil { // it compares
		t.Fatal(err)
	}
	passes("restore over it", small+2*large)
	if err := os.WriteFile(filepath.Join(target, "small"), random(3, small), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := read(count, false); err != nil { // and writes what differs
		t.Fatal(err)
	}
	passes("restore over a change", 2*small+2*large)
	over := errors.New("no more")
	if err := r.Read(t.Context(), snap, t.TempDir(), ReadOptions{Pace: func(context.Context, int) error { return over }}); !errors.Is(err, over) {
		t.Errorf("restore without leave: %v", err)
	}
	if _, err := r.Write(t.Context(), WriteOptions{Root: root, Source: source, Pace: func(context.Context, int) error { return over }}); !errors.Is(err, over) {
		t.Errorf("backup without leave: %v", err)
	}
}
