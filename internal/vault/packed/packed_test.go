package packed

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"

	"davit.dev/davit/internal/vault/seal"
)

var fuzzKey = seal.Key(sha256.Sum256([]byte("fuzz")))

// FuzzUnseal opens whatever it is given: never a crash, never bytes that were
// not sealed, always seal.ErrDamaged.
func FuzzUnseal(f *testing.F) {
	for _, size := range []int{0, 1, 1000, 200_000} {
		sealed, err := Seal(&fuzzKey, "a/b", bytes.Repeat([]byte("davit"), size))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sealed)
		f.Add(sealed[:len(sealed)-1])
	}
	f.Add([]byte("DAVIT\x1aB\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		plain, err := Unseal(fuzzKey.Only, "a/b", data, 1<<20)
		if err != nil {
			if !errors.Is(err, seal.ErrDamaged) {
				t.Errorf("error %v, want ErrDamaged", err)
			}
			return
		}
		if len(bytes.ReplaceAll(plain, []byte("davit"), nil)) > 0 {
			t.Errorf("opened %d bytes nobody sealed", len(plain))
		}
	})
}

// FuzzSealRoundTrip seals and opens, and opens under no other name.
func FuzzSealRoundTrip(f *testing.F) {
	f.Add([]byte("plain"), "projects/a/b")
	f.Add([]byte{}, "x")
	f.Fuzz(func(t *testing.T, plain []byte, name string) {
		sealed, err := Seal(&fuzzKey, name, plain)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Unseal(fuzzKey.Only, name, sealed, int64(len(plain)))
		if err != nil || !bytes.Equal(again, plain) {
			t.Errorf("round trip: %v", err)
		}
		if _, err := Unseal(fuzzKey.Only, name+"x", sealed, int64(len(plain))); !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("under another name: %v", err)
		}
	})
}

// FuzzRecords reads what it is given as a pack; what reads must write the same.
func FuzzRecords(f *testing.F) {
	pack, _ := AppendRecord(nil, []byte(`{"a":1}`))
	pack, _ = AppendRecord(pack, []byte(`{}`))
	f.Add(pack)
	f.Add(pack[:len(pack)-1])
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var again []byte
		_, err := ReadRecords(bytes.NewReader(data), func(record []byte) (err error) {
			again, err = AppendRecord(again, record)
			return err
		})
		if err == nil && !bytes.Equal(again, data) {
			t.Error("a pack reads in two ways")
		}
		if err != nil && !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("error %v, want ErrDamaged", err)
		}
	})
}

// FuzzInflate decompresses whatever it is given, within bounds.
func FuzzInflate(f *testing.F) {
	for _, plain := range [][]byte{[]byte("davit"), make([]byte, 1<<20)} {
		var packed bytes.Buffer
		if err := compress(&packed, plain); err != nil {
			f.Fatal(err)
		}
		f.Add(packed.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decompress(bytes.NewReader(data))
		if err == nil {
			_, err = ReadRecords(r, func([]byte) error { return nil })
			if closeErr := r.Close(); closeErr != nil {
				t.Error(closeErr)
			}
		}
		if err != nil && !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("error %v, want ErrDamaged", err)
		}
	})
}

// TestChunkBoundaries seals sizes around the chunk size, without compression.
func TestChunkBoundaries(t *testing.T) {
	const sealedChunk = seal.ChunkSize + seal.TagSize
	for _, size := range []int{0, 1, seal.ChunkSize - 1, seal.ChunkSize, seal.ChunkSize + 1, 2 * seal.ChunkSize, 3*seal.ChunkSize + 7} {
		plain := bytes.Repeat([]byte{7}, size)
		var out bytes.Buffer
		s, err := seal.NewWriter(&out, &fuzzKey, "k", seal.Plain)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		sealed := out.Bytes()
		chunks := max(1, (size+seal.ChunkSize-1)/seal.ChunkSize)
		if want := seal.HeaderSize + size + chunks*seal.TagSize; len(sealed) != want {
			t.Errorf("%d bytes seal to %d, want %d", size, len(sealed), want)
		}
		if got, err := Unseal(fuzzKey.Only, "k", sealed, 1<<20); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %v", size, err)
		}
		for cut := seal.HeaderSize; cut < len(sealed); cut += sealedChunk { // at every boundary
			if _, err := Unseal(fuzzKey.Only, "k", sealed[:cut], 1<<20); !errors.Is(err, seal.ErrDamaged) {
				t.Errorf("%d bytes cut to %d: %v, want ErrDamaged", size, cut, err)
			}
		}
		if size >= 2*seal.ChunkSize {
			swapped := slices.Concat(sealed[:seal.HeaderSize], sealed[seal.HeaderSize+sealedChunk:seal.HeaderSize+2*sealedChunk], sealed[seal.HeaderSize:seal.HeaderSize+sealedChunk], sealed[seal.HeaderSize+2*sealedChunk:])
			if _, err := Unseal(fuzzKey.Only, "k", swapped, 1<<20); !errors.Is(err, seal.ErrDamaged) {
				t.Errorf("swapped chunks: %v, want ErrDamaged", err)
			}
		}
	}
}

// TestLargePackInflates keeps encoder and decoder agreed on their window.
func TestLargePackInflates(t *testing.T) {
	for _, size := range []int{zstdWindow, zstdWindow + 16, 2*zstdWindow + 16} {
		plain := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		sealed, err := Seal(&fuzzKey, "k", plain)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Unseal(fuzzKey.Only, "k", sealed, int64(size)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// TestForeignKey tells a blob of another project's key from damage by its words.
func TestForeignKey(t *testing.T) {
	other := seal.Key(sha256.Sum256([]byte("other")))
	sealed, err := Seal(&other, "k", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Unseal(fuzzKey.Only, "k", sealed, 10); !errors.Is(err, seal.ErrDamaged) || !strings.Contains(err.Error(), other.ID().String()) {
		t.Errorf("error %v, want one that names the key", err)
	}
}
