package tree

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kopia/kopia/repo/content"
	"golang.org/x/sys/unix"
)

// picky refuses what it is told to, as a file system does.
type picky struct {
	*os.File
	refusal error
	asked   int
}

func (p *picky) WriteAt(b []byte, offset int64) (int, error) {
	p.asked++
	if p.refusal != nil {
		return 0, p.refusal
	}
	return p.File.WriteAt(b, offset)
}

func (*picky) Close() error { return nil }

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func newFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// fill writes data in chunks, the last of them odd, through a sink.
func fill(t *testing.T, s *sink, data []byte) {
	t.Helper()
	for at := 0; at < len(data); at += chunkSize {
		part := data[at:min(at+chunkSize, len(data))]
		if n, err := s.WriteAt(part, int64(at)); n != len(part) || err != nil {
			t.Fatalf("%d of %d bytes at %d: %v", n, len(part), at, err)
		}
	}
	name := s.Name()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("the file is another: %v", err)
	}
}

func TestSink(t *testing.T) {
	data := noise(2*chunkSize + 3*directAlign + 7)
	t.Run("past the cache", func(t *testing.T) {
		for _, from := range []int{0, 1} { // in memory at a page, and not
			s := openSink(newFile(t))
			if s.direct == nil {
				t.Skip("the file system here is not one of those")
			}
			fill(t, s, data[from:])
			if s.refused.Load() {
				t.Error("the file system refused: are blocks not aligned any more?")
			}
		}
	})
	t.Run("whole blocks only", func(t *testing.T) {
		f := newFile(t)
		p := &picky{File: f}
		s := &sink{File: f, direct: p}
		if _, err := s.WriteAt(data[:10], 0); err != nil || p.asked != 0 {
			t.Errorf("asked %d times for 10 bytes: %v", p.asked, err)
		}
		if _, err := s.WriteAt(data[5:5+directAlign], 5); err != nil || p.asked != 0 {
			t.Errorf("asked %d times for a block at byte 5: %v", p.asked, err)
		}
		fill(t, s, data)
		if p.asked != 3 {
			t.Errorf("asked %d times, want 3", p.asked)
		}
	})
	t.Run("refused", func(t *testing.T) {
		f := newFile(t)
		p := &picky{File: f, refusal: unix.EINVAL}
		fill(t, &sink{File: f, direct: p}, data)
		if p.asked != 1 {
			t.Errorf("asked %d times, want once", p.asked)
		}
	})
	t.Run("a full disk is no refusal", func(t *testing.T) {
		f := newFile(t)
		s := &sink{File: f, direct: &picky{File: f, refusal: unix.ENOSPC}}
		if n, err := s.WriteAt(data[:directAlign], 0); n != 0 || err == nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

// TestRoomIsSetAside has a letter for each chunk of a file.
func TestRoomIsSetAside(t *testing.T) {
	s := openSink(newFile(t))
	defer s.Close()
	if !s.holes {
		t.Skip("the file system here is not ext4")
	}
	const layout = "abcdefghij0000klmnopqrs00tuvwxyz" // two runs, zeros between them, and a run too short
	var chunks []Chunk
	for i, c := range layout {
		id, err := content.IDFromHash("", bytes.Repeat([]byte{byte(c)}, 16))
		if err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, Chunk{ID: id, Offset: int64(i) * chunkSize, Length: chunkSize})
	}
	if err := s.Truncate(int64(len(chunks)) * chunkSize); err != nil {
		t.Fatal(err)
	}
	takes := func() int64 {
		var st unix.Stat_t
		if err := unix.Fstat(int(s.Fd()), &st); err != nil || st.Size != int64(len(chunks))*chunkSize {
			t.Fatalf("size %d, %v", st.Size, err)
		}
		return st.Blocks * 512 / chunkSize
	}
	s.setAside(chunks)
	want := []room{{0, 10 * chunkSize}, {14 * chunkSize, 23 * chunkSize}}
	if diff := cmp.Diff(want, s.room, cmp.AllowUnexported(room{})); diff != "" || takes() != 19 {
		t.Errorf("%d chunks are set aside; (-want +got):\n%s", takes(), diff)
	}
	for _, chunk := range []int64{3, 11, 30} { // in a run, in the zeros, in no run
		s.leave(chunk*chunkSize, chunkSize)
	}
	if takes() != 18 {
		t.Errorf("%d chunks after one of them was left", takes())
	}
	data := noise(chunkSize)
	if _, err := s.WriteAt(data, 5*chunkSize); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(s.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[5*chunkSize:][:chunkSize], data) {
		t.Error("what was written is not there")
	}
	clear(got[5*chunkSize:][:chunkSize])
	if !bytes.Equal(got, make([]byte, len(got))) {
		t.Error("what was not written is no zeros")
	}
}
