// Package ledger keeps, outside of all clusters, which orders were acknowledged and when. It is the judge of what a
// failover lost, so an acknowledgement is on disk before the ledger confirms it.
package ledger

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"davit.dev/davit/testbed/shop/order"
)

// Ledger is an open ledger file: one JSON object per line.
type Ledger struct {
	mu     sync.Mutex // guards what follows
	acks   []order.Ack
	seen   map[key]bool
	queue  []byte
	synced chan struct{} // closed when the present queue is on disk
	failed error

	file *os.File
	kick chan struct{}
	done chan struct{}
}

// key tells apart an order and the one that was placed again under its number.
type key struct {
	id       int64
	checksum string
}

// Stats are the ledger's totals.
type Stats struct {
	Count int64     `json:"count"`
	MaxID int64     `json:"maxID"`
	Last  time.Time `json:"last"`
}

// Open reads the file, or makes it. A line cut off by a crash was never confirmed and is dropped.
func Open(path string) (*Ledger, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Ledger{
		seen: map[key]bool{}, synced: make(chan struct{}), file: file,
		kick: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if err := l.load(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	go l.flushLoop()
	return l, nil
}

func (l *Ledger) load() error {
	var good int64
	lines := bufio.NewReader(l.file)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read ledger: %w", err)
		}
		var ack order.Ack
		if err := json.Unmarshal(line, &ack); err != nil {
			return fmt.Errorf("read ledger after byte %d: %w", good, err)
		}
		good += int64(len(line))
		l.remember(ack)
	}
	if err := l.file.Truncate(good); err != nil {
		return fmt.Errorf("drop cut-off line: %w", err)
	}
	if _, err := l.file.Seek(good, io.SeekStart); err != nil {
		return fmt.Errorf("find end of ledger: %w", err)
	}
	return nil
}

func (l *Ledger) remember(ack order.Ack) bool {
	k := key{ack.ID, ack.Checksum}
	if l.seen[k] {
		return false
	}
	l.seen[k] = true
	l.acks = append(l.acks, ack)
	return true
}

// Add writes acknowledgements down and returns when they are on disk. Those it has already are not written again.
func (l *Ledger) Add(acks []order.Ack) error {
	l.mu.Lock()
	if l.failed != nil {
		defer l.mu.Unlock()
		return l.failed
	}
	var lines bytes.Buffer
	encode := json.NewEncoder(&lines)
	for _, ack := range acks {
		if l.remember(ack) {
			if err := encode.Encode(ack); err != nil {
				l.mu.Unlock()
				return fmt.Errorf("encode acknowledgement: %w", err)
			}
		}
	}
	// A duplicate waits as well: its first copy may not be on disk yet.
	l.queue = append(l.queue, lines.Bytes()...)
	synced := l.synced
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default:
	}
	<-synced
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// flushLoop writes everything that came in during the last sync with one more, so that many callers share one.
func (l *Ledger) flushLoop() {
	defer close(l.done)
	for range l.kick {
		l.mu.Lock()
		queue, synced := l.queue, l.synced
		l.queue, l.synced = nil, make(chan struct{})
		l.mu.Unlock()
		err := l.write(queue)
		l.mu.Lock()
		l.failed = errors.Join(l.failed, err)
		l.mu.Unlock()
		close(synced)
	}
}

func (l *Ledger) write(data []byte) error {
	if _, err := l.file.Write(data); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("sync ledger: %w", err)
	}
	return nil
}

// Close ends the ledger; no Add may run any more.
func (l *Ledger) Close() error {
	close(l.kick)
	<-l.done
	return l.file.Close()
}

// Before lists what was acknowledged before t; the zero time means everything.
func (l *Ledger) Before(t time.Time) []order.Ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := []order.Ack{}
	for _, ack := range l.acks {
		if t.IsZero() || ack.At.Before(t) {
			found = append(found, ack)
		}
	}
	return found
}

// Stats sums up.
func (l *Ledger) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Stats{Count: int64(len(l.acks))}
	for _, ack := range l.acks {
		s.MaxID = max(s.MaxID, ack.ID)
		if ack.At.After(s.Last) {
			s.Last = ack.At
		}
	}
	return s
}
