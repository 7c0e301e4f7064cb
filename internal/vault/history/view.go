package history

import (
	"context"
	"fmt"
	"io"
	"time"

	"davit.dev/davit/internal/vault"
)

// errPast says that nothing is written into the past.
var errPast = fmt.Errorf("the vault as it was is for reading only: %w", vault.ErrDenied)

// view is a vault as it was at a time. It is for reading only, and asks the store for
// whatever it is asked: it remembers nothing.
type view struct {
	keeper Keeper
	name   string
	at     time.Time
}

var _ vault.Store = (*view)(nil)

func newView(store vault.Store, keeper Keeper, at time.Time) *view {
	return &view{keeper: keeper, name: fmt.Sprintf("%s at %s", store, at.UTC().Format(time.RFC3339)), at: at}
}

// String implements vault.Store.
func (v *view) String() string { return v.name }

// walk calls fn for what was there with a prefix, in order.
func (v *view) walk(ctx context.Context, prefix string, fn func(Version) error) error {
	found := false // the version that a key had, be it a mark
	return walk(ctx, v.keeper, prefix, visit{each: func(was Version, i int) error {
		found = found && i > 0
		if found || was.Modified.After(v.at) {
			return nil
		}
		found = true
		if was.Marker {
			return nil
		}
		return fn(was)
	}})
}

func (v *view) find(ctx context.Context, key string) (was Version, err error) {
	found := false
	err = v.walk(ctx, key, func(one Version) error { // longer keys come later
		found = one.Key == key
		was = one
		return errEnough
	})
	if err == nil && !found {
		err = vault.ErrNotFound
	}
	return was, err
}

// Get implements vault.Store.
func (v *view) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	was, err := v.find(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return v.keeper.GetVersion(ctx, key, was.ID, offset, length)
}

// Stat implements vault.Store.
func (v *view) Stat(ctx context.Context, key string) (vault.ObjectInfo, error) {
	was, err := v.find(ctx, key)
	if err != nil {
		return vault.ObjectInfo{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return vault.ObjectInfo{Key: key, Size: was.Size, Modified: was.Modified}, nil
}

// List implements vault.Store.
func (v *view) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	return v.walk(ctx, prefix, func(was Version) error {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		return fn(vault.ObjectInfo{Key: was.Key, Size: was.Size, Modified: was.Modified})
	})
}

// Put implements vault.Store.
func (v *view) Put(context.Context, string, io.ReadSeeker, int64) error { return errPast }

// PutIfAbsent implements vault.Store.
func (v *view) PutIfAbsent(context.Context, string, io.ReadSeeker, int64) error { return errPast }

// Delete implements vault.Store.
func (v *view) Delete(context.Context, string) error { return errPast }
