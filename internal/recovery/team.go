package recovery

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/restore"
)

// onlooker is the target of a team's restore: what of the cluster as a whole
// the team may not look at, such as storage classes, is looked at with Davit's
// own rights. Nothing is written with them.
type onlooker struct {
	restore.Cluster
	own restore.Cluster
}

// cluster is where the restore acts.
func (r *recovery) cluster() restore.Cluster {
	if !r.opts.Team || r.deps.Own == nil {
		return r.deps.Cluster
	}
	return onlooker{r.deps.Cluster, r.deps.Own}
}

// Get implements restore.Cluster.
func (o onlooker) Get(ctx context.Context, at restore.Served, namespace, name string) (*unstructured.Unstructured, error) {
	got, err := o.Cluster.Get(ctx, at, namespace, name)
	if !at.Namespaced && apierrors.IsForbidden(err) {
		return o.own.Get(ctx, at, namespace, name)
	}
	return got, err
}

// List implements restore.Cluster.
func (o onlooker) List(ctx context.Context, at restore.Served, namespace, selector string, fn func(*unstructured.Unstructured) error) error {
	err := o.Cluster.List(ctx, at, namespace, selector, fn)
	if !at.Namespaced && apierrors.IsForbidden(err) {
		return o.own.List(ctx, at, namespace, selector, fn)
	}
	return err
}
