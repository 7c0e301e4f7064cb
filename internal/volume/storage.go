package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume/cache"
)

// storage is kopia's blob storage over a vault.Store. It records every put in
// the ledger, keeps deletes back until the ledger has them, asks the guard
// before each change, and serves small reads from whole packs in memory.
type storage struct {
	blob.DefaultProviderImplementation

	id       string // in the registry; all that kopia's config file learns
	store    vault.Store
	prefix   string
	readOnly bool
	ledger   *ledger
	guard    Guard // nil: every change is allowed
	packs    *cache.Packs
	disk     *cache.Disk      // nil: nothing is kept on disk
	indexes  map[blob.ID]bool // index blobs that are seen; nil for all

	mu      sync.Mutex
	doomed  map[blob.ID]bool // deleted for kopia, not yet in the store
	denied  error            // the guard's first refusal: there is no way back from it
	deleted int64            // blobs deleted in the store
	freed   int64            // bytes of those
}

var _ blob.Storage = (*storage)(nil)

func (s *storage) key(id blob.ID) string { return s.prefix + string(id) }

func (s *storage) isDoomed(id blob.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doomed[id]
}

// IsReadOnly implements blob.Storage.
func (s *storage) IsReadOnly() bool { return s.readOnly }

// DisplayName implements blob.Storage.
func (s *storage) DisplayName() string { return s.store.String() + "/" + s.prefix }

// ConnectionInfo implements blob.Storage: the config holds no secret, and is
// of no use to another process.
func (s *storage) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: storageType, Config: &connection{ID: s.id}}
}

// GetBlob implements blob.Storage.
func (s *storage) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	out.Reset()
	if offset < 0 {
		return fmt.Errorf("read blob %s: %w", id, blob.ErrInvalidRange)
	}
	if s.isDoomed(id) {
		return fmt.Errorf("read blob %s: %w", id, blob.ErrBlobNotFound)
	}
	if length == 0 {
		_, err := s.GetMetadata(ctx, id)
		return err
	}
	if data, err := s.packs.Section(ctx, id, offset, length); err != nil {
		return s.wrap("read", id, err)
	} else if data != nil {
		_, err = out.Write(data)
		return err
	}
	if s.disk != nil && length < 0 && offset == 0 && cache.Holds(id) {
		data, err := s.whole(ctx, id)
		if err == nil {
			_, err = out.Write(data)
		}
		return s.wrap("read", id, err)
	}
	r, err := s.store.Get(ctx, s.key(id), offset, length)
	if err != nil {
		return s.wrap("read", id, err)
	}
	n, err := io.Copy(out, r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return s.wrap("read", id, err)
	}
	if length > 0 && n != length {
		return fmt.Errorf("read blob %s at %d: got %d of %d bytes: %w", id, offset, n, length, blob.ErrInvalidRange)
	}
	return nil
}

// GetMetadata implements blob.Storage.
func (s *storage) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	if s.isDoomed(id) {
		return blob.Metadata{}, fmt.Errorf("stat blob %s: %w", id, blob.ErrBlobNotFound)
	}
	info, err := s.store.Stat(ctx, s.key(id))
	if err != nil {
		return blob.Metadata{}, s.wrap("stat", id, err)
	}
	return blob.Metadata{BlobID: id, Length: info.Size, Timestamp: info.Modified}, nil
}

// ListBlobs implements blob.Storage.
func (s *storage) ListBlobs(ctx context.Context, prefix blob.ID, fn func(blob.Metadata) error) error {
	return s.store.List(ctx, s.key(prefix), func(o vault.ObjectInfo) error {
		id := blob.ID(strings.TrimPrefix(o.Key, s.prefix))
		if s.isDoomed(id) || s.indexes != nil && isIndex(id) && !s.indexes[id] {
			return nil
		}
		return fn(blob.Metadata{BlobID: id, Length: o.Size, Timestamp: o.Modified})
	})
}

// PutBlob implements blob.Storage. The ledger learns of packs after they are
// stored, and of everything that makes packs reachable before.
func (s *storage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	if s.readOnly {
		return ErrReadOnly
	}
	if opts.HasRetentionOptions() {
		return fmt.Errorf("write blob %s: %w", id, blob.ErrUnsupportedPutBlobOption)
	}
	if !opts.SetModTime.IsZero() {
		return blob.ErrSetTimeUnsupported
	}
	if err := s.allowed(ctx); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := data.WriteTo(sum); err != nil {
		return fmt.Errorf("hash blob %s: %w", id, err)
	}
	e := s.ledger.entry(opPut, id, int64(data.Length()), hex.EncodeToString(sum.Sum(nil)))
	if announced(id) {
		will := e
		will.Op = opWill
		if err := s.ledger.record(ctx, will); err != nil {
			return err
		}
	}
	if err := s.put(ctx, id, data, opts.DoNotRecreate); err != nil {
		return err
	}
	s.ledger.add(e)
	s.mu.Lock()
	delete(s.doomed, id)
	s.mu.Unlock()
	if opts.GetModTime != nil {
		info, err := s.store.Stat(ctx, s.key(id))
		if err != nil {
			return s.wrap("stat", id, err)
		}
		*opts.GetModTime = info.Modified
	}
	return nil
}

// announced says whether the blob's hash must be in an inventory before the
// blob is in the store: true for all but packs and the markers of sessions.
func announced(id blob.ID) bool {
	return id == "" || !strings.ContainsRune("pqs_", rune(id[0]))
}

func (s *storage) put(ctx context.Context, id blob.ID, data blob.Bytes, absent bool) error {
	r := data.Reader()
	defer r.Close() //nolint:errcheck // reads memory
	put := s.store.Put
	if absent {
		put = s.store.PutIfAbsent
	}
	return s.wrap("write", id, put(ctx, s.key(id), r, int64(data.Length())))
}

// DeleteBlob implements blob.Storage. The blob is gone for kopia at once, and
// from the store after commit.
func (s *storage) DeleteBlob(_ context.Context, id blob.ID) error {
	if s.readOnly {
		return ErrReadOnly
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doomed[id] = true
	return nil
}

// commit makes everything recorded durable: the ledger first, deletes that it
// now lists last. A crash in between leaves blobs that may be gone and are not.
func (s *storage) commit(ctx context.Context) error {
	s.mu.Lock()
	ids := make([]blob.ID, 0, len(s.doomed))
	for id := range s.doomed {
		ids = append(ids, id)
		s.ledger.add(s.ledger.entry(opDelete, id, 0, ""))
	}
	s.mu.Unlock()
	if err := s.ledger.flush(ctx); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(deleteParallel)
	for _, id := range ids {
		g.Go(func() error { return s.remove(gctx, id) })
	}
	return g.Wait()
}

const deleteParallel = 8

func (s *storage) remove(ctx context.Context, id blob.ID) error {
	if err := s.allowed(ctx); err != nil {
		return err
	}
	info, err := s.store.Stat(ctx, s.key(id))
	if err != nil && !errors.Is(err, vault.ErrNotFound) {
		return s.wrap("stat", id, err)
	}
	err = s.store.Delete(ctx, s.key(id))
	locked := errors.Is(err, vault.ErrLocked) // it stays, and goes in a later run
	if err != nil && !locked {
		return s.wrap("delete", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.doomed, id)
	if locked {
		return nil
	}
	s.deleted++
	s.freed += info.Size
	return nil
}

func (s *storage) allowed(ctx context.Context) error {
	if s.guard == nil {
		return nil
	}
	if err := s.refused(); err != nil {
		return err
	}
	err := s.guard(ctx)
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.denied == nil {
		s.denied = fmt.Errorf("change volume repository: %w", err)
	}
	return s.denied
}

// refused returns the guard's refusal, also where kopia went on without.
func (s *storage) refused() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.denied
}

// wrap says what was done to which blob, and maps the vault's errors to kopia's.
func (s *storage) wrap(verb string, id blob.ID, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, vault.ErrNotFound):
		return fmt.Errorf("%s blob %s: %w", verb, id, blob.ErrBlobNotFound)
	case errors.Is(err, vault.ErrExists):
		return fmt.Errorf("%s blob %s: %w", verb, id, blob.ErrBlobAlreadyExists)
	default:
		return fmt.Errorf("%s blob %s: %w", verb, id, err)
	}
}

// fetch reads a whole blob from the store.
func (s *storage) fetch(ctx context.Context, id blob.ID) ([]byte, error) {
	info, err := s.store.Stat(ctx, s.key(id))
	if err != nil {
		return nil, err
	}
	r, err := s.store.Get(ctx, s.key(id), 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // only read
	var b bytes.Buffer
	b.Grow(int(info.Size) + bytes.MinRead)
	_, err = b.ReadFrom(r)
	return b.Bytes(), err
}

// whole reads a blob from the cache, or from the store and then keeps it.
func (s *storage) whole(ctx context.Context, id blob.ID) ([]byte, error) {
	if data := s.disk.Get(id); data != nil {
		return data, nil
	}
	data, err := s.fetch(ctx, id)
	if err == nil {
		s.disk.Put(id, data)
	}
	return data, err
}

// stream reads a part of a pack. Nothing is checked here: whoever opens a content does.
func (s *storage) stream(ctx context.Context, pack string, offset, length int64) (io.ReadCloser, error) {
	r, err := s.store.Get(ctx, s.key(blob.ID(pack)), offset, length)
	if err != nil {
		return nil, s.wrap("read", blob.ID(pack), err)
	}
	return r, nil
}
