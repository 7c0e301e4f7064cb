package volume

import (
	"sync"
	"sync/atomic"
	"time"
)

// meter counts what is done and tells about it, not too often.
type meter struct {
	files, bytes, reused, totalFiles, totalBytes, errors atomic.Int64

	tell func(Progress)
	now  func() time.Time
	mu   sync.Mutex // held while telling
	next time.Time
}

const tellEvery = 100 * time.Millisecond

func newMeter(tell func(Progress), now func() time.Time) *meter {
	return &meter{tell: tell, now: now}
}

// tick tells how far things are, unless that was just done or is being done.
func (m *meter) tick() {
	if m.tell == nil || !m.mu.TryLock() {
		return
	}
	defer m.mu.Unlock()
	if now := m.now(); !now.Before(m.next) {
		m.next = now.Add(tellEvery)
		m.tell(m.progress())
	}
}

// last tells the final state.
func (m *meter) last() {
	if m.tell == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell(m.progress())
}

func (m *meter) progress() Progress {
	return Progress{
		Files: m.files.Load(), Bytes: m.bytes.Load(), Reused: m.reused.Load(),
		TotalFiles: m.totalFiles.Load(), TotalBytes: m.totalBytes.Load(), Errors: m.errors.Load(),
	}
}
