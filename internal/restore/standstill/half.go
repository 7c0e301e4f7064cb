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
	claims map[string]map[string]bool // by namespace and name; whether the restore fills it
}

// NewEmpty knows of none.
func NewEmpty() *Empty { return &Empty{claims: map[string]map[string]bool{}} }

// Mark says that the restore fills a claim, and has not yet.
func (e *Empty) Mark(namespace, claim string) { e.add(namespace, claim, true) }

func (e *Empty) add(namespace, claim string, own bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.claims[namespace] == nil {
		e.claims[namespace] = map[string]bool{}
	}
	e.claims[namespace][claim] = own || e.claims[namespace][claim]
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
		maps.DeleteFunc(e.claims[namespace], func(_ string, own bool) bool { return !own })
		e.mu.Unlock()
		for claim := range half {
			e.add(namespace, claim, false)
		}
	}
	return nil
}

// In names the claims of a namespace that are not whole, sorted; with others also those
// that the restore does not fill.
func (e *Empty) In(namespace string, others bool) (names []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for claim, own := range e.claims[namespace] {
		if own || others {
			names = append(names, claim)
		}
	}
	slices.Sort(names)
	return names
}

// MountedBy is a claim that is not whole and that pods of the object mount, or nothing.
func (e *Empty) MountedBy(kind schema.GroupKind, u *unstructured.Unstructured, others bool) string {
	for _, claim := range e.In(u.GetNamespace(), others) {
		if shape.Mounts(kind, u.Object, claim) {
			return claim
		}
	}
	return ""
}
