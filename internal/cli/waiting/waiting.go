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
// followed from then on. A watch that does not open keeps nobody from asking.
func For(ctx context.Context, c client.WithWatch, o client.Object, ask func(ctx context.Context) (bool, error)) error {
	for {
		following, stop := context.WithCancel(ctx)
		opened, ended := follow(following, c, o)
		done, err := askOn(ctx, o, opened, ask)
		stop()
		<-ended // nothing is left running when the answer is there
		if done || err != nil {
			return err
		}
	}
}

// follow watches the one object until the context ends. The watch comes when it is
// open; none comes where none is to be had. Then ended is closed.
func follow(ctx context.Context, c client.WithWatch, o client.Object) (opened <-chan watch.Interface, ended <-chan struct{}) {
	watches, over := make(chan watch.Interface), make(chan struct{})
	list, err := listOf(c, o)
	if err != nil {
		close(over)
		return watches, over
	}
	in, named := client.InNamespace(o.GetNamespace()), client.MatchingFields{"metadata.name": o.GetName()}
	go func() {
		defer close(over)
		w, err := c.Watch(ctx, list, in, named)
		if err != nil { // whoever may read it may not be allowed to watch it
			return
		}
		defer w.Stop()
		select {
		case watches <- w:
			<-ctx.Done()
		case <-ctx.Done():
		}
	}()
	return watches, over
}

func listOf(c client.WithWatch, o client.Object) (client.ObjectList, error) {
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
	return list, nil
}

// askOn is For during the life of one watch, and of the object's name.
func askOn(ctx context.Context, o client.Object, opened <-chan watch.Interface, ask func(ctx context.Context) (bool, error)) (done bool, err error) {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	var changes <-chan watch.Event
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
		case w := <-opened: // what was changed before is not told
			changes = w.ResultChan()
			tick.Reset(relook)
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
