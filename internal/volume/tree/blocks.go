package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sys/unix"

	"davit.dev/davit/internal/volume/changes"
	"davit.dev/davit/internal/volume/rewriter"
)

// LoadBlocks reads where the large files of a snapshot lay; nil if it does not say.
func LoadBlocks(ctx context.Context, rep repo.Repository, root object.ID) (*changes.Book, error) {
	entries, err := ReadDir(ctx, rep, root)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name != blocksName {
			continue
		}
		rd, err := rep.OpenObject(ctx, e.ObjectID)
		if err != nil {
			return nil, fmt.Errorf("open blocks: %w", err)
		}
		defer rd.Close() //nolint:errcheck // only read
		return changes.ReadBook(rd)
	}
	return nil, nil
}

// storeChanges stores a large file by its chunks.
func (t *writer) storeChanges(f *os.File, path, stored string, size int64, st unix.Stat_t, prev *snapshot.DirEntry) (object.ID, int64, error) {
	before, err := t.contentsOf(prev)
	if err != nil {
		return object.EmptyID, 0, fmt.Errorf("read previous snapshot of %q: %w", path, err)
	}
	id, size, err := t.opts.Changes.Store(t.ctx, t.w, changes.File{
		File: f, Path: stored, Size: size, Before: before, Aged: before != nil && aged(prev, size, st),
		Gone: func(id content.ID) bool { return t.w.Lost(t.ctx, id) },
		Read: func(p []byte, offset int64) (int, error) {
			n, err := f.ReadAt(p, offset)
			if werr := t.opts.Pace.wait(t.ctx, n); werr != nil {
				return n, werr
			}
			t.took(int64(n))
			if err != nil && n < len(p) && !errors.Is(err, io.EOF) {
				return n, &sourceError{err}
			}
			return n, err
		},
		Took: t.took,
		Hole: func(from, limit int64) (int64, int64) { return nextHole(f, from, limit) },
	})
	if errors.Is(err, changes.ErrShorter) {
		err = &sourceError{err}
	}
	return id, size, err
}

func (t *writer) took(bytes int64) {
	t.meter.Bytes.Add(bytes)
	t.meter.Tick()
}

// contentsOf lists the contents of a file of the previous snapshot, if it has several.
func (t *writer) contentsOf(prev *snapshot.DirEntry) ([]object.IndirectObjectEntry, error) {
	if prev == nil || prev.Type != snapshot.EntryTypeFile {
		return nil, nil
	}
	index, several := prev.ObjectID.IndexObjectID()
	if !several || !t.w.Whole(t.ctx, index) {
		return nil, nil
	}
	entries, err := object.LoadIndexObject(t.ctx, rewriter.Contents{Reader: t.w.ContentReader()}, index)
	if err != nil && t.opts.Outage != nil && !t.opts.Outage(err) {
		return nil, nil // it is read whole
	}
	return entries, err
}

// noteBlocks notes where a large file lies that is taken over unread.
func (t *writer) noteBlocks(n *node, name, stored string, size int64) {
	if !t.opts.Changes.Stores(size) {
		return
	}
	n.dir.hold()
	t.group.Go(func() error {
		defer n.dir.release()
		f, err := n.dir.openRegular(name)
		if err != nil {
			f = nil
		}
		t.opts.Changes.Take(f, stored, size)
		_ = f.Close() // only looked at
		return nil
	})
}
