package tree

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPartsOf has a chunk c and a hole h for each letter: files of chunks.
func TestPartsOf(t *testing.T) {
	const m, whole = chunkSize, 8 << 20
	data := func(offset, length int64) part { return part{offset: offset, length: length} }
	hole := func(offset, length int64) part { return part{offset: offset, length: length, hole: true} }
	for name, test := range map[string]struct {
		size int64
		data [][2]int64 // offsets and lengths written
		want []part
	}{
		"empty":                {0, nil, []part{data(0, -1)}},
		"one byte":             {1, [][2]int64{{0, 1}}, []part{data(0, -1)}},
		"small, all hole":      {3 * m, nil, []part{data(0, -1)}},
		"small hole":           {8 * m, [][2]int64{{0, m}, {4 * m, 4 * m}}, []part{data(0, -1)}},
		"all hole":             {20 * m, nil, []part{hole(0, 19*m), data(19*m, -1)}},
		"ends in the middle":   {20*m + 5, nil, []part{hole(0, 20*m), data(20*m, -1)}},
		"hole, data":           {20 * m, [][2]int64{{10 * m, 10 * m}}, []part{hole(0, 10*m), data(10*m, -1)}},
		"data, hole":           {20 * m, [][2]int64{{0, 3*m + 1}}, []part{data(0, 4*m), hole(4*m, 15*m), data(19*m, -1)}},
		"hole between":         {20 * m, [][2]int64{{0, m}, {19*m - 1, m}}, []part{data(0, m), hole(m, 17*m), data(18*m, -1)}},
		"two holes":            {40 * m, [][2]int64{{15*m + 7, 9}}, []part{hole(0, 15*m), data(15*m, m), hole(16*m, 23*m), data(39*m, -1)}},
		"large without a hole": {2*whole + 5, [][2]int64{{0, 2*whole + 5}}, []part{data(0, whole), data(whole, -1)}},
		"large before a hole": {
			3*whole + 10*m,
			[][2]int64{{0, 3*whole + m}},
			[]part{data(0, whole), data(whole, whole), data(2*whole, whole+m), hole(3*whole+m, 8*m), data(3*whole+9*m, -1)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := os.Create(t.TempDir() + "/f")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(test.size); err != nil {
				t.Fatal(err)
			}
			for _, d := range test.data {
				b := make([]byte, d[1])
				for i := range b {
					b[i] = 'x'
				}
				if _, err := f.WriteAt(b, d[0]); err != nil {
					t.Fatal(err)
				}
			}
			got := partsOf(f, test.size, whole)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(part{})); diff != "" {
				t.Errorf("parts (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPartsOfWhatDoesNotTell has a file that knows of no holes.
func TestPartsOfWhatDoesNotTell(t *testing.T) {
	f, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := partsOf(f, 20*chunkSize, partSize); len(got) != 1 || got[0].hole || got[0].length != -1 {
		t.Errorf("parts %+v", got)
	}
}
