package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"davit.dev/davit/internal/point"
)

// Object names one namespaced object that a capture holds, or would hold.
type Object struct{ Resource, Namespace, Name string } // Resource is resource.group

// Held is what a capture would hold now.
type Held struct {
	Namespaces []string
	// Deleting are namespaces that patterns or labels choose and that are on their
	// way out, sorted: nothing of them is held.
	Deleting []string
	// Volumes are the claims whose data would be captured, Empty those that
	// would be captured without.
	Volumes []Claim
	Empty   []string
	// Objects are all namespaced objects; only if asked for.
	Objects  []Object
	Warnings []point.Warning
}

// Look says what a capture of the spec would hold, and why there could be none.
// It reads the cluster and changes nothing; volumes are not planned. With
// objects it reads all of them.
func Look(ctx context.Context, spec Spec, cluster Cluster, objects bool, opts Options) (*Held, error) {
	names := &nameSink{}
	r := newRun(spec, Ports{Cluster: cluster, Sink: names}, opts.withDefaults())
	r.looking = true
	var err error
	if r.catalog, err = cluster.Catalog(ctx); err != nil {
		return nil, fmt.Errorf("discover kinds: %w", err)
	}
	if err := r.checkNamespaces(ctx); err != nil {
		return nil, err
	}
	if err := r.findNeededClaims(ctx); err != nil {
		return nil, err
	}
	held := &Held{Namespaces: r.spec.Namespaces}
	if held.Volumes, err = r.claims(ctx, ""); err != nil {
		return nil, err
	}
	held.Empty = r.left.sorted()
	if objects {
		if err := r.objects(ctx); err != nil {
			return nil, err
		}
		held.Namespaces, held.Objects = r.res.Namespaces, names.all
	}
	held.Deleting = r.going.sorted()
	held.Warnings = slices.Clone(r.res.Warnings)
	return held, nil
}

// nameSink keeps the names of what is written into it.
type nameSink struct {
	mu  sync.Mutex
	all []Object
}

// Resource implements Sink.
func (s *nameSink) Resource(res point.Resource) ObjectWriter { return &nameWriter{sink: s, res: res} }

type nameWriter struct {
	sink *nameSink
	res  point.Resource
}

// Add implements ObjectWriter.
func (w *nameWriter) Add(_ context.Context, object []byte) error {
	if !w.res.Namespaced {
		return nil
	}
	var o struct {
		Metadata struct{ Namespace, Name string }
	}
	if err := json.Unmarshal(object, &o); err != nil {
		return fmt.Errorf("read name: %w", err)
	}
	kind := Kind{Group: w.res.Group, Resource: w.res.Resource}
	w.sink.mu.Lock()
	defer w.sink.mu.Unlock()
	w.sink.all = append(w.sink.all, Object{kind.Name(), o.Metadata.Namespace, o.Metadata.Name})
	return nil
}

// Close implements ObjectWriter.
func (w *nameWriter) Close(context.Context) (point.Resource, error) { return w.res, nil }
