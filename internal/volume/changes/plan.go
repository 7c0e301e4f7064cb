package changes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Least is how large a file must be to be stored by its chunks, in bytes.
const Least = 8 << 20

const (
	filesAtOnce = 4 // chunks of one file that are read at once
	sampleOf    = 64
	sampleLeast = 8
	compressor  = "zstd-fastest"
)

// ErrLied says that the storage called something unchanged that is not: what was
// stored by its word is worth nothing.
var ErrLied = errors.New("the storage calls unchanged what was changed")

// ErrShorter says that a file became shorter while it was read.
var ErrShorter = errors.New("it became shorter while it was read")

// Plan is how the large files of a volume are stored.
type Plan struct {
	// Now is filled with where their chunks lie; its head says of what.
	Now *Book
	// Before is the previous snapshot's; nil: there is none.
	Before *Book
	// Delta is what was changed since; nil: not known, and nothing is taken over.
	Delta *Delta
	// All has every file read that Before has, also one whose size and time are as they
	// were: what was stored of it by the storage's word is worth as much as that. What would
	// have been taken over is compared, by the storage's word or by the file's time.
	All bool
	// Other says that Before is of another volume: what differs is no lie.
	Other bool
	// Last says that nothing is taken over by what this snapshot has: it says nothing of
	// where its files lie.
	Last bool
	// Found is called, once, when the storage is found to lie: what it is found by may never be
	// stored. It may be nil.
	Found func()

	unread atomic.Int64
	lie    atomic.Pointer[string]
}

// Reads tells whether a file is to be read though its size and time are as they were.
func (p *Plan) Reads(path string) bool { return p != nil && p.All && p.Before.Has(path) }

// Stores tells whether a file of a size is stored by its chunks.
func (p *Plan) Stores(size int64) bool { return p != nil && size >= Least }

// Keeps tells whether Now is to be kept: what was learned of a storage that lies is worth
// nothing.
func (p *Plan) Keeps() bool { return p != nil && !p.Last && p.Lie() == "" }

// Unread is how many bytes were taken over by the storage's word; none by a nil plan.
func (p *Plan) Unread() int64 {
	if p == nil {
		return 0
	}
	return p.unread.Load()
}

// Lie says what the storage called unchanged and is not; "" if nothing is known. A nil plan
// knows of nothing.
func (p *Plan) Lie() string {
	if p == nil {
		return ""
	}
	if text := p.lie.Load(); text != nil {
		return *text
	}
	return ""
}

// Retry tells whether a write that failed is to be tried once more, without what the
// storage said: it lied, and what failed may be another file's, which was called off.
func (p *Plan) Retry(err error) bool {
	if p == nil || err == nil || p.All || p.Lie() == "" {
		return false
	}
	p.Delta, p.All = nil, true
	p.unread.Store(0)
	return true
}

// File is a large file that is to be stored.
type File struct {
	*os.File
	Path string // as the snapshot stores it
	Size int64  // at least Least
	// Before lists the contents that the previous snapshot has of it.
	Before []object.IndirectObjectEntry
	// Aged says that its size and time are those of the previous snapshot, so that what that
	// stored of it should be what it holds.
	Aged bool
	// Gone tells whether a content cannot be had any more.
	Gone func(content.ID) bool
	// Read reads of the file, and counts that. io.EOF ends it.
	Read func(p []byte, offset int64) (int, error)
	// Took counts bytes that are not read.
	Took func(bytes int64)
	// Hole finds the next hole that is not to be read, in whole chunks below the limit;
	// none begins at the limit.
	Hole func(from, limit int64) (begin, end int64)
}

// Writer makes objects of a repository.
type Writer interface {
	NewObjectWriter(ctx context.Context, opts object.WriterOptions) object.Writer
}

// Store stores a file, and returns what it is called and its size.
func (p *Plan) Store(ctx context.Context, w Writer, f File) (object.ID, int64, error) {
	last := int((f.Size - 1) / Chunk) // it is read in any case
	places := p.look(f.File, last)
	s := &storing{plan: p, w: w, f: f, before: p.Before.Of(f.Path), places: places, entries: make([]object.IndirectObjectEntry, last+1)}
	if err := errors.Join(s.chunks(ctx, last), context.Cause(ctx)); err != nil {
		return object.EmptyID, 0, err
	}
	if s.entries[last].Length == 0 {
		return object.EmptyID, 0, fmt.Errorf("store %q: %w", f.Path, ErrShorter)
	}
	p.Now.Add(f.Path, places.Marks)
	var size int64
	for i := range s.entries {
		s.entries[i].Start = size
		size += s.entries[i].Length
	}
	id, err := writeIndex(ctx, w, s.entries)
	return id, size, err
}

// Take notes of a file that is taken over as it was where its chunks lie. Whether
// what was stored of it was read from there is only certain of chunks that were
// there then, and are unchanged: its time may have been set back. Of one that could not
// be opened (nil) nothing is certain, and it is in the book, so that it is read when all is.
func (p *Plan) Take(f *os.File, path string, size int64) {
	places := p.look(f, int((size-1)/Chunk))
	before := p.Before.Of(path)
	for i := range places.Marks {
		if i >= len(before) || before[i] != places.Marks[i] || !places.Same(i) {
			places.Marks[i] = Mark{}
		}
	}
	p.Now.Add(path, places.Marks)
}

// look finds out where chunks lie. What is not clear is nothing worse than that. That
// nothing at all was changed is not believed: a file is looked at because its time was changed, which is
// a change of the volume, too, or beside one. It may be so where a file is read once
// more because its time was young when it was read.
func (p *Plan) look(f *os.File, chunks int) Places {
	unclear := Places{Marks: make([]Mark, chunks), same: make([]bool, chunks)}
	if f == nil || p.Last {
		return unclear
	}
	delta := p.Delta
	if delta != nil && delta.Empty() {
		delta = nil
	}
	places, err := Look(f, chunks, p.Now.Size, delta)
	if err != nil || elsewhere(f, p.Now.FileSystem) {
		return unclear
	}
	return places
}

// elsewhere tells whether what a file holds may be in a place besides its own, in
// the journal or on another device.
func elsewhere(f *os.File, fileSystem string) bool {
	if fileSystem == "xfs" {
		var x fsxattr
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), getXFlags, uintptr(unsafe.Pointer(&x)))
		return errno != 0 || x.Flags&realTime != 0
	}
	flags, err := unix.IoctlGetUint32(int(f.Fd()), getFlags)
	return err != nil || flags&journalData != 0
}

// storing is a file that is being stored.
type storing struct {
	plan    *Plan
	w       Writer
	f       File
	before  []Mark
	places  Places
	entries []object.IndirectObjectEntry

	zero struct {
		sync.Once
		id  object.ID
		err error
	}
}

func (s *storing) chunks(ctx context.Context, last int) error {
	holes := s.holes(last)
	sample := sampleShare(s.taken(last))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(filesAtOnce)
	for i := range s.entries {
		if err := context.Cause(ctx); err != nil {
			break
		}
		known := i < last && s.takes(i)
		switch {
		case known && !s.plan.All && rand.Float64() >= sample: //nolint:gosec // a sample, no secret
			s.entries[i] = s.f.Before[i]
			s.plan.unread.Add(Chunk)
			s.f.Took(Chunk)
		case i < last && holes[i] && !known:
			g.Go(func() error { return s.hole(ctx, i) })
		default:
			g.Go(func() error { return s.read(ctx, i, known) })
		}
	}
	return g.Wait()
}

// taken counts the chunks that may be taken over.
func (s *storing) taken(last int) (n int) {
	for i := range last {
		if s.takes(i) {
			n++
		}
	}
	return n
}

// sampleShare is the part of the chunks that are read although they may be taken
// over: a lie is then found sooner.
func sampleShare(chunks int) float64 {
	if chunks == 0 {
		return 0
	}
	return max(1.0/sampleOf, sampleLeast/float64(chunks))
}

// takes tells whether a chunk may be taken over.
func (s *storing) takes(i int) bool {
	if i >= len(s.before) || s.before[i] != s.places.Marks[i] || !s.places.Same(i) || i >= len(s.f.Before)-1 {
		return false
	}
	id, alike := s.like(i, Chunk)
	return alike && !s.f.Gone(id)
}

// like tells whether the previous snapshot has a chunk of that length there, and what it is called.
func (s *storing) like(i int, length int64) (content.ID, bool) {
	if i >= len(s.f.Before) {
		return content.EmptyID, false
	}
	e := s.f.Before[i]
	id, compressed, direct := e.Object.ContentID()
	return id, direct && !compressed && e.Start == int64(i)*Chunk && e.Length == length
}

// holes are the chunks that need not be read because they are nothing but zeros.
func (s *storing) holes(last int) []bool {
	holes := make([]bool, last)
	for at, limit := int64(0), int64(last)*Chunk; at < limit; {
		begin, end := s.f.Hole(at, limit)
		for i := begin / Chunk; i < end/Chunk; i++ {
			holes[i] = true
		}
		at = max(end, at+Chunk)
	}
	return holes
}

var buffers = sync.Pool{New: func() any { return new([Chunk]byte) }}

// read stores a chunk as it is now. known says that the storage calls it unchanged.
func (s *storing) read(ctx context.Context, i int, known bool) error {
	buf := buffers.Get().(*[Chunk]byte)
	defer buffers.Put(buf)
	n := 0
	for n < len(buf) {
		got, err := s.f.Read(buf[n:], int64(i)*Chunk+int64(n))
		n += got
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if n < len(buf) && i < len(s.entries)-1 {
		return fmt.Errorf("store %q: %w", s.f.Path, ErrShorter)
	}
	id, err := writeChunk(ctx, s.w, buf[:n])
	if err != nil {
		return fmt.Errorf("store %q: %w", s.f.Path, err)
	}
	s.entries[i] = object.IndirectObjectEntry{Length: int64(n), Object: id}
	if _, alike := s.like(i, int64(n)); !alike || s.plan.Other || !known && !s.f.Aged || id == s.f.Before[i].Object {
		return nil
	}
	what := fmt.Sprintf("%q, the MiB at %d", s.f.Path, i)
	if !known { // it was stored by a wrong word before, and nobody touched the file since
		what += ", which was stored wrong before if nobody set the file's time back"
	}
	s.plan.lied(what)
	if !s.plan.All { // others may have been taken over by then
		return fmt.Errorf("%w: %s", ErrLied, s.plan.Lie())
	}
	return nil
}

func (p *Plan) lied(text string) {
	if p.lie.CompareAndSwap(nil, &text) && p.Found != nil {
		p.Found()
	}
}

func (s *storing) hole(ctx context.Context, i int) error {
	s.zero.Do(func() { s.zero.id, s.zero.err = writeChunk(ctx, s.w, make([]byte, Chunk)) })
	if s.zero.err != nil {
		return fmt.Errorf("store hole of %q: %w", s.f.Path, s.zero.err)
	}
	s.entries[i] = object.IndirectObjectEntry{Length: Chunk, Object: s.zero.id}
	s.f.Took(Chunk)
	return nil
}

func writeChunk(ctx context.Context, w Writer, data []byte) (object.ID, error) {
	o := w.NewObjectWriter(ctx, object.WriterOptions{Description: "chunk", Compressor: compressor, MetadataCompressor: compressor})
	defer o.Close() //nolint:errcheck // Result returned what matters
	if _, err := o.Write(data); err != nil {
		return object.EmptyID, err
	}
	return o.Result()
}

// writeIndex joins contents to one object, as the repository does it itself.
func writeIndex(ctx context.Context, w Writer, entries []object.IndirectObjectEntry) (object.ID, error) {
	o := w.NewObjectWriter(ctx, object.WriterOptions{Description: "index of chunks", Prefix: "x", Compressor: compressor, MetadataCompressor: compressor})
	defer o.Close() //nolint:errcheck // Result returned what matters
	index := struct {
		Stream  string                       `json:"stream"`
		Entries []object.IndirectObjectEntry `json:"entries"`
	}{"kopia:indirect", entries}
	if err := json.NewEncoder(o).Encode(index); err != nil {
		return object.EmptyID, fmt.Errorf("write index of chunks: %w", err)
	}
	id, err := o.Result()
	if err == nil {
		id, err = object.ParseID("I" + id.String())
	}
	if err != nil {
		return object.EmptyID, fmt.Errorf("write index of chunks: %w", err)
	}
	return id, nil
}
