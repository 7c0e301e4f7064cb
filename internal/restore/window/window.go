// Package window looks at objects that are at the target already, many of one
// kind and namespace, in the order in which it lists them: pages cost a small
// part of what as many single looks do. It is asked in roughly that order, since
// that is how a recovery point was captured; whatever it does not have at hand,
// the target is asked for.
package window

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/restore/port"
)

// width is how many objects are at hand at the most.
const width = 1000

// Windows are those of one restore. Make them with New, and Close them.
type Windows struct {
	cluster port.Cluster
	ctx     context.Context //nolint:containedctx // of the goroutines that list, which outlive the calls
	cancel  context.CancelFunc
	listing sync.WaitGroup

	mu  sync.Mutex
	all map[place]*window
}

type place struct {
	at        port.Served
	namespace string
}

// New begins. What is listed is listed as long as the context lasts.
func New(ctx context.Context, cluster port.Cluster) *Windows {
	ctx, cancel := context.WithCancel(ctx)
	return &Windows{cluster: cluster, ctx: ctx, cancel: cancel, all: map[place]*window{}}
}

// Close ends all listing.
func (w *Windows) Close() {
	w.cancel()
	w.listing.Wait()
}

// Get is the cluster's Get. What it returns may be some seconds old.
func (w *Windows) Get(ctx context.Context, at port.Served, namespace, name string) (*unstructured.Unstructured, error) {
	if u := w.of(at, namespace).take(name); u != nil {
		return u, nil
	}
	return w.cluster.Get(ctx, at, namespace, name)
}

func (w *Windows) of(at port.Served, namespace string) *window {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := w.all[place{at, namespace}]
	if in == nil {
		in = &window{held: map[string]*unstructured.Unstructured{}}
		in.changed = sync.NewCond(&in.mu)
		w.all[place{at, namespace}] = in
		w.listing.Go(func() {
			stop := context.AfterFunc(w.ctx, in.close)
			defer stop()
			defer in.close() // whatever ended it: the rest is asked for one by one
			_ = w.cluster.List(w.ctx, at, namespace, "", in.put)
		})
	}
	return in
}

// window is one kind in one namespace.
type window struct {
	mu      sync.Mutex
	changed *sync.Cond
	held    map[string]*unstructured.Unstructured
	order   []string // of held, and of what was; as listed
	last    string   // the name that was listed last
	wanted  string   // the furthest that somebody waits for
	over    bool
}

// closed ends a listing.
type closed struct{}

// Error implements error.
func (closed) Error() string { return "nothing more is wanted" }

// put takes an object that was listed, and waits while there is no room for the
// next and nobody waits for it.
func (w *window) put(u *unstructured.Unstructured) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if u.GetName() <= w.last { // in no order that is known: waiting would be in vain
		return closed{}
	}
	w.last = u.GetName()
	w.held[w.last], w.order = u, append(w.order, w.last)
	w.changed.Broadcast()
	for !w.over && len(w.order) >= width {
		if _, held := w.held[w.order[0]]; !held || w.wanted > w.last {
			delete(w.held, w.order[0])
			w.order = w.order[1:]
			continue
		}
		w.changed.Wait()
	}
	if w.over {
		return closed{}
	}
	return nil
}

// take waits until the listing is at the name, and returns the object; nil when
// it is not there, or not any more.
func (w *window) take(name string) *unstructured.Unstructured {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.over && w.last < name {
		if w.wanted < name {
			w.wanted = name
			w.changed.Broadcast()
		}
		w.changed.Wait()
	}
	u := w.held[name]
	delete(w.held, name)
	w.changed.Broadcast()
	return u
}

func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.changed.Broadcast()
}
