package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/vault/seal"
)

var fuzzKey = seal.Key(sha256.Sum256([]byte("fuzz")))

// FuzzUnseal opens whatever it is given: never a crash, never bytes that were
// not sealed, always ErrDamaged.
func FuzzUnseal(f *testing.F) {
	for _, size := range []int{0, 1, 1000, 200_000} {
		sealed, err := sealBlob(&fuzzKey, "a/b", bytes.Repeat([]byte("davit"), size))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sealed)
		f.Add(sealed[:len(sealed)-1])
	}
	f.Add([]byte("DAVIT\x1aB\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		plain, err := unsealBlob(&fuzzKey, "a/b", data, 1<<20)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
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
		sealed, err := sealBlob(&fuzzKey, name, plain)
		if err != nil {
			t.Fatal(err)
		}
		again, err := unsealBlob(&fuzzKey, name, sealed, int64(len(plain)))
		if err != nil || !bytes.Equal(again, plain) {
			t.Errorf("round trip: %v", err)
		}
		if _, err := unsealBlob(&fuzzKey, name+"x", sealed, int64(len(plain))); !errors.Is(err, ErrDamaged) {
			t.Errorf("under another name: %v", err)
		}
	})
}

// FuzzRecords reads what it is given as a pack; what reads must write the same.
func FuzzRecords(f *testing.F) {
	pack, _ := appendRecord(nil, []byte(`{"a":1}`))
	pack, _ = appendRecord(pack, []byte(`{}`))
	f.Add(pack)
	f.Add(pack[:len(pack)-1])
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var again []byte
		_, err := readRecords(bytes.NewReader(data), func(record []byte) (err error) {
			again, err = appendRecord(again, record)
			return err
		})
		if err == nil && !bytes.Equal(again, data) {
			t.Error("a pack reads in two ways")
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("error %v, want ErrDamaged", err)
		}
	})
}

// FuzzInflate decompresses whatever it is given, within bounds.
func FuzzInflate(f *testing.F) {
	for _, plain := range [][]byte{[]byte("davit"), make([]byte, 1<<20)} {
		packed, err := compress(plain)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decompress(bytes.NewReader(data))
		if err == nil {
			_, err = readRecords(r, func([]byte) error { return nil })
			if closeErr := r.Close(); closeErr != nil {
				t.Error(closeErr)
			}
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("error %v, want ErrDamaged", err)
		}
	})
}

// FuzzPlainDocuments feeds the parsers of what is not sealed.
func FuzzPlainDocuments(f *testing.F) {
	marker, err := Marker{FormatVersion: 1, ID: "x", Created: time.Unix(0, 0).UTC()}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(marker)
	f.Add([]byte(`{"formatVersion":1,"wrapped":"AA=="}`))
	f.Add([]byte(`{"formatVersion":1,"name":"a","keyID":"00","mac":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := parseMarker(data); err == nil {
			if again, err := m.encode(); err != nil || !bytes.Equal(again, data) {
				t.Error("a marker reads in two ways")
			}
		}
		if w, err := parseWrap(data); err == nil {
			if again, err := encodePlain(w); err != nil || !bytes.Equal(again, data) {
				t.Error("a key reads in two ways")
			}
			_, _ = Identity{}.unwrap(w.Wrapped)
		}
		var p projectFile
		if decodePlain(data, &p) == nil {
			_ = p.check("a")
		}
	})
}

// FuzzManifest parses whatever it is given; what it accepts it must accept
// again after writing it.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"formatVersion":1,"id":"i","application":"a","project":"p","site":"s","instant":"2026-01-01T00:00:00Z","consistency":"crash","resources":[{"resource":"secrets","count":1,"packs":[{"key":"k","sha256":"` + strings.Repeat("0", 64) + `","size":1,"count":1}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			return // a year no RFC 3339 date has
		}
		if _, err := parseManifest(again); err != nil {
			t.Errorf("accepted once, then %v", err)
		}
	})
}

// FuzzKeys splits names of objects as a listing returns them.
func FuzzKeys(f *testing.F) {
	f.Add("shop/shop-1/verified-0")
	f.Add("00000000000000000001")
	f.Add("99999999999999999999")
	f.Fuzz(func(t *testing.T, tail string) {
		app, id, rest, ok := splitPoint(tail)
		if ok && (CheckName(app) != nil || CheckName(id) != nil) {
			t.Errorf("%q splits into %q and %q", tail, app, id)
		}
		if ok && rest != "" && app+"/"+id+"/"+rest != tail {
			t.Errorf("%q does not join again", tail)
		}
		if n, err := parseNumber(tail); err == nil && number(n) != tail {
			t.Errorf("%q reads as %d", tail, n)
		}
		if CheckKey(tail) == nil && (strings.Contains(tail, "//") || slices.Contains(strings.Split(tail, "/"), "..")) {
			t.Errorf("key %q passed", tail)
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
		if got, err := unsealBlob(&fuzzKey, "k", sealed, 1<<20); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %v", size, err)
		}
		for cut := seal.HeaderSize; cut < len(sealed); cut += sealedChunk { // at every boundary
			if _, err := unsealBlob(&fuzzKey, "k", sealed[:cut], 1<<20); !errors.Is(err, ErrDamaged) {
				t.Errorf("%d bytes cut to %d: %v, want ErrDamaged", size, cut, err)
			}
		}
		if size >= 2*seal.ChunkSize {
			swapped := slices.Concat(sealed[:seal.HeaderSize], sealed[seal.HeaderSize+sealedChunk:seal.HeaderSize+2*sealedChunk], sealed[seal.HeaderSize:seal.HeaderSize+sealedChunk], sealed[seal.HeaderSize+2*sealedChunk:])
			if _, err := unsealBlob(&fuzzKey, "k", swapped, 1<<20); !errors.Is(err, ErrDamaged) {
				t.Errorf("swapped chunks: %v, want ErrDamaged", err)
			}
		}
	}
}

// TestLargePackInflates keeps encoder and decoder agreed on their window.
func TestLargePackInflates(t *testing.T) {
	for _, size := range []int{zstdWindow, zstdWindow + 16, 2*zstdWindow + 16} {
		plain := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		sealed, err := sealBlob(&fuzzKey, "k", plain)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unsealBlob(&fuzzKey, "k", sealed, int64(size)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// TestForeignKey tells a blob of another project's key from damage by its words.
func TestForeignKey(t *testing.T) {
	other := seal.Key(sha256.Sum256([]byte("other")))
	sealed, err := sealBlob(&other, "k", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unsealBlob(&fuzzKey, "k", sealed, 10); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), other.ID().String()) {
		t.Errorf("error %v, want one that names the key", err)
	}
}
