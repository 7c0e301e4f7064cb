package tree

import (
	"sync"
	"sync/atomic"
	"time"
)

// Progress is how far a Write, Read or Verify has come. Counts only grow.
type Progress struct {
	Files      int64 // files finished, the reused and skipped ones included
	Bytes      int64 // bytes of files read, written or verified, reused ones included
	Fetched    int64 // bytes of files that a Read got out of the repository; the rest was there
	Reused     int64 // files taken over unread from the previous snapshot, or already there
	TotalFiles int64 // files in all, or 0 while unknown
	TotalBytes int64 // bytes in all, or 0 while unknown
	Errors     int64 // entries that could not be read
}

// Meter counts what is done and tells about it, not too often. Its counters
// are those of Progress.
type Meter struct {
	Files, Bytes, Fetched, Reused, TotalFiles, TotalBytes, Errors atomic.Int64

	tell func(Progress)
	now  func() time.Time
	mu   sync.Mutex // held while telling
	next time.Time
}

const tellEvery = 100 * time.Millisecond

// NewMeter returns a meter that tells tell, which may be nil.
func NewMeter(tell func(Progress), now func() time.Time) *Meter {
	return &Meter{tell: tell, now: now}
}

// Tick tells how far things are, unless that was just done or is being done.
func (m *Meter) Tick() {
	if m.tell == nil || !m.mu.TryLock() {
		return
	}
	defer m.mu.Unlock()
	if now := m.now(); !now.Before(m.next) {
		m.next = now.Add(tellEvery)
		m.tell(m.progress())
	}
}

// Last tells the final state.
func (m *Meter) Last() {
	if m.tell == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell(m.progress())
}

func (m *Meter) progress() Progress {
	return Progress{
		Files: m.Files.Load(), Bytes: m.Bytes.Load(), Fetched: m.Fetched.Load(), Reused: m.Reused.Load(),
		TotalFiles: m.TotalFiles.Load(), TotalBytes: m.TotalBytes.Load(), Errors: m.Errors.Load(),
	}
}
