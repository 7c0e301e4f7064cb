package source

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"davit.dev/davit/api/v1alpha1"
)

// goneAfter is how long what only one node can delete has to have waited for it before it
// is let go of: a node that was taken out of the cluster for a moment comes back under its
// name, and takes its own snapshots away itself. As long waits what only a provisioner takes its mark off.
const goneAfter = 15 * time.Minute

// noFinalizers takes all finalizers off an object that is as it was seen.
func noFinalizers(o metav1.Object) []byte {
	return fmt.Appendf(nil, `{"metadata":{"uid":%q,"resourceVersion":%q,"finalizers":null}}`, o.GetUID(), o.GetResourceVersion())
}

// sweepGone lets go of what captures left on the disks of nodes that are no nodes of the
// cluster any more. The driver of such a volume deletes on its own node alone, so that the
// objects would wait for ever, and with them the namespace in which the cut was made. The
// data went with the node, or stays on its disks; what the cluster knows of it goes.
func (v *Volumes) sweepGone(ctx context.Context) error {
	kinds := []schema.GroupVersionResource{contents}
	groups, served, err := v.groupResource("volumegroupsnapshotcontents")
	if err != nil {
		return err
	}
	if served {
		kinds = append(kinds, groups)
	}
	var errs []error
	for _, kind := range kinds {
		list, err := v.system.Dynamic.Resource(kind).List(ctx, metav1.ListOptions{LabelSelector: managedByNode})
		if gone(err) != nil {
			return fmt.Errorf("list %s: %w", kind.Resource, err)
		}
		if list == nil {
			continue // the kind is not served
		}
		waits := slices.DeleteFunc(list.Items, func(o unstructured.Unstructured) bool { return !v.waitsTooLong(&o) })
		errs = append(errs, v.letAllGo(ctx, kind, waits))
	}
	return errors.Join(errs...)
}

// letAllGo lets go of those that are of captures and on nodes that are gone.
func (v *Volumes) letAllGo(ctx context.Context, kind schema.GroupVersionResource, waits []unstructured.Unstructured) error {
	if len(waits) == 0 {
		return nil
	}
	nodes, err := v.app.Kubernetes.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	var errs []error
	for i := range waits {
		o := &waits[i]
		node := o.GetLabels()[managedByNode]
		if slices.ContainsFunc(nodes.Items, func(n corev1.Node) bool { return n.Name == node }) {
			continue // or it is back
		}
		ours, err := v.ownContent(ctx, o)
		if err == nil && ours {
			err = v.letGo(ctx, kind, o, node)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// waitsTooLong tells whether an object's deletion has waited for long.
func (v *Volumes) waitsTooLong(o metav1.Object) bool {
	asked := o.GetDeletionTimestamp()
	return asked != nil && v.opts.Now().Sub(asked.Time) >= goneAfter
}

// ownContent tells whether a snapshot content is of a capture: made by Davit, or by the
// snapshot controller for a snapshot that Davit made; of one that is gone, its name tells.
func (v *Volumes) ownContent(ctx context.Context, content *unstructured.Unstructured) (bool, error) {
	if ofCapture(content) {
		return true, nil
	}
	ns, _, _ := unstructured.NestedString(content.Object, "spec", "volumeSnapshotRef", "namespace")
	name, _, _ := unstructured.NestedString(content.Object, "spec", "volumeSnapshotRef", "name")
	uid, _, _ := unstructured.NestedString(content.Object, "spec", "volumeSnapshotRef", "uid")
	if name == "" { // a group's, and those that Davit makes are marked
		return false, nil
	}
	snap, err := v.app.Dynamic.Resource(snapshots).Namespace(ns).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return ownName.MatchString(name), nil
	}
	if err != nil {
		return false, fmt.Errorf("get snapshot %s/%s: %w", ns, name, err)
	}
	return ofCapture(snap) && string(snap.GetUID()) == uid, nil
}

// ownName is how name names what is made for captures.
var ownName = regexp.MustCompile(`^davit-[0-9a-f]{20}$`)

func ofCapture(o metav1.Object) bool {
	labels := o.GetLabels()
	return labels[v1alpha1.LabelManagedBy] == managedBy && (labels[v1alpha1.LabelPoint] != "" || labels[LabelBaseOf] != "")
}

// letGo has a content go without its node, and first the volumes that were made of it
// there: once the content is gone, nothing tells any more on whose disks they were.
func (v *Volumes) letGo(ctx context.Context, kind schema.GroupVersionResource, content *unstructured.Unstructured, node string) error {
	name, _, _ := unstructured.NestedString(content.Object, "spec", "volumeSnapshotRef", "name")
	free, err := v.letVolumesGo(ctx, []string{name, secondClaim(name)}, node)
	if err != nil || !free {
		return err
	}
	_, err = v.system.Dynamic.Resource(kind).Patch(ctx, content.GetName(), types.MergePatchType, noFinalizers(content), metav1.PatchOptions{})
	if apierrors.IsConflict(err) {
		return nil // somebody is at work on it: the next sweep looks at what came of that
	}
	if gone(err) != nil {
		return fmt.Errorf("let go of snapshot content %s, which is on node %s that is gone: %w", content.GetName(), node, err)
	}
	v.log.Warn("let go of a snapshot on a node that is gone", "content", content.GetName(), "node", node)
	return nil
}

// sourceProtection is what external-provisioner puts on a snapshot while it makes a volume of it.
const sourceProtection = "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection"

// letForgottenGo lets go of a snapshot of a capture whose deletion waits for nothing but a provisioner that is done with it.
// That takes its mark off once, and does not try again where the snapshot was changed meanwhile (removeSnapshotFinalizer of
// external-provisioner 6.3): the snapshot would stay for ever, and with it the namespace that it is in.
func (v *Volumes) letForgottenGo(ctx context.Context, snap *unstructured.Unstructured) error {
	if f := snap.GetFinalizers(); !v.waitsTooLong(snap) || !ofCapture(snap) || len(f) != 1 || f[0] != sourceProtection {
		return nil
	}
	claims, err := v.app.Kubernetes.CoreV1().PersistentVolumeClaims(snap.GetNamespace()).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("look who makes a volume of snapshot %s/%s: %w", snap.GetNamespace(), snap.GetName(), err)
	}
	for i := range claims.Items {
		c := &claims.Items[i]
		if of := c.Spec.DataSource; of != nil && of.Name == snap.GetName() && c.Status.Phase != corev1.ClaimBound {
			return nil // it is being made
		}
	}
	_, err = v.app.Dynamic.Resource(snapshots).Namespace(snap.GetNamespace()).Patch(ctx, snap.GetName(), types.MergePatchType, noFinalizers(snap), metav1.PatchOptions{})
	if apierrors.IsConflict(err) {
		return nil // as with a content
	}
	if gone(err) != nil {
		return fmt.Errorf("let go of snapshot %s/%s, which its provisioner has forgotten: %w", snap.GetNamespace(), snap.GetName(), err)
	}
	v.log.Warn("let go of a snapshot that its provisioner had forgotten", "namespace", snap.GetNamespace(), "snapshot", snap.GetName())
	return nil
}

// letVolumesGo has the volumes of scratch claims go that are on the disks of a node alone.
// free says that none stays: one whose claim is there still goes after that, and is found by its content.
func (v *Volumes) letVolumesGo(ctx context.Context, claims []string, node string) (free bool, err error) {
	api := v.system.Kubernetes.CoreV1().PersistentVolumes()
	list, err := api.List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, fmt.Errorf("list volumes: %w", err)
	}
	free = true
	for i := range list.Items {
		pv := &list.Items[i]
		by := pv.Spec.ClaimRef
		if by == nil || chosen(pv) || by.Namespace != v1alpha1.SystemNamespace || !slices.Contains(claims, by.Name) {
			continue
		}
		if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil ||
			!ownDisks(pv.Spec.NodeAffinity.Required, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}) {
			continue
		}
		if pv.Status.Phase == corev1.VolumeBound {
			free = false
			continue
		}
		err := api.Delete(ctx, pv.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pv.UID, ResourceVersion: &pv.ResourceVersion}})
		if err == nil {
			_, err = api.Patch(ctx, pv.Name, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"uid":%q,"finalizers":null}}`, pv.UID), metav1.PatchOptions{})
		}
		if apierrors.IsConflict(err) {
			free = false // as with the content
			continue
		}
		if gone(err) != nil {
			return false, fmt.Errorf("let go of volume %s, which is on node %s that is gone: %w", pv.Name, node, err)
		}
		v.log.Warn("let go of a scratch volume on a node that is gone", "volume", pv.Name, "node", node)
	}
	return free, nil
}
