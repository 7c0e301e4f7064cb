// Package cache keeps blobs of a volume repository: on local disk those that every
// opening of it and every walk of a tree reads again, in memory packs of small files.
package cache

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/kopia/kopia/repo/blob"
)

// Disk keeps whole index blobs and metadata packs on local disk. Their
// names never mean other data, and they are encrypted as they are in the
// store. It is bounded, and a failure of the disk is only a miss.
type Disk struct {
	dir   string
	limit int64 // bytes

	mu    sync.Mutex
	size  int64
	files []cachedFile // least recently used first
}

type cachedFile struct {
	name string
	size int64
}

// Holds says whether a blob is worth disk: what every opening and every
// walk of a tree reads again.
func Holds(id blob.ID) bool {
	if len(id) < 2 {
		return false
	}
	return id[0] == 'q' || (id[0] == 'x' && (id[1] == 'n' || id[1] == 's' || id[1] == 'r'))
}

// Open takes over what an earlier process left in the directory.
func Open(dir string, limit int64) (*Disk, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	type aged struct {
		cachedFile
		at int64
	}
	var found []aged
	c := &Disk{dir: dir, limit: limit}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if !Holds(blob.ID(e.Name())) {
			_ = os.Remove(filepath.Join(dir, e.Name())) // left unfinished by a killed process
			continue
		}
		found = append(found, aged{cachedFile{e.Name(), info.Size()}, info.ModTime().UnixNano()})
	}
	slices.SortFunc(found, func(a, b aged) int { return cmp.Compare(a.at, b.at) })
	for _, f := range found {
		c.files = append(c.files, f.cachedFile)
		c.size += f.size
	}
	c.evict()
	return c, nil
}

// Get returns a blob's bytes, or nil. A nil cache has nothing.
func (c *Disk) Get(id blob.ID) []byte {
	if c == nil || !Holds(id) {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(c.dir, string(id)))
	if err != nil {
		return nil
	}
	n := len(data) - sha256.Size
	if n < 0 || checksum(id, data[:n]) != [sha256.Size]byte(data[n:]) {
		c.forget(string(id))
		return nil
	}
	c.touch(string(id))
	return data[:n]
}

// Put keeps a blob's bytes if the disk has room for them.
func (c *Disk) Put(id blob.ID, data []byte) {
	size := int64(len(data) + sha256.Size)
	if c == nil || !Holds(id) || size > c.limit {
		return
	}
	f, err := os.CreateTemp(c.dir, "new-")
	if err != nil {
		return
	}
	sum := checksum(id, data)
	_, err = f.Write(data)
	if err == nil {
		_, err = f.Write(sum[:])
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(c.dir, string(id)))
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error before it is a miss, too
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(string(id))
	c.files = append(c.files, cachedFile{string(id), size})
	c.size += size
	c.evict()
}

func checksum(id blob.ID, data []byte) [sha256.Size]byte {
	h := sha256.New()
	_, _ = io.WriteString(h, string(id)+"\n")
	_, _ = h.Write(data)
	return [sha256.Size]byte(h.Sum(nil))
}

func (c *Disk) touch(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, ok := c.drop(name); ok {
		c.files = append(c.files, f)
		c.size += f.size
	}
}

func (c *Disk) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(name)
	_ = os.Remove(filepath.Join(c.dir, name)) // a leftover is checked again
}

// drop takes a file out of the books. The caller holds c.mu.
func (c *Disk) drop(name string) (cachedFile, bool) {
	i := slices.IndexFunc(c.files, func(f cachedFile) bool { return f.name == name })
	if i < 0 {
		return cachedFile{}, false
	}
	f := c.files[i]
	c.files = slices.Delete(c.files, i, i+1)
	c.size -= f.size
	return f, true
}

// evict removes the least recently used files above the limit. The caller
// holds c.mu, or is alone.
func (c *Disk) evict() {
	for c.size > c.limit && len(c.files) > 0 {
		f := c.files[0]
		c.files = c.files[1:]
		c.size -= f.size
		_ = os.Remove(filepath.Join(c.dir, f.name)) // another process may have been first
	}
}
