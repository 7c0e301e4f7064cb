package active

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// askTimeout bounds a question to the API server.
	askTimeout = 2 * time.Second
	// patience is how long what is remembered waits for something newer: load
	// balancers give a check about as long as the time between two.
	patience = 300 * time.Millisecond
	// freshFor is how long an answer is used, however many load balancers ask.
	freshFor = 500 * time.Millisecond
	// atOnce bounds the questions that the API server gets at the same time.
	atOnce = 8
)

// memory is what was last heard of Services.
type memory struct {
	mu    sync.Mutex
	known map[client.ObjectKey]*service
	asked map[client.ObjectKey]chan struct{} // closed when the question is over
	turns chan struct{}
}

// service is one that has endpoints, ready or not. Others are not remembered:
// names that somebody makes up push nothing out.
type service struct {
	ready bool
	at    time.Time // when it was asked about
	used  time.Time
}

// ready tells whether all Services have an endpoint that is ready. Where the
// API server is silent they are what they last were, and nobody waits for it.
func (h *Handler) ready(ctx context.Context, keys []client.ObjectKey) (bool, string) {
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	questions := make([]<-chan struct{}, len(keys))
	for i, key := range keys {
		questions[i] = h.question(ctx, key)
	}
	for i, key := range keys {
		ready, known := h.wait(soon, questions[i], key)
		if !known { // nothing to answer from: as long as it takes
			ready, known = h.wait(ctx, questions[i], key)
		}
		switch {
		case !known:
			return false, fmt.Sprintf("service %s has no endpoints, or the API server did not answer", key)
		case !ready:
			return false, fmt.Sprintf("service %s has no ready endpoint", key)
		}
	}
	return true, ""
}

// question begins to ask about a Service, or joins who is asking, and returns
// what is closed when that is over.
func (h *Handler) question(ctx context.Context, key client.ObjectKey) <-chan struct{} {
	m := &h.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked == nil {
		m.known, m.asked, m.turns = map[client.ObjectKey]*service{}, map[client.ObjectKey]chan struct{}{}, make(chan struct{}, atOnce)
	}
	if over := m.asked[key]; over != nil {
		return over
	}
	over, now := make(chan struct{}), h.Now()
	if s := m.known[key]; s != nil && now.Sub(s.at) < freshFor || len(m.asked) >= most {
		close(over)
		return over
	}
	m.asked[key] = over
	go h.refresh(context.WithoutCancel(ctx), key, now) // it is of use to the next who asks
	return over
}

// refresh asks the API server, and remembers what it says.
func (h *Handler) refresh(ctx context.Context, key client.ObjectKey, at time.Time) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	found, err := h.endpoints(ctx, key)
	m := &h.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.asked[key])
	delete(m.asked, key)
	switch {
	case err != nil: // it stays what it was
	case len(found) == 0:
		delete(m.known, key)
	default:
		m.keep(key, &service{ready: slices.ContainsFunc(found, serves), at: at, used: at})
	}
}

func (h *Handler) endpoints(ctx context.Context, key client.ObjectKey) ([]discoveryv1.EndpointSlice, error) {
	select {
	case h.memory.turns <- struct{}{}:
		defer func() { <-h.memory.turns }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var found discoveryv1.EndpointSliceList
	err := h.Services.List(ctx, &found, client.InNamespace(key.Namespace), client.MatchingLabels{discoveryv1.LabelServiceName: key.Name})
	return found.Items, err
}

func serves(s discoveryv1.EndpointSlice) bool {
	return slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool {
		return e.Conditions.Ready == nil || *e.Conditions.Ready
	})
}

// keep remembers a Service, in the place of the one that nobody has asked for
// the longest if there are too many.
func (m *memory) keep(key client.ObjectKey, s *service) {
	if m.known[key] == nil && len(m.known) >= most {
		var oldest client.ObjectKey
		for k, s := range m.known {
			if o := m.known[oldest]; o == nil || s.used.Before(o.used) {
				oldest = k
			}
		}
		delete(m.known, oldest)
	}
	m.known[key] = s
}

// wait waits until the question about a Service is over or ctx is, and returns
// what is known then.
func (h *Handler) wait(ctx context.Context, over <-chan struct{}, key client.ObjectKey) (ready, known bool) {
	select {
	case <-over:
	case <-ctx.Done():
	}
	m := &h.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.known[key]
	if s == nil {
		return false, false
	}
	s.used = h.Now()
	return s.ready, true
}
