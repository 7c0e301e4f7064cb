package execute

import (
	"context"
	"strconv"
	"sync"
)

// Memory keeps marks in memory: for tests, and for sites that have no cluster.
type Memory struct {
	mu    sync.Mutex
	marks map[string]Mark
}

// Load implements Marks.
func (m *Memory) Load(_ context.Context, run, step string) (Mark, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.marks[run+"/"+step], nil
}

// Save implements Marks.
func (m *Memory) Save(_ context.Context, run, step string, mark Mark) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.marks[run+"/"+step]
	if old.Version != mark.Version {
		return ErrMarked
	}
	n, _ := strconv.Atoi(old.Version)
	mark.Version = strconv.Itoa(n + 1)
	if m.marks == nil {
		m.marks = map[string]Mark{}
	}
	m.marks[run+"/"+step] = mark
	return nil
}
