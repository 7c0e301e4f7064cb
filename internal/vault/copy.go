package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// ErrCopy says that the store is a second copy of a vault: points are restored
// and verified from it, and nothing is decided or written in it.
var ErrCopy = errors.New("a second copy of a vault is written by its copier alone")

// copyKey is where a second copy says that it is one. It holds the marker of
// the vault that it is a copy of, and markerKey is missing beside it.
const copyKey = "copy.json"

// InitCopy makes the store a second copy of the vault with that marker. One
// that is its copy already stays as it is; a vault, or the copy of another one,
// is ErrExists.
func InitCopy(ctx context.Context, store Store, of Marker) error {
	_, err := store.Stat(ctx, markerKey)
	switch {
	case err == nil:
		return fmt.Errorf("make %s a copy: %w: it is a vault of its own: use another bucket or prefix", store, ErrExists)
	case !errors.Is(err, ErrNotFound):
		return fmt.Errorf("look at %s: %w", store, err)
	}
	data, err := of.encode()
	if err != nil {
		return err
	}
	if err = putOnce(ctx, store, copyKey, data); !errors.Is(err, ErrExists) {
		return err
	}
	there, err := readMarker(ctx, store, copyKey)
	if err == nil && there.ID != of.ID {
		err = fmt.Errorf("make %s a copy: %w: it is the copy of vault %s: use another bucket or prefix", store, ErrExists, there.ID)
	}
	return err
}

// Identify returns the marker of the vault that the store is, or of which it is
// a second copy. ErrNotFound says that it is neither.
func Identify(ctx context.Context, store Store) (m Marker, copied bool, err error) {
	m, missing := ReadMarker(ctx, store)
	if !errors.Is(missing, ErrNotFound) {
		return m, false, missing
	}
	m, err = readMarker(ctx, store, copyKey)
	if errors.Is(err, ErrNotFound) {
		return m, false, missing
	}
	return m, true, err
}

// isCopy tells whether the store is a second copy, or was one that is a vault now.
func isCopy(ctx context.Context, store Store) (copied, promoted bool, err error) {
	if _, err = store.Stat(ctx, copyKey); err == nil {
		_, err = store.Stat(ctx, markerKey)
		copied, promoted = errors.Is(err, ErrNotFound), err == nil
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, false, fmt.Errorf("look what %s is: %w", store, err)
	}
	return copied, promoted, nil
}

// IsCopy tells whether the project was opened in a second copy of its vault.
func (p *Project) IsCopy() bool { return p.copied }

// WasCopy tells whether the vault was a second copy of another one before.
func (p *Project) WasCopy() bool { return p.promoted }

// readOnly refuses every write.
type readOnly struct{ Store }

// Notes is the store for those who note that they read: see package reading.
func (r readOnly) Notes() Store { return r.Store }

func refuse(op, key string) error { return fmt.Errorf("%s %s: %w: %w", op, key, ErrCopy, ErrDenied) }

// Put implements Store.
func (readOnly) Put(_ context.Context, key string, _ io.ReadSeeker, _ int64) error {
	return refuse("put", key)
}

// PutIfAbsent implements Store.
func (readOnly) PutIfAbsent(_ context.Context, key string, _ io.ReadSeeker, _ int64) error {
	return refuse("put", key)
}

// Delete implements Store.
func (readOnly) Delete(_ context.Context, key string) error { return refuse("delete", key) }
