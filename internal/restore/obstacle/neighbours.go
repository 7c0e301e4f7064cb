package obstacle

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"davit.dev/davit/internal/restore/port"
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
	var come, others []string // pods
	for n := first; n < first+replicas; n++ {
		pod := fmt.Sprint(o.Obj.GetName(), "-", n)
		if slices.ContainsFunc(templates, func(t map[string]any) bool { return !f.Brings(shape.KindClaim, o.Obj.GetNamespace(), claimOf(t, pod)) }) {
			others = append(others, pod)
		} else {
			come = append(come, pod)
		}
	}
	if len(come) == 0 {
		return nil, nil
	}
	var empty []string
	for _, pod := range others {
		lacks, err := f.lacks(ctx, at, o.Obj.GetNamespace(), pod, templates)
		if err != nil {
			return nil, err
		}
		if lacks {
			empty = append(empty, pod)
		}
	}
	if len(empty) == 0 {
		return nil, nil
	}
	return []report.Finding{beware("EmptyNeighbours",
		"restore a point that has them all, or their own first; or see that they do not take the empty volume for the truth",
		"%s is made with all its pods, and the point has volumes of %s alone: %s would begin with empty ones",
		o.Name, shape.Names(come, 3), shape.Names(empty, 3))}, nil
}

// lacks tells whether neither the point nor the target has one of a pod's claims.
func (f Finder) lacks(ctx context.Context, at port.Served, namespace, pod string, templates []map[string]any) (bool, error) {
	for _, t := range templates {
		claim := claimOf(t, pod)
		if f.Brings(shape.KindClaim, namespace, claim) {
			continue
		}
		_, err := f.Cluster.Get(ctx, at, namespace, claim)
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		if err != nil && !apierrors.IsForbidden(err) {
			return false, fmt.Errorf("look for claim %s: %w", claim, err)
		}
	}
	return false, nil
}

// claimOf names the claim that a StatefulSet's controller makes of a template for a pod.
func claimOf(template map[string]any, pod string) string {
	return shape.Text(template, "metadata", "name") + "-" + pod
}
