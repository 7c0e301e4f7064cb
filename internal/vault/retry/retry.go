// Package retry tries a store's operations again while the store is
// unavailable. A write whose outcome is unknown is settled by looking: if the
// object now there holds the very bytes, the write happened.
package retry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"davit.dev/davit/internal/vault"
)

// Policy says how often and how patiently.
type Policy struct {
	Tries int           // in all, at least 1
	First time.Duration // pause after the first try; it doubles each time
	Max   time.Duration // longest pause
	// Silent is told, once, of each operation that the store has not answered after
	// SilentAfter, and of the last error, if there was one. Nil: nobody is told.
	Silent func(store string, last error)
}

// SilentAfter is how long an operation waits before Policy.Silent is told.
const SilentAfter = 3 * time.Second

// Default waits about 15 s in all before it gives up.
var Default = Policy{Tries: 7, First: 200 * time.Millisecond, Max: 5 * time.Second}

// Store is the decorator.
type Store struct {
	next   vault.Store
	policy Policy
}

var _ vault.Store = (*Store)(nil)

// New wraps a store. Every error but vault.ErrUnavailable passes at once.
func New(next vault.Store, policy Policy) *Store {
	policy.Tries = max(policy.Tries, 1)
	return &Store{next, policy}
}

// Unwrap is the store below.
func (s *Store) Unwrap() vault.Store { return s.next }

// String implements vault.Store.
func (s *Store) String() string { return s.next.String() }

// do calls op until it succeeds, fails for good, or tries or time run out.
func (s *Store) do(ctx context.Context, op func(try int) error) error {
	a := s.await()
	defer a.end()
	return s.try(ctx, a, op)
}

func (s *Store) try(ctx context.Context, a *awaited, op func(try int) error) error {
	pause := s.policy.First
	for try := 1; ; try++ {
		err := op(try)
		a.last.Store(&err)
		if err == nil || errors.Is(err, errReplaced) || !errors.Is(err, vault.ErrUnavailable) || try >= s.policy.Tries {
			return err
		}
		if !wait(ctx, pause) {
			return fmt.Errorf("%w: %w", err, context.Cause(ctx))
		}
		pause = min(2*pause, s.policy.Max)
	}
}

// awaited is an operation that waits for an answer.
type awaited struct {
	last  atomic.Pointer[error] // of its newest try
	timer *time.Timer           // nil where nobody is told
}

func (s *Store) await() *awaited {
	a := &awaited{}
	if s.policy.Silent != nil {
		a.timer = time.AfterFunc(SilentAfter, func() {
			var last error
			if p := a.last.Load(); p != nil {
				last = *p
			}
			s.policy.Silent(s.String(), last)
		})
	}
	return a
}

// end says that there is an answer.
func (a *awaited) end() {
	if a.timer != nil {
		a.timer.Stop()
	}
}

// wait pauses for half to all of d and reports whether the context still lives.
func wait(ctx context.Context, d time.Duration) bool {
	if d > 0 {
		d = d/2 + rand.N(d/2+1)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// verified is how many bytes of a stream that broke are read again to prove
// that the object is still the same one. Beyond it a stream goes on where it
// broke: objects so large are written once.
const verified = 1 << 20

// Get implements vault.Store. A stream that breaks goes on where it broke,
// unless the object was replaced meanwhile.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r := &reader{store: s, ctx: ctx, key: key, offset: offset, length: length}
	err := s.do(ctx, func(int) error { return r.open(0) })
	if err != nil {
		return nil, err
	}
	return r, nil
}

// reader is a stream that opens itself again.
type reader struct {
	store          *Store
	ctx            context.Context //nolint:containedctx // a reader belongs to one call of Get
	key            string
	offset, length int64 // as asked for
	src            io.ReadCloser
	given          int64        // bytes handed on
	sum            maphash.Hash // of them, as long as they may be read again
	broken         int          // openings in a row that gave nothing
}

// open opens the stream from its skip-th byte.
func (r *reader) open(skip int64) error {
	length := r.length
	if length >= 0 {
		length -= skip
	}
	src, err := r.store.next.Get(r.ctx, r.key, max(r.offset, 0)+skip, length)
	if err == nil {
		r.src = src
	}
	return err
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	for {
		n, err := r.src.Read(p)
		if r.given += int64(n); r.given <= verified {
			_, _ = r.sum.Write(p[:n]) // never fails
		}
		if n > 0 {
			r.broken = 0
		}
		if err == nil || !errors.Is(err, vault.ErrUnavailable) {
			return n, err
		}
		if n > 0 {
			return n, nil // what broke will break again
		}
		if r.broken++; r.broken >= r.store.policy.Tries || !wait(r.ctx, r.store.policy.First) {
			return 0, err
		}
		if err := r.store.do(r.ctx, func(int) error { return r.reopen() }); err != nil {
			return 0, err
		}
	}
}

// reopen opens the stream where it broke.
func (r *reader) reopen() error {
	_ = r.src.Close() // broken already
	if r.given > verified {
		return r.open(r.given)
	}
	if err := r.open(0); err != nil {
		return err
	}
	var sum maphash.Hash
	sum.SetSeed(r.sum.Seed())
	if n, err := io.CopyN(&sum, r.src, r.given); err != nil && n < r.given && !errors.Is(err, io.EOF) {
		return err
	}
	if sum.Sum64() != r.sum.Sum64() {
		r.broken = r.store.policy.Tries // more of it would be of another object
		return fmt.Errorf("read %s: %w", r.key, errReplaced)
	}
	return nil
}

// errReplaced says that a stream cannot go on. Reading from the start can.
var errReplaced = fmt.Errorf("%w: the object was replaced while it was read", vault.ErrUnavailable)

// Close implements io.Closer.
func (r *reader) Close() error { return r.src.Close() }

// Stat implements vault.Store.
func (s *Store) Stat(ctx context.Context, key string) (info vault.ObjectInfo, err error) {
	err = s.do(ctx, func(int) error {
		info, err = s.next.Stat(ctx, key)
		return err
	})
	return info, err
}

// Put implements vault.Store.
func (s *Store) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return s.do(ctx, func(int) error { return s.next.Put(ctx, key, r, size) })
}

// PutIfAbsent implements vault.Store. After a try without an answer, an object
// with exactly our bytes is ours: callers write bytes that nobody else would,
// as all sealed objects are. Such a try may also still be on its way, so a
// missing object leaves the outcome unknown.
func (s *Store) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	unknown := false
	err := s.do(ctx, func(int) error {
		err := s.next.PutIfAbsent(ctx, key, r, size)
		if errors.Is(err, vault.ErrExists) && unknown {
			return s.settle(ctx, key, r, size)
		}
		unknown = unknown || errors.Is(err, vault.ErrUnavailable)
		return err
	})
	if !unknown || !errors.Is(err, vault.ErrUnavailable) || ctx.Err() != nil {
		return err
	}
	settled := s.settle(ctx, key, r, size)
	if settled == nil || errors.Is(settled, vault.ErrExists) {
		return settled
	}
	return err
}

// settle tells whether the object under key is ours: nil, or ErrExists.
func (s *Store) settle(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	stored, err := s.next.Get(ctx, key, 0, -1)
	if err != nil {
		return fmt.Errorf("look again at %s: %w", key, err)
	}
	defer stored.Close()
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("look again at %s: %w", key, err)
	}
	same, err := equal(stored, io.LimitReader(r, size))
	if err != nil {
		return fmt.Errorf("look again at %s: %w", key, err)
	}
	if !same {
		return fmt.Errorf("put %s: %w", key, vault.ErrExists)
	}
	return nil
}

// equal compares two streams to their ends.
func equal(a, b io.Reader) (bool, error) {
	x, y := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		for _, err := range []error{errA, errB} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
		}
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if errA != nil || errB != nil {
			return (errA != nil) == (errB != nil), nil
		}
	}
}

// List implements vault.Store. A list that breaks goes on after the last key
// that was handed on.
func (s *Store) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	last := ""
	var refused error
	a := s.await()
	defer a.end()
	err := s.try(ctx, a, func(int) error {
		return s.next.List(ctx, prefix, func(o vault.ObjectInfo) error {
			a.end() // a long list is no silence
			if o.Key <= last {
				return nil
			}
			if refused = fn(o); refused != nil {
				return errStop
			}
			last = o.Key
			return nil
		})
	})
	if refused != nil {
		return refused
	}
	return err
}

// errStop ends a list whose consumer refused an object, whatever its reason.
var errStop = errors.New("stop")

// Delete implements vault.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.do(ctx, func(int) error { return s.next.Delete(ctx, key) })
}
