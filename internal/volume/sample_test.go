package volume

import (
	"fmt"
	"testing"

	"davit.dev/davit/internal/point"
)

// TestSamplesReadAllInTurn: a sample reads a part, runs that go on where the
// last one ended read everything, and a sample misses what lies elsewhere.
func TestSamplesReadAllInTurn(t *testing.T) {
	s := newTestStore()
	r, snap := manyContents(t, s)
	verify := func(opts VerifyOptions) VerifyReport {
		opts.ReadAll = true
		rep, err := r.Verify(t.Context(), snap, opts)
		if err != nil || rep.Err() != nil {
			t.Fatalf("%+v: %v, %v", opts, rep, err)
		}
		return rep
	}
	all := verify(VerifyOptions{})
	var parts int64
	for from := 0; from < 100; from += 25 {
		part := verify(VerifyOptions{Sample: 25, SampleFrom: from})
		if part.Read == 0 || part.Read > all.Read/2 || part.Blobs != all.Blobs || part.Dirs != all.Dirs {
			t.Errorf("from %d %%: %+v of %+v", from, part, all)
		}
		parts += part.Read
	}
	if parts != all.Read {
		t.Errorf("four quarters read %d bytes of %d", parts, all.Read)
	}
}

// TestSampleFindsWhatItReads: of all quarters, those that read a damaged
// content find it; that others do not is why a sample is no whole proof. A blob
// that is missing is found by every one.
func TestSampleFindsWhatItReads(t *testing.T) {
	s := newTestStore()
	r, snap := manyContents(t, s)
	found := func() (n int) {
		for from := 0; from < 100; from += 25 {
			rep, err := r.Verify(t.Context(), snap, VerifyOptions{ReadAll: true, Sample: 25, SampleFrom: from})
			if err != nil {
				t.Fatal(err)
			}
			if rep.Err() != nil {
				n++
			}
		}
		return n
	}
	for _, key := range s.keys(testPrefix + "p") {
		bad := append([]byte{}, s.object(key)...)
		bad[len(bad)/2] ^= 1
		s.with(key, bad, func() {
			if n := found(); n != 1 {
				t.Errorf("%s: one flipped byte found by %d of 4 quarters", key, n)
			}
		})
		s.with(key, nil, func() {
			if n := found(); n != 4 {
				t.Errorf("%s: missing, found by %d of 4 quarters", key, n)
			}
		})
	}
}

// manyContents is a repository with one snapshot of many small files, which
// are a content each.
func manyContents(t *testing.T, s *testStore) (*Repository, point.Snapshot) {
	t.Helper()
	r := openTest(t, s)
	root := t.TempDir()
	for i := range 64 {
		put(t, fmt.Sprintf("%s/f%02d", root, i), random(uint64(i), 40_000))
	}
	return r, write(t, r, root)
}
