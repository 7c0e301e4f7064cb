// Package s3 is a vault's store in a bucket of any server that speaks S3 and
// honours "If-None-Match: *" on PUT. Every object is one PUT, never a
// multipart upload, with its SHA-256 signed; requests are sent once, because
// only the layers above know what an unanswered write means.
package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"davit.dev/davit/internal/vault"
)

// maxObject is the most bytes that S3 takes in one PUT.
const maxObject = 5 << 30

// Store keeps objects in a bucket.
type Store struct {
	core   minio.Core
	opt    Options
	prefix string // "" or with a slash at its end
}

var _ vault.Store = (*Store)(nil)

// Open makes a client. It sends nothing: the first operation shows whether
// address and keys are right.
func Open(opt Options) (*Store, error) {
	host, secure, err := opt.address()
	if err != nil {
		return nil, fmt.Errorf("open bucket vault: %w", err)
	}
	transport, err := opt.transport(secure)
	if err != nil {
		return nil, fmt.Errorf("open bucket vault: %w", err)
	}
	lookup := minio.BucketLookupDNS
	if opt.PathStyle {
		lookup = minio.BucketLookupPath
	}
	client, err := minio.New(host, &minio.Options{
		Creds:        opt.credentials(),
		Secure:       secure,
		Transport:    transport,
		Region:       opt.region(),
		BucketLookup: lookup,
		MaxRetries:   1,
	})
	if err != nil {
		return nil, fmt.Errorf("open bucket vault: %w", err)
	}
	return &Store{core: minio.Core{Client: client}, opt: opt, prefix: opt.prefix()}, nil
}

func (o Options) credentials() *credentials.Credentials {
	return credentials.NewStaticV4(o.AccessKey, o.SecretKey, o.SessionToken)
}

// String implements vault.Store.
func (s *Store) String() string { return "s3://" + s.opt.Bucket + "/" + s.prefix }

// name returns the object's name in the bucket.
func (s *Store) name(key string) (string, error) {
	if err := vault.CheckKey(key); err != nil {
		return "", err
	}
	return s.prefix + key, nil
}

// Get implements vault.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return s.get(ctx, key, offset, length, minio.GetObjectOptions{})
}

// get reads a part of the version that opts name.
func (s *Store) get(ctx context.Context, key string, offset, length int64, opts minio.GetObjectOptions) (io.ReadCloser, error) {
	name, err := s.name(key)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if length == 0 { // no range says so
		if _, err := s.Stat(ctx, key); opts.VersionID == "" && err != nil {
			return nil, err
		}
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err := setRange(&opts, max(offset, 0), length); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	body, _, _, err := s.core.GetObject(ctx, s.opt.Bucket, name, opts)
	if err != nil {
		if minio.ToErrorResponse(err).StatusCode == 416 { // nothing from there on
			return io.NopCloser(strings.NewReader("")), nil
		}
		return nil, fmt.Errorf("get %s: %w", key, s.translate(ctx, err))
	}
	return &reader{ctx, s, body}, nil
}

func setRange(opts *minio.GetObjectOptions, offset, length int64) error {
	switch {
	case length > 0:
		return opts.SetRange(offset, offset+length-1)
	case offset > 0:
		return opts.SetRange(offset, 0)
	}
	return nil
}

// reader gives a body's errors the Store's meaning.
type reader struct {
	ctx  context.Context //nolint:containedctx // a reader belongs to one call of Get
	s    *Store
	body io.ReadCloser
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.s.translate(r.ctx, err)
	}
	return n, err
}

func (r *reader) Close() error { return r.body.Close() }

// Stat implements vault.Store.
func (s *Store) Stat(ctx context.Context, key string) (vault.ObjectInfo, error) {
	name, err := s.name(key)
	if err != nil {
		return vault.ObjectInfo{}, fmt.Errorf("stat %s: %w", key, err)
	}
	info, err := s.core.StatObject(ctx, s.opt.Bucket, name, minio.StatObjectOptions{})
	if err != nil {
		return vault.ObjectInfo{}, fmt.Errorf("stat %s: %w", key, s.translate(ctx, err))
	}
	return vault.ObjectInfo{Key: key, Size: info.Size, Modified: info.LastModified}, nil
}

// Put implements vault.Store.
func (s *Store) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return s.put(ctx, key, r, size, minio.PutObjectOptions{})
}

// PutIfAbsent implements vault.Store.
func (s *Store) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	var opts minio.PutObjectOptions
	opts.SetMatchETagExcept("*") // If-None-Match
	return s.put(ctx, key, r, size, opts)
}

func (s *Store) put(ctx context.Context, key string, r io.ReadSeeker, size int64, opts minio.PutObjectOptions) error {
	name, err := s.name(key)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	if size > maxObject {
		return fmt.Errorf("put %s: %d bytes, one PUT takes %d", key, size, int64(maxObject))
	}
	locks := s.opt.retain(key, &opts)
	sum, err := digest(r, size, sha256.New())
	check := []byte(nil) // S3 wants the MD5 of what is locked
	if err == nil && locks {
		check, err = digest(r, size, md5.New())
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	opts.ContentType = "application/octet-stream"
	// The signature covers the digest of the whole body, also over plain HTTP.
	// Signing piece by piece instead would send an empty object as a chunked
	// body that names no length: a server that answers before it has read the
	// last chunk takes the rest for the next request on the connection.
	opts.DisableContentSha256 = true
	if _, err := s.core.PutObject(ctx, s.opt.Bucket, name, r, size, base64.StdEncoding.EncodeToString(check), hex.EncodeToString(sum), opts); err != nil {
		told := s.translate(ctx, err)
		if slices.Contains(unexplained, minio.ToErrorResponse(err).Code) {
			told = s.explain(ctx, name, told)
		}
		return fmt.Errorf("put %s: %w", key, told)
	}
	return nil
}

// What is put to learn whether there is room: where objects are files, its directory is there.
const (
	probeName = "room-probe"
	probeSize = 64 << 10 // bytes
)

// unexplained are the codes of answers that may come of a disk without room: versitygw, which keeps objects as files, does
// not tell when it is the object's directory that finds none.
var unexplained = []string{"InternalError", "ExistingObjectIsDirectory"}

// explain looks into a put that failed with one of these. There is no room if another
// object is refused for that, and the one that was put is not there; in all other cases it stays unknown.
func (s *Store) explain(ctx context.Context, name string, told error) error {
	data := make([]byte, probeSize)
	_, _ = rand.Read(data) // never fails; a server that compresses must not save on it
	sum := sha256.Sum256(data)
	_, err := s.core.PutObject(ctx, s.opt.Bucket, s.prefix+probeName, bytes.NewReader(data), probeSize, "", hex.EncodeToString(sum[:]), minio.PutObjectOptions{DisableContentSha256: true})
	if err == nil {
		_ = s.core.RemoveObject(ctx, s.opt.Bucket, s.prefix+probeName, minio.RemoveObjectOptions{}) // else the next one takes its place
		return told
	}
	full := s.translate(ctx, err)
	if !errors.Is(full, vault.ErrFull) {
		return told
	}
	if _, err := s.core.StatObject(ctx, s.opt.Bucket, name, minio.StatObjectOptions{}); !errors.Is(s.translate(ctx, err), vault.ErrNotFound) {
		return told
	}
	return full
}

// digest returns a hash of the body and rewinds it. The server
// compares, so a body that changes on the way is refused.
func digest(r io.ReadSeeker, size int64, h hash.Hash) ([]byte, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("rewind: %w", err)
	}
	var src io.Reader = r
	if limited, ok := r.(interface{ Unwrap() io.ReadSeeker }); ok {
		src = limited.Unwrap() // no bytes leave yet: take no share of the rate
	}
	n, err := io.Copy(h, src)
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	if n != size {
		return nil, fmt.Errorf("got %d bytes, was promised %d", n, size)
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("rewind: %w", err)
	}
	return h.Sum(nil), nil
}

// List implements vault.Store.
func (s *Store) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	last := ""
	for o := range s.core.ListObjectsIter(ctx, s.opt.Bucket, minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true}) {
		if o.Err != nil {
			return fmt.Errorf("list %s: %w", prefix, s.translate(ctx, o.Err))
		}
		key := strings.TrimPrefix(o.Key, s.prefix)
		if key <= last {
			return fmt.Errorf("list %s: %q came after %q: this server's lists are not in byte order, use another one", prefix, key, last)
		}
		last = key
		if strings.HasSuffix(key, "/") { // a directory that someone made by hand
			continue
		}
		if err := fn(vault.ObjectInfo{Key: key, Size: o.Size, Modified: o.LastModified}); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("list %s: %w", prefix, s.translate(ctx, err))
	}
	return nil
}

// Delete implements vault.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	name, err := s.name(key)
	if err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	err = s.core.RemoveObject(ctx, s.opt.Bucket, name, minio.RemoveObjectOptions{})
	if err = s.translate(ctx, err); err != nil && !errors.Is(err, vault.ErrNotFound) {
		return fmt.Errorf("delete %s: %w", key, s.locked(ctx, key, err))
	}
	return nil
}
