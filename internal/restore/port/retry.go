package port

import (
	"cmp"
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/answer"
)

// Retry tries calls of the cluster again that failed for a reason that may
// pass; see package answer for which, and how often.
func Retry(c Cluster, clock Clock) Cluster { return &retrying{Cluster: c, clock: clock} }

// retrying tries calls again that failed for a reason that may pass: a busy or
// restarting API server, a lost connection, a write conflict.
type retrying struct {
	Cluster
	clock Clock
}

// Get implements Cluster.
func (r *retrying) Get(ctx context.Context, at Served, namespace, name string) (*unstructured.Unstructured, error) {
	return answer.Again(ctx, r.clock, func() (*unstructured.Unstructured, error) {
		return r.Cluster.Get(ctx, at, namespace, name)
	})
}

// Create implements Cluster. A try whose answer was lost may have succeeded;
// the next one then says AlreadyExists, and the caller looks at what is there.
func (r *retrying) Create(ctx context.Context, at Served, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return answer.Again(ctx, r.clock, func() (*unstructured.Unstructured, error) {
		return r.Cluster.Create(ctx, at, obj)
	})
}

// Update implements Cluster. Conflicts are the caller's.
func (r *retrying) Update(ctx context.Context, at Served, obj *unstructured.Unstructured, sub string) (*unstructured.Unstructured, error) {
	return answer.Again(ctx, r.clock, func() (*unstructured.Unstructured, error) {
		return r.Cluster.Update(ctx, at, obj, sub)
	})
}

// Apply implements Cluster.
func (r *retrying) Apply(ctx context.Context, at Served, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return answer.Again(ctx, r.clock, func() (*unstructured.Unstructured, error) {
		return r.Cluster.Apply(ctx, at, obj)
	})
}

// Patch implements Cluster.
func (r *retrying) Patch(ctx context.Context, at Served, namespace, name string, patch []byte) (*unstructured.Unstructured, error) {
	return answer.Again(ctx, r.clock, func() (*unstructured.Unstructured, error) {
		return r.Cluster.Patch(ctx, at, namespace, name, patch)
	})
}

// Delete implements Cluster. A try whose answer was lost may have succeeded:
// what is not there any more is deleted.
func (r *retrying) Delete(ctx context.Context, at Served, obj *unstructured.Unstructured, orphan bool) error {
	_, err := answer.Again(ctx, r.clock, func() (struct{}, error) {
		return struct{}{}, r.Cluster.Delete(ctx, at, obj, orphan)
	})
	return err
}

// List implements Cluster. One that broke off after something was handed on is the
// caller's to begin again.
func (r *retrying) List(ctx context.Context, at Served, namespace, selector string, fn func(*unstructured.Unstructured) error) error {
	var broken error
	_, err := answer.Again(ctx, r.clock, func() (struct{}, error) {
		begun := false
		err := r.Cluster.List(ctx, at, namespace, selector, func(u *unstructured.Unstructured) error {
			begun = true
			return fn(u)
		})
		if begun {
			broken, err = err, nil
		}
		return struct{}{}, err
	})
	return cmp.Or(broken, err)
}

// Serves implements Cluster.
func (r *retrying) Serves(ctx context.Context, kind schema.GroupKind) ([]Served, error) {
	return answer.Again(ctx, r.clock, func() ([]Served, error) { return r.Cluster.Serves(ctx, kind) })
}

// May implements Cluster.
func (r *retrying) May(ctx context.Context, verb string, at Served, namespace string) (bool, string, error) {
	type verdict struct {
		ok     bool
		reason string
	}
	got, err := answer.Again(ctx, r.clock, func() (verdict, error) {
		ok, reason, err := r.Cluster.May(ctx, verb, at, namespace)
		return verdict{ok, reason}, err
	})
	return got.ok, got.reason, err
}
