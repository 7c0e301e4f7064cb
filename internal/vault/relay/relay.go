// Package relay carries single objects from one vault's store to another's,
// byte for byte. Nothing is called carried before it was read back.
package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"davit.dev/davit/internal/vault"
)

// largest is the largest object that is carried, in bytes: packs of volume data
// are some 20 MiB, manifests and inventories at most 64 MiB.
const largest = 512 << 20

// ErrArrived says that the store gave back other bytes than were sent to it.
var ErrArrived = errors.New("object did not arrive as it was sent")

// Accept says whether an object's bytes are what they should be; its error
// wraps vault.ErrDamaged.
type Accept func(key string, data []byte) error

// Carrier carries objects. Timeout bounds each of them; zero means 10 minutes.
type Carrier struct {
	From, To vault.Store
	Timeout  time.Duration
}

// Carry reads the object, has accept look at it, writes it, over what may be
// there, and reads it back. It returns the size. vault.ErrNotFound says that
// the source has no such object, vault.ErrDamaged that it is not as it should
// be: then nothing was written.
func (c Carrier) Carry(ctx context.Context, key string, accept Accept) (int64, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	data, err := read(ctx, c.From, key)
	if err != nil {
		return 0, fmt.Errorf("carry %s: %w", key, err)
	}
	if err := accept(key, data); err != nil {
		return 0, fmt.Errorf("carry %s: %w", key, err)
	}
	size := int64(len(data))
	if err := c.To.Put(ctx, key, bytes.NewReader(data), size); err != nil {
		return 0, fmt.Errorf("carry %s: %w", key, err)
	}
	arrived, err := read(ctx, c.To, key)
	if err != nil {
		return 0, fmt.Errorf("carry %s: read it back: %w", key, err)
	}
	if !bytes.Equal(arrived, data) {
		err := fmt.Errorf("carry %s: %w", key, ErrArrived)
		return 0, errors.Join(err, c.To.Delete(ctx, key))
	}
	return size, nil
}

// Holds tells whether the destination holds the object as accept wants it.
func (c Carrier) Holds(ctx context.Context, key string, accept Accept) (bool, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	data, err := read(ctx, c.To, key)
	if err == nil {
		err = accept(key, data)
	}
	if errors.Is(err, vault.ErrNotFound) || errors.Is(err, vault.ErrDamaged) {
		return false, nil
	}
	return err == nil, err
}

func (c Carrier) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := c.Timeout
	if limit <= 0 {
		limit = 10 * time.Minute
	}
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("the object took longer than %s", limit))
}

func read(ctx context.Context, store vault.Store, key string) ([]byte, error) {
	r, err := store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, largest+1))
	if err != nil {
		return nil, err
	}
	if len(data) > largest {
		return nil, fmt.Errorf("%w: more than %d bytes", vault.ErrDamaged, int64(largest))
	}
	return data, nil
}

// Hash accepts one size and SHA-256 in hex.
func Hash(size int64, sha string) Accept {
	return func(_ string, data []byte) error {
		if sum := sha256.Sum256(data); int64(len(data)) != size || hex.EncodeToString(sum[:]) != sha {
			return fmt.Errorf("%w: %d bytes with SHA-256 %x, want %d bytes with %s", vault.ErrDamaged, len(data), sum, size, sha)
		}
		return nil
	}
}

// Any accepts everything: for objects that authenticate by their place alone.
func Any(string, []byte) error { return nil }
