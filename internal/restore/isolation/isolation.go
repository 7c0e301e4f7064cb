// Package isolation keeps a copy of an application to itself and off volumes
// that exist, and remembers what the copy lacks for that.
package isolation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/obstacle"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/reason"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/shape"
)

// Marks keep a copy to itself: its namespaces are marked, the restore's
// lease is in one of them, and nothing comes along that reaches out of them or
// is cluster-scoped. See shape.Isolate.
type Marks struct {
	// Home is the namespace that is made first, and holds the lease.
	Home string
	// Labels and Annotations go onto every namespace as it is made.
	Labels, Annotations map[string]string
}

// Mark puts the marks onto a namespace's document.
func (m *Marks) Mark(d shape.Document) {
	if m == nil {
		return
	}
	meta := shape.Child(d, "metadata")
	for field, values := range map[string]map[string]string{"labels": m.Labels, "annotations": m.Annotations} {
		into, ok := meta[field].(map[string]any)
		if !ok {
			into = map[string]any{}
			meta[field] = into
		}
		for key, value := range values {
			into[key] = value
		}
	}
}

// Guard keeps an isolated copy off volumes that exist. A claim whose class
// makes no volumes binds to one that is there, and the copy would write over it.
type Guard struct {
	mapping     map[string]string
	provisioner map[string]string // by class, at the target
	standard    string            // the default class

	mu      sync.Mutex
	refused error
	left    []report.Problem
}

// New reads the target's classes; mapping is the restore's own.
func New(ctx context.Context, cluster port.Cluster, mapping map[string]string) (*Guard, error) {
	have, standard, err := obstacle.Finder{Cluster: cluster}.LiveClasses(ctx)
	if err != nil && !errors.Is(err, port.ErrNotServed) {
		return nil, fmt.Errorf("look for storage classes: %w", err)
	}
	return &Guard{mapping: mapping, provisioner: have, standard: standard}, nil
}

// Unfit is asked about the bodies of inspected objects: it says why one cannot
// be in a copy, or nothing. A nil Guard asks about none.
func (g *Guard) Unfit() func(schema.GroupKind, shape.Document) string {
	if g == nil {
		return nil
	}
	return func(kind schema.GroupKind, d shape.Document) string {
		if why := shape.UnfitForCopy(kind, d); why != "" {
			g.leave(kind, d, why)
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

func (g *Guard) bindsToExisting(spec shape.Document) string {
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

// leave remembers a claim, or a workload that would have had pods. What a
// controller of the point makes again is told by its controller.
func (g *Guard) leave(kind schema.GroupKind, d shape.Document, why string) {
	if kind != shape.KindClaim && (!slices.Contains(reason.WaitedFor, kind) || shape.Wanted(kind, d) == 0 || shape.Followed(d)) {
		return
	}
	name := fmt.Sprintf("%s %s/%s", kind, shape.Text(d, "metadata", "namespace"), shape.Text(d, "metadata", "name"))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = append(g.left, report.Problem{Object: name, Message: why})
}

// Left is what a copy lacks because it is unfit for one, by its captured name.
func (g *Guard) Left() []report.Problem {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	left := slices.Clone(g.left)
	slices.SortFunc(left, func(a, b report.Problem) int { return cmp.Compare(a.Object, b.Object) })
	return left
}

// Refusal is why no copy can be made at all, or nil.
func (g *Guard) Refusal() error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused
}
