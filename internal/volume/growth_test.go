package volume

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"davit.dev/davit/internal/testkit/detector"
	"davit.dev/davit/internal/vault/backend"
)

// grownFiles has the test be the child of TestMemoryGrowsSlowly, and says for how
// many files.
const grownFiles = "DAVIT_GROWN_FILES"

// The bound of docs/formats/volumes.md: a directory at a time is held, and what
// the repository's index has of each file that is new.
const (
	growth      = 5.0 // for ten times the files
	baseMiB     = 192.0
	perFileMiB  = 2.0 / 1024
	fewFiles    = 2000
	fewFilesRun = 10_000 // with DAVIT_SOAK
)

// TestMemoryGrowsSlowly stores and restores N files and ten times as many, each
// in a process of its own, and compares the most memory that they had.
func TestMemoryGrowsSlowly(t *testing.T) {
	if n, err := strconv.Atoi(os.Getenv(grownFiles)); err == nil {
		fmt.Printf("PEAK %f MiB\n", storeAndRestore(t, n))
		return
	}
	if detector.Watches() {
		t.Skip("the race detector keeps several times as much memory beside what is held")
	}
	n := fewFiles
	if os.Getenv("DAVIT_SOAK") != "" {
		n = fewFilesRun
	}
	few, many := peakOf(t, n), peakOf(t, 10*n)
	t.Logf("%d files: %.0f MiB, %d files: %.0f MiB", n, few, 10*n, many)
	if bound := baseMiB + perFileMiB*float64(10*n); few <= 0 || many > growth*few || many > bound {
		t.Errorf("%d files took %.0f MiB, and %d took %.0f MiB: want at most %.0f times as much, and %.0f MiB", n, few, 10*n, many, growth, bound)
	}
}

// peakOf is the most memory of a process that stores and restores n files.
func peakOf(t *testing.T, n int) float64 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMemoryGrowsSlowly$", "-test.v")
	cmd.Env = append(os.Environ(), grownFiles+"="+strconv.Itoa(n), "GOGC=100") // as in production
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%d files: %v\n%s", n, err, out)
	}
	var peak float64
	for line := range strings.Lines(string(out)) {
		if got, _ := fmt.Sscanf(line, "PEAK %f MiB", &peak); got == 1 {
			return peak
		}
	}
	t.Fatalf("%d files: no figure\n%s", n, out)
	return 0
}

// storeAndRestore does so with a vault in a directory, as memory would count
// what is in the vault, and returns the most memory that this process had.
func storeAndRestore(t *testing.T, n int) float64 {
	const perDir = 200
	root, target := t.TempDir(), t.TempDir()
	for i := range n {
		path := fmt.Sprintf("%s/d%05d/f%03d", root, i/perDir, i%perDir)
		if i%perDir == 0 {
			if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path, random(uint64(i), 512), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	store, err := backend.Open(t.Context(), backend.Config{URL: "file://" + t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	r := openTest(t, store)
	snap := write(t, r, root)
	if snap.Files != int64(n) || snap.Errors != 0 {
		t.Fatalf("snapshot %+v, want %d files", snap, n)
	}
	if err := r.Read(t.Context(), snap, target, ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	return peakMiB()
}
