package obstacle

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/restore/served"
	"davit.dev/davit/internal/restore/shape"
)

// neighbours warns of a StatefulSet some of whose claims come with the point, as of one
// pod that was captured by itself, and others are nowhere: its controller makes all its
// pods, and those begin with empty volumes beside one that has data. A set none of whose
// claims come was meant to begin anew.
func (f Finder) neighbours(ctx context.Context, o Object) ([]report.Finding, error) {
	templates := shape.Items(o.Obj.Object, "spec", "volumeClaimTemplates")
	if f.Brings == nil || len(templates) == 0 {
		return nil, nil
	}
	at, err := served.First(ctx, f.Cluster, shape.KindClaim)
	if err != nil {
		return nil, err
	}
	replicas, set := shape.Number(o.Obj.Object, "spec", "replicas")
	if !set {
		replicas = 1
	}
	first, _ := shape.Number(o.Obj.Object, "spec", "ordinals", "start")
	var come, empty []string
	for n := first; n < first+replicas; n++ {
		pod := fmt.Sprint(o.Obj.GetName(), "-", n)
		brought, missing := 0, false
		for _, t := range templates {
			claim := shape.Text(t, "metadata", "name") + "-" + pod
			if f.Brings(shape.KindClaim, o.Obj.GetNamespace(), claim) {
				brought++
				continue
			}
			_, err := f.Cluster.Get(ctx, at, o.Obj.GetNamespace(), claim)
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
				return nil, fmt.Errorf("look for claim %s: %w", claim, err)
			}
			missing = missing || apierrors.IsNotFound(err)
		}
		switch {
		case missing:
			empty = append(empty, pod)
		case brought > 0:
			come = append(come, pod)
		}
	}
	if len(come) == 0 || len(empty) == 0 {
		return nil, nil
	}
	return []report.Finding{beware("EmptyNeighbours",
		"restore a point that has them all, or their own first; or see that they do not take the empty volume for the truth",
		"%s is made with all its pods, and the point has volumes of %s alone: %s would begin with empty ones",
		o.Name, shape.Names(come, 3), shape.Names(empty, 3))}, nil
}
