// Package outbox keeps an agent's events on its own disk until a console has
// them (docs/formats/agents.md). It is bounded, and survives a kill at every
// byte: what was not written whole is found and cut off. Nothing in it waits for
// a network.
package outbox

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"davit.dev/davit/internal/uplink"
)

const (
	fileName      = "outbox"
	formatVersion = 1
	prefix        = 8 // bytes before a record
	maxRecord     = 64 << 10
	// Size bounds an outbox, in bytes of its file.
	Size = 8 << 20
	// jump is how much higher sequence numbers go on after something was cut off:
	// what was cut may have been sent.
	jump = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type header struct {
	FormatVersion int    `json:"formatVersion"`
	ID            string `json:"id"`
	Next          int64  `json:"next"`
	Lost          int64  `json:"lost,omitempty"`
}

// Outbox is safe for use by several goroutines.
type Outbox struct {
	dir   string
	limit int64

	mu      sync.Mutex
	file    *os.File
	id      string
	next    int64
	lost    int64 // before the first of events
	size    int64 // of the file, all of it whole
	gone    int64 // bytes of the file that are acknowledged
	events  []kept
	changed chan struct{}
}

type kept struct {
	uplink.Event
	size int64
}

// Open opens the outbox in a directory, or makes it. limit bounds its file, in
// bytes; 0 is Size.
func Open(dir string, limit int64) (*Outbox, error) {
	if limit <= 0 {
		limit = Size
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make outbox: %w", err)
	}
	o := &Outbox{dir: dir, limit: limit, changed: make(chan struct{})}
	f, err := os.OpenFile(o.path(), os.O_RDWR, 0o600)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return o, o.begin()
	case err != nil:
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	o.file = f
	if err := o.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("open outbox: %w", err), f.Close())
	}
	return o, nil
}

// Adopt makes an outbox in a directory of what was kept elsewhere of another one, whose name
// and numbers it has: oldest first, and at least one event. What is there already gives way.
func Adopt(dir, id string, events []uplink.Event) (*Outbox, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make outbox: %w", err)
	}
	o := &Outbox{dir: dir, limit: Size, id: id, changed: make(chan struct{}), lost: events[0].Lost}
	for _, e := range events {
		e.Lost = 0
		data, err := record(e)
		if err != nil {
			return nil, fmt.Errorf("make outbox: %w", err)
		}
		o.events, o.next = append(o.events, kept{e, int64(len(data))}), e.Seq+1
	}
	return o, o.rewrite()
}

func (o *Outbox) path() string { return filepath.Join(o.dir, fileName) }

// begin makes a new outbox with an id of its own.
func (o *Outbox) begin() error {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return fmt.Errorf("make outbox: %w", err)
	}
	o.id, o.next, o.lost, o.events = hex.EncodeToString(id), 1, 0, nil
	return o.rewrite()
}

// read takes up what is whole, and cuts off the rest.
func (o *Outbox) read() error {
	r := bufio.NewReader(o.file)
	var h header
	data, err := readRecord(r)
	if err == nil {
		err = json.Unmarshal(data, &h)
	}
	if err == nil && h.FormatVersion > formatVersion {
		return fmt.Errorf("its format is %d, this davit knows %d: use a newer davit", h.FormatVersion, formatVersion)
	}
	if err != nil || h.ID == "" || h.Next < 1 { // nothing of it can be used
		return errors.Join(o.file.Close(), o.begin())
	}
	o.id, o.next, o.lost, o.size = h.ID, h.Next, h.Lost, int64(len(data)+prefix)
	o.gone = o.size
	for {
		data, err := readRecord(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		var e uplink.Event
		if err == nil {
			err = json.Unmarshal(data, &e)
		}
		if err != nil || e.Seq < o.next {
			return o.cut()
		}
		n := int64(len(data) + prefix)
		o.events, o.next, o.size = append(o.events, kept{e, n}), e.Seq+1, o.size+n
	}
}

// cut writes the outbox anew without what is behind its last whole record.
func (o *Outbox) cut() error {
	o.next += jump
	old := o.file
	return errors.Join(o.rewrite(), old.Close())
}

// readRecord reads one record. io.EOF says that the file ends before it;
// anything else that it is not whole.
func readRecord(r io.Reader) ([]byte, error) {
	var head [prefix]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n > maxRecord {
		return nil, io.ErrUnexpectedEOF
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	if crc32.Checksum(data, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, io.ErrUnexpectedEOF
	}
	return data, nil
}

func record(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(data) > maxRecord {
		return nil, fmt.Errorf("an event of %d bytes is too long", len(data))
	}
	head := make([]byte, prefix, prefix+len(data))
	binary.BigEndian.PutUint32(head[:4], uint32(len(data)))
	binary.BigEndian.PutUint32(head[4:], crc32.Checksum(data, castagnoli))
	return append(head, data...), nil
}

// rewrite writes what is left into a new file and puts that in the place of the
// old one.
func (o *Outbox) rewrite() error {
	all, err := record(header{formatVersion, o.id, o.first(), o.lost})
	if err != nil {
		return fmt.Errorf("write outbox: %w", err)
	}
	begun := int64(len(all))
	for _, e := range o.events {
		data, err := record(e.Event)
		if err != nil {
			return fmt.Errorf("write outbox: %w", err)
		}
		all = append(all, data...)
	}
	f, err := os.OpenFile(o.path()+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write outbox: %w", err)
	}
	_, err = f.Write(all)
	if err := errors.Join(err, f.Sync()); err != nil {
		return errors.Join(fmt.Errorf("write outbox: %w", err), f.Close())
	}
	if err := os.Rename(o.path()+".new", o.path()); err != nil {
		return errors.Join(fmt.Errorf("write outbox: %w", err), f.Close())
	}
	o.file, o.size, o.gone = f, int64(len(all)), begun
	return o.syncDir()
}

// first is the lowest number that a record of the file may have.
func (o *Outbox) first() int64 {
	if len(o.events) > 0 {
		return o.events[0].Seq
	}
	return o.next
}

func (o *Outbox) syncDir() error {
	d, err := os.Open(o.dir)
	if err != nil {
		return fmt.Errorf("sync outbox: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// ID names the outbox: another one has another.
func (o *Outbox) ID() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.id
}

// Len is how many events wait.
func (o *Outbox) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.events)
}

// Lost is how many events were dropped before the oldest that waits.
func (o *Outbox) Lost() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lost
}

// Append puts an event at the end. One that cannot be written is counted as lost.
func (o *Outbox) Append(e uplink.Event) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	e.Seq, e.Lost = o.next, 0
	err := o.append(e)
	if err != nil {
		o.lost++
	}
	close(o.changed)
	o.changed = make(chan struct{})
	return err
}

func (o *Outbox) append(e uplink.Event) error {
	data, err := record(e)
	if err != nil {
		return fmt.Errorf("append to outbox: %w", err)
	}
	if o.size+int64(len(data)) > o.limit {
		if err := o.makeRoom(); err != nil {
			return err
		}
	}
	if _, err := o.file.WriteAt(data, o.size); err != nil {
		return fmt.Errorf("append to outbox: %w", err)
	}
	n := int64(len(data))
	o.events, o.next, o.size = append(o.events, kept{e, n}), e.Seq+1, o.size+n
	return nil
}

// makeRoom drops what is acknowledged, and of the rest the oldest that takes more
// than half of the room.
func (o *Outbox) makeRoom() error {
	left, n := o.size-o.gone, 0
	for ; n < len(o.events) && left > o.limit/2; n++ {
		left -= o.events[n].size
	}
	o.lost += int64(n)
	o.events = slices.Clone(o.events[n:])
	old := o.file
	if err := o.rewrite(); err != nil {
		return err
	}
	return old.Close()
}

// Drop counts events that were never put here.
func (o *Outbox) Drop(n int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lost += n
}

// Next returns the events after a number, oldest first, at most so many. They are
// on the disk for good when it returns.
func (o *Outbox) Next(after int64, most int) ([]uplink.Event, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i, _ := slices.BinarySearchFunc(o.events, after+1, func(e kept, seq int64) int { return int(min(1, max(-1, e.Seq-seq))) })
	if i == len(o.events) {
		return nil, nil
	}
	if err := o.file.Sync(); err != nil {
		return nil, fmt.Errorf("sync outbox: %w", err)
	}
	var all []uplink.Event
	for ; i < len(o.events) && len(all) < most; i++ {
		e := o.events[i].Event
		if i == 0 {
			e.Lost = o.lost
		}
		all = append(all, e)
	}
	return all, nil
}

// Ack forgets the events up to a number: a console has them.
func (o *Outbox) Ack(seq int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for ; n < len(o.events) && o.events[n].Seq <= seq; n++ {
		o.gone += o.events[n].size
		o.lost = 0
	}
	o.events = o.events[n:]
	o.next = max(o.next, seq+1) // never below what was kept there
	if n == 0 || o.gone < o.limit/2 {
		return nil
	}
	o.events = slices.Clone(o.events)
	old := o.file
	if err := o.rewrite(); err != nil {
		return err
	}
	return old.Close()
}

// Changed is closed when an event is put here after the call.
func (o *Outbox) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

// Close closes the file.
func (o *Outbox) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.file.Close()
}
