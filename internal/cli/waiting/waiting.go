// Package waiting follows an object of the cluster until something is true of
// it. The object's changes wake it; a clock only where it may not watch.
package waiting

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// glance is how often is asked where nothing tells of changes.
	glance = 500 * time.Millisecond
	// relook bounds how long a watch is trusted.
	relook = 5 * time.Second
)

// For asks until the answer is yes: at once, when the object was changed, and
// every few seconds. ask may make the object one of another name, which is
// followed from then on.
func For(ctx context.Context, c client.WithWatch, o client.Object, ask func(ctx context.Context) (bool, error)) error {
	for {
		w, err := follow(ctx, c, o)
		every := relook
		if err != nil { // whoever may read it may not be allowed to watch it
			w, every = watch.NewFake(), glance
		}
		done, err := askOn(ctx, o, w, every, ask)
		w.Stop()
		if done || err != nil {
			return err
		}
	}
}

// follow watches the one object.
func follow(ctx context.Context, c client.WithWatch, o client.Object) (watch.Interface, error) {
	kind, err := c.GroupVersionKindFor(o)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", o.GetName(), err)
	}
	kind.Kind += "List"
	made, err := c.Scheme().New(kind)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", o.GetName(), err)
	}
	list, ok := made.(client.ObjectList)
	if !ok {
		return nil, fmt.Errorf("watch %s: %s is no list", o.GetName(), kind.Kind)
	}
	return c.Watch(ctx, list, client.InNamespace(o.GetNamespace()), client.MatchingFields{"metadata.name": o.GetName()})
}

// askOn is For during the life of one watch, and of the object's name.
func askOn(ctx context.Context, o client.Object, w watch.Interface, every time.Duration, ask func(ctx context.Context) (bool, error)) (done bool, err error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	changes := w.ResultChan()
	for name := o.GetName(); ; {
		yes, err := ask(ctx)
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case err != nil || yes || o.GetName() != name:
			return yes, err
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-tick.C:
		case _, open := <-changes:
			if !open { // it ended, or was never allowed: not at once again
				return false, pause(ctx)
			}
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(glance):
		return nil
	}
}
