package obstacle

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/served"
	"davit.dev/davit/internal/restore/shape"
)

// Others names workloads and claims of a namespace that a restore did not make.
func (f Finder) Others(ctx context.Context, namespace, id string) ([]string, error) {
	var names []string
	for _, kind := range []schema.GroupKind{shape.KindStatefulSet, shape.KindDeployment, shape.KindDaemonSet, shape.KindCronJob, shape.KindJob, shape.KindPod, shape.KindClaim} {
		at, err := served.First(ctx, f.Cluster, kind)
		if err != nil {
			return nil, err
		}
		err = f.Cluster.List(ctx, at, namespace, "", func(u *unstructured.Unstructured) error {
			labels := u.GetLabels()
			if labels[shape.LabelRestore] != id && labels[shape.LabelManagedBy] == "" && len(u.GetOwnerReferences()) == 0 {
				names = append(names, kind.String()+" "+u.GetName())
			}
			return nil
		})
		if err != nil && !apierrors.IsForbidden(err) {
			return nil, err
		}
	}
	return names, nil
}

// Names are those of a kind's objects in a namespace.
func (f Finder) Names(ctx context.Context, at port.Served, namespace string) (map[string]bool, error) {
	names := map[string]bool{}
	err := f.Cluster.List(ctx, at, namespace, "", func(u *unstructured.Unstructured) error {
		names[u.GetName()] = true
		return nil
	})
	return names, err
}
