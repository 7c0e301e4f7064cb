// Package ahead holds parts of packs that a restore has fetched with one request each
// and whose contents it is about to ask for one by one.
package ahead

import (
	"fmt"
	"io"
	"slices"
	"sync"
)

// Parts are those that are held. The zero value holds none.
type Parts struct {
	mu   sync.RWMutex
	held map[string][]*part // by pack
}

// part is a piece of a pack.
type part struct {
	offset int64
	data   []byte
}

// parts are used again: to clear megabytes for each would take as long as to decrypt them.
var parts = sync.Pool{New: func() any { return &part{} }}

// Section writes bytes that are held to out, if they are. They are held until
// that is done: then others take their place.
func (a *Parts) Section(pack string, offset, length int64, out io.Writer) (held bool, err error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, p := range a.held[pack] {
		if from := offset - p.offset; from >= 0 && length > 0 && from+length <= int64(len(p.data)) {
			_, err := out.Write(p.data[from : from+length])
			return true, err
		}
	}
	return false, nil
}

// Fetch reads a part of a pack, closes the reader, and has reads within the part served from
// memory until release is called. Nothing is checked.
func (a *Parts) Fetch(pack string, offset, length int64, r io.ReadCloser) (release func(), err error) {
	p := parts.Get().(*part)
	p.offset, p.data = offset, slices.Grow(p.data[:0], int(length))[:length]
	n, err := io.ReadFull(r, p.data)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		parts.Put(p)
		return nil, fmt.Errorf("read blob %s at %d: got %d of %d bytes: %w", pack, offset, n, length, err)
	}
	a.hold(pack, p)
	return func() {
		a.release(pack, p)
		parts.Put(p)
	}, nil
}

// Packs is of how many packs parts are held.
func (a *Parts) Packs() int {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.held)
}

func (a *Parts) hold(pack string, p *part) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held == nil {
		a.held = map[string][]*part{}
	}
	a.held[pack] = append(a.held[pack], p)
}

func (a *Parts) release(pack string, p *part) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held[pack] = slices.DeleteFunc(a.held[pack], func(o *part) bool { return o == p })
	if len(a.held[pack]) == 0 {
		delete(a.held, pack)
	}
}
