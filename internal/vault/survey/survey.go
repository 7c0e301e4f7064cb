// Package survey is for whoever looks at a whole project again and again and knows
// beforehand where: few lists over common prefixes answer all the small lists and
// looks beneath them, and of small objects only those are read that are new. It is for
// showing, not for restoring or verifying: those read what is in the store.
package survey

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"davit.dev/davit/internal/vault"
)

// largest is the size of the largest object kept, in bytes.
const largest = 256 << 10

// Budget bounds what all stores that share it keep of objects, in bytes.
type Budget struct{ left atomic.Int64 }

// NewBudget returns a budget of so many bytes.
func NewBudget(size int64) *Budget {
	b := &Budget{}
	b.left.Store(size)
	return b
}

// Left is how many bytes nobody has.
func (b *Budget) Left() int64 { return b.left.Load() }

func (b *Budget) take(n int64) bool {
	if b.left.Add(-n) >= 0 {
		return true
	}
	b.left.Add(n)
	return false
}

// Store is the decorator. It is safe for use by several goroutines. Before anything
// was surveyed it passes all on.
type Store struct {
	vault.Store
	budget *Budget
	calls  atomic.Int64
	born   time.Time
	heard  atomic.Int64 // how long after that the store below answered last; 0: never

	mu      sync.RWMutex
	listing map[string][]vault.ObjectInfo // by surveyed prefix, ascending; nobody changes one
	kept    map[string]kept
}

// kept is an object's bytes, as they were when it was listed so.
type kept struct {
	info vault.ObjectInfo
	data []byte
}

// New wraps a store. What does not fit into the budget is read each time.
func New(next vault.Store, budget *Budget) *Store {
	return &Store{Store: next, budget: budget, born: time.Now(), listing: map[string][]vault.ObjectInfo{}, kept: map[string]kept{}}
}

// Calls is how often the store below was asked.
func (s *Store) Calls() int64 { return s.calls.Load() }

// Heard is when the store below answered last, be it with a part of a list or an
// object; zero: never. That it failed is no answer.
func (s *Store) Heard() time.Time {
	if n := s.heard.Load(); n != 0 {
		return s.born.Add(time.Duration(n)) // by the steady clock
	}
	return time.Time{}
}

// answered notes that the store below answers, unless it failed.
func (s *Store) answered(err error) {
	if err == nil || errors.Is(err, vault.ErrNotFound) {
		s.heard.Store(max(1, int64(time.Since(s.born))))
	}
}

// Forget gives back what is kept. The store can be used on.
func (s *Store) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.kept {
		s.drop(key)
	}
	clear(s.listing)
}

// Reread has what is beneath a prefix be read from the store below when it is asked for
// next: it may have come damaged.
func (s *Store) Reread(prefix string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.kept {
		if strings.HasPrefix(key, prefix) {
			s.drop(key)
		}
	}
}

// Take surveys a prefix: from now on, what is asked beneath it is answered as it is
// listed now. A list that does not come to its end changes nothing.
func (s *Store) Take(ctx context.Context, prefix string) error {
	s.mu.RLock()
	m := merge{old: s.listing[prefix]}
	s.mu.RUnlock()
	if err := s.list(ctx, prefix, m.add); err != nil {
		return fmt.Errorf("survey %s: %w", prefix, err)
	}
	now, same := m.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listing[prefix] = now
	if same {
		return nil
	}
	for key, k := range s.kept {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		if i, found := find(now, key); !found || !equal(now[i], k.info) {
			s.drop(key)
		}
	}
	return nil
}

// merge makes a new listing of an old one: what is the same needs no memory twice.
type merge struct {
	old, now []vault.ObjectInfo
	same     int // of old, while nothing differs
	differs  bool
}

func (m *merge) add(o vault.ObjectInfo) error {
	if !m.differs && m.same < len(m.old) && equal(m.old[m.same], o) {
		m.same++
		return nil
	}
	m.differ()
	if i, found := find(m.old, o.Key); found {
		o.Key = m.old[i].Key
	}
	m.now = append(m.now, o)
	return nil
}

func (m *merge) differ() {
	if !m.differs {
		m.differs = true
		m.now = append(make([]vault.ObjectInfo, 0, max(64, len(m.old)+len(m.old)/16)), m.old[:m.same]...)
	}
}

func (m *merge) end() (now []vault.ObjectInfo, same bool) {
	if m.same < len(m.old) || m.old == nil {
		m.differ()
	}
	if !m.differs {
		return m.old, true
	}
	return slices.Clip(m.now), false
}

func equal(a, b vault.ObjectInfo) bool {
	return a.Key == b.Key && a.Size == b.Size && a.Modified.Equal(b.Modified)
}

func find(all []vault.ObjectInfo, key string) (int, bool) {
	return slices.BinarySearchFunc(all, key, func(o vault.ObjectInfo, key string) int { return strings.Compare(o.Key, key) })
}

// Under is what the survey knows beneath a prefix, in the order of the keys, and
// whether that was surveyed. Nobody may change it.
func (s *Store) Under(prefix string) (all []vault.ObjectInfo, surveyed bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for of, listing := range s.listing {
		if !strings.HasPrefix(prefix, of) {
			continue
		}
		first, _ := find(listing, prefix)
		n := 0
		for first+n < len(listing) && strings.HasPrefix(listing[first+n].Key, prefix) {
			n++
		}
		return listing[first : first+n : first+n], true
	}
	return nil, false
}

// Mark stands for what the survey knows beneath a prefix: with the same mark it is the
// same, also after a restart. 0: there is nothing.
func (s *Store) Mark(prefix string) uint64 {
	all, _ := s.Under(prefix)
	return MarkOf(all...)
}

// MarkOf stands for objects as they are listed. 0: there are none.
func MarkOf(all ...vault.ObjectInfo) uint64 {
	if len(all) == 0 {
		return 0
	}
	h := fnv.New64a()
	var line []byte
	for _, o := range all {
		line = append(line[:0], o.Key...)
		line = strconv.AppendInt(append(line, ' '), o.Size, 10)
		line = strconv.AppendInt(append(line, ' '), o.Modified.UnixNano(), 10)
		_, _ = h.Write(append(line, 0)) // it cannot fail
	}
	return max(1, h.Sum64())
}

// look is what the survey knows of a key.
func (s *Store) look(key string) (info vault.ObjectInfo, have kept, listed bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for of, listing := range s.listing {
		if strings.HasPrefix(key, of) {
			if i, found := find(listing, key); found {
				return listing[i], s.kept[key], true
			}
		}
	}
	return vault.ObjectInfo{}, kept{}, false
}

// List implements vault.Store.
func (s *Store) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	all, surveyed := s.Under(prefix)
	if !surveyed {
		return s.list(ctx, prefix, fn)
	}
	for _, o := range all {
		if err := fn(o); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) list(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	s.calls.Add(1)
	err := s.Store.List(ctx, prefix, func(o vault.ObjectInfo) error {
		s.answered(nil)
		return fn(o)
	})
	s.answered(err)
	return err
}

// Stat implements vault.Store.
func (s *Store) Stat(ctx context.Context, key string) (vault.ObjectInfo, error) {
	if info, _, listed := s.look(key); listed {
		return info, nil
	}
	s.calls.Add(1)
	info, err := s.Store.Stat(ctx, key)
	s.answered(err)
	return info, err
}

// Get implements vault.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	info, have, listed := s.look(key)
	whole := offset == 0 && length == -1
	if listed && whole && have.data != nil && equal(have.info, info) {
		return io.NopCloser(bytes.NewReader(have.data)), nil
	}
	s.calls.Add(1)
	r, err := s.Store.Get(ctx, key, offset, length)
	s.answered(err)
	if err != nil || !listed || !whole || info.Size > largest {
		return r, err
	}
	return s.read(r, info)
}

// read reads an object whole, and keeps it if it is as it was listed.
func (s *Store) read(r io.ReadCloser, info vault.ObjectInfo) (io.ReadCloser, error) {
	data, err := io.ReadAll(io.LimitReader(r, info.Size+1))
	s.answered(err)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if int64(len(data)) != info.Size { // changed since: the reader goes on where data ends
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(data), r), r}, nil
	}
	s.keep(info, data)
	return io.NopCloser(bytes.NewReader(data)), r.Close()
}

func (s *Store) keep(info vault.ObjectInfo, data []byte) {
	if len(data) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(info.Key)
	if s.budget.take(info.Size) {
		s.kept[info.Key] = kept{info, data}
	}
}

func (s *Store) drop(key string) {
	if k, found := s.kept[key]; found {
		s.budget.left.Add(int64(len(k.data)))
		delete(s.kept, key)
	}
}

// changed forgets the surveys of a key that this process has written.
func (s *Store) changed(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(key)
	for of := range s.listing {
		if strings.HasPrefix(key, of) {
			delete(s.listing, of)
		}
	}
}

// Put implements vault.Store.
func (s *Store) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	defer s.changed(key)
	return s.Store.Put(ctx, key, r, size)
}

// PutIfAbsent implements vault.Store.
func (s *Store) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	defer s.changed(key)
	return s.Store.PutIfAbsent(ctx, key, r, size)
}

// Delete implements vault.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	defer s.changed(key)
	return s.Store.Delete(ctx, key)
}
