// Package mem is a vault's store in memory, for tests.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/internal/vault"
)

// Store keeps objects in memory. Its zero value is not usable; see New.
type Store struct {
	now func() time.Time

	mu      sync.Mutex
	objects map[string]object
}

type object struct {
	data     []byte
	modified time.Time
}

var _ vault.Store = (*Store)(nil)

// New returns an empty store whose clock is now; nil means the real one.
func New(now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{now: now, objects: map[string]object{}}
}

// String implements vault.Store.
func (s *Store) String() string { return "mem:" }

func (s *Store) find(ctx context.Context, key string) (object, error) {
	if err := ctx.Err(); err != nil {
		return object{}, fmt.Errorf("%w: %w", vault.ErrUnavailable, err)
	}
	if err := vault.CheckKey(key); err != nil {
		return object{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return object{}, vault.ErrNotFound
	}
	return o, nil
}

// Get implements vault.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	o, err := s.find(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	data := o.data[min(max(offset, 0), int64(len(o.data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Stat implements vault.Store.
func (s *Store) Stat(ctx context.Context, key string) (vault.ObjectInfo, error) {
	o, err := s.find(ctx, key)
	if err != nil {
		return vault.ObjectInfo{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return vault.ObjectInfo{Key: key, Size: int64(len(o.data)), Modified: o.modified}, nil
}

// Put implements vault.Store.
func (s *Store) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return s.put(ctx, key, r, size, true)
}

// PutIfAbsent implements vault.Store.
func (s *Store) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return s.put(ctx, key, r, size, false)
}

func (s *Store) put(ctx context.Context, key string, r io.ReadSeeker, size int64, replace bool) error {
	if err := vault.CheckKey(key); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	if int64(len(data)) != size {
		return fmt.Errorf("put %s: got %d bytes, was promised %d", key, len(data), size)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put %s: %w: %w", key, vault.ErrUnavailable, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.objects[key]; taken && !replace {
		return fmt.Errorf("put %s: %w", key, vault.ErrExists)
	}
	s.objects[key] = object{data: data, modified: s.now()}
	return nil
}

// List implements vault.Store.
func (s *Store) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	for _, info := range s.snapshot(prefix) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list %s: %w: %w", prefix, vault.ErrUnavailable, err)
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) snapshot(prefix string) []vault.ObjectInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var infos []vault.ObjectInfo
	for key, o := range s.objects {
		if strings.HasPrefix(key, prefix) {
			infos = append(infos, vault.ObjectInfo{Key: key, Size: int64(len(o.data)), Modified: o.modified})
		}
	}
	slices.SortFunc(infos, func(a, b vault.ObjectInfo) int { return strings.Compare(a.Key, b.Key) })
	return infos
}

// Delete implements vault.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %s: %w: %w", key, vault.ErrUnavailable, err)
	}
	if err := vault.CheckKey(key); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
	return nil
}
