package volume

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestManyFiles stores and restores very many small files: a million with
// DAVIT_SOAK, else as many as cost little. What did not change is not stored
// again.
func TestManyFiles(t *testing.T) {
	const perDir = 400
	count := 3 * perDir
	if os.Getenv("DAVIT_SOAK") != "" {
		count = 1_000_000
	}
	r := openTest(t, newTestStore())
	root, target := t.TempDir(), t.TempDir()
	name := func(i int) string { return fmt.Sprintf("d%04d/f%06d", i/perDir, i) }
	for i := range count {
		if i%perDir == 0 {
			if err := os.Mkdir(filepath.Dir(filepath.Join(root, name(i))), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(root, name(i)), fmt.Appendf(nil, "content of %d", i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	first := write(t, r, root)
	if first.Files != int64(count) || first.Errors != 0 {
		t.Fatalf("snapshot %+v, want %d files", first, count)
	}
	put(t, filepath.Join(root, name(count/2)), []byte("changed"))
	second := write(t, r, root, func(o *WriteOptions) { o.Previous = &first })
	if second.Files != int64(count) || second.NewBytes > first.NewBytes/2 {
		t.Errorf("after one of %d files changed: %+v, the first was %+v", count, second, first)
	}
	if err := r.Read(t.Context(), second, target, ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	seen := 0
	err := filepath.WalkDir(target, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		want := fmt.Sprintf("content of %d", seen)
		if seen == count/2 {
			want = "changed"
		}
		got, err := os.ReadFile(path)
		if err == nil && (string(got) != want || path != filepath.Join(target, name(seen))) {
			return fmt.Errorf("%s holds %q, want %s with %q", path, got, name(seen), want)
		}
		seen++
		return err
	})
	if err != nil || seen != count {
		t.Errorf("%d of %d files restored: %v", seen, count, err)
	}
}
