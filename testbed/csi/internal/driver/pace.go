package driver

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// paceKey is the parameter of a VolumeSnapshotClass that makes this slow storage.
	paceKey = "pace"
	maxPace = 10 * time.Second
)

// fullKey is the parameter of a class that makes this storage without room for snapshots.
const fullKey = "full"

// liesKey is the parameter of a class whose snapshots do not tell all that was changed before them.
const liesKey = "lies"

// pace lets snapshots through one after the other, as storage does that works through a queue.
type pace chan struct{}

func newPace() pace { return make(pace, 1) }

// enter returns when it is the snapshot's turn and its time has passed. Classes without a pace do not wait.
func (p pace) enter(ctx context.Context, parameters map[string]string) (leave func(), err error) {
	if parameters[fullKey] == "true" {
		return nil, status.Error(codes.ResourceExhausted, "the storage has no room left for snapshots")
	}
	text, ok := parameters[paceKey]
	if !ok {
		return func() {}, nil
	}
	each, err := time.ParseDuration(text)
	if err != nil || each <= 0 || each > maxPace {
		return nil, invalid("pace %q is no duration up to %s", text, maxPace)
	}
	select {
	case p <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	leave = func() { <-p }
	select {
	case <-time.After(each):
		return leave, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
