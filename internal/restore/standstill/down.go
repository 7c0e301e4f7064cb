package standstill

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

// Down has a StatefulSet that is left beside what a point has run nothing, and nothing
// start it again: with the data of another time it would answer for the application. Of
// other kinds it leaves all as it is.
func Down(ctx context.Context, c port.Cluster, at port.Served, live *unstructured.Unstructured) error {
	if at.GVK.GroupKind() != shape.KindStatefulSet {
		return nil
	}
	for range answer.Attempts {
		obj := live.DeepCopy()
		if !shape.Rest(obj.Object) {
			return nil
		}
		_, err := c.Update(ctx, at, obj, "")
		if !apierrors.IsConflict(err) {
			return err
		}
		if live, err = c.Get(ctx, at, obj.GetNamespace(), obj.GetName()); err != nil {
			return err
		}
	}
	return errors.New("it changes faster than it can be scaled down: restore again")
}
