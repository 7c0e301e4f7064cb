package cache

import (
	"context"
	"fmt"
	"sync"

	"github.com/kopia/kopia/repo/blob"
)

// Packs holds a few whole packs, so that a restore of many small files
// costs one read per pack and not one per file.
type Packs struct {
	load func(ctx context.Context, id blob.ID) ([]byte, error)

	mu    sync.Mutex
	reads map[blob.ID]int // small reads seen, per pack not held
	held  []*heldPack     // most recently used last
}

type heldPack struct {
	id   blob.ID
	once sync.Once
	data []byte
	err  error
}

const (
	packsHeld      = 4       // about 20 MiB each
	smallRead      = 1 << 18 // larger reads are worth a request of their own
	readsToHold    = 3       // a pack read this often is worth holding
	readsRemebered = 4096
)

// NewPacks makes one that is empty. load reads a whole pack.
func NewPacks(load func(ctx context.Context, id blob.ID) ([]byte, error)) *Packs {
	return &Packs{load: load, reads: map[blob.ID]int{}}
}

// Section returns a part of a held pack, or nil when the caller should read
// the store itself.
func (c *Packs) Section(ctx context.Context, id blob.ID, offset, length int64) ([]byte, error) {
	if length < 0 || length > smallRead || (id[0] != 'p' && id[0] != 'q') {
		return nil, nil
	}
	h := c.find(id)
	if h == nil {
		return nil, nil
	}
	h.once.Do(func() { h.data, h.err = c.load(ctx, id) })
	if h.err != nil {
		c.drop(h)
		return nil, h.err
	}
	if offset+length > int64(len(h.data)) {
		return nil, fmt.Errorf("%d bytes at %d of %d: %w", length, offset, len(h.data), blob.ErrInvalidRange)
	}
	return h.data[offset : offset+length], nil
}

func (c *Packs) find(id blob.ID) *heldPack {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, h := range c.held {
		if h.id == id {
			c.held = append(append(c.held[:i:i], c.held[i+1:]...), h)
			return h
		}
	}
	if len(c.reads) > readsRemebered {
		clear(c.reads)
	}
	if c.reads[id]++; c.reads[id] < readsToHold {
		return nil
	}
	delete(c.reads, id)
	h := &heldPack{id: id}
	if c.held = append(c.held, h); len(c.held) > packsHeld {
		c.held = c.held[1:]
	}
	return h
}

func (c *Packs) drop(gone *heldPack) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, h := range c.held {
		if h == gone {
			c.held = append(c.held[:i:i], c.held[i+1:]...)
			return
		}
	}
}
