// Package changes stores large files by what their volume's storage says was
// changed. A chunk of a file is taken over unread from the previous snapshot
// where it lies in the same place of the device as it did then, and the storage
// says that this place was not changed between the two snapshots of the device.
// Whatever is not clear is read. See docs/decisions/0040-blocks.md.
package changes

import (
	"errors"
	"fmt"
)

// ErrAnswer says that what the storage said makes no sense.
var ErrAnswer = errors.New("the storage's answer makes no sense")

const (
	leastGranule = 4 << 10 // bytes; no storage tells of less
	mostGranules = 1 << 25 // 4 MiB of memory, whatever the device's size
)

// Delta is what was changed of a device between two snapshots of it. What was
// changed in part of a granule counts as changed in all of it.
type Delta struct {
	size, granule int64
	bits          []uint64
	changed       int64 // granules
}

// NewDelta is of a device of so many bytes, of which nothing was changed yet.
func NewDelta(size int64) (*Delta, error) {
	if size <= 0 {
		return nil, fmt.Errorf("%w: a device of %d bytes", ErrAnswer, size)
	}
	d := &Delta{size: size, granule: leastGranule}
	for size/d.granule >= mostGranules {
		d.granule *= 2
	}
	d.bits = make([]uint64, size/d.granule/64+1)
	return d, nil
}

// Change says that so many bytes were changed. The last block of a device may
// reach beyond its end.
func (d *Delta) Change(offset, length int64) error {
	if offset < 0 || length <= 0 || offset >= d.size || length > d.size+(1<<30) {
		return fmt.Errorf("%w: %d bytes at %d of a device of %d bytes", ErrAnswer, length, offset, d.size)
	}
	for g := offset / d.granule; g <= (min(offset+length, d.size)-1)/d.granule; g++ {
		if bit := uint64(1) << (g % 64); d.bits[g/64]&bit == 0 {
			d.bits[g/64] |= bit
			d.changed++
		}
	}
	return nil
}

// Same tells whether nothing of these bytes was changed. Of what is not on the
// device nothing is known.
func (d *Delta) Same(offset, length int64) bool {
	if offset < 0 || length <= 0 || length > d.size || offset > d.size-length {
		return false
	}
	for g := offset / d.granule; g <= (offset+length-1)/d.granule; g++ {
		if d.bits[g/64]&(1<<(g%64)) != 0 {
			return false
		}
	}
	return true
}

// Size is that of the device, in bytes.
func (d *Delta) Size() int64 { return d.size }

// Empty tells whether nothing at all was changed.
func (d *Delta) Empty() bool { return d.changed == 0 }
