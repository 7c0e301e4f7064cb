package fault

import (
	"context"
	"fmt"
	"io"
	"sync"

	"davit.dev/davit/internal/vault"
)

// Bounded is a store with room for so many bytes: what does not fit is
// vault.ErrFull. An object of no bytes takes none. It is for tests.
type Bounded struct {
	vault.Store

	mu    sync.Mutex
	limit int64
}

// NewBounded wraps a store.
func NewBounded(next vault.Store, limit int64) *Bounded { return &Bounded{Store: next, limit: limit} }

// Resize changes the room.
func (b *Bounded) Resize(limit int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit = limit
}

// Used is how many bytes are stored.
func (b *Bounded) Used(ctx context.Context) (int64, error) {
	var used int64
	err := b.List(ctx, "", func(o vault.ObjectInfo) error {
		used += o.Size
		return nil
	})
	return used, err
}

// put writes if there is room. Writers take turns.
func (b *Bounded) put(ctx context.Context, key string, size int64, write func() error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	used, err := b.Used(ctx)
	if err != nil {
		return err
	}
	if old, err := b.Stat(ctx, key); err == nil {
		used -= old.Size
	}
	if used+size > b.limit {
		return fmt.Errorf("put %s: %w: %w", key, vault.ErrFull, ErrInjected)
	}
	return write()
}

// Put implements vault.Store.
func (b *Bounded) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return b.put(ctx, key, size, func() error { return b.Store.Put(ctx, key, r, size) })
}

// PutIfAbsent implements vault.Store.
func (b *Bounded) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return b.put(ctx, key, size, func() error { return b.Store.PutIfAbsent(ctx, key, r, size) })
}
