package tree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// directAlign is what direct writes are multiples of, in bytes: no block device
// of today has larger sectors.
const directAlign = 4096

// sink is a large new file, written past the page cache where its file system is
// good at that: nobody reads soon what is restored, and the pages would cost more
// than the writing. What is not whole blocks, and all that the file system refuses
// after all, goes through the cache.
type sink struct {
	*os.File
	direct  writerAtCloser // nil: cannot
	refused atomic.Bool
	holes   bool   // ext4's, which one at a time may write into
	room    []room // set aside, in order
}

// room is a part of a file for which the file system has set blocks aside.
type room struct{ from, until int64 }

type writerAtCloser interface {
	io.WriterAt
	io.Closer
}

// openSink takes the file over.
func openSink(f *os.File) *sink {
	s := &sink{File: f}
	fits, ext4 := directFits(f)
	if !fits {
		return s
	}
	if direct, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY|unix.O_DIRECT, 0); err == nil {
		s.direct, s.holes = direct, ext4
	}
	return s
}

// directFits tells whether the file system takes direct writes side by side, and
// whether it is ext4. A network file system would send each of them off, and wait for it.
func directFits(f *os.File) (fits, ext4 bool) {
	var fs unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &fs) != nil {
		return false, false
	}
	ext4 = fs.Type == unix.EXT4_SUPER_MAGIC
	return ext4 || fs.Type == unix.XFS_SUPER_MAGIC, ext4
}

// leastRoom is how many bytes are worth a call. The file system waits for all writes
// of the file that are on their way before it sets blocks aside.
const leastRoom = 8 << 20

// setAside has the file system set blocks aside for chunks that are to come. ext4 keeps
// all writers of a file waiting while one of them writes into a hole, until that is on
// the disk; where blocks are set aside they write side by side. Chunks that are like their neighbours are most
// likely zeros, and stay a hole. What cannot be set aside is written all the same.
func (s *sink) setAside(chunks []Chunk) {
	if !s.holes {
		return
	}
	like := func(i, j int) bool { return i >= 0 && j < len(chunks) && chunks[i].ID == chunks[j].ID }
	var next room
	reserve := func() {
		if next.until-next.from >= leastRoom && unix.Fallocate(int(s.Fd()), unix.FALLOC_FL_KEEP_SIZE, next.from, next.until-next.from) == nil {
			s.room = append(s.room, next)
		}
		next = room{}
	}
	for i, c := range chunks {
		if like(i-1, i) || like(i, i+1) {
			reserve()
			continue
		}
		if next.until != c.Offset {
			reserve()
			next.from = c.Offset
		}
		next.until = c.Offset + c.Length
	}
	reserve()
}

// leave leaves a part of the file as it is, a hole that reads as zeros. Blocks that were
// set aside there are given back; where that fails they are zeros, too.
func (s *sink) leave(offset, length int64) {
	for _, r := range s.room {
		if offset < r.until && offset+length > r.from {
			_ = unix.Fallocate(int(s.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
			return
		}
	}
}

// Close implements io.Closer.
func (s *sink) Close() error {
	if s.direct == nil {
		return s.File.Close()
	}
	return errors.Join(s.direct.Close(), s.File.Close())
}

// blocks are what direct writes are made from. The runtime begins allocations of
// this size at a page; were it to stop that, the file system would refuse them.
var blocks = sync.Pool{New: func() any {
	b := make([]byte, chunkSize)
	return &b
}}

// writeDirect copies what does not begin where the file system wants it: chunks mostly do.
func (s *sink) writeDirect(data []byte, offset int64) (int, error) {
	if uintptr(unsafe.Pointer(unsafe.SliceData(data)))%directAlign == 0 { // only looked at
		return s.direct.WriteAt(data, offset)
	}
	block := blocks.Get().(*[]byte)
	defer blocks.Put(block)
	return s.direct.WriteAt((*block)[:copy(*block, data)], offset)
}

// WriteAt implements io.WriterAt.
func (s *sink) WriteAt(data []byte, offset int64) (int, error) {
	whole := len(data) &^ (directAlign - 1)
	if s.direct == nil || s.refused.Load() || offset%directAlign != 0 || whole == 0 || whole > chunkSize {
		return s.File.WriteAt(data, offset)
	}
	n, err := s.writeDirect(data[:whole], offset)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		s.refused.Store(true)
		return s.File.WriteAt(data, offset)
	}
	if err != nil || whole == len(data) {
		return n, err
	}
	rest, err := s.File.WriteAt(data[whole:], offset+int64(whole))
	return whole + rest, err
}
