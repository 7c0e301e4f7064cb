package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/history"
)

var _ history.Keeper = (*Store)(nil)

// KeepsVersions implements history.Keeper.
func (s *Store) KeepsVersions(ctx context.Context) (bool, error) {
	config, err := s.core.GetBucketVersioning(ctx, s.opt.Bucket)
	if minio.ToErrorResponse(err).Code == "VersioningNotConfigured" { // of a server that cannot
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask whether bucket %s keeps versions: %w", s.opt.Bucket, s.translate(ctx, err))
	}
	return config.Enabled(), nil
}

// ListVersions implements history.Keeper.
func (s *Store) ListVersions(ctx context.Context, prefix string, fn func(history.Version) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for o := range s.core.ListObjectsIter(ctx, s.opt.Bucket, minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true, WithVersions: true}) {
		if o.Err != nil {
			return fmt.Errorf("list versions of %s: %w", prefix, s.translate(ctx, o.Err))
		}
		key := strings.TrimPrefix(o.Key, s.prefix)
		if strings.HasSuffix(key, "/") { // a directory that someone made by hand
			continue
		}
		v := history.Version{Key: key, ID: o.VersionID, Size: o.Size, ETag: o.ETag, Modified: written(o.VersionID, o.LastModified), Latest: o.IsLatest, Marker: o.IsDeleteMarker}
		if err := fn(v); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("list versions of %s: %w", prefix, s.translate(ctx, err))
	}
	return nil
}

// crockford are the digits of the ids below.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// written is when a version was written. There are servers that copy a version
// when another takes its place, and give it the time of that; their ids are
// ULIDs, which begin with the milliseconds since 1970 at which it was written.
func written(id string, modified time.Time) time.Time {
	if len(id) != 26 {
		return modified
	}
	var millis int64
	for i := range len(id) {
		digit := strings.IndexByte(crockford, id[i])
		if digit < 0 {
			return modified
		}
		if i < 10 {
			millis = millis<<5 | int64(digit)
		}
	}
	// What is listed is cut to the second.
	if at := time.UnixMilli(millis).UTC(); at.Before(modified.Add(time.Second)) && modified.Sub(at) < century {
		return at
	}
	return modified
}

// century is longer than any version is old.
const century = 100 * 365 * 24 * time.Hour

// GetVersion implements history.Keeper.
func (s *Store) GetVersion(ctx context.Context, key, id string, offset, length int64) (io.ReadCloser, error) {
	return s.get(ctx, key, offset, length, minio.GetObjectOptions{VersionID: id})
}

// DeleteVersion implements history.Keeper.
func (s *Store) DeleteVersion(ctx context.Context, key, id string) error {
	name, err := s.name(key)
	if err != nil {
		return fmt.Errorf("delete a version of %s: %w", key, err)
	}
	err = s.core.RemoveObject(ctx, s.opt.Bucket, name, minio.RemoveObjectOptions{VersionID: id})
	if err = s.translate(ctx, err); err != nil && !errors.Is(err, vault.ErrNotFound) {
		return fmt.Errorf("delete a version of %s: %w", key, err)
	}
	return nil
}

// SetVersions implements history.Keeper.
func (s *Store) SetVersions(ctx context.Context) error {
	if err := s.core.EnableVersioning(ctx, s.opt.Bucket); err != nil {
		return fmt.Errorf("switch versions on: %w", s.translate(ctx, err))
	}
	return nil
}

// RewritePolicy implements history.Keeper.
func (s *Store) RewritePolicy(ctx context.Context) error {
	policy, err := s.core.GetBucketPolicy(ctx, s.opt.Bucket)
	if err != nil {
		return fmt.Errorf("read bucket policy: %w", s.translate(ctx, err))
	}
	if policy == "" { // to write an empty one would be to remove it
		return fmt.Errorf("bucket %s has no policy: %w", s.opt.Bucket, vault.ErrDenied)
	}
	if err := s.core.PutBucketPolicy(ctx, s.opt.Bucket, policy); err != nil {
		return fmt.Errorf("write bucket policy: %w", s.translate(ctx, err))
	}
	return nil
}
