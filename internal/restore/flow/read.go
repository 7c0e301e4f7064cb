package flow

import (
	"bytes"
	"container/heap"
	"context"
	"fmt"

	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/order"
)

// step begins to read what is due, as many kinds at a time as there are readers.
func (r *run) step(ctx context.Context) {
	for _, i := range r.bySize {
		if r.err != nil || r.readers == readers {
			return
		}
		if r.reading[i] || !r.worthReading(i) {
			continue
		}
		r.reading[i] = true
		r.readers++
		r.active++
		r.began[i]++
		r.others.Go(func() { r.read(ctx, i) })
	}
}

// worthReading tells whether a kind is to be read: if something of it is due,
// and once before, if it has few objects, so that they are at hand.
func (r *run) worthReading(i int) bool {
	n := len(r.Index.Entries[i])
	return r.due[i] > 0 || r.began[i] == 0 && n > 0 && n <= many
}

// read goes over the objects of one kind once.
func (r *run) read(ctx context.Context, i int) {
	entries := r.Index.Entries[i]
	r.mu.Lock()
	// Where there are many, those that others name are taken first.
	namedOnly := len(entries) > many && r.named[i] > 0 && r.began[i] == 1
	r.mu.Unlock()
	n := -1
	err := r.Source.ReadResource(ctx, r.Manifest.Resources[i], func(raw []byte) error {
		n++
		if n >= len(entries) {
			return fmt.Errorf("read recovery point %s: %s has more objects than before", r.Manifest.ID, r.Index.Kinds[i])
		}
		if entries[n].Skip != "" {
			return nil
		}
		return r.take(ctx, entries[n], raw, namedOnly)
	})
	if err == nil && n+1 < len(entries) {
		err = fmt.Errorf("read recovery point %s: %s has fewer objects than before", r.Manifest.ID, r.Index.Kinds[i])
	}
	if err != nil {
		r.fail(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reading[i] = false
	r.readers--
	r.active--
	r.step(ctx)
	r.changed.Broadcast()
}

// take queues one object that was read, keeps it, or lets it go by. It waits
// while the queue is full.
func (r *run) take(ctx context.Context, en *index.Entry, raw []byte, namedOnly bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if r.err != nil {
			return r.err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		named := r.Sequence.Named[en.Node]
		switch st := r.state[en.Node]; {
		case st == queued || st == running || namedOnly && !named:
			return nil
		case st == waits:
			if r.within(en.Node) {
				r.keep(en, raw)
			}
			return nil
		}
		if len(*r.queueOf(en)) < 2*r.Workers {
			r.due[en.Res]--
			r.queue(en.Node, job{en, bytes.Clone(raw)})
			r.changed.Broadcast()
			return nil
		}
		r.changed.Wait()
	}
}

// keep keeps an object that was read too early, and lets go of others that are
// due later where there is no room for all.
func (r *run) keep(en *index.Entry, raw []byte) {
	if _, kept := r.early[en.Node]; kept {
		return
	}
	for r.bytes+len(raw) > r.Kept && len(r.latest.nodes) > 0 {
		last := r.latest.nodes[0]
		if old, kept := r.early[last]; kept {
			if r.latest.level[last] <= r.latest.level[en.Node] {
				return
			}
			delete(r.early, last)
			r.bytes -= len(old)
		}
		heap.Pop(&r.latest)
	}
	if r.bytes+len(raw) <= r.Kept {
		r.early[en.Node] = bytes.Clone(raw)
		r.bytes += len(raw)
		heap.Push(&r.latest, en.Node)
	}
}

// latest is a heap of what is kept, and of what was, by how late it is due.
type latest struct {
	nodes []order.Node
	level []int32
}

// Len implements heap.Interface.
func (l *latest) Len() int { return len(l.nodes) }

// Less implements heap.Interface.
func (l *latest) Less(i, j int) bool { return l.level[l.nodes[i]] > l.level[l.nodes[j]] }

// Swap implements heap.Interface.
func (l *latest) Swap(i, j int) { l.nodes[i], l.nodes[j] = l.nodes[j], l.nodes[i] }

// Push implements heap.Interface.
func (l *latest) Push(n any) { l.nodes = append(l.nodes, n.(order.Node)) }

// Pop implements heap.Interface.
func (l *latest) Pop() any {
	n := l.nodes[len(l.nodes)-1]
	l.nodes = l.nodes[:len(l.nodes)-1]
	return n
}
