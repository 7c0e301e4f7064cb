package tree

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"

	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sys/unix"
)

const (
	windowChunks = 1024    // of one file, brought into the order of their packs
	spanBytes    = 8 << 20 // fetched with one request
	spanGap      = 1 << 16 // bytes of others' contents fetched rather than a request more
	aloneBytes   = 1 << 18 // up to these a content with no neighbour comes from packs that are held, after a few
)

// largeFile is a file whose chunks are written in parallel.
type largeFile struct {
	file    *sink
	stored  string
	pending atomic.Int64 // spans, and the one who gives them away
	failed  atomic.Bool
}

// placed is a chunk and where its content lies.
type placed struct {
	Chunk
	info        content.Info
	pack        string
	from, until int64 // in the pack
}

// restoreLarge gives a file's chunks away in spans: runs of contents that lie
// together in a pack, and so mostly in the file, too.
func (t *reader) restoreLarge(n *readNode, name, stored string, e *snapshot.DirEntry, chunks []Chunk) error {
	f, err := createFile(n.dir, name)
	if err != nil {
		abandonRead(n)
		return err
	}
	if err := f.Truncate(e.FileSize); err != nil {
		_ = f.Close() // the truncation's error tells more
		abandonRead(n)
		return fmt.Errorf("size file: %w", err)
	}
	large := &largeFile{file: openSink(f), stored: stored}
	large.pending.Store(1)
	if t.hole == coarseHole { // there is room for all, zeros included
		large.file.setAside(chunks)
	}
	cr := t.rep.ContentReader()
	for window := range slices.Chunk(chunks, windowChunks) {
		if err = t.restoreWindow(cr, large, n, e, window); err != nil {
			large.failed.Store(true)
			break
		}
	}
	return errors.Join(err, t.doneSpan(large, n, e))
}

func (t *reader) restoreWindow(cr content.Reader, f *largeFile, n *readNode, e *snapshot.DirEntry, window []Chunk) error {
	spans, err := spansOf(t.ctx, cr, window)
	if err != nil {
		return err
	}
	for _, span := range spans {
		f.pending.Add(1)
		t.group.Go(func() error {
			err := t.restoreSpan(cr, f, span)
			if err != nil {
				f.failed.Store(true)
			}
			if err = errors.Join(err, t.doneSpan(f, n, e)); err != nil {
				return fmt.Errorf("restore %q: %w", f.stored, err)
			}
			return nil
		})
	}
	return nil
}

// spansOf finds chunks in their packs and puts together what one request gets.
func spansOf(ctx context.Context, cr content.Reader, chunks []Chunk) ([][]placed, error) {
	list := make([]placed, 0, len(chunks))
	for _, c := range chunks {
		info, err := cr.ContentInfo(ctx, c.ID)
		if err != nil {
			return nil, fmt.Errorf("find content %s: %w", c.ID, err)
		}
		from := int64(info.PackOffset)
		list = append(list, placed{c, info, string(info.PackBlobID), from, from + int64(info.PackedLength)})
	}
	slices.SortStableFunc(list, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.pack, b.pack), cmp.Compare(a.from, b.from))
	})
	var spans [][]placed
	for i, p := range list {
		if i > 0 && list[i-1].pack == p.pack {
			last := spans[len(spans)-1]
			if p.from <= last[len(last)-1].until+spanGap && p.until <= last[0].from+spanBytes {
				spans[len(spans)-1] = append(last, p)
				continue
			}
		}
		spans = append(spans, []placed{p})
	}
	return spans, nil
}

// restoreSpan writes the chunks of one span. A content that the file has
// several times is loaded once.
func (t *reader) restoreSpan(cr content.Reader, f *largeFile, span []placed) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	packed, err := t.stream(cr, span)
	if err != nil {
		return err
	}
	defer packed.close()
	var data []byte
	var blank bool
	for i, c := range span {
		if i == 0 || c.ID != span[i-1].ID || c.Length != span[i-1].Length {
			if data, err = packed.next(c); err != nil {
				return err
			}
			t.meter.Fetched.Add(c.Length)
			blank = isBlank(data)
		}
		if !blank {
			if err := t.opts.Pace.wait(t.ctx, len(data)); err != nil {
				return err
			}
			if err := writeSparse(f.file, data, c.Offset, t.hole); err != nil {
				return err
			}
		} else {
			f.file.leave(c.Offset, c.Length)
		}
		t.meter.Bytes.Add(c.Length)
		t.meter.Tick()
	}
	return startWriteback(f.file.File, span)
}

// startWriteback lets the disk begin with what was written, while the next
// span is fetched: else all of it waits for the end.
func startWriteback(f *os.File, span []placed) error {
	from, until := span[0].Offset, int64(0)
	for _, c := range span {
		from, until = min(from, c.Offset), max(until, c.Offset+c.Length)
	}
	err := unix.SyncFileRange(int(f.Fd()), from, until-from, unix.SYNC_FILE_RANGE_WRITE)
	if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ESPIPE) {
		return fmt.Errorf("write file: %w", err)
	}
	return nil // some file systems cannot; syncfs at the end can
}

// doneSpan counts off a span, and finishes the file after the last.
func (t *reader) doneSpan(f *largeFile, n *readNode, e *snapshot.DirEntry) error {
	if f.pending.Add(-1) > 0 {
		return nil
	}
	var err error
	if !f.failed.Load() {
		err = t.finishFile(f.file.File, f.stored, e, true)
	}
	if cerr := f.file.Close(); err == nil {
		err = cerr
	}
	if err != nil || f.failed.Load() {
		abandonRead(n)
		return err
	}
	t.meter.Files.Add(1)
	return t.done(n)
}
