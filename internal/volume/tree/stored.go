package tree

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	kfs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"davit.dev/davit/internal/volume/rewriter"
)

// compressor is what everything is compressed with.
const compressor = "zstd-fastest"

// Names inside a snapshot's root: the tree itself, what it needs beside, and where large files lay.
const (
	treeName   = "tree"
	extrasName = "extras"
	blocksName = "blocks"
)

// OpenRoot reads a snapshot's root: its tree and its extras.
func OpenRoot(ctx context.Context, rep repo.Repository, id object.ID) (top, extras *snapshot.DirEntry, err error) {
	entries, err := ReadDir(ctx, rep, id)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		switch e.Name {
		case treeName:
			top = e
		case extrasName:
			extras = e
		}
	}
	if top == nil || extras == nil || top.Type != snapshot.EntryTypeDirectory {
		return nil, nil, fmt.Errorf("read root %s: %w: not a davit snapshot", id, ErrDamaged)
	}
	return top, extras, nil
}

// ReadDir reads a stored directory.
func ReadDir(ctx context.Context, rep repo.Repository, id object.ID) ([]*snapshot.DirEntry, error) {
	rd, err := rep.OpenObject(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", id, err)
	}
	defer rd.Close() //nolint:errcheck // only read
	var m snapshot.DirManifest
	if err := json.NewDecoder(rd).Decode(&m); err != nil {
		return nil, fmt.Errorf("read directory %s: %w", id, err)
	}
	return m.Entries, nil
}

// writeBeside stores what stands beside the tree.
func (t *writer) writeBeside(ctx context.Context, name string, write func(io.Writer) error) (*snapshot.DirEntry, error) {
	w := t.w.NewObjectWriter(ctx, object.WriterOptions{
		Description: name, Prefix: "x", Compressor: compressor, MetadataCompressor: compressor,
	})
	defer w.Close() //nolint:errcheck // Result returned what matters
	count := &countingWriter{w: w}
	if err := write(count); err != nil {
		return nil, err
	}
	id, err := w.Result()
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	return &snapshot.DirEntry{
		Name: name, Type: snapshot.EntryTypeFile, Permissions: 0o600,
		FileSize: count.n, ModTime: kfs.UTCTimestampFromTime(t.opts.Start), ObjectID: id,
	}, nil
}

type countingWriter struct {
	w object.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func loadExtras(ctx context.Context, rep repo.Repository, e *snapshot.DirEntry) (map[string]extra, error) {
	rd, err := rep.OpenObject(ctx, e.ObjectID)
	if err != nil {
		return nil, fmt.Errorf("open extras: %w", err)
	}
	defer rd.Close() //nolint:errcheck // only read
	return readExtras(rd)
}

// CheckExtras reads a snapshot's extras and says what is wrong with them.
func CheckExtras(ctx context.Context, rep repo.Repository, e *snapshot.DirEntry) error {
	_, err := loadExtras(ctx, rep, e)
	return err
}

// Chunk is one content of a file.
type Chunk struct {
	ID     content.ID
	Offset int64 // in the file
	Length int64
}

// Chunks lists a file's contents in order.
func Chunks(ctx context.Context, cr content.Reader, e *snapshot.DirEntry) ([]Chunk, error) {
	index, indirect := e.ObjectID.IndexObjectID()
	if !indirect {
		id, compressed, _ := e.ObjectID.ContentID()
		if compressed {
			return nil, fmt.Errorf("%w: object compressed in an unknown way", ErrDamaged)
		}
		return []Chunk{{id, 0, e.FileSize}}, nil
	}
	entries, err := object.LoadIndexObject(ctx, rewriter.Contents{Reader: cr}, index)
	if err != nil {
		return nil, fmt.Errorf("read index of contents: %w", err)
	}
	var list []Chunk
	var at int64
	for _, ie := range entries {
		id, compressed, ok := ie.Object.ContentID()
		if !ok || compressed || ie.Start != at || ie.Length <= 0 {
			return nil, fmt.Errorf("%w: malformed index of contents", ErrDamaged)
		}
		list = append(list, Chunk{id, ie.Start, ie.Length})
		at += ie.Length
	}
	if at != e.FileSize {
		return nil, fmt.Errorf("%w: contents have %d bytes, the file %d", ErrDamaged, at, e.FileSize)
	}
	return list, nil
}

// load reads a chunk; its hash is checked by kopia, its length here.
func (c Chunk) load(ctx context.Context, cr content.Reader) ([]byte, error) {
	data, err := cr.GetContent(ctx, c.ID)
	if err != nil {
		return nil, fmt.Errorf("read content %s: %w", c.ID, err)
	}
	if int64(len(data)) != c.Length {
		return nil, fmt.Errorf("read content %s: %w: %d bytes, want %d", c.ID, ErrDamaged, len(data), c.Length)
	}
	return data, nil
}
