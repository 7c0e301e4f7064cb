// Package vacancy waits until the place of an object that was deleted is free:
// until it is gone, and until quotas have noticed. It also tells whose a namespace is.
package vacancy

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

const (
	// GoneTimeout bounds the wait for a deleted object to be gone.
	GoneTimeout = 5 * time.Minute
	// QuotaTimeout bounds the wait for a quota to notice. Usually that takes a
	// moment. But what anybody tried to create and was refused because it exists
	// stays counted, and nothing that happens later takes it off: only that its
	// controller counts everything anew, every five minutes unless the cluster
	// says otherwise. It also stands still, for up to half a minute and more than
	// once, while it learns new kinds.
	QuotaTimeout = 7 * time.Minute

	look    = 250 * time.Millisecond
	maxLook = 4 * time.Second
)

// Place is where an object was, and is to be.
type Place struct {
	Cluster  port.Cluster
	Clock    port.Clock
	Progress port.Progress
}

// AwaitGone waits until the object is gone, or another has taken its name.
func (p Place) AwaitGone(ctx context.Context, at port.Served, live *unstructured.Unstructured) error {
	deadline := p.Clock.Now().Add(GoneTimeout)
	for {
		got, err := p.Cluster.Get(ctx, at, live.GetNamespace(), live.GetName())
		if apierrors.IsNotFound(err) || err == nil && got.GetUID() != live.GetUID() {
			return nil
		}
		if err != nil {
			return err
		}
		if !p.Clock.Now().Before(deadline) {
			return fmt.Errorf("it was deleted to be made anew, and is not gone after %s%s: see what holds it, and restore again", GoneTimeout, Held(got))
		}
		if err := p.Clock.Sleep(ctx, look); err != nil {
			return fmt.Errorf("wait until it is gone: %w%s", err, Held(got))
		}
	}
}

// ErrTaken says that a namespace is there which a restore did not make, where it
// writes into no other.
var ErrTaken = errors.New("a namespace is there already that this restore did not make, and it goes into new ones only")

// Own refuses a namespace that the restore with the id did not make.
func Own(ctx context.Context, c port.Cluster, at port.Served, name, id string) error {
	live, err := c.Get(ctx, at, "", name)
	switch {
	case apierrors.IsNotFound(err): // nothing can be written into it
		return nil
	case err != nil:
		return fmt.Errorf("see whose namespace %s is: %w", name, err)
	case live.GetLabels()[shape.LabelRestore] != id:
		return fmt.Errorf("%w: %s", ErrTaken, name)
	}
	return nil
}

// Held names the finalizers that an object's deletion waits for.
func Held(live *unstructured.Unstructured) string {
	if f := live.GetFinalizers(); len(f) > 0 {
		return "; it waits for its finalizers: " + shape.Names(f, 4)
	}
	return ""
}

// Fill creates what takes the place of an object that was just deleted. A quota
// counts that one until its controller has looked again.
func (p Place) Fill(ctx context.Context, name string, create func() (*unstructured.Unstructured, error)) (*unstructured.Unstructured, error) {
	deadline, pause := p.Clock.Now().Add(QuotaTimeout), look
	for {
		got, err := create()
		if !answer.QuotaExceeded(err) || !p.Clock.Now().Before(deadline) {
			return got, err
		}
		if pause == maxLook {
			p.Progress.Note(name + " waits until the quota has noticed that there is room: " + answer.Brief(err).Error())
		}
		if p.Clock.Sleep(ctx, pause) != nil {
			return got, err
		}
		pause = min(2*pause, maxLook)
	}
}
