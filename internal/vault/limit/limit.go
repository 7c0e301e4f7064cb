// Package limit bounds what a store is asked to do: requests and bytes per second.
package limit

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/time/rate"

	"davit.dev/davit/internal/vault"
)

// slice is the most bytes that pass at once.
const slice = 64 << 10

// Rates are the bounds; zero means none.
type Rates struct {
	RequestsPerSecond float64
	UploadPerSecond   int64 // bytes
	DownloadPerSecond int64 // bytes
}

// Store is the decorator.
type Store struct {
	next           vault.Store
	requests       *rate.Limiter
	upload, dnload *rate.Limiter
}

var _ vault.Store = (*Store)(nil)

// New wraps a store.
func New(next vault.Store, rates Rates) *Store {
	return &Store{
		next:     next,
		requests: limiter(rates.RequestsPerSecond, max(1, int(rates.RequestsPerSecond/10))),
		upload:   limiter(float64(rates.UploadPerSecond), slice),
		dnload:   limiter(float64(rates.DownloadPerSecond), slice),
	}
}

func limiter(perSecond float64, burst int) *rate.Limiter {
	if perSecond <= 0 {
		return rate.NewLimiter(rate.Inf, burst)
	}
	return rate.NewLimiter(rate.Limit(perSecond), burst)
}

// Unwrap is the store below.
func (s *Store) Unwrap() vault.Store { return s.next }

// String implements vault.Store.
func (s *Store) String() string { return s.next.String() }

// admit waits for leave to send one request.
func (s *Store) admit(ctx context.Context) error { return await(ctx, s.requests, 1) }

// await waits for n tokens. A deadline too near to get them is unavailability.
func await(ctx context.Context, l *rate.Limiter, n int) error {
	if err := l.WaitN(ctx, n); err != nil {
		return fmt.Errorf("wait for the rate limit: %w: %w", vault.ErrUnavailable, err)
	}
	return nil
}

// Get implements vault.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := s.admit(ctx); err != nil {
		return nil, err
	}
	r, err := s.next.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	return &download{throttled{ctx, r, s.dnload}, r}, nil
}

// throttled passes bytes on at a bounded rate.
type throttled struct {
	ctx context.Context //nolint:containedctx // belongs to one call of Get or Put
	src io.Reader
	l   *rate.Limiter
}

func (t *throttled) Read(p []byte) (int, error) {
	n, err := t.src.Read(p[:min(len(p), slice)])
	if n > 0 {
		if wait := await(t.ctx, t.l, n); wait != nil {
			return 0, wait
		}
	}
	return n, err
}

type download struct {
	throttled
	io.Closer
}

// upload throttles a body that can be read again.
type upload struct {
	throttled
	io.Seeker
	body io.ReadSeeker
}

// Unwrap returns the body without its limit, for reading what is not sent.
func (u *upload) Unwrap() io.ReadSeeker { return u.body }

func (s *Store) body(ctx context.Context, r io.ReadSeeker) io.ReadSeeker {
	if s.upload.Limit() == rate.Inf {
		return r
	}
	return &upload{throttled{ctx, r, s.upload}, r, r}
}

// Stat implements vault.Store.
func (s *Store) Stat(ctx context.Context, key string) (vault.ObjectInfo, error) {
	if err := s.admit(ctx); err != nil {
		return vault.ObjectInfo{}, err
	}
	return s.next.Stat(ctx, key)
}

// Put implements vault.Store.
func (s *Store) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if err := s.admit(ctx); err != nil {
		return err
	}
	return s.next.Put(ctx, key, s.body(ctx, r), size)
}

// PutIfAbsent implements vault.Store.
func (s *Store) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if err := s.admit(ctx); err != nil {
		return err
	}
	return s.next.PutIfAbsent(ctx, key, s.body(ctx, r), size)
}

// List implements vault.Store. It counts as one request.
func (s *Store) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	if err := s.admit(ctx); err != nil {
		return err
	}
	return s.next.List(ctx, prefix, fn)
}

// Delete implements vault.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.admit(ctx); err != nil {
		return err
	}
	return s.next.Delete(ctx, key)
}
