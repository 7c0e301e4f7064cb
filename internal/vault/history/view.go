package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"davit.dev/davit/internal/vault"
)

// errPast says that nothing is written into the past.
var errPast = fmt.Errorf("the vault as it was is for reading only: %w", vault.ErrDenied)

// view is a vault as it was at a time. It is for reading only.
type view struct {
	keeper  Keeper
	name    string
	keys    []string // ascending
	version map[string]Version
}

var _ vault.Store = (*view)(nil)

func newView(store vault.Store, keeper Keeper, objects []object, at time.Time) *view {
	v := &view{keeper: keeper, name: fmt.Sprintf("%s at %s", store, at.UTC().Format(time.RFC3339)), version: map[string]Version{}}
	for _, o := range objects {
		if was, ok := o.at(at); ok {
			v.keys = append(v.keys, o.key)
			v.version[o.key] = was
		}
	}
	return v
}

// String implements vault.Store.
func (v *view) String() string { return v.name }

// Get implements vault.Store.
func (v *view) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	was, ok := v.version[key]
	if !ok {
		return nil, fmt.Errorf("get %s: %w", key, vault.ErrNotFound)
	}
	return v.keeper.GetVersion(ctx, key, was.ID, offset, length)
}

// Stat implements vault.Store.
func (v *view) Stat(_ context.Context, key string) (vault.ObjectInfo, error) {
	was, ok := v.version[key]
	if !ok {
		return vault.ObjectInfo{}, fmt.Errorf("stat %s: %w", key, vault.ErrNotFound)
	}
	return vault.ObjectInfo{Key: key, Size: was.Size, Modified: was.Modified}, nil
}

// List implements vault.Store.
func (v *view) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	for _, key := range v.keys {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		info, err := v.Stat(ctx, key)
		if err = errors.Join(err, ctx.Err()); err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// Put implements vault.Store.
func (v *view) Put(context.Context, string, io.ReadSeeker, int64) error { return errPast }

// PutIfAbsent implements vault.Store.
func (v *view) PutIfAbsent(context.Context, string, io.ReadSeeker, int64) error { return errPast }

// Delete implements vault.Store.
func (v *view) Delete(context.Context, string) error { return errPast }
