package freezer

import (
	"context"
	"sync"
	"time"

	"davit.dev/davit/internal/barrier"
	"davit.dev/davit/internal/capture"
)

// flushLimit bounds the search for nodes and the wait for them to flush: an application
// may stand still for it.
const flushLimit = 5 * time.Second

var _ capture.Flusher = (*Freezer)(nil)

// Flush implements capture.Flusher. A node flushes the volumes of an order when it gets
// ready for it, before it says that it is; the order is then taken back. A volume that no
// pod uses may have been used until a moment ago: nobody flushes it, and it counts as not
// flushed.
func (f *Freezer) Flush(ctx context.Context, req capture.FreezeRequest) bool {
	inside, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	found, err := f.places(inside, req.Plans)
	if err != nil || !found.have(req.Plans) {
		return false
	}
	if silent, err := f.silent(inside, found); err != nil || len(silent) > 0 {
		return false
	}
	p := &play{f: f, req: req, places: found, events: make(chan barrier.Event)}
	var beside sync.WaitGroup
	defer func() {
		cancel()
		beside.Wait()
		p.remove(context.WithoutCancel(ctx))
	}()
	beside.Go(func() { p.follow(inside) })
	for node := range found {
		beside.Go(func() { p.send(inside, barrier.Effect{Action: barrier.Arm, Node: node}) })
	}
	for armed := map[string]bool{}; len(armed) < len(found); {
		select {
		case e := <-p.events:
			if e.Kind != barrier.Armed {
				f.log.Debug("not flushed", "point", req.Point, "node", e.Node, "why", e.Why)
				return false
			}
			armed[e.Node] = true
		case <-inside.Done():
			return false
		}
	}
	return true
}

// have tells whether each of the plans' claims is in use somewhere.
func (p places) have(plans []capture.VolumePlan) bool {
	used := map[string]bool{}
	for _, volumes := range p {
		for _, v := range volumes {
			used[v.Claim] = true
		}
	}
	for _, plan := range plans {
		if !used[plan.Claim.Key()] {
			return false
		}
	}
	return true
}
