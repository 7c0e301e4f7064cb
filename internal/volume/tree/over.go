package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sys/unix"
)

const (
	overChunks = 64      // of one file, compared and changed by one goroutine
	overBlock  = 4 << 10 // what is written where a chunk differs
)

// overFile is a file that is there, and becomes the stored one in place. What it
// holds already is neither fetched nor written. Nothing but its content says so:
// each chunk's hash is its name in the repository, whatever the file's time.
type overFile struct {
	file    *os.File
	node    *readNode
	stored  string
	entry   *snapshot.DirEntry
	reader  content.Reader
	hash    func(data []byte) []byte
	pending atomic.Int64 // windows, and the one who gives them away
	failed  atomic.Bool
}

// there tells whether the target has a file of the name that can be changed in
// place. One that has further names cannot: they would change with it.
func (t *reader) there(n *readNode, name string) bool {
	st, err := n.dir.stat(name)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 && st.Size > 0
}

// restoreOver gives away a file that is there, in windows of chunks.
func (t *reader) restoreOver(n *readNode, name, stored string, e *snapshot.DirEntry, chunks []Chunk) error {
	f, err := t.openOver(n, name, stored, e)
	if err != nil {
		abandonRead(n)
		return err
	}
	cr := t.rep.ContentReader()
	o := &overFile{file: f, node: n, stored: stored, entry: e, reader: cr, hash: hashOf(cr)}
	o.pending.Store(1)
	for window := range slices.Chunk(chunks, overChunks) {
		o.pending.Add(1)
		t.group.Go(func() error {
			err := t.changeWindow(o, window)
			if err != nil {
				o.failed.Store(true)
			}
			if err = errors.Join(err, t.doneOver(o)); err != nil {
				return fmt.Errorf("restore %q: %w", stored, err)
			}
			return nil
		})
	}
	return t.doneOver(o)
}

// openOver makes the file as long as it is to be: what it has not yet reads as zeros.
func (t *reader) openOver(n *readNode, name, stored string, e *snapshot.DirEntry) (*os.File, error) {
	if err := dropXattrs(n.dir.proc(name), t.extras[stored].Xattr); err != nil {
		return nil, err
	}
	f, err := n.dir.openFile(name, unix.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1) {
		err = errors.New("it is no regular file with one name any more")
	}
	if err == nil && st.Size != e.FileSize {
		err = f.Truncate(e.FileSize)
	}
	if err != nil {
		_ = f.Close() // the first error tells more
		return nil, fmt.Errorf("size file: %w", err)
	}
	return f, nil
}

// hashOf is how the repository names contents. The type of its argument cannot be
// named outside of kopia, so it is inferred.
func hashOf(cr content.Reader) func(data []byte) []byte {
	hash := cr.ContentFormat().HashFunc()
	return func(data []byte) []byte {
		in := argument(hash)
		in.Slices = [][]byte{data}
		return hash(nil, in)
	}
}

func argument[T any](func([]byte, T) []byte) (zero T) { return zero }

var overBuffers = sync.Pool{New: func() any { b := make([]byte, chunkSize); return &b }}

// changeWindow compares chunks with what the file holds, and fetches and writes
// those that differ.
func (t *reader) changeWindow(o *overFile, window []Chunk) error {
	buffer := overBuffers.Get().(*[]byte)
	defer overBuffers.Put(buffer)
	var differ []Chunk
	for _, c := range window {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		if err := t.opts.Pace.wait(t.ctx, int(c.Length)); err != nil {
			return err
		}
		have := o.read(buffer, c)
		if have != nil && !c.ID.HasPrefix() && bytes.Equal(o.hash(have), c.ID.Hash()) {
			t.meter.Bytes.Add(c.Length)
			t.meter.Tick()
			continue
		}
		differ = append(differ, c)
	}
	spans, err := spansOf(t.ctx, o.reader, differ)
	if err != nil {
		return err
	}
	for _, span := range spans {
		if err := t.changeSpan(o, buffer, span); err != nil {
			return err
		}
	}
	return nil
}

// read returns what the file holds in a chunk's place, nil if that cannot be read:
// then it is written anew.
func (o *overFile) read(buffer *[]byte, c Chunk) []byte {
	if int64(len(*buffer)) < c.Length {
		*buffer = make([]byte, c.Length)
	}
	have := (*buffer)[:c.Length]
	if n, err := o.file.ReadAt(have, c.Offset); err != nil && (!errors.Is(err, io.EOF) || int64(n) < c.Length) {
		return nil
	}
	return have
}

func (t *reader) changeSpan(o *overFile, buffer *[]byte, span []placed) error {
	packed, err := t.stream(o.reader, span)
	if err != nil {
		return err
	}
	defer packed.close()
	var data []byte
	for i, c := range span {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		if i == 0 || c.ID != span[i-1].ID || c.Length != span[i-1].Length {
			if data, err = packed.next(c); err != nil {
				return err
			}
			t.meter.Fetched.Add(c.Length)
		}
		if err := t.opts.Pace.wait(t.ctx, len(data)); err != nil {
			return err
		}
		if err := writeOver(o.file, o.read(buffer, c.Chunk), data, c.Offset); err != nil {
			return err
		}
		t.meter.Bytes.Add(c.Length)
		t.meter.Tick()
	}
	return startWriteback(o.file, span)
}

// writeOver writes the blocks of data that differ from what is there; all of it
// where nobody knows that.
func writeOver(f *os.File, have, data []byte, offset int64) error {
	same := func(i int) bool {
		end := min(i+overBlock, len(data))
		return have != nil && bytes.Equal(have[i:end], data[i:end])
	}
	for i := 0; i < len(data); {
		for i < len(data) && same(i) {
			i += overBlock
		}
		j := i
		for j < len(data) && !same(j) {
			j += overBlock
		}
		if j = min(j, len(data)); j <= i {
			break
		}
		if _, err := f.WriteAt(data[i:j], offset+int64(i)); err != nil {
			return fmt.Errorf("write file: %w", err)
		}
		i = j
	}
	return nil
}

// doneOver counts off a window, and finishes the file after the last.
func (t *reader) doneOver(o *overFile) error {
	if o.pending.Add(-1) > 0 {
		return nil
	}
	var err error
	if !o.failed.Load() {
		err = t.finishFile(o.file, o.stored, o.entry, true)
	}
	if cerr := o.file.Close(); err == nil {
		err = cerr
	}
	if err != nil || o.failed.Load() {
		abandonRead(o.node)
		return err
	}
	t.meter.Files.Add(1)
	return t.done(o.node)
}
