package volume

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
)

// testStore is a store in memory that can be told to fail and be tampered with.
type testStore struct {
	mu      sync.Mutex
	objects map[string][]byte
	times   map[string]time.Time
	now     func() time.Time
	// hook, when set, is asked before each operation.
	hook func(op, key string) error
	gets int
}

func newTestStore() *testStore {
	return &testStore{objects: map[string][]byte{}, times: map[string]time.Time{}, now: time.Now}
}

func (s *testStore) setHook(hook func(op, key string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

func (s *testStore) ask(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	hook := s.hook
	s.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(op, key)
}

func (s *testStore) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := s.ask(ctx, "get", key); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	data, ok := s.objects[key]
	if !ok {
		return nil, fmt.Errorf("get %s: %w", key, vault.ErrNotFound)
	}
	data = data[min(offset, int64(len(data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (s *testStore) Stat(ctx context.Context, key string) (vault.ObjectInfo, error) {
	if err := s.ask(ctx, "stat", key); err != nil {
		return vault.ObjectInfo{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.objects[key]
	if !ok {
		return vault.ObjectInfo{}, fmt.Errorf("stat %s: %w", key, vault.ErrNotFound)
	}
	return vault.ObjectInfo{Key: key, Size: int64(len(data)), Modified: s.times[key]}, nil
}

func (s *testStore) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return s.put(ctx, key, r, size, true)
}

func (s *testStore) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return s.put(ctx, key, r, size, false)
}

func (s *testStore) put(ctx context.Context, key string, r io.Reader, size int64, replace bool) error {
	if err := s.ask(ctx, "put", key); err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) != size {
		return fmt.Errorf("put %s: %d bytes announced, %d given: %w", key, size, len(data), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.objects[key]; taken && !replace {
		return fmt.Errorf("put %s: %w", key, vault.ErrExists)
	}
	s.objects[key], s.times[key] = data, s.now()
	return nil
}

func (s *testStore) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	if err := s.ask(ctx, "list", prefix); err != nil {
		return err
	}
	for _, k := range s.keys(prefix) {
		info, err := s.Stat(ctx, k)
		if err != nil {
			continue
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

func (s *testStore) Delete(ctx context.Context, key string) error {
	if err := s.ask(ctx, "delete", key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
	return nil
}

func (s *testStore) String() string { return "test:" }

func (s *testStore) keys(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for k := range s.objects {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	return keys
}

// with runs fn while an object has other bytes; nil means that it is gone.
func (s *testStore) with(key string, data []byte, fn func()) {
	s.mu.Lock()
	old := s.objects[key]
	if data == nil {
		delete(s.objects, key)
	} else {
		s.objects[key] = data
	}
	s.mu.Unlock()
	fn()
	s.mu.Lock()
	s.objects[key] = old
	s.mu.Unlock()
}

func (s *testStore) object(key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.objects[key])
}

var testPassword = []byte("0123456789abcdef0123456789abcdef")

const testPrefix = "projects/shop/volumes/east/"

func openTest(t testing.TB, s vault.Store, change ...func(*Options)) *Repository {
	t.Helper()
	o := Options{Store: s, Prefix: testPrefix, Password: testPassword, Site: "east"}
	for _, c := range change {
		c(&o)
	}
	r, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}
