package pool

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestWhatIsCalledUnchangedIsTheSame writes into a volume between snapshots, and compares them byte by byte.
func TestWhatIsCalledUnchangedIsTheSame(t *testing.T) {
	p, _ := openPool(t)
	v, err := p.CreateVolume(context.Background(), Volume{ID: VolumeID("changes"), Name: "changes", Bytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	write := func(offset, n int64) {
		t.Helper()
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		f, err := os.OpenFile(p.Image(v.ID), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(data, offset); err != nil {
			t.Fatal(err)
		}
	}
	write(0, 20<<20)
	last, err := p.CreateSnapshot("s0", v)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 8 {
		for range 10 {
			write(rnd.Int64N(60<<20), 1+rnd.Int64N(64<<10))
		}
		next, err := p.CreateSnapshot("s"+string(rune('a'+round)), v)
		if err != nil {
			t.Fatal(err)
		}
		changed, err := p.Changed(last, next)
		if err != nil {
			t.Fatal(err)
		}
		before, after := image(t, p, last), image(t, p, next)
		var bytesChanged, end int64
		for _, r := range changed {
			if r.Offset < end || r.Length <= 0 {
				t.Fatalf("ranges are not in order: %v", changed)
			}
			if !bytes.Equal(before[end:r.Offset], after[end:r.Offset]) {
				t.Fatalf("round %d: bytes %d to %d differ and are called unchanged", round, end, r.Offset)
			}
			bytesChanged, end = bytesChanged+r.Length, r.Offset+r.Length
		}
		if !bytes.Equal(before[end:], after[end:]) {
			t.Fatalf("round %d: bytes from %d on differ and are called unchanged", round, end)
		}
		if bytesChanged == 0 || bytesChanged > 4<<20 {
			t.Errorf("round %d: %d bytes are called changed", round, bytesChanged)
		}
		next.Lies = true
		if lie, err := p.Changed(last, next); err != nil || len(lie) != 1 {
			t.Errorf("a lie of %d ranges of %d, %v", len(lie), len(changed), err)
		}
		last = next
	}
}

func image(t *testing.T, p *Pool, s Snapshot) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.dir(snapshots, s.ID), imageFile))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
