package volume

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/content"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume/sealed"
	"davit.dev/davit/internal/volume/tree"
)

// contentsOf lists the contents of files.
func contentsOf(t *testing.T, r *Repository) (list []content.Info) {
	t.Helper()
	opts := content.IterateOptions{}
	err := r.main.rep.ContentReader().IterateContents(t.Context(), opts, func(info content.Info) error {
		if !info.ContentID.HasPrefix() {
			list = append(list, info)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// packedOf is a content as it lies in its pack.
func packedOf(t *testing.T, s vault.Store, info content.Info) []byte {
	t.Helper()
	r, err := s.Get(t.Context(), testPrefix+string(info.PackBlobID), int64(info.PackOffset), int64(info.PackedLength))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	packed, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// TestContentsOpenAsKopiaOpensThem: every content of a file is what kopia makes of it,
// without kopia, and what is not as it was written is left to kopia.
func TestContentsOpenAsKopiaOpensThem(t *testing.T) {
	s := newTestStore()
	r := openTest(t, s)
	root := t.TempDir()
	put(t, root+"/noise", random(7, 3<<20+5))
	put(t, root+"/pages", compressible(8, 3<<20))
	put(t, root+"/zeros", make([]byte, 2<<20))
	put(t, root+"/letter", []byte("x"))
	write(t, r, root)
	cr := r.main.rep.ContentReader()
	opener, memory := sealed.NewOpener(cr.ContentFormat()), sealed.NewMemory()
	defer memory.Free()
	infos := contentsOf(t, r)
	if len(infos) < 8 {
		t.Fatalf("%d contents", len(infos))
	}
	ways := map[compression.HeaderID]int{}
	for i, info := range infos {
		packed := packedOf(t, s, info)
		want, err := cr.GetContent(t.Context(), info.ContentID)
		if err != nil {
			t.Fatal(err)
		}
		next := bytes.NewReader(append(bytes.Clone(packed), "next"...))
		got, ok, err := opener.Open(memory, info, next)
		if !ok || err != nil || !bytes.Equal(got, want) || next.Len() != len("next") {
			t.Errorf("content %s of %d bytes: opened %t, %d bytes, %d are left, %v", info.ContentID, len(want), ok, len(got), next.Len(), err)
		}
		if uintptr(unsafe.Pointer(unsafe.SliceData(got)))%4096 != 0 {
			t.Errorf("content %s does not begin at a page: it would be copied once more to be written", info.ContentID)
		}
		ways[info.CompressionHeaderID]++
		for name, change := range map[string]func(info *content.Info, packed []byte){
			"first byte":          func(_ *content.Info, p []byte) { p[0] ^= 1 },
			"a byte":              func(_ *content.Info, p []byte) { p[len(p)/2] ^= 1 },
			"last byte":           func(_ *content.Info, p []byte) { p[len(p)-1] ^= 1 },
			"shorter":             func(c *content.Info, _ []byte) { c.PackedLength-- },
			"nothing":             func(c *content.Info, _ []byte) { c.PackedLength = 0 },
			"too long":            func(c *content.Info, _ []byte) { c.PackedLength = 2 << 20 },
			"another's name":      func(c *content.Info, _ []byte) { c.ContentID = infos[(i+1)%len(infos)].ContentID },
			"another compression": func(c *content.Info, _ []byte) { c.CompressionHeaderID = compression.HeaderZstdDefault },
			"another key":         func(c *content.Info, _ []byte) { c.EncryptionKeyID = 1 },
		} {
			other, changed := info, append(bytes.Clone(packed), make([]byte, 2<<20)...)
			change(&other, changed[:len(packed)])
			if _, ok, err := opener.Open(memory, other, bytes.NewReader(changed)); ok || err != nil {
				t.Errorf("content %s: %s: opened %t, %v", info.ContentID, name, ok, err)
			}
		}
		if _, ok, err := opener.Open(memory, info, bytes.NewReader(packed[:len(packed)-1])); ok || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("content %s, cut off: opened %t, %v", info.ContentID, ok, err)
		}
	}
	if len(ways) < 2 {
		t.Errorf("contents are stored in these ways: %v: want compressed and plain ones", ways)
	}
}

// otherwise is a repository's format with another encryption.
type otherwise struct{}

func (otherwise) GetEncryptionAlgorithm() string { return "CHACHA20-POLY1305-HMAC-SHA256" }
func (otherwise) GetMasterKey() []byte           { return make([]byte, 32) }

// TestOtherEncryptionIsLeftToKopia: no opener, and so nothing is opened.
func TestOtherEncryptionIsLeftToKopia(t *testing.T) {
	if sealed.NewOpener(otherwise{}) != nil {
		t.Error("opens what it does not know")
	}
}

// wrong is a stream of which the first byte of each reading is wrong.
type wrong struct{ io.ReadCloser }

// Read implements io.Reader.
func (w wrong) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		p[0] ^= 1
	}
	return n, err
}

// TestWhatAStreamGetsWrongIsReadAgain restores through streams that bring no content as it was.
func TestWhatAStreamGetsWrongIsReadAgain(t *testing.T) {
	r := openTest(t, newTestStore())
	root, target := t.TempDir(), t.TempDir()
	large(t, root+"/large", 6)
	snap := write(t, r, root)
	id, err := r.findRoot(t.Context(), r.main, snap)
	if err != nil {
		t.Fatal(err)
	}
	streams := 0
	err = tree.Read(t.Context(), r.main.rep, id, target, tree.ReadOptions{
		Parallel: 1, Meter: tree.NewMeter(nil, r.opts.Now),
		Stream: func(ctx context.Context, pack string, offset, length int64) (io.ReadCloser, error) {
			streams++
			s, err := r.main.storage.stream(ctx, pack, offset, length)
			return wrong{s}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(facts(t, root), facts(t, target)); diff != "" || streams == 0 {
		t.Errorf("restored file differs, or nothing was read in streams: %d", streams)
	}
}
