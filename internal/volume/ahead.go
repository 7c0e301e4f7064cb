package volume

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/kopia/kopia/repo/blob"
)

// ahead holds parts of packs that a restore has fetched with one request each
// and whose contents it is about to ask for one by one.
type ahead struct {
	mu   sync.RWMutex
	held map[blob.ID][]*part
}

// part is a piece of a pack.
type part struct {
	offset int64
	data   []byte
}

// section writes bytes that are held to out, if they are. They are held until
// that is done: then others take their place.
func (a *ahead) section(id blob.ID, offset, length int64, out io.Writer) (held bool, err error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, p := range a.held[id] {
		if from := offset - p.offset; from >= 0 && length > 0 && from+length <= int64(len(p.data)) {
			_, err := out.Write(p.data[from : from+length])
			return true, err
		}
	}
	return false, nil
}

func (a *ahead) hold(id blob.ID, p *part) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held == nil {
		a.held = map[blob.ID][]*part{}
	}
	a.held[id] = append(a.held[id], p)
}

func (a *ahead) release(id blob.ID, p *part) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held[id] = slices.DeleteFunc(a.held[id], func(o *part) bool { return o == p })
	if len(a.held[id]) == 0 {
		delete(a.held, id)
	}
}

// readAhead fetches a part of a pack and serves reads within it from memory
// until release is called. Nothing is checked here: kopia checks each content.
func (s *storage) readAhead(ctx context.Context, pack string, offset, length int64) (release func(), err error) {
	id := blob.ID(pack)
	r, err := s.store.Get(ctx, s.key(id), offset, length)
	if err != nil {
		return nil, s.wrap("read", id, err)
	}
	p := parts.Get().(*part)
	p.offset, p.data = offset, slices.Grow(p.data[:0], int(length))[:length]
	n, err := io.ReadFull(r, p.data)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		parts.Put(p)
		return nil, fmt.Errorf("read blob %s at %d: got %d of %d bytes: %w", id, offset, n, length, err)
	}
	s.ahead.hold(id, p)
	return func() {
		s.ahead.release(id, p)
		parts.Put(p)
	}, nil
}

// parts are used again: to clear megabytes for each would take as long as to decrypt them.
var parts = sync.Pool{New: func() any { return &part{} }}
