package volume

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"davit.dev/davit/internal/point"
)

// over restores a snapshot over what a target holds, and returns how much was
// fetched from the repository.
func over(t *testing.T, r *Repository, snap point.Snapshot, target string) int64 {
	t.Helper()
	var last Progress
	err := r.Read(t.Context(), snap, target, ReadOptions{DeleteExtra: true, Resume: true, Progress: func(p Progress) { last = p }})
	if err != nil {
		t.Fatal(err)
	}
	if last.Bytes != snap.Bytes {
		t.Errorf("%d bytes were accounted for, of %d", last.Bytes, snap.Bytes)
	}
	return last.Fetched
}

// TestRollingForwardFetchesTheDifference brings a volume from one snapshot to the
// next in place: what it holds already is not fetched again.
func TestRollingForwardFetchesTheDifference(t *testing.T) {
	r := openTest(t, newTestStore())
	root, target := t.TempDir(), t.TempDir()
	const mebibytes = 10
	data := random(1, mebibytes<<20)
	put(t, root+"/table", data)
	put(t, root+"/dir/kept", random(2, 1<<20))
	put(t, root+"/dir/small", []byte("before"))
	put(t, root+"/shrinks", random(3, 2<<20))
	first := write(t, r, root)
	if got := over(t, r, first, target); got != first.Bytes {
		t.Errorf("an empty target fetched %d bytes of %d", got, first.Bytes)
	}

	copy(data[5<<20:], "a page")
	copy(data[8<<20+17:], make([]byte, 64<<10)) // zeros, where something was
	put(t, root+"/table", append(data, random(4, 100)...))
	put(t, root+"/dir/small", []byte("after!"))
	put(t, root+"/shrinks", random(3, 1<<20))
	second := write(t, r, root, func(o *WriteOptions) { o.Previous = &first })
	put(t, target+"/diverged", []byte("only here"))
	if got, most := over(t, r, second, target), int64(4<<20); got == 0 || got > most {
		t.Errorf("%d bytes were fetched, want at most %d of %d", got, most, second.Bytes)
	}
	if diff := cmp.Diff(facts(t, root), facts(t, target)); diff != "" {
		t.Error(diff)
	}
	if got := over(t, r, second, target); got != 0 {
		t.Errorf("%d bytes were fetched although nothing differs", got)
	}
}

// TestFilesWithMoreNamesAreMadeAnew: to change one in place would change it under
// its other name as well.
func TestFilesWithMoreNamesAreMadeAnew(t *testing.T) {
	r := openTest(t, newTestStore())
	root, target := t.TempDir(), t.TempDir()
	put(t, root+"/a", []byte("one"))
	put(t, root+"/b", []byte("two"))
	snap := write(t, r, root)
	put(t, target+"/a", []byte("old"))
	if err := os.Link(target+"/a", target+"/b"); err != nil {
		t.Fatal(err)
	}
	over(t, r, snap, target)
	if diff := cmp.Diff(facts(t, root), facts(t, target)); diff != "" {
		t.Error(diff)
	}
}

// TestAnythingBecomesTheSnapshot restores over targets that were changed at random,
// by a try that was broken off, too.
func TestAnythingBecomesTheSnapshot(t *testing.T) {
	r := openTest(t, newTestStore())
	root := t.TempDir()
	for i := range 12 {
		put(t, fmt.Sprintf("%s/d%d/f%d", root, i%3, i), random(uint64(i), i*i*8_000)) //nolint:gosec // not negative
	}
	snap := write(t, r, root)
	want := facts(t, root)
	target := t.TempDir()
	for seed := range uint64(3) {
		rnd := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // it is to come again
		for i := range 12 {
			disturb(t, rnd, fmt.Sprintf("%s/d%d/f%d", target, i%3, i))
		}
		ctx, cancel := context.WithCancel(t.Context())
		_ = r.Read(ctx, snap, target, ReadOptions{DeleteExtra: true, Resume: true, Progress: func(p Progress) {
			if p.Files > 3 {
				cancel()
			}
		}})
		cancel()
		over(t, r, snap, target)
		if diff := cmp.Diff(want, facts(t, target)); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}

func disturb(t *testing.T, rnd *rand.Rand, path string) {
	t.Helper()
	switch rnd.IntN(6) {
	case 0:
		_ = os.Remove(path)
	case 1:
		put(t, path, random(rnd.Uint64(), rnd.IntN(1<<20)))
	case 2:
		_ = os.Truncate(path, int64(rnd.IntN(1<<20)))
	case 3, 4:
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return
		}
		defer f.Close()
		_, _ = f.WriteAt(random(rnd.Uint64(), 5000), int64(rnd.IntN(1<<20)))
	}
}
