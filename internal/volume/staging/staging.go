// Package staging takes the first blobs of a repository that is being made, before one
// write decides who of many made it.
package staging

import (
	"bytes"
	"context"
	"io"
	"time"

	"github.com/kopia/kopia/repo/blob"
)

// Bytes is blob.Bytes over one slice.
type Bytes []byte

// Length implements blob.Bytes.
func (b Bytes) Length() int { return len(b) }

// WriteTo implements blob.Bytes.
func (b Bytes) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(b)
	return int64(n), err
}

// Reader implements blob.Bytes.
func (b Bytes) Reader() io.ReadSeekCloser { return nopCloser{bytes.NewReader(b)} }

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

// Storage keeps blobs in memory; what is asked of it besides goes to the one below.
type Storage struct {
	blob.Storage
	Blobs map[blob.ID][]byte
}

// New is one without blobs.
func New(below blob.Storage) *Storage {
	return &Storage{Storage: below, Blobs: map[blob.ID][]byte{}}
}

// GetBlob implements blob.Storage, for whole blobs.
func (s *Storage) GetBlob(_ context.Context, id blob.ID, _, _ int64, out blob.OutputBuffer) error {
	data, ok := s.Blobs[id]
	if !ok {
		return blob.ErrBlobNotFound
	}
	out.Reset()
	_, err := out.Write(data)
	return err
}

// GetMetadata implements blob.Storage.
func (s *Storage) GetMetadata(_ context.Context, id blob.ID) (blob.Metadata, error) {
	return blob.Metadata{BlobID: id, Length: int64(len(s.Blobs[id])), Timestamp: time.Unix(0, 0)}, nil
}

// PutBlob implements blob.Storage.
func (s *Storage) PutBlob(_ context.Context, id blob.ID, data blob.Bytes, _ blob.PutOptions) error {
	var b bytes.Buffer
	_, err := data.WriteTo(&b)
	s.Blobs[id] = b.Bytes()
	return err
}
