// Package listed is a cache for whoever looks at all recovery points again and
// again: of small write-once objects, it reads only those that the newest
// listing shows for the first time, or with another size or time. It is for
// showing, not for restoring or verifying: those read what is in the store.
package listed

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"davit.dev/davit/internal/vault"
)

// largest is the size of the largest object kept, in bytes.
const largest = 256 << 10

// Store is the decorator. It is safe for use by several goroutines.
type Store struct {
	vault.Store
	limit int64 // of all that is kept, in bytes

	mu   sync.Mutex
	seen map[string]vault.ObjectInfo // as listed last
	kept map[string]kept
	size int64
}

// kept is an object's bytes, as they were when it was listed so.
type kept struct {
	info vault.ObjectInfo
	data []byte
}

// New wraps a store. It keeps at most limit bytes; what does not fit is read
// each time, rather than pushing out what will be asked for as soon.
func New(next vault.Store, limit int64) *Store {
	return &Store{Store: next, limit: limit, seen: map[string]vault.ObjectInfo{}, kept: map[string]kept{}}
}

// List implements vault.Store. A whole listing decides what is kept under the prefix.
func (s *Store) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	now := map[string]vault.ObjectInfo{}
	err := s.Store.List(ctx, prefix, func(o vault.ObjectInfo) error {
		if cacheable(o) {
			now[o.Key] = o
		}
		return fn(o)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.seen {
		if strings.HasPrefix(key, prefix) && now[key] != s.seen[key] {
			s.drop(key)
		}
	}
	for key, info := range now {
		s.seen[key] = info
	}
	return nil
}

// cacheable says whether the object is written once and small.
func cacheable(o vault.ObjectInfo) bool {
	once := strings.Contains(o.Key, "/manifests/") || strings.Contains(o.Key, "/marks/")
	return once && o.Size <= largest
}

func (s *Store) drop(key string) {
	s.size -= int64(len(s.kept[key].data))
	delete(s.kept, key)
	delete(s.seen, key)
}

// Get implements vault.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	s.mu.Lock()
	info, listed := s.seen[key]
	have, found := s.kept[key]
	s.mu.Unlock()
	if !listed || offset != 0 || length != -1 {
		return s.Store.Get(ctx, key, offset, length)
	}
	if found && have.info == info {
		return io.NopCloser(bytes.NewReader(have.data)), nil
	}
	return s.read(ctx, info)
}

// read gets an object and keeps it if it is as it was listed.
func (s *Store) read(ctx context.Context, info vault.ObjectInfo) (io.ReadCloser, error) {
	r, err := s.Store.Get(ctx, info.Key, 0, -1)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, info.Size+1))
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if int64(len(data)) != info.Size { // changed since: the reader goes on where data ends
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(data), r), r}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[info.Key] == info && s.kept[info.Key].data == nil && s.size+info.Size <= s.limit {
		s.kept[info.Key] = kept{info, data}
		s.size += info.Size
	}
	return io.NopCloser(bytes.NewReader(data)), r.Close()
}

// Delete implements vault.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	s.forget(key)
	return s.Store.Delete(ctx, key)
}

// Put implements vault.Store.
func (s *Store) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	defer s.forget(key)
	return s.Store.Put(ctx, key, r, size)
}

func (s *Store) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(key)
}
