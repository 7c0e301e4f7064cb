package tree

import (
	"context"
	"fmt"
	"io"

	"github.com/kopia/kopia/repo/content"

	"davit.dev/davit/internal/volume/sealed"
)

// stream is a span that is read with one request, from its first content to its last.
type stream struct {
	ctx    context.Context //nolint:containedctx // of the restore, for one span
	reader content.Reader
	opener *sealed.Opener
	memory *sealed.Memory
	src    io.ReadCloser // nil: each content is asked for by itself
	at     int64         // in the pack
}

func (t *reader) stream(cr content.Reader, span []placed) (*stream, error) {
	first, last := span[0], span[len(span)-1]
	s := &stream{ctx: t.ctx, reader: cr, opener: t.opener, at: first.from}
	scattered := last.from == first.from && last.until-first.from <= aloneBytes
	if t.opts.Stream != nil && t.opener != nil && !scattered {
		src, err := t.opts.Stream(t.ctx, first.pack, first.from, last.until-first.from)
		if err != nil {
			return nil, fmt.Errorf("read pack %s: %w", first.pack, err)
		}
		s.src = src
	}
	s.memory = sealed.NewMemory()
	return s, nil
}

func (s *stream) close() {
	s.memory.Free()
	if s.src != nil {
		_ = s.src.Close() // only read
	}
}

// next returns the data of a chunk whose content comes after all that were asked for
// before. It is the stream's until the one after it.
func (s *stream) next(c placed) ([]byte, error) {
	if s.src != nil {
		data, ok, err := s.open(c)
		if err != nil {
			return nil, fmt.Errorf("read pack %s at %d: %w", c.pack, s.at, err)
		}
		if ok && int64(len(data)) == c.Length {
			return data, nil
		}
	}
	return c.load(s.ctx, s.reader) // it says what is wrong, too
}

func (s *stream) open(c placed) (data []byte, ok bool, err error) {
	if _, err := io.CopyN(io.Discard, s.src, c.from-s.at); err != nil {
		return nil, false, err
	}
	s.at = c.from
	data, ok, err = s.opener.Open(s.memory, c.info, s.src)
	if err == nil {
		s.at = c.until
	}
	return data, ok, err
}
