// Package vault keeps what must outlive every site: recovery points, epochs,
// policies and keys. It owns the Store port, the byte format laid on top of it
// (docs/formats/vault.md) and the keys that seal it. Backends live in
// sub-packages and know nothing of the format.
package vault

import (
	"context"
	"errors"
	"io"
	"time"

	"davit.dev/davit/internal/vault/seal"
)

// Errors every Store returns, wrapped, so that callers decide with errors.Is.
var (
	// ErrNotFound says that no object has the key.
	ErrNotFound = errors.New("object not found")
	// ErrExists says that PutIfAbsent found an object under the key.
	ErrExists = errors.New("object already exists")
	// ErrDenied says that the credentials were understood and refused, or the
	// store is read-only: trying again will not help.
	ErrDenied = errors.New("access denied")
	// ErrFull says that the store has no room left: trying again will not help
	// before something is deleted. Nothing was written.
	ErrFull = errors.New("vault is full")
	// ErrLocked says that the store's object lock forbids the change until a
	// time that the error names.
	ErrLocked = errors.New("object locked")
	// ErrUnavailable says that the store gave no usable answer: the outcome of
	// a write is unknown and the caller must look again.
	ErrUnavailable = errors.New("vault unavailable")
	// ErrDamaged says that an object is not what was written under its key: a
	// byte differs, it was cut short, or it belongs under another name. Trying
	// again does not help; another recovery point or a second copy of the vault
	// does.
	ErrDamaged = seal.ErrDamaged
)

// ObjectInfo describes one stored object.
type ObjectInfo struct {
	Key      string    // full key, slash-separated, without a leading slash
	Size     int64     // bytes
	Modified time.Time // by the store's clock
}

// Store is the narrow port to object storage. Keys are slash-separated,
// printable ASCII without "//", "." or ".." elements, at most 900 bytes long.
// Every method honours the context's deadline. Reads after a completed write
// see it (all backends are strongly consistent).
type Store interface {
	// Get opens an object, or length bytes of it from offset. A length of -1
	// means to the end. It returns ErrNotFound for a missing key.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Stat returns the object's size and time, or ErrNotFound.
	Stat(ctx context.Context, key string) (ObjectInfo, error)
	// Put writes or replaces the whole object; readers see the old one or the
	// new one, never a part. size is the exact number of bytes in r, which is
	// read from its start again when the write is tried again.
	Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error
	// PutIfAbsent is Put, but returns ErrExists and changes nothing when the
	// key is taken. Exactly one of several racing callers succeeds.
	PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error
	// List calls fn for every key with the prefix, in ascending byte order,
	// and stops at fn's first error, which it returns.
	List(ctx context.Context, prefix string, fn func(ObjectInfo) error) error
	// Delete removes the object. A missing key is no error.
	Delete(ctx context.Context, key string) error
	// String names the store for people, without secrets.
	String() string
}
