// Package fault makes a store misbehave in the ways real ones do, for tests:
// it refuses, stalls, loses answers to writes that happened, breaks streams
// half-way, flips bits, and has a clock of its own. What it does follows from a seed.
package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"davit.dev/davit/internal/vault"
)

// Faults are probabilities from 0 to 1, each for one operation, and a clock.
type Faults struct {
	Refuse float64 // ErrUnavailable, nothing happened
	Lose   float64 // a write happened, its answer is ErrUnavailable
	Stall  float64 // nothing happens until the caller's time is up
	Tear   float64 // a read breaks off with ErrUnavailable
	Flip   float64 // a read returns one wrong bit, without any error
	// Skew is how far the store's clock is ahead of the true one.
	Skew time.Duration
}

// ErrInjected is wrapped by every error made here.
var ErrInjected = errors.New("injected fault")

// Store is the decorator.
type Store struct {
	next vault.Store

	mu     sync.Mutex
	faults Faults
	random *rand.Rand
	count  int
}

var _ vault.Store = (*Store)(nil)

// New wraps a store.
func New(next vault.Store, seed uint64, faults Faults) *Store {
	return &Store{next: next, faults: faults, random: rand.New(rand.NewPCG(seed, 0))}
}

// Set changes the faults from now on.
func (s *Store) Set(faults Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = faults
}

// Count returns how many faults there were.
func (s *Store) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// String implements vault.Store.
func (s *Store) String() string { return s.next.String() }

// roll decides on one fault.
func (s *Store) roll(which func(Faults) float64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	hit := s.random.Float64() < which(s.faults)
	if hit {
		s.count++
	}
	return hit
}

// below returns a number from 0 to n-1.
func (s *Store) below(n int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.random.Int64N(max(n, 1))
}

func injected(op, key string) error {
	return fmt.Errorf("%s %s: %w: %w", op, key, vault.ErrUnavailable, ErrInjected)
}

// before makes the faults that come before an operation.
func (s *Store) before(ctx context.Context, op, key string) error {
	if s.roll(func(f Faults) float64 { return f.Stall }) {
		<-ctx.Done()
		return fmt.Errorf("%s %s: %w: %w", op, key, vault.ErrUnavailable, context.Cause(ctx))
	}
	if s.roll(func(f Faults) float64 { return f.Refuse }) {
		return injected(op, key)
	}
	return nil
}

// after loses the answer of a write, good or bad.
func (s *Store) after(op, key string, err error) error {
	if s.roll(func(f Faults) float64 { return f.Lose }) {
		return injected(op, key)
	}
	return err
}

// Get implements vault.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := s.before(ctx, "get", key); err != nil {
		return nil, err
	}
	src, err := s.next.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	r := &reader{ReadCloser: src, key: key, tear: -1, flip: -1}
	if info, err := s.next.Stat(ctx, key); err == nil {
		if s.roll(func(f Faults) float64 { return f.Tear }) {
			r.tear = s.below(info.Size)
		}
		if s.roll(func(f Faults) float64 { return f.Flip }) {
			r.flip = s.below(info.Size)
		}
	}
	return r, nil
}

// reader breaks off after tear bytes and flips a bit of byte flip.
type reader struct {
	io.ReadCloser
	key        string
	at         int64
	tear, flip int64 // -1: never
}

func (r *reader) Read(p []byte) (int, error) {
	if r.tear >= 0 {
		if r.at >= r.tear {
			return 0, injected("read", r.key)
		}
		p = p[:min(int64(len(p)), r.tear-r.at)]
	}
	n, err := r.ReadCloser.Read(p)
	if r.flip >= r.at && r.flip < r.at+int64(n) {
		p[r.flip-r.at] ^= 1
	}
	r.at += int64(n)
	return n, err
}

// Stat implements vault.Store.
func (s *Store) Stat(ctx context.Context, key string) (vault.ObjectInfo, error) {
	if err := s.before(ctx, "stat", key); err != nil {
		return vault.ObjectInfo{}, err
	}
	info, err := s.next.Stat(ctx, key)
	info.Modified = s.shown(info.Modified)
	return info, err
}

// shown is a time by the store's clock.
func (s *Store) shown(at time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return at.Add(s.faults.Skew)
}

// Put implements vault.Store.
func (s *Store) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if err := s.before(ctx, "put", key); err != nil {
		return err
	}
	return s.after("put", key, s.next.Put(ctx, key, r, size))
}

// PutIfAbsent implements vault.Store.
func (s *Store) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if err := s.before(ctx, "put", key); err != nil {
		return err
	}
	return s.after("put", key, s.next.PutIfAbsent(ctx, key, r, size))
}

// List implements vault.Store. A torn list breaks off after some keys.
func (s *Store) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	if err := s.before(ctx, "list", prefix); err != nil {
		return err
	}
	tear := int64(-1)
	if s.roll(func(f Faults) float64 { return f.Tear }) {
		tear = s.below(8)
	}
	return s.next.List(ctx, prefix, func(o vault.ObjectInfo) error {
		if tear == 0 {
			return injected("list", prefix)
		}
		tear--
		o.Modified = s.shown(o.Modified)
		return fn(o)
	})
}

// Delete implements vault.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.before(ctx, "delete", key); err != nil {
		return err
	}
	return s.after("delete", key, s.next.Delete(ctx, key))
}
