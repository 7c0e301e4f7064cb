package standstill

import (
	"context"
	"maps"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/served"
	"davit.dev/davit/internal/restore/shape"
)

// HalfFilled are the claims of a namespace that a restore fills, or had filled in
// part when it ended, by name, with the restore's id. Whoever may not list claims
// hears of none.
func HalfFilled(ctx context.Context, c port.Cluster, namespace string) (map[string]string, error) {
	at, err := served.First(ctx, c, shape.KindClaim)
	if err != nil {
		return nil, err
	}
	half := map[string]string{}
	err = c.List(ctx, at, namespace, shape.LabelRestore, func(u *unstructured.Unstructured) error {
		if u.GetAnnotations()[shape.AnnotationFilledFrom] == "" {
			half[u.GetName()] = u.GetLabels()[shape.LabelRestore]
		}
		return nil
	})
	if apierrors.IsForbidden(err) {
		err = nil
	}
	return half, err
}

// Empty are the claims at a target that are not whole, by what one restore knows:
// nothing that mounts them is to run.
type Empty struct {
	mu     sync.Mutex
	claims map[string]map[string]string // by namespace and name: which other restore fills it; empty: this one
}

// NewEmpty knows of none.
func NewEmpty() *Empty { return &Empty{claims: map[string]map[string]string{}} }

// Mark says that the restore fills a claim, and has not yet.
func (e *Empty) Mark(namespace, claim string) { e.add(namespace, claim, "") }

func (e *Empty) add(namespace, claim, other string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.claims[namespace] == nil {
		e.claims[namespace] = map[string]string{}
	}
	if by, known := e.claims[namespace][claim]; known && by == "" {
		return
	}
	e.claims[namespace][claim] = other
}

// Whole says that a claim is filled.
func (e *Empty) Whole(namespace, claim string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.claims[namespace], claim)
}

// Others looks which claims are half filled now, of which the restore fills none that
// is not marked.
func (e *Empty) Others(ctx context.Context, c port.Cluster, namespaces ...string) error {
	for _, namespace := range namespaces {
		half, err := HalfFilled(ctx, c, namespace)
		if err != nil {
			return err
		}
		e.mu.Lock()
		maps.DeleteFunc(e.claims[namespace], func(_, other string) bool { return other != "" })
		e.mu.Unlock()
		for claim, by := range half {
			e.add(namespace, claim, by)
		}
	}
	return nil
}

// In names the claims of a namespace that are not whole, sorted; with others also those
// that the restore does not fill.
func (e *Empty) In(namespace string, others bool) (names []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for claim, other := range e.claims[namespace] {
		if other == "" || others {
			names = append(names, claim)
		}
	}
	slices.Sort(names)
	return names
}

// MountedBy says why no pod of the object may run: one mounts a claim that is not whole, or would, as
// a StatefulSet may have more replicas at any time; and what a person can do. Nothing: none does.
func (e *Empty) MountedBy(kind schema.GroupKind, u *unstructured.Unstructured, others bool) string {
	namespace, mounts := u.GetNamespace(), "it mounts claim "
	if kind == shape.KindStatefulSet {
		mounts = "it mounts, or would with more replicas, claim "
	}
	for _, claim := range e.In(namespace, others) {
		if !shape.Mounts(kind, u.Object, claim) {
			continue
		}
		e.mu.Lock()
		by := e.claims[namespace][claim]
		e.mu.Unlock()
		if by == "" {
			return mounts + claim + ", which is not filled: solve that and restore again"
		}
		return mounts + claim + ", which restore " + by + " has not filled: restore again when that is through; if it died, give it again, or delete the claim if nobody wants its data; " +
			"if it was filled by other means, take label " + shape.LabelRestore + " off it"
	}
	return ""
}
