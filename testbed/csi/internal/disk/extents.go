package disk

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Extent is a part of a file that lies in one place.
type Extent struct {
	Logical, Physical, Length int64
	Written                   bool // else it reads as zeros, wherever it lies
}

const (
	fiemap          = 0xC020660B
	fiemapSync      = 0x1
	extentLast      = 0x1
	extentUnclear   = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400 // of unknown place, or not of whole blocks
	extentUnwritten = 0x800
	extentsAtOnce   = 256
)

type rawExtent struct {
	Logical, Physical, Length uint64
	_                         [2]uint64
	Flags                     uint32
	_                         [3]uint32
}

type extentMap struct {
	Start, Length               uint64
	Flags, Mapped, Count, unset uint32
	Extents                     [extentsAtOnce]rawExtent
}

// Extents lists where a file lies, in order. Holes are left out.
func Extents(file *os.File) ([]Extent, error) {
	var all []Extent
	req := new(extentMap)
	for start := uint64(0); ; {
		*req = extentMap{Start: start, Length: ^uint64(0) - start, Flags: fiemapSync, Count: extentsAtOnce}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), fiemap, uintptr(unsafe.Pointer(req))); errno != 0 {
			return nil, fmt.Errorf("map %s: %w", file.Name(), errno)
		}
		for _, e := range req.Extents[:min(req.Mapped, extentsAtOnce)] {
			if e.Flags&extentUnclear != 0 {
				return nil, fmt.Errorf("map %s: the place of the %d bytes at %d is not clear", file.Name(), e.Length, e.Logical)
			}
			all = append(all, Extent{Logical: int64(e.Logical), Physical: int64(e.Physical), Length: int64(e.Length), Written: e.Flags&extentUnwritten == 0})
			start = e.Logical + e.Length
			if e.Flags&extentLast != 0 {
				return all, nil
			}
		}
		if req.Mapped == 0 {
			return all, nil
		}
	}
}
