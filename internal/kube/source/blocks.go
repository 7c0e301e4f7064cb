package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
)

// Labels of cuts that are kept for the next capture to be compared with: of which
// application they are, by its name in the vault, and of which point. They have no
// LabelPoint any more, so that no sweep of captures that died takes them.
const (
	LabelBaseOf    = "davit.dev/base-of"
	LabelBasePoint = "davit.dev/base-point"
)

// blocks says what a driver is to be asked of a cut's blocks, or why it cannot be: the cut must
// be readable without being changed, as a file system that has to grow may be, and
// nothing of its files' data may be in its journal.
func (v *Volumes) blocks(ctx context.Context, cut capture.Cut, snap made) (*v1alpha1.VolumeBlocks, error) {
	c := cut.Plan.Claim
	pv, err := v.app.Kubernetes.CoreV1().PersistentVolumes().Get(ctx, c.Volume, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("get persistent volume: %w", err)
	}
	for _, option := range pv.Spec.MountOptions {
		if strings.Contains(option, "data=journal") {
			return nil, fmt.Errorf("volume %s is mounted with %s", pv.Name, option)
		}
	}
	if size := pv.Spec.Capacity.Storage().Value(); size != c.Capacity || snap.size != 0 && snap.size != c.Capacity {
		return nil, fmt.Errorf("the claim has %d bytes, its volume %d and the snapshot %d: it is not done growing, or of no size that its driver can make", c.Capacity, size, snap.size)
	}
	return &v1alpha1.VolumeBlocks{Driver: cut.Plan.Driver, Volume: cut.Plan.Handle, Snapshot: snap.handle, Name: cut.Handle, Capacity: c.Capacity}, nil
}

// keep leaves a cut for the next capture, and removes what it was read by.
func (v *Volumes) keep(ctx context.Context, plan capture.VolumePlan) error {
	id := name(plan)
	errs := []error{
		v.removeClaim(ctx, id), v.removeClaim(ctx, secondClaim(id)),
		gone(v.system.Dynamic.Resource(snapshots).Namespace(v1alpha1.SystemNamespace).Delete(ctx, id, metav1.DeleteOptions{})),
		gone(v.system.Dynamic.Resource(contents).Delete(ctx, id, metav1.DeleteOptions{})),
	}
	label := fmt.Appendf(nil, `{"metadata":{"labels":{%q:null,%q:%q,%q:%q}}}`,
		v1alpha1.LabelPoint, LabelBaseOf, PointLabel(plan.Options.Application), LabelBasePoint, PointLabel(plan.Options.Point))
	snap, err := v.app.Dynamic.Resource(snapshots).Namespace(plan.Claim.Namespace).Patch(ctx, id, types.MergePatchType, label, metav1.PatchOptions{})
	switch {
	case err == nil: // a group that was tried before holds nothing
		errs = append(errs, v.goesWith(ctx, snap), v.releaseGroup(ctx, plan))
	case apierrors.IsNotFound(err) && plan.Group != "": // it was cut with others
		gvr, served, err := v.groupResource("volumegroupsnapshotcontents")
		if err == nil && served {
			_, err = v.system.Dynamic.Resource(gvr).Patch(ctx, groupName(plan), types.MergePatchType, label, metav1.PatchOptions{})
		}
		errs = append(errs, gone(err))
	default:
		errs = append(errs, gone(err))
	}
	return errors.Join(errs...)
}

// LetGo removes what was kept of an application's captures: of the point, or of all
// others.
func (v *Volumes) LetGo(ctx context.Context, application, point string, others bool) error {
	err := v.removeKept(ctx, LabelBaseOf+"="+PointLabel(application), func(o *unstructured.Unstructured) bool {
		return (o.GetLabels()[LabelBasePoint] == PointLabel(point)) != others
	})
	if err != nil {
		return fmt.Errorf("let go of what was kept for the next capture of %s: %w", application, err)
	}
	return nil
}

// SweepKept removes what was kept for captures of applications that keep nothing any
// more, and what is older than most. keeps tells of an application's label.
func (v *Volumes) SweepKept(ctx context.Context, most time.Duration, keeps func(label string) bool) error {
	err := v.removeKept(ctx, LabelBaseOf, func(o *unstructured.Unstructured) bool {
		return !keeps(o.GetLabels()[LabelBaseOf]) || v.opts.Now().Sub(o.GetCreationTimestamp().Time) > most
	})
	if err != nil {
		return fmt.Errorf("sweep what was kept for the next capture: %w", err)
	}
	return nil
}

func (v *Volumes) removeKept(ctx context.Context, selector string, goes func(*unstructured.Unstructured) bool) error {
	opts := metav1.ListOptions{LabelSelector: v1alpha1.LabelManagedBy + "=" + managedBy + "," + selector}
	var errs []error
	list, err := v.app.Dynamic.Resource(snapshots).List(ctx, opts)
	if gone(err) != nil {
		return err
	}
	if list != nil {
		for i := range list.Items {
			if o := &list.Items[i]; goes(o) {
				errs = append(errs, v.removeSnapshot(ctx, o.GetNamespace(), o.GetName()))
			}
		}
	}
	gvr, served, err := v.groupResource("volumegroupsnapshotcontents")
	if err != nil || !served {
		return errors.Join(append(errs, err)...)
	}
	groups, err := v.system.Dynamic.Resource(gvr).List(ctx, opts)
	if err != nil {
		return errors.Join(append(errs, gone(err))...)
	}
	for i := range groups.Items {
		if o := &groups.Items[i]; goes(o) {
			errs = append(errs, v.removeGroup(ctx, o.GetName()))
		}
	}
	return errors.Join(errs...)
}
