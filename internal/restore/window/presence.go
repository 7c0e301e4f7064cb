package window

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/port"
)

// Presence guesses whether objects are at the target already.
type Presence struct {
	cluster port.Cluster

	mu     sync.Mutex
	there  map[kindIn]bool // whether the last object of this kind here was
	quotas map[string]bool // whether namespaces have any
}

type kindIn struct {
	kind      schema.GroupKind
	namespace string
}

// NewPresence begins without knowing anything.
func NewPresence(cluster port.Cluster) *Presence {
	return &Presence{cluster: cluster, there: map[kindIn]bool{}, quotas: map[string]bool{}}
}

// Note remembers whether an object was there.
func (p *Presence) Note(at port.Served, namespace string, there bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.there[kindIn{at.GVK.GroupKind(), namespace}] = there
}

// Expects tells whether an object is to be looked for before it is made: where
// it is likely to be there, and in namespaces with quotas. These count what is
// refused because it exists, until their controller counts anew, minutes later.
// Nothing was in a namespace that is fresh.
func (p *Presence) Expects(ctx context.Context, at port.Served, namespace string, fresh bool) bool {
	p.mu.Lock()
	there, known := p.there[kindIn{at.GVK.GroupKind(), namespace}]
	p.mu.Unlock()
	if namespace == "" || fresh {
		return there
	}
	return there || !known || p.counted(ctx, namespace)
}

// counted tells whether a namespace has quotas, as far as it can be known.
func (p *Presence) counted(ctx context.Context, namespace string) bool {
	p.mu.Lock()
	yes, known := p.quotas[namespace]
	p.mu.Unlock()
	if known {
		return yes
	}
	if served, err := p.cluster.Serves(ctx, schema.GroupKind{Kind: "ResourceQuota"}); err == nil {
		_ = p.cluster.List(ctx, served[0], namespace, "", func(*unstructured.Unstructured) error { yes = true; return nil })
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.quotas[namespace] = yes
	return yes
}
