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

// Fill lays down what is missing of the reserve. A full vault is no error: the
// next call tries again.
func (r *Reserve) Fill(ctx context.Context) error {
	there := map[string]bool{}
	err := r.store.List(ctx, r.prefix, func(o vault.ObjectInfo) error {
		there[o.Key] = o.Size == int64(r.size)
		return nil
	})
	if err != nil {
		return fmt.Errorf("look at the reserve: %w", err)
	}
	for i := range Pieces {
		if there[r.key(i)] {
			continue
		}
		data := make([]byte, r.size)
		_, _ = rand.Read(data) // never fails; a store that compresses must not save on it
		err := r.store.Put(ctx, r.key(i), bytes.NewReader(data), int64(len(data)))
		if errors.Is(err, vault.ErrFull) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("fill the reserve: %w", err)
		}
	}
	return nil
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
