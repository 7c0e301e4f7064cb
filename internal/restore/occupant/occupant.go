// Package occupant finds what would run on a volume while it is being filled.
package occupant

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/served"
	"davit.dev/davit/internal/restore/shape"
)

// Kinds are those that could start pods on a claim by themselves.
var Kinds = []schema.GroupKind{shape.KindPod, shape.KindStatefulSet, shape.KindDeployment, shape.KindDaemonSet, shape.KindReplicaSet, shape.KindJob, shape.KindCronJob, shape.KindController}

// InUse says what would run on a volume.
type InUse struct{ by string }

// Error implements error.
func (u InUse) Error() string {
	return u.by + " exists and would run on the volume while it is being filled: scale it to zero or delete it, and restore again; or have it stopped and started with --existing-kind persistentvolumeclaims=replace"
}

// Wrote says that something may have written to a claim since an earlier try of the same restore
// rolled it back, as it uses it; empty where nothing does, or nobody can tell.
func Wrote(ctx context.Context, c port.Cluster, namespace, claim string) string {
	var used InUse
	if !errors.As(None(ctx, c, namespace, claim), &used) {
		return ""
	}
	return "an earlier try of this restore, which did not end whole, rolled it back; " + used.by + " uses it and may have written to it since, and that stays: to have it rolled back again, give --again (again)"
}

// None refuses with InUse a claim that something in the cluster mounts, or would
// mount. All kinds are asked for at once: no data waits for eight answers, one
// after the other.
func None(ctx context.Context, c port.Cluster, namespace, claim string) error {
	errs := make([]error, len(Kinds))
	var asked sync.WaitGroup
	for i, kind := range Kinds {
		asked.Go(func() { errs[i] = noneOf(ctx, c, kind, namespace, claim) })
	}
	asked.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func noneOf(ctx context.Context, c port.Cluster, kind schema.GroupKind, namespace, claim string) error {
	at, err := served.First(ctx, c, kind)
	if errors.Is(err, port.ErrNotServed) {
		return nil
	}
	if err != nil {
		return err
	}
	var by string
	err = c.List(ctx, at, namespace, "", func(u *unstructured.Unstructured) error {
		if by == "" && shape.Active(kind, u) && shape.Mounts(kind, u.Object, claim) {
			by = kind.String() + " " + namespace + "/" + u.GetName()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look who uses claim %s/%s: %w", namespace, claim, err)
	}
	if by != "" {
		return InUse{by}
	}
	return nil
}
