// Package reserve keeps room in a vault for freeing room: deleting takes a few
// writes (marks, new indexes), and a vault that is full takes none. Some random
// bytes lie there while there is room; whoever frees space gives them up when
// he is refused, and they are laid there again afterwards.
package reserve

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"davit.dev/davit/internal/vault"
)

// The reserve of a project: a few objects, so that it is given up in parts.
const (
	Pieces    = 4
	PieceSize = 8 << 20 // bytes
	// FirstSize is that of one piece more, which is laid before anything else is in a
	// vault: it costs nobody a wait, and does for what deletes that little.
	FirstSize = 256 << 10 // bytes
)

// Reserve is one project's.
type Reserve struct {
	store  vault.Store
	prefix string
	size   int
}

// Of returns the reserve of a project, which lies in the project's store.
func Of(p *vault.Project) *Reserve {
	return &Reserve{store: p.Store(), prefix: p.Root() + "reserve/", size: PieceSize}
}

func (r *Reserve) key(i int) string { return fmt.Sprintf("%s%d", r.prefix, i) }

// Begin lays the first piece down, unless there is any. A full vault is no error.
func (r *Reserve) Begin(ctx context.Context) error {
	there, err := r.there(ctx)
	if err != nil || len(there) > 0 {
		return err
	}
	_, err = r.lay(ctx, Pieces, min(FirstSize, r.size))
	return err
}

// Fill lays down what is missing of the reserve. A full vault is no error: the
// next call tries again.
func (r *Reserve) Fill(ctx context.Context) error {
	return r.FillUntil(ctx, func() bool { return false })
}

// FillUntil is Fill that is broken off after a piece when enough says so, where the
// way to the vault is slow and others wait for it: the next call goes on.
func (r *Reserve) FillUntil(ctx context.Context, enough func() bool) error {
	there, err := r.there(ctx)
	if err != nil {
		return err
	}
	for i := range Pieces {
		if there[r.key(i)] == int64(r.size) {
			continue
		}
		if room, err := r.lay(ctx, i, r.size); err != nil || !room || enough() {
			return err
		}
	}
	return nil
}

// there are the pieces, with their sizes.
func (r *Reserve) there(ctx context.Context) (map[string]int64, error) {
	there := map[string]int64{}
	err := r.store.List(ctx, r.prefix, func(o vault.ObjectInfo) error {
		there[o.Key] = o.Size
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at the reserve: %w", err)
	}
	return there, nil
}

// lay writes one piece; false says that there is no room for it.
func (r *Reserve) lay(ctx context.Context, i, size int) (bool, error) {
	data := make([]byte, size)
	_, _ = rand.Read(data) // never fails; a store that compresses must not save on it
	err := r.store.Put(ctx, r.key(i), bytes.NewReader(data), int64(len(data)))
	if errors.Is(err, vault.ErrFull) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("fill the reserve: %w", err)
	}
	return true, nil
}

// release gives up one piece; false says that there was none left.
func (r *Reserve) release(ctx context.Context) (bool, error) {
	last := ""
	err := r.store.List(ctx, r.prefix, func(o vault.ObjectInfo) error {
		last = o.Key
		return nil
	})
	if err != nil || last == "" {
		return false, err
	}
	return true, r.store.Delete(ctx, last)
}

// Spender is the project's store for whoever frees space: a write that finds
// the vault full gives up a piece of the reserve, and is tried again.
func (r *Reserve) Spender(below vault.Store) vault.Store { return spender{below, r} }

type spender struct {
	vault.Store
	reserve *Reserve
}

func (s spender) write(ctx context.Context, put func() error) error {
	for {
		err := put()
		if !errors.Is(err, vault.ErrFull) {
			return err
		}
		released, failed := s.reserve.release(ctx)
		if failed != nil || !released {
			return errors.Join(err, failed)
		}
	}
}

// Put implements vault.Store.
func (s spender) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return s.write(ctx, func() error { return s.Store.Put(ctx, key, r, size) })
}

// PutIfAbsent implements vault.Store.
func (s spender) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return s.write(ctx, func() error { return s.Store.PutIfAbsent(ctx, key, r, size) })
}
