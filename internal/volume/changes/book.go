package changes

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
)

// Head says of what a book tells the places.
type Head struct {
	// Driver is the CSI driver, Volume and Snapshot what it calls the volume and
	// the snapshot that was read.
	Driver   string `json:"driver"`
	Volume   string `json:"volume"`
	Snapshot string `json:"snapshot"`
	// Size is that of the device, in bytes, FileSystem what is on it.
	Size       int64  `json:"size"`
	FileSystem string `json:"fileSystem"`
	// Since is how many snapshots were made after the one for which all was read, this one included.
	Since int `json:"since"`
}

// Book holds where the chunks of a snapshot's large files lay. It is safe for
// use by several goroutines while it is filled.
type Book struct {
	Head

	mu    sync.Mutex
	files map[string][]Mark
}

// NewBook is an empty one.
func NewBook(h Head) *Book { return &Book{Head: h, files: map[string][]Mark{}} }

// Add notes the marks of a file, by its path as the snapshot stores it.
func (b *Book) Add(path string, marks []Mark) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.files[path] = marks
}

// Of returns the marks of a file; none if it is not in the book. A nil book has none.
func (b *Book) Of(path string) []Mark {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.files[path]
}

// Has tells whether a file is in the book.
func (b *Book) Has(path string) bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_, has := b.files[path]
	return has
}

const (
	bookHeader = "davit volume blocks 1\n"
	markBytes  = len(Mark{})
)

// errBook says that a book cannot be read.
var errBook = errors.New("not of version 1")

type bookLine struct {
	Path  string `json:"path"`
	Marks []byte `json:"marks"`
}

// Write lays the book out: its head, and one JSON object for each file.
func (b *Book) Write(w io.Writer) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	buf := bufio.NewWriter(w)
	_, _ = buf.WriteString(bookHeader) // Flush returns the error
	enc := json.NewEncoder(buf)
	if err := enc.Encode(b.Head); err != nil {
		return fmt.Errorf("write blocks: %w", err)
	}
	for _, path := range slices.Sorted(maps.Keys(b.files)) {
		line := bookLine{Path: path, Marks: make([]byte, 0, len(b.files[path])*markBytes)}
		for _, m := range b.files[path] {
			line.Marks = append(line.Marks, m[:]...)
		}
		if err := enc.Encode(line); err != nil {
			return fmt.Errorf("write blocks: %w", err)
		}
	}
	return buf.Flush()
}

// ReadBook is the reverse of Write.
func ReadBook(r io.Reader) (*Book, error) {
	buf := bufio.NewReader(r)
	header := make([]byte, len(bookHeader))
	if _, err := io.ReadFull(buf, header); err != nil || string(header) != bookHeader {
		return nil, fmt.Errorf("read blocks: %w", errors.Join(errBook, err))
	}
	dec := json.NewDecoder(buf)
	b := NewBook(Head{})
	if err := dec.Decode(&b.Head); err != nil {
		return nil, fmt.Errorf("read blocks: %w", err)
	}
	for {
		var line bookLine
		switch err := dec.Decode(&line); {
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return nil, fmt.Errorf("read blocks: %w", err)
		case len(line.Marks)%markBytes != 0:
			return nil, fmt.Errorf("read blocks: marks of %q: %w", line.Path, errBook)
		}
		marks := make([]Mark, len(line.Marks)/markBytes)
		for i := range marks {
			copy(marks[i][:], line.Marks[i*markBytes:])
		}
		b.files[line.Path] = marks
	}
}
