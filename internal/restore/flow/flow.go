// Package flow carries out a restore along its order: each object begins as
// soon as what it needs is done, so many at a time, while the recovery point is
// streamed. Objects that are read before they may begin are kept up to a bound;
// beyond it they are read again when their time has come.
package flow

import (
	"context"
	"slices"
	"sync"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/order"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/sequence"
)

const (
	readers = 4 // kinds read at a time
	// parked bounds what is kept of objects that were read too early.
	parked = 32 << 20
	// many objects of a kind are not read before one of them may begin, and
	// those that others name come first.
	many = 1000
)

// Flow is one way along the order of a restore.
type Flow struct {
	Sequence *sequence.Sequence
	Index    *index.Index
	Manifest *point.Manifest
	Source   port.Source
	// Object restores one object. What went wrong with it is its own; an error
	// ends the restore.
	Object func(ctx context.Context, en *index.Entry, raw []byte) error
	// Gate does what a gate is for, or waits for it. An error ends the restore.
	Gate func(ctx context.Context, p sequence.Point, members []*index.Entry) error
	// Fills tells whether an object takes its time and has workers of its own.
	Fills func(*index.Entry) bool
	// Within tells whether a node is to be done now; nil says all are. What
	// needs one that is not must not be either.
	Within func(order.Node) bool

	Workers, Fillers int
	// Kept bounds the bytes that are kept of objects that were read too early;
	// the default is 32 MiB.
	Kept int
}

// state of a node.
type state uint8

const (
	waits   state = iota // for what it needs
	due                  // may begin, and has to be read
	queued               // read, and in a queue
	running              // or done
)

// run is a Flow that is under way. Everything is guarded by mu, and changes are
// told through changed.
type run struct {
	Flow
	mu      sync.Mutex
	changed *sync.Cond
	walk    *order.Walk
	state   []state
	early   map[order.Node][]byte // read, and not due yet
	bytes   int                   // of early
	latest  latest
	urgent  []job // of kinds that have few objects, and what others name
	bulk    []job
	fills   []job
	due     []int // how many are due and unread, by resource
	named   []int // how many of those that others name are unread, by resource
	reading []bool
	began   []int // passes over each resource
	active  int   // readers, gates, and objects under way
	readers int
	bySize  []int // resources, the smallest first
	err     error
	cancel  context.CancelCauseFunc
	others  sync.WaitGroup // readers and gates
}

type job struct {
	en  *index.Entry
	raw []byte
}

// Run restores. Nodes that are not within it stay undone.
func (f Flow) Run(ctx context.Context) error {
	if f.Kept == 0 {
		f.Kept = parked
	}
	s, n := f.Sequence, len(f.Manifest.Resources)
	r := &run{
		Flow: f, walk: s.Graph.Walk(), state: make([]state, s.Graph.Len()), early: map[order.Node][]byte{},
		due: make([]int, n), named: make([]int, n), reading: make([]bool, n), began: make([]int, n),
	}
	r.changed, r.latest.level = sync.NewCond(&r.mu), s.Graph.Levels()
	for i := range n {
		r.bySize = append(r.bySize, i)
	}
	slices.SortStableFunc(r.bySize, func(a, b int) int { return len(f.Index.Entries[a]) - len(f.Index.Entries[b]) })
	for n, named := range s.Named {
		if named {
			r.named[s.Entries[n].Res]++
		}
	}
	ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.cancel(nil)
	stop := context.AfterFunc(ctx, func() { r.fail(context.Cause(ctx)) })
	defer stop()

	r.active = 1 // nobody goes home before it has begun
	var workers sync.WaitGroup
	for range f.Workers {
		workers.Go(func() { r.work(ctx, r.nextObject) })
	}
	for range f.Fillers {
		workers.Go(func() { r.work(ctx, r.nextFill) })
	}
	r.mu.Lock()
	r.release(ctx, r.walk.Ready())
	r.step(ctx)
	r.active--
	r.changed.Broadcast()
	r.mu.Unlock()
	workers.Wait()
	r.others.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil { // what is stopped says so, although all of it may have been done meanwhile
		return context.Cause(ctx)
	}
	return r.err
}

// fail ends the run, with its first error.
func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
		r.cancel(err)
	}
	r.changed.Broadcast()
}

// release takes nodes whose needs are done. Gathering points are done at once.
func (r *run) release(ctx context.Context, nodes []order.Node) {
	for len(nodes) > 0 {
		n := nodes[0]
		nodes = nodes[1:]
		p, isPoint := r.Sequence.PointOf(n)
		switch {
		case !r.within(n):
		case isPoint && p.Hub == sequence.Gathered:
			r.state[n] = running
			nodes = append(nodes, r.walk.Done(n)...)
		case isPoint:
			r.open(ctx, n, p)
		default:
			r.ready(n)
		}
	}
	r.changed.Broadcast()
}

func (r *run) within(n order.Node) bool { return r.Within == nil || r.Within(n) }

// open has a gate do its work.
func (r *run) open(ctx context.Context, n order.Node, p sequence.Point) {
	r.state[n] = running
	r.active++
	r.others.Go(func() {
		err := r.Gate(ctx, p, r.Sequence.Members[n])
		if err != nil {
			r.fail(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.active--
		r.finish(ctx, n)
	})
}

// ready queues an object that has been read, or has it read.
func (r *run) ready(n order.Node) {
	en := r.Sequence.Entries[n]
	if raw, read := r.early[n]; read {
		delete(r.early, n)
		r.bytes -= len(raw)
		r.queue(n, job{en, raw})
		return
	}
	r.state[n] = due
	r.due[en.Res]++
}

func (r *run) queue(n order.Node, j job) {
	r.state[n] = queued
	q := r.queueOf(j.en)
	*q = append(*q, j)
	if r.Sequence.Named[n] {
		r.named[j.en.Res]--
	}
}

func (r *run) queueOf(en *index.Entry) *[]job {
	switch {
	case r.Fills(en):
		return &r.fills
	case r.Sequence.Named[en.Node] || len(r.Index.Entries[en.Res]) <= many:
		return &r.urgent
	}
	return &r.bulk
}

// finish marks a node as done and sets going what that allows.
func (r *run) finish(ctx context.Context, n order.Node) {
	if r.err == nil {
		r.release(ctx, r.walk.Done(n))
		r.step(ctx)
	}
	r.changed.Broadcast()
}

// work does one job after the other until there will be none.
func (r *run) work(ctx context.Context, next func() (job, bool)) {
	for {
		r.mu.Lock()
		j, ok := next()
		r.mu.Unlock()
		if !ok {
			return
		}
		if err := r.Object(ctx, j.en, j.raw); err != nil {
			r.fail(err)
		}
		r.mu.Lock()
		r.active--
		r.finish(ctx, j.en.Node)
		r.mu.Unlock()
	}
}

func (r *run) nextObject() (job, bool) { return r.next(&r.urgent, &r.bulk) }

func (r *run) nextFill() (job, bool) { return r.next(&r.fills) }

// next waits for a job in one of the queues, the first before the second.
func (r *run) next(queues ...*[]job) (job, bool) {
	for {
		if r.err != nil {
			return job{}, false
		}
		for _, q := range queues {
			if len(*q) > 0 {
				j := (*q)[0]
				(*q)[0] = job{}
				*q = (*q)[1:]
				r.active++
				r.changed.Broadcast() // a reader may wait for room
				return j, true
			}
		}
		if r.over() {
			r.changed.Broadcast()
			return job{}, false
		}
		r.changed.Wait()
	}
}

// over tells whether nothing is under way, and nothing will be.
func (r *run) over() bool {
	return r.active == 0 && len(r.urgent)+len(r.bulk)+len(r.fills) == 0
}
