package tree

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A file like a database's: half of each page is zeros, and one run is long.
func halfEmpty() []byte {
	data := make([]byte, 1<<20)
	for at := 0; at < len(data)/2; at += 8192 {
		copy(data[at:], bytes.Repeat([]byte{1}, 4096))
	}
	return data
}

func TestHolesCostNoMoreThanTheySave(t *testing.T) {
	data := halfEmpty()
	extents := map[int]int{}
	for _, hole := range []int{fineHole, coarseHole} {
		path := filepath.Join(t.TempDir(), "file")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := writeSparse(f, data, 0, hole); err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(int64(len(data))); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("holes of %d: other bytes, %v", hole, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > int64(len(data))*5/8 {
			t.Errorf("holes of %d: file takes %d bytes of %d, %v", hole, st.Blocks*512, len(data), err)
		}
		extents[hole] = pieces(t, f)
	}
	if extents[fineHole] < 32 {
		t.Skipf("this file system keeps no holes of a block: %d pieces", extents[fineHole])
	}
	if extents[coarseHole] != 1 {
		t.Errorf("the file lies in %d pieces, and in %d when every zero block is left out", extents[coarseHole], extents[fineHole])
	}
}

// pieces counts how often data begins in a file.
func pieces(t *testing.T, f *os.File) (n int) {
	t.Helper()
	for at := int64(0); ; n++ {
		begin, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err != nil {
			return n
		}
		if at, err = unix.Seek(int(f.Fd()), begin, unix.SEEK_HOLE); err != nil {
			t.Fatal(err)
		}
	}
}

func TestATargetTooSmallForTheZerosGetsHoles(t *testing.T) {
	if got := holeFor(t.TempDir(), 1); got != coarseHole {
		t.Errorf("with room for all: %d", got)
	}
	if got := holeFor(t.TempDir(), math.MaxInt64); got != fineHole {
		t.Errorf("without room for all: %d", got)
	}
	if got := holeFor(filepath.Join(t.TempDir(), "none"), 1); got != fineHole {
		t.Errorf("where nobody knows: %d", got)
	}
}
