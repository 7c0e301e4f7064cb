package changes

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Chunk is what is taken over or read, in bytes: the repository's splitter makes
// contents of it. Chunks begin at multiples of it.
const Chunk = 1 << 20

// Mark is where a chunk of a file lies on its device, as a hash of its extents.
// The zero mark says that this is not clear.
type Mark [16]byte

// Places are where the first chunks of a file lie.
type Places struct {
	Marks []Mark
	same  []bool // by the storage's word
}

// Same tells whether a chunk lies in a clear place of which the storage says
// that nothing was changed there.
func (p Places) Same(i int) bool { return p.same[i] && p.Marks[i] != Mark{} }

const (
	fiemap     = 0xC020660B // FS_IOC_FIEMAP
	fiemapSync = 1          // FIEMAP_FLAG_SYNC

	// Extents with any other flag are not clear: of unknown place, not written yet, encoded, inline, shared.
	extentLast   = 0x1    // FIEMAP_EXTENT_LAST
	extentMerged = 0x1000 // FIEMAP_EXTENT_MERGED: told as one, for brevity
	atOnce       = 512
)

type extent struct {
	Logical, Physical, Length uint64
	_                         [2]uint64
	Flags                     uint32
	_                         [3]uint32
}

type extentRequest struct {
	Start, Length               uint64
	Flags, Mapped, Count, unset uint32
	Extents                     [atOnce]extent
}

// Look finds out where the chunks of a file lie, so many of them from its
// beginning, on a device of so many bytes, and asks the delta of these places. A
// nil delta knows of nothing. A file system that does not tell is an error.
func Look(f *os.File, chunks int, size int64, delta *Delta) (Places, error) {
	p := newLook(chunks, size, delta)
	limit := uint64(chunks) * Chunk
	req := new(extentRequest)
	for at := uint64(0); at < limit; {
		*req = extentRequest{Start: at, Length: limit - at, Flags: fiemapSync, Count: atOnce}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fiemap, uintptr(unsafe.Pointer(req))); errno != 0 {
			return Places{}, fmt.Errorf("ask where the file lies: %w", errno)
		}
		if req.Mapped > atOnce {
			return Places{}, errors.New("ask where the file lies: more extents than were asked for")
		}
		end := at
		for _, e := range req.Extents[:req.Mapped] {
			if e.Length == 0 || e.Logical+e.Length < e.Logical || e.Physical+e.Length < e.Physical || e.Logical+e.Length <= end || e.Logical < end && end > at {
				return Places{}, errors.New("ask where the file lies: its extents are not in order")
			}
			p.take(e, max(e.Logical, end), limit)
			end = e.Logical + e.Length
		}
		if req.Mapped == 0 || req.Extents[req.Mapped-1].Flags&extentLast != 0 {
			break
		}
		at = end
	}
	return p.end(), nil
}

// look is a Look under way: chunk after chunk.
type look struct {
	Places
	size  int64
	delta *Delta

	at    int // chunk
	hash  hash.Hash
	clear bool
	piece extent // not in the hash yet; its neighbours are joined to it
}

func newLook(chunks int, size int64, delta *Delta) *look {
	p := &look{Places: Places{Marks: make([]Mark, chunks), same: make([]bool, chunks)}, size: size, delta: delta, hash: sha256.New()}
	p.begin(0)
	return p
}

// end ends the chunks that no extent follows.
func (p *look) end() Places {
	for p.at < len(p.Marks) {
		p.finish()
	}
	return p.Places
}

// begin begins a chunk. One without extents is a hole, and clear.
func (p *look) begin(chunk int) {
	p.at, p.clear, p.piece = chunk, true, extent{}
	p.hash.Reset()
	if chunk < len(p.same) {
		p.same[chunk] = p.delta != nil
	}
}

// finish ends a chunk and begins the next.
func (p *look) finish() {
	p.put()
	if p.clear {
		copy(p.Marks[p.at][:], p.hash.Sum(nil))
	}
	p.begin(p.at + 1)
}

// put puts the piece into the hash.
func (p *look) put() {
	if p.piece.Length > 0 {
		var b [24]byte
		binary.LittleEndian.PutUint64(b[:], p.piece.Logical-uint64(p.at)*Chunk)
		binary.LittleEndian.PutUint64(b[8:], p.piece.Physical)
		binary.LittleEndian.PutUint64(b[16:], p.piece.Length)
		_, _ = p.hash.Write(b[:]) // never fails
	}
	p.piece = extent{}
}

// take spreads an extent, from a place of the file on, over its chunks.
func (p *look) take(e extent, from, limit uint64) {
	until := min(e.Logical+e.Length, limit)
	for from < until {
		for uint64(p.at) < from/Chunk {
			p.finish()
		}
		n := min(until, uint64(p.at+1)*Chunk) - from
		p.add(extent{Logical: from, Physical: e.Physical + from - e.Logical, Length: n, Flags: e.Flags})
		from += n
	}
}

// add takes note of a piece of the present chunk.
func (p *look) add(e extent) {
	on := e.Physical > 0 && e.Physical+e.Length <= uint64(p.size)
	if e.Flags&^(extentLast|extentMerged) != 0 || !on {
		p.clear = false
		return
	}
	if p.same[p.at] && !p.delta.Same(int64(e.Physical), int64(e.Length)) { //nolint:gosec // it is below the device's size
		p.same[p.at] = false
	}
	if p.piece.Length > 0 && p.piece.Logical+p.piece.Length == e.Logical && p.piece.Physical+p.piece.Length == e.Physical {
		p.piece.Length += e.Length
		return
	}
	p.put()
	p.piece = e
}
