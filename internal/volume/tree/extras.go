package tree

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// extra is what a tree entry has and kopia's directory cannot hold.
type extra struct {
	Path  string            `json:"path"`            // encoded, element by element; "" is the root
	Link  *string           `json:"link,omitempty"`  // encoded path of the entry this is a hard link to
	Fifo  bool              `json:"fifo,omitempty"`  // a named pipe, in no directory
	Mode  uint32            `json:"mode,omitempty"`  // of a pipe
	UID   uint32            `json:"uid,omitempty"`   // of a pipe
	GID   uint32            `json:"gid,omitempty"`   // of a pipe
	Mtime *mtime            `json:"mtime,omitempty"` // the true one, where the directory's is not
	Xattr map[string][]byte `json:"xattr,omitempty"`
}

// mtime is a modification time of any age, in seconds and nanoseconds.
type mtime struct {
	Sec  int64 `json:"s"`
	Nsec int64 `json:"n"`
}

func (m mtime) time() time.Time { return time.Unix(m.Sec, m.Nsec) }

// extrasBook gathers extras while a tree is walked.
type extrasBook struct {
	mu      sync.Mutex
	entries []extra
	missing map[string]bool // encoded paths that are not in the snapshot
}

func (b *extrasBook) add(e extra) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries = append(b.entries, e)
}

func (b *extrasBook) miss(path string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.missing[path] = true
}

const extrasHeader = "davit volume extras 1\n"

// write lays the extras out, one JSON object per line. A link to an entry
// that did not make it into the snapshot is left out: its own data is there.
func (b *extrasBook) write(w io.Writer) error {
	buf := bufio.NewWriter(w)
	_, _ = buf.WriteString(extrasHeader) // Flush returns the error
	enc := json.NewEncoder(buf)
	for _, e := range b.entries {
		if b.missing[e.Path] {
			continue
		}
		if e.Link != nil && b.missing[*e.Link] {
			e.Link = nil
		}
		if err := enc.Encode(e); err != nil {
			return fmt.Errorf("write extras: %w", err)
		}
	}
	return buf.Flush()
}

// readExtras is the reverse of write, by path.
func readExtras(r io.Reader) (map[string]extra, error) {
	buf := bufio.NewReader(r)
	header := make([]byte, len(extrasHeader))
	if _, err := io.ReadFull(buf, header); err != nil || string(header) != extrasHeader {
		return nil, fmt.Errorf("read extras: %w: not of version 1", ErrDamaged)
	}
	dec := json.NewDecoder(buf)
	found := map[string]extra{}
	for {
		var e extra
		switch err := dec.Decode(&e); {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return nil, fmt.Errorf("read extras: %w: %w", ErrDamaged, err)
		}
		found[e.Path] = found[e.Path].merge(e)
	}
}

// merge adds what another line says about the same entry.
func (e extra) merge(o extra) extra {
	if e.Path == "" {
		e.Path = o.Path
	}
	if o.Link != nil {
		e.Link = o.Link
	}
	if o.Fifo {
		e.Fifo, e.Mode, e.UID, e.GID = true, o.Mode, o.UID, o.GID
	}
	if o.Mtime != nil {
		e.Mtime = o.Mtime
	}
	if o.Xattr != nil {
		e.Xattr = o.Xattr
	}
	return e
}
