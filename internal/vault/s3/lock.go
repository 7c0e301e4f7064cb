package s3

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/minio/minio-go/v7"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/lock"
)

var _ lock.Locker = (*Store)(nil)

var retentions = map[lock.Mode]minio.RetentionMode{lock.Governance: minio.Governance, lock.Compliance: minio.Compliance}

// CheckLock implements lock.Locker.
func (s *Store) CheckLock(ctx context.Context) error {
	enabled, _, _, _, err := s.core.GetObjectLockConfig(ctx, s.opt.Bucket)
	response := minio.ErrorResponse{}
	if errors.As(err, &response) && response.Code == "ObjectLockConfigurationNotFoundError" {
		err, enabled = nil, ""
	}
	if err != nil {
		return fmt.Errorf("ask whether bucket %s locks objects: %w", s.opt.Bucket, s.translate(ctx, err))
	}
	if enabled != "Enabled" {
		return fmt.Errorf("bucket %s has no object lock: make one with object lock enabled: %w", s.opt.Bucket, vault.ErrDenied)
	}
	return nil
}

// Lock implements lock.Locker.
func (s *Store) Lock(ctx context.Context, key string, mode lock.Mode, until time.Time) error {
	name, err := s.name(key)
	if err != nil {
		return fmt.Errorf("lock %s: %w", key, err)
	}
	retention := retentions[mode]
	err = s.core.PutObjectRetention(ctx, s.opt.Bucket, name, minio.PutObjectRetentionOptions{Mode: &retention, RetainUntilDate: &until})
	if err == nil {
		return nil
	}
	// A lock is prolonged and never shortened: another that prolonged it
	// further was first. And of what was removed since, a store that keeps versions
	// says that it does not do that to the mark of a deletion.
	there, asked := s.LockedUntil(ctx, key)
	switch {
	case asked == nil && there.After(until):
		return nil
	case errors.Is(asked, vault.ErrNotFound):
		return asked
	}
	return fmt.Errorf("lock %s: %w", key, s.translate(ctx, err))
}

// LockedUntil implements lock.Locker.
func (s *Store) LockedUntil(ctx context.Context, key string) (time.Time, error) {
	name, err := s.name(key)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for the lock of %s: %w", key, err)
	}
	// Not every server answers the question itself as clients expect; a look at
	// the object tells it as well.
	info, err := s.core.StatObject(ctx, s.opt.Bucket, name, minio.StatObjectOptions{})
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for the lock of %s: %w", key, s.translate(ctx, err))
	}
	text := info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date")
	if text == "" {
		return time.Time{}, nil
	}
	until, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for the lock of %s: the server says %q, which is no time: %w", key, text, vault.ErrUnavailable)
	}
	return until, nil
}

// locked makes a denied deletion say that it is the lock's doing, and until when.
func (s *Store) locked(ctx context.Context, key string, denied error) error {
	if !s.opt.Lock.On() || !errors.Is(denied, vault.ErrDenied) {
		return denied
	}
	until, err := s.LockedUntil(ctx, key)
	if err != nil || !until.After(time.Now()) {
		return denied
	}
	return fmt.Errorf("%w until %s: %w", vault.ErrLocked, until.UTC().Format(time.RFC3339), vault.ErrDenied)
}

// retain locks what is put under a key, where it is to be locked.
func (o Options) retain(key string, opts *minio.PutObjectOptions) bool {
	if !o.Lock.On() || !lock.Covers(key) {
		return false
	}
	opts.Mode, opts.RetainUntilDate = retentions[o.Lock.Mode], time.Now().Add(o.Lock.Span()).UTC()
	return true
}
