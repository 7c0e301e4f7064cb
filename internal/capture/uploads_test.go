package capture

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"davit.dev/davit/internal/point"
)

// slow is a sink whose writers upload what they were given only when they are
// closed, with the context that it was given with: as uploads that are still under
// way when everything has been listed.
type slow struct {
	mu    sync.Mutex
	fails string // the resource whose objects are not taken
}

var errDisk = errors.New("no space is left")

func (s *slow) Resource(res point.Resource) ObjectWriter { return &slowWriter{sink: s, res: res} }

type slowWriter struct {
	sink *slow
	res  point.Resource
	with []context.Context //nolint:containedctx // that is what is tried here
}

func (w *slowWriter) Add(ctx context.Context, _ []byte) error {
	w.sink.mu.Lock()
	defer w.sink.mu.Unlock()
	if w.res.Resource == w.sink.fails {
		return errDisk
	}
	w.with = append(w.with, ctx)
	w.res.Count++
	return nil
}

func (w *slowWriter) Close(context.Context) (point.Resource, error) {
	for _, ctx := range w.with {
		if err := context.Cause(ctx); err != nil {
			return point.Resource{}, fmt.Errorf("upload %s: %w", w.res.Resource, err)
		}
	}
	return w.res, nil
}

// TestUploadsOutliveTheListing: what is still on its way when all objects have
// been listed is written all the same.
func TestUploadsOutliveTheListing(t *testing.T) {
	c := &crowd{world: newWorld(t, "kind: Namespace\nmetadata: {name: shop}"), each: 30}
	spec := Spec{Application: "shop", ID: "shop-1", Namespaces: []string{"shop"}, Mode: ModeSnapshot}
	got, err := Run(t.Context(), spec, Ports{Cluster: c, Volumes: c, Hooks: c, Sink: &slow{}}, Options{Now: c.clock})
	if err != nil {
		t.Fatal(err)
	}
	if got.Objects < 30 {
		t.Errorf("%d objects captured", got.Objects)
	}
	// The first error is told, and ends the others.
	_, err = Run(t.Context(), spec, Ports{Cluster: c, Volumes: c, Hooks: c, Sink: &slow{fails: "secrets"}}, Options{Now: c.clock})
	if !errors.Is(err, errDisk) {
		t.Errorf("a sink that takes nothing more: %v", err)
	}
}
