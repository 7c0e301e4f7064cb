// Package rewriter writes a repository without the contents of damaged packs.
package rewriter

import (
	"context"
	"sync"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
)

// Contents reads single contents; it is what kopia's object reader needs.
type Contents struct{ content.Reader }

// PrefetchContents does nothing: packs are fetched whole where it pays.
func (Contents) PrefetchContents(context.Context, []content.ID, string) []content.ID { return nil }

// Writer is a repository that is written without the contents of damaged packs:
// what it has only there is stored once more. The index names the newest, so
// that older snapshots read the good one too.
type Writer struct {
	repo.DirectRepositoryWriter
	objects *object.Manager

	mu   sync.Mutex
	bad  map[string]bool // packs
	lock sync.Mutex      // held while a content is stored once more
}

// New writes to w; bad are the packs that are damaged.
func New(ctx context.Context, w repo.DirectRepositoryWriter, bad map[string]bool) (*Writer, error) {
	a := &Writer{DirectRepositoryWriter: w, bad: map[string]bool{}}
	for pack := range bad {
		a.bad[pack] = true
	}
	m := w.ContentManager()
	var err error
	a.objects, err = object.NewObjectManager(ctx, contentsAnew(a, m.WriteContent, m.ContentFormat().HashFunc()), w.ObjectFormat(), nil)
	return a, err
}

// NewObjectWriter implements repo.RepositoryWriter.
func (a *Writer) NewObjectWriter(ctx context.Context, opts object.WriterOptions) object.Writer {
	return a.objects.NewWriter(ctx, opts)
}

// ConcatenateObjects implements repo.RepositoryWriter.
func (a *Writer) ConcatenateObjects(ctx context.Context, ids []object.ID, opts repo.ConcatenateOptions) (object.ID, error) {
	return a.objects.Concatenate(ctx, ids, opts.Compressor)
}

// Lost tells whether a content is in a damaged pack, or is not there at all.
func (a *Writer) Lost(ctx context.Context, id content.ID) bool {
	info, err := a.ContentReader().ContentInfo(ctx, id)
	return err != nil || info.Deleted || a.isBad(string(info.PackBlobID))
}

func (a *Writer) none() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.bad) == 0
}

func (a *Writer) isBad(pack string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bad[pack]
}

// Whole tells whether no content of an object is in a damaged pack.
func (a *Writer) Whole(ctx context.Context, id object.ID) bool {
	if a.none() {
		return true
	}
	if top, ok := first(id); ok && a.Lost(ctx, top) { // before it is read
		return false
	}
	ids, err := object.VerifyObject(ctx, Contents{a.ContentReader()}, id)
	if err != nil {
		return false
	}
	for _, c := range ids {
		if a.Lost(ctx, c) {
			return false
		}
	}
	return true
}

// Distrust takes the packs of an object for damaged: it could not be read.
func (a *Writer) Distrust(ctx context.Context, id object.ID) {
	ids, err := object.VerifyObject(ctx, Contents{a.ContentReader()}, id)
	if err != nil {
		if top, ok := first(id); ok {
			ids = append(ids, top)
		}
	}
	for _, c := range ids {
		if info, err := a.ContentReader().ContentInfo(ctx, c); err == nil {
			a.mu.Lock()
			a.bad[string(info.PackBlobID)] = true
			a.mu.Unlock()
		}
	}
}

// first is the content that must be read first of an object.
func first(id object.ID) (content.ID, bool) {
	for {
		index, indirect := id.IndexObjectID()
		if !indirect {
			c, _, ok := id.ContentID()
			return c, ok
		}
		id = index
	}
}

// contents stores contents for an object.Manager. B is kopia's type of bytes,
// which cannot be named outside of it, so it is inferred.
type contents[B any] struct {
	Contents
	a     *Writer
	write func(context.Context, B, content.IDPrefix, compression.HeaderID) (content.ID, error)
	hash  func([]byte, B) []byte
}

func contentsAnew[B any](a *Writer, write func(context.Context, B, content.IDPrefix, compression.HeaderID) (content.ID, error), hash func([]byte, B) []byte) *contents[B] {
	return &contents[B]{Contents{a.ContentReader()}, a, write, hash}
}

// SupportsContentCompression implements what object.Manager asks for.
func (c *contents[B]) SupportsContentCompression() bool {
	return c.a.ContentManager().SupportsContentCompression()
}

// WriteContent implements what object.Manager asks for. What is deleted is
// stored though the index knows it: so a content of a damaged pack is deleted first.
func (c *contents[B]) WriteContent(ctx context.Context, data B, prefix content.IDPrefix, comp compression.HeaderID) (content.ID, error) {
	if c.a.none() {
		return c.write(ctx, data, prefix, comp)
	}
	id, err := content.IDFromHash(prefix, c.hash(nil, data))
	if err != nil {
		return content.EmptyID, err
	}
	if info, err := c.a.ContentReader().ContentInfo(ctx, id); err != nil || info.Deleted || !c.a.isBad(string(info.PackBlobID)) {
		return c.write(ctx, data, prefix, comp)
	}
	c.a.lock.Lock()
	defer c.a.lock.Unlock()
	info, err := c.a.ContentReader().ContentInfo(ctx, id)
	if err == nil && !info.Deleted && c.a.isBad(string(info.PackBlobID)) { // nobody stored it meanwhile
		m := c.a.ContentManager()
		m.DisableIndexFlush(ctx) // kopia writes an index each ten minutes, which would have the one without the other
		defer m.EnableIndexFlush(ctx)
		if err := m.DeleteContent(ctx, id); err != nil {
			return content.EmptyID, err
		}
	}
	return c.write(ctx, data, prefix, comp)
}
