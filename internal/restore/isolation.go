package restore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/obstacle"
	"davit.dev/davit/internal/restore/shape"
)

// copyGuard keeps an isolated copy off volumes that exist. A claim whose class
// makes no volumes binds to one that is there, and the copy would write over it.
type copyGuard struct {
	mapping     map[string]string
	provisioner map[string]string // by class, at the target
	standard    string            // the default class

	mu      sync.Mutex
	refused error
}

// guardCopy reads the target's classes; nil without isolation.
func (e *Engine) guardCopy(ctx context.Context) (*copyGuard, error) {
	if e.opts.Isolation == nil {
		return nil, nil
	}
	have, standard, err := obstacle.Finder{Cluster: e.cluster}.LiveClasses(ctx)
	if err != nil && !errors.Is(err, ErrNotServed) {
		return nil, fmt.Errorf("look for storage classes: %w", err)
	}
	return &copyGuard{mapping: e.opts.StorageClassMapping, provisioner: have, standard: standard}, nil
}

// unfit is asked about the bodies of inspected objects.
func (g *copyGuard) unfit() func(schema.GroupKind, shape.Document) string {
	if g == nil {
		return nil
	}
	return func(kind schema.GroupKind, d shape.Document) string {
		if why := shape.UnfitForCopy(kind, d); why != "" {
			return why
		}
		for _, spec := range shape.ClaimSpecs(kind, d) {
			if why := g.bindsToExisting(spec); why != "" {
				g.mu.Lock()
				g.refused = fmt.Errorf("no copy can be made: %s %s/%s: %s", kind.Kind, shape.Text(d, "metadata", "namespace"), shape.Text(d, "metadata", "name"), why)
				g.mu.Unlock()
			}
		}
		return ""
	}
}

func (g *copyGuard) bindsToExisting(spec shape.Document) string {
	class, set := spec["storageClassName"].(string)
	if set && class == "" {
		return "a claim names no storage class, and could bind to a volume that exists"
	}
	if to, mapped := g.mapping[class]; mapped {
		class = to
	}
	if class == "" {
		class = g.standard
	}
	if g.provisioner[class] != "kubernetes.io/no-provisioner" {
		return ""
	}
	return fmt.Sprintf("storage class %s makes no volumes, and a claim of it could bind to one that exists: map it to one that does (storageClassMapping)", class)
}

// refusal is why no copy can be made at all, or nil.
func (g *copyGuard) refusal() error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused
}
