package reason

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

// Laggard is a workload that is not ready, and why.
type Laggard struct{ Object, Why string }

// WaitedFor are the kinds whose readiness is waited for.
var WaitedFor = []schema.GroupKind{shape.KindStatefulSet, shape.KindDeployment, shape.KindDaemonSet, shape.KindReplicaSet, shape.KindController, shape.KindPod}

// Watch looks after the workloads of one restore.
type Watch struct {
	Finder
	ID         string // of the restore
	Kinds      []schema.GroupKind
	Namespaces []string
	Started    []*unstructured.Unstructured // again, and not all of the restore's own
}

// Laggards are the workloads that are not ready yet. Why is filled in when
// they are to be explained. running counts the restore's own that have pods
// which are ready.
func (w Watch) Laggards(ctx context.Context, explain bool) (lag []Laggard, running int64, err error) {
	add := func(at port.Served, u *unstructured.Unstructured) {
		l := Laggard{Object: at.GVK.GroupKind().String() + " " + u.GetNamespace() + "/" + u.GetName()}
		if explain {
			l.Why = w.Workload(ctx, at.GVK.GroupKind(), u)
		}
		lag = append(lag, l)
	}
	for _, kind := range WaitedFor {
		if !slices.Contains(w.Kinds, kind) {
			continue
		}
		served, err := w.Cluster.Serves(ctx, kind)
		if err != nil {
			return nil, 0, err
		}
		for _, namespace := range w.Namespaces {
			err := w.Cluster.List(ctx, served[0], namespace, shape.LabelRestore+"="+w.ID, func(u *unstructured.Unstructured) error {
				if shape.Running(kind, u.Object) {
					running++
				}
				if !shape.Ready(kind, u.Object) {
					add(served[0], u)
				}
				return nil
			})
			if err != nil {
				return nil, 0, fmt.Errorf("look for workloads: %w", err)
			}
		}
	}
	for _, u := range w.Started {
		kind := u.GroupVersionKind().GroupKind()
		if !slices.Contains(WaitedFor, kind) {
			continue
		}
		served, err := w.Cluster.Serves(ctx, kind)
		if err != nil {
			return nil, 0, err
		}
		live, err := w.Cluster.Get(ctx, served[0], u.GetNamespace(), u.GetName())
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return nil, 0, fmt.Errorf("look for workloads: %w", err)
		case !shape.Ready(kind, live.Object) && live.GetLabels()[shape.LabelRestore] != w.ID:
			add(served[0], live)
		}
	}
	return lag, running, nil
}

// WaitingFor says in a few words whom a restore waits for.
func WaitingFor(lag []Laggard) string {
	names := make([]string, 0, len(lag))
	for _, l := range lag {
		names = append(names, l.Object)
	}
	return "waiting for " + shape.Names(names, 4)
}
