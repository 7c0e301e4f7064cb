package agents

import (
	"context"
	"sync/atomic"
	"time"

	"davit.dev/davit/internal/uplink"
)

// acks are the acknowledgements that a stream still owes. An agent forgets what
// was acknowledged: the disk of this console alone is not enough for that, and
// while the project's vault is silent, the stream goes on without.
type acks struct {
	newest *atomic.Int64 // up to here events are on the disk
	more   chan struct{}
}

func newAcks() acks { return acks{new(atomic.Int64), make(chan struct{}, 1)} }

// kept notes that events up to one are on the disk.
func (a acks) kept(seq int64) {
	a.newest.Store(seq)
	select {
	case a.more <- struct{}{}:
	default:
	}
}

// ackedLimit is how long an agent waits for its welcome because its events do not
// count yet: it sends them again otherwise.
const ackedLimit = time.Second

// acked is up to where the agent's events were kept, as far as that counts.
func (t *talk) acked(ctx context.Context) (int64, error) {
	acked, err := t.project.AgentAcked(ctx, t.who.Site, t.hello.Outbox)
	if err != nil || acked == 0 {
		return 0, err
	}
	limited, cancel := context.WithTimeout(ctx, ackedLimit)
	defer cancel()
	err = t.project.Settle(limited)
	if unsettled(ctx, err) {
		return 0, nil
	}
	return acked, err
}

// acknowledge says of events that they were kept, once that counts, beside what is
// heard. Nothing is said any more when wait returns.
func (t *talk) acknowledge(ctx context.Context, end func()) (wait func()) {
	stop := atEnd(ctx, func() { _ = t.control.SetWriteDeadline(time.Unix(1, 0)) })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := t.acking(ctx); err != nil && ctx.Err() == nil {
			t.server.Log.Info("events could not be acknowledged", "project", t.project.Name, "site", t.who.Site, "err", err)
		}
		end()
	}()
	return func() {
		end()
		<-ended
		stop()
	}
}

func (t *talk) acking(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.acks.more:
		}
		seq := t.acks.newest.Load()
		if err := t.settle(ctx); err != nil {
			return err
		}
		if err := t.say(uplink.Down{Ack: &uplink.Ack{Seq: seq}}); err != nil {
			return err
		}
	}
}
