package reason

import (
	"context"
	"time"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

const readyLook = 250 * time.Millisecond

// AwaitReady waits until one workload is ready, until the deadline, or until it
// is not to be found.
func (f Finder) AwaitReady(ctx context.Context, clock port.Clock, deadline time.Time, at port.Served, namespace, name string) error {
	for clock.Now().Before(deadline) {
		live, err := f.Cluster.Get(ctx, at, namespace, name)
		if err != nil && !answer.Transient(err) || err == nil && shape.Ready(at.GVK.GroupKind(), live.Object) {
			return nil
		}
		if err := clock.Sleep(ctx, readyLook); err != nil {
			return err
		}
	}
	return nil
}
