package warden

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"davit.dev/davit/internal/containers"
	"davit.dev/davit/internal/fence"
)

// Memory is a container runtime that is remembered: which pods it had, and where their networks are, for
// when it is asked and says nothing.
type Memory struct {
	Runtime
	networks Networks
	store    fence.Store
	now      func() time.Duration

	mu      sync.Mutex
	at      time.Duration // when pods last changed, since the machine started
	pods    []remembered
	unsaved bool
}

// remembered is a pod as it was last seen.
type remembered struct {
	Pod containers.Sandbox `json:"pod"`
	// Known says that it was asked where its network is, Host that it is the node's. Path may be empty all
	// the same. A process in it is not remembered: its number may be another's by now.
	Known bool   `json:"known,omitempty"`
	Host  bool   `json:"host,omitempty"`
	Path  string `json:"path,omitempty"`
}

// Remember makes a Memory of a runtime. The store is where one process leaves it to another.
func Remember(r interface {
	Runtime
	Networks
}, store fence.Store, now func() time.Duration,
) *Memory {
	return &Memory{Runtime: r, networks: r, store: store, now: now}
}

// Sandboxes asks the runtime, and remembers.
func (m *Memory) Sandboxes(ctx context.Context) ([]containers.Sandbox, error) {
	all, err := m.Runtime.Sandboxes(ctx)
	if err == nil {
		m.note(all)
	}
	return all, err
}

// config says who made a pod: all that is needed of its annotations.
const config = "kubernetes.io/config.source"

func (m *Memory) note(all []containers.Sandbox) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := map[string]remembered{}
	for _, r := range m.pods {
		was[r.Pod.ID] = r
	}
	pods, changed := make([]remembered, 0, len(all)), len(all) != len(m.pods)
	for _, p := range all {
		r, known := was[p.ID]
		changed = changed || !known || r.Pod.Ready != p.Ready
		if source, is := p.Annotations[config]; is {
			p.Annotations = map[string]string{config: source}
		} else {
			p.Annotations = nil
		}
		r.Pod = p
		pods = append(pods, r)
	}
	m.pods = pods
	if changed || m.at == 0 {
		m.at, m.unsaved = m.now(), true
	}
}

// Network asks the runtime, and remembers.
func (m *Memory) Network(ctx context.Context, sandbox string) (containers.Network, error) {
	n, err := m.networks.Network(ctx, sandbox)
	if err != nil && !errors.Is(err, containers.ErrNoNetwork) {
		return n, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.pods {
		if r := &m.pods[i]; r.Pod.ID == sandbox && !r.Known {
			r.Known, r.Host, r.Path, m.unsaved = true, n.Host, n.Path, true
		}
	}
	return n, err
}

// Keep asks where the networks of new pods are, and leaves all that is remembered to the process that
// enforces in this one's place. What is not known in time is asked the next time.
func (m *Memory) Keep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, discoverTimeout)
	defer cancel()
	var errs []error
	m.mu.Lock()
	pods := slices.Clone(m.pods)
	m.mu.Unlock()
	for _, r := range pods {
		if r.Pod.Ready && !r.Known && ctx.Err() == nil {
			if _, err := m.Network(ctx, r.Pod.ID); err != nil && !errors.Is(err, containers.ErrNoNetwork) {
				errs = append(errs, err)
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unsaved {
		err := m.store.SaveSeen(m.at, m.pods)
		m.unsaved = err != nil
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// last are the pods that were last seen, by this process or by the one that it stands in for.
func (m *Memory) last() []containers.Sandbox {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recall()
	all := make([]containers.Sandbox, 0, len(m.pods))
	for _, r := range m.pods {
		all = append(all, r.Pod)
	}
	return all
}

// recall takes in what another process left: all of it if that is newer, else where networks are. Call it
// with the lock held.
func (m *Memory) recall() {
	var left []remembered
	if at := m.store.LoadSeen(&left); at > m.at {
		m.at, m.pods = at, left
		return
	}
	for _, l := range left {
		for i := range m.pods {
			if r := &m.pods[i]; r.Pod.ID == l.Pod.ID && !r.Known {
				r.Known, r.Host, r.Path = l.Known, l.Host, l.Path
			}
		}
	}
}

// place is where a pod's network is, as far as it is remembered.
func (m *Memory) place(sandbox string) (path string, host bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.pods {
		if r.Pod.ID == sandbox {
			return r.Path, r.Host
		}
	}
	return "", false
}
