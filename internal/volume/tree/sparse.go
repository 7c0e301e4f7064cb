package tree

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	chunkSize = 1 << 20 // of the repository's splitter; parts begin at multiples of it, so that equal data meets
	minHole   = 4 << 20 // smaller holes are read as the zeros they are
	maxZeros  = 11      // powers of two
)

// part is a piece of a file: data to read, or a hole.
type part struct {
	offset, length int64 // a length of -1 is the rest of the file, however long it is by then
	hole           bool
}

// partsOf divides a file into pieces that are stored at once, of the length
// whole or up to twice that. Holes, which begin and end at chunks, are not read
// at all. The last piece is data, and takes what the file has grown to.
func partsOf(f *os.File, size, whole int64) []part {
	last := max(size-1, 0) / chunkSize * chunkSize
	var parts []part
	at := int64(0)
	for at < last {
		begin, end := nextHole(f, at, last)
		for at < begin { // a part that would leave a small rest takes it along
			length := begin - at
			if length >= 2*whole {
				length = whole
			}
			parts = append(parts, part{offset: at, length: length})
			at += length
		}
		if end > begin {
			parts = append(parts, part{offset: begin, length: end - begin, hole: true})
			at = end
		}
	}
	if n := len(parts) - 1; n >= 0 && !parts[n].hole {
		parts[n].length = -1
		return parts
	}
	return append(parts, part{offset: last, length: -1})
}

// nextHole finds the next hole that is worth it, in whole chunks below the
// limit. There is none if begin is the limit. A file system that does not tell
// has none either.
func nextHole(f *os.File, from, limit int64) (begin, end int64) {
	for at := from; at < limit; {
		hole, err := unix.Seek(int(f.Fd()), at, unix.SEEK_HOLE)
		if err != nil {
			break
		}
		data, err := unix.Seek(int(f.Fd()), hole, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			data = limit
		} else if err != nil {
			break
		}
		begin, end = (hole+chunkSize-1)/chunkSize*chunkSize, min(data, limit)/chunkSize*chunkSize
		if end-begin >= minHole {
			return begin, end
		}
		at = max(data, at+1)
	}
	return limit, limit
}

// storeData stores a file in one go, or in parts, several at once.
func (t *writer) storeData(f *os.File, path string, size int64) (object.ID, int64, error) {
	parts := partsOf(f, size, partSize)
	if len(parts) == 1 {
		return t.storePart(f, path, 0, -1)
	}
	ids := make([][]object.ID, len(parts))
	sizes := make([]int64, len(parts))
	var g errgroup.Group
	g.SetLimit(partsAtOnce)
	for i, p := range parts {
		g.Go(func() (err error) {
			if p.hole {
				ids[i], sizes[i], err = t.storeHole(p, path)
				return err
			}
			id, n, err := t.storePart(f, path, p.offset, p.length)
			ids[i], sizes[i] = []object.ID{id}, n
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return object.EmptyID, 0, err
	}
	return t.joinParts(ids, sizes, path)
}

func (t *writer) joinParts(ids [][]object.ID, sizes []int64, path string) (object.ID, int64, error) {
	var total int64
	var full []object.ID
	for i, n := range sizes {
		if n > 0 { // a file that shrank has empty parts at its end
			full = append(full, ids[i]...)
		}
		total += n
	}
	if len(full) == 0 {
		return ids[0][0], 0, nil
	}
	id, err := t.w.ConcatenateObjects(t.ctx, full, repo.ConcatenateOptions{Compressor: compressor})
	if err != nil {
		return object.EmptyID, 0, fmt.Errorf("join parts of %q: %w", path, err)
	}
	return id, total, nil
}

// zeroObjects are 1, 2, 4, … chunks of zeros.
type zeroObjects struct {
	once sync.Once
	ids  [maxZeros]object.ID
	err  error
}

// storeHole stores no byte of the hole: only that a chunk of zeros comes again
// and again.
func (t *writer) storeHole(p part, path string) ([]object.ID, int64, error) {
	t.zeros.once.Do(func() { t.zeros.err = t.makeZeros() })
	if t.zeros.err != nil {
		return nil, 0, fmt.Errorf("store hole of %q: %w", path, t.zeros.err)
	}
	var ids []object.ID
	chunks := p.length / chunkSize
	for k := maxZeros - 1; k >= 0; k-- {
		for n := int64(1) << k; chunks >= n; chunks -= n {
			ids = append(ids, t.zeros.ids[k])
		}
	}
	t.meter.Bytes.Add(p.length)
	t.meter.Tick()
	return ids, p.length, nil
}

func (t *writer) makeZeros() error {
	w := t.w.NewObjectWriter(t.ctx, object.WriterOptions{Description: "zeros", Compressor: compressor, MetadataCompressor: compressor})
	defer w.Close() //nolint:errcheck // Result returned what matters
	_, err := w.Write(make([]byte, chunkSize))
	if err != nil {
		return err
	}
	if t.zeros.ids[0], err = w.Result(); err != nil {
		return err
	}
	for k := 1; k < maxZeros; k++ {
		twice := []object.ID{t.zeros.ids[k-1], t.zeros.ids[k-1]}
		if t.zeros.ids[k], err = t.w.ConcatenateObjects(t.ctx, twice, repo.ConcatenateOptions{Compressor: compressor}); err != nil {
			return err
		}
	}
	return nil
}
