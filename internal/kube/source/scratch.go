package source

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube/mover"
)

// scratch makes a second claim of the cut in davit-system, for the mover to
// read: a static content that names the same snapshot and never deletes it, a
// VolumeSnapshot bound to it, and a claim filled from that.
func (v *Volumes) scratch(ctx context.Context, cut capture.Cut, req *mover.Request) error {
	ctx, cancel := context.WithTimeout(ctx, v.opts.ReadyTimeout)
	defer cancel()
	ctx, stop := v.atHome(ctx, cut.Plan.Claim)
	defer stop()
	return because(ctx, v.scratchOf(ctx, cut, req))
}

func (v *Volumes) scratchOf(ctx context.Context, cut capture.Cut, req *mover.Request) error {
	ready := v.readyContent
	if cut.Plan.Method == capture.MethodGroup {
		ready = v.readyMember
	}
	snap, err := ready(ctx, cut)
	if err != nil {
		return err
	}
	if err := v.staticSnapshot(ctx, cut, snap); err != nil {
		return err
	}
	if err := v.scratchClaim(ctx, cut, cut.Handle, snap.size); err != nil {
		return err
	}
	req.Namespace, req.Claim = v1alpha1.SystemNamespace, cut.Handle
	if cut.Plan.Options.ChangedBlocks {
		if req.Blocks, err = v.blocks(ctx, cut, snap); err != nil {
			req.Blocks = &v1alpha1.VolumeBlocks{Driver: cut.Plan.Driver, Refused: err.Error()}
		}
	}
	req.Scheduling, err = v.beside(ctx, cut.Plan.Claim)
	return err
}

// secondClaim is the name of another claim of the same cut.
func secondClaim(handle string) string { return handle + "-again" }

// scratchAgain makes another claim of a cut whose first one is where a lost
// node keeps it. Only its size is taken from there.
func (v *Volumes) scratchAgain(ctx context.Context, cut capture.Cut, req *mover.Request) error {
	api := v.system.Kubernetes.CoreV1().PersistentVolumeClaims(v1alpha1.SystemNamespace)
	first, err := api.Get(ctx, cut.Handle, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get scratch claim: %w", err)
	}
	size := first.Spec.Resources.Requests[corev1.ResourceStorage]
	req.Claim = secondClaim(cut.Handle)
	return v.scratchClaim(ctx, cut, req.Claim, size.Value())
}

// made is a snapshot as the driver made it.
type made struct {
	handle      string            // the driver's name of it
	node        string            // whose snapshotter has it; empty: all nodes' one
	size        int64             // of a volume made of it, at least; 0: as its source
	annotations map[string]string // by which the driver finds its secrets
}

// readyContent waits until the cut can be read and returns what was made.
func (v *Volumes) readyContent(ctx context.Context, cut capture.Cut) (made, error) {
	ns := cut.Plan.Claim.Namespace
	snap, err := awaitObject(ctx, v.app.Dynamic.Resource(snapshots).Namespace(ns), cut.Handle, isReady)
	if err != nil {
		return made{}, fmt.Errorf("wait until VolumeSnapshot %s/%s can be read: %w", ns, cut.Handle, err)
	}
	name, _, _ := unstructured.NestedString(snap.Object, "status", "boundVolumeSnapshotContentName")
	content, err := v.app.Dynamic.Resource(contents).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return made{}, fmt.Errorf("get snapshot content: %w", err)
	}
	out := made{annotations: secretsOf(content), node: content.GetLabels()[managedByNode]}
	out.handle, _, _ = unstructured.NestedString(content.Object, "status", "snapshotHandle")
	out.size, _, _ = unstructured.NestedInt64(content.Object, "status", "restoreSize")
	if out.handle == "" {
		return made{}, fmt.Errorf("snapshot content %s names no snapshot", content.GetName())
	}
	return out, nil
}

func isReady(o *unstructured.Unstructured) bool {
	ready, _, _ := unstructured.NestedBool(o.Object, "status", "readyToUse")
	return ready
}

// staticSnapshot binds the cut's snapshot a second time, in davit-system.
func (v *Volumes) staticSnapshot(ctx context.Context, cut capture.Cut, snap made) error {
	id := cut.Plan.Options.Point
	twin := document("VolumeSnapshotContent", "", cut.Handle, id, map[string]any{
		"deletionPolicy": "Retain", "driver": cut.Plan.Driver,
		"source":                  map[string]any{"snapshotHandle": snap.handle},
		"sourceVolumeMode":        "Filesystem",
		"volumeSnapshotClassName": cut.Plan.Class,
		"volumeSnapshotRef":       map[string]any{"kind": "VolumeSnapshot", "name": cut.Handle, "namespace": v1alpha1.SystemNamespace},
	})
	// The snapshotter reads credentials from these.
	twin.SetAnnotations(snap.annotations)
	ofNode(twin, snap.node)
	if err := create(ctx, v.system.Dynamic.Resource(contents), twin); err != nil {
		return fmt.Errorf("create snapshot content: %w", err)
	}
	api := v.system.Dynamic.Resource(snapshots).Namespace(v1alpha1.SystemNamespace)
	bound := document("VolumeSnapshot", v1alpha1.SystemNamespace, cut.Handle, id, map[string]any{
		"volumeSnapshotClassName": cut.Plan.Class,
		"source":                  map[string]any{"volumeSnapshotContentName": cut.Handle},
	})
	if err := create(ctx, api, bound); err != nil {
		return fmt.Errorf("create snapshot in %s: %w", v1alpha1.SystemNamespace, err)
	}
	if _, err := awaitObject(ctx, api, cut.Handle, isReady); err != nil {
		return fmt.Errorf("wait for snapshot %s/%s: %w", v1alpha1.SystemNamespace, cut.Handle, err)
	}
	return nil
}

// ofNode has the node's own snapshotter take up what is made. A node's name may be
// longer than a label; the snapshot controller cannot label such either.
func ofNode(o *unstructured.Unstructured, node string) {
	if labels := o.GetLabels(); node != "" && len(validation.IsValidLabelValue(node)) == 0 {
		labels[managedByNode] = node
		o.SetLabels(labels)
	}
}

// secretsOf returns the annotations by which a driver finds its secrets.
func secretsOf(content *unstructured.Unstructured) map[string]string {
	kept := map[string]string{}
	for _, key := range []string{
		"snapshot.storage.kubernetes.io/deletion-secret-name", "snapshot.storage.kubernetes.io/deletion-secret-namespace",
		"snapshot.storage.kubernetes.io/snapshotter-list-secret-name", "snapshot.storage.kubernetes.io/snapshotter-list-secret-namespace",
	} {
		if value := content.GetAnnotations()[key]; value != "" {
			kept[key] = value
		}
	}
	return kept
}

func create(ctx context.Context, api dynamic.ResourceInterface, o *unstructured.Unstructured) error {
	_, err := api.Create(ctx, o, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil // names are of this point and claim alone
	}
	return err
}

// scratchClaim asks for a volume made of the snapshot. It is bound when the
// mover's pod wants it.
func (v *Volumes) scratchClaim(ctx context.Context, cut capture.Cut, name string, least int64) error {
	size := max(cut.Plan.Claim.Capacity, least)
	group := storageAPI
	class := cut.Plan.Claim.StorageClass
	pvc := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: v1alpha1.SystemNamespace, Labels: labelsOf(cut.Plan.Options.Point)},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: &class,
			DataSource:       &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: cut.Handle},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(size, resource.BinarySI)}},
		},
	}
	_, err := v.system.Kubernetes.CoreV1().PersistentVolumeClaims(v1alpha1.SystemNamespace).Create(ctx, pvc, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create scratch claim: %w", err)
	}
	return nil
}

// live finds where a volume that is in use can be read.
func (v *Volumes) live(ctx context.Context, cut capture.Cut, req *mover.Request) error {
	req.Live = true
	c := cut.Plan.Claim
	pv, err := v.app.Kubernetes.CoreV1().PersistentVolumes().Get(ctx, c.Volume, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get persistent volume: %w", err)
	}
	pod, err := v.podOf(ctx, c)
	if err != nil {
		return err
	}
	if pod != nil {
		req.Node = pod.Spec.NodeName
	}
	switch {
	case pv.Spec.HostPath != nil:
		req.HostPath = pv.Spec.HostPath.Path
	case pv.Spec.Local != nil:
		req.HostPath = pv.Spec.Local.Path
	case pv.Spec.CSI == nil:
		return fmt.Errorf("volume %s cannot be read: %s", pv.Name, livePath)
	case pod != nil:
		req.PodUID, req.PersistentVolume = string(pod.UID), pv.Name
		return nil
	default: // mounted by nobody: a holder pod mounts it
		req.Namespace, req.Claim = c.Namespace, c.Name
		return nil
	}
	if req.Node == "" {
		req.Node = nodeOf(pv)
	}
	if req.Node == "" {
		return fmt.Errorf("volume %s is a directory of a node, and neither a pod nor its node affinity says of which", pv.Name)
	}
	return nil
}

// podOf finds a running pod that mounts the claim, or nil.
func (v *Volumes) podOf(ctx context.Context, c capture.Claim) (*corev1.Pod, error) {
	pods, err := v.app.Kubernetes.CoreV1().Pods(c.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list pods of %s: %w", c.Namespace, err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
			continue
		}
		for _, vol := range pod.Spec.Volumes {
			if vol.PersistentVolumeClaim != nil && vol.PersistentVolumeClaim.ClaimName == c.Name {
				return pod, nil
			}
		}
	}
	return nil, nil
}

// nodeOf returns the one node that a volume's affinity names, or "".
func nodeOf(pv *corev1.PersistentVolume) string {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return ""
	}
	for _, term := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, e := range append(term.MatchExpressions, term.MatchFields...) {
			named := e.Key == corev1.LabelHostname || e.Key == "metadata.name"
			if named && e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 {
				return e.Values[0]
			}
		}
	}
	return ""
}

// Release implements capture.Volumes. It asks for everything to be deleted and
// leaves the waiting to the cluster's finalizers.
func (v *Volumes) Release(ctx context.Context, plan capture.VolumePlan) error {
	if plan.Method == capture.MethodLive {
		return nil
	}
	if plan.Keep {
		return v.keep(ctx, plan)
	}
	return errors.Join(v.remove(ctx, plan.Claim.Namespace, name(plan)), v.releaseGroup(ctx, plan))
}

// remove deletes what was made under a name: the scratch claim and the copy
// first, then the snapshot in the application's namespace.
func (v *Volumes) remove(ctx context.Context, namespace, name string) error {
	return errors.Join(
		v.removeClaim(ctx, name),
		v.removeClaim(ctx, secondClaim(name)),
		gone(v.system.Dynamic.Resource(snapshots).Namespace(v1alpha1.SystemNamespace).Delete(ctx, name, metav1.DeleteOptions{})),
		gone(v.system.Dynamic.Resource(contents).Delete(ctx, name, metav1.DeleteOptions{})),
		v.removeSnapshot(ctx, namespace, name),
	)
}

func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// patch sets one field of spec.
func patch(field, value string) []byte { return fmt.Appendf(nil, `{"spec":{%q:%q}}`, field, value) }

// chosen tells whether the controller looked for a volume that fits, which it does before
// it has one made, and noted that. Those that CSI drivers make for a claim have no such note.
func chosen(pv *corev1.PersistentVolume) bool {
	return pv.Annotations["pv.kubernetes.io/bound-by-controller"] != ""
}

// older tells whether a claim was given a volume that was there before, and may hold what
// somebody wants back.
func older(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) bool {
	return chosen(pv) && pv.CreationTimestamp.Before(&claim.CreationTimestamp)
}

// removeClaim deletes the scratch claim, and sees to it that its volume goes
// too, whatever its storage class keeps. One that was not made for it stays.
func (v *Volumes) removeClaim(ctx context.Context, name string) error {
	core := v.system.Kubernetes.CoreV1()
	api := core.PersistentVolumeClaims(v1alpha1.SystemNamespace)
	pvc, err := api.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return gone(err)
	}
	if pvc.Labels[v1alpha1.LabelManagedBy] != managedBy {
		return fmt.Errorf("claim %s/%s is not Davit's", pvc.Namespace, pvc.Name)
	}
	if pvc.Spec.VolumeName != "" {
		pv, err := core.PersistentVolumes().Get(ctx, pvc.Spec.VolumeName, metav1.GetOptions{})
		policy := corev1.PersistentVolumeReclaimDelete
		if err == nil && older(pv, pvc) {
			policy = corev1.PersistentVolumeReclaimRetain
		}
		if err == nil && pv.Spec.PersistentVolumeReclaimPolicy != policy {
			_, err = core.PersistentVolumes().Patch(ctx, pv.Name, types.MergePatchType, patch("persistentVolumeReclaimPolicy", string(policy)), metav1.PatchOptions{})
		}
		if gone(err) != nil {
			return fmt.Errorf("release scratch volume: %w", err)
		}
	}
	return gone(api.Delete(ctx, name, metav1.DeleteOptions{}))
}

// removeSnapshot deletes a cut, and the driver's snapshot with it, whatever
// its class keeps.
func (v *Volumes) removeSnapshot(ctx context.Context, namespace, name string) error {
	api := v.app.Dynamic.Resource(snapshots).Namespace(namespace)
	snap, err := api.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return gone(err)
	}
	if err := v.goesWith(ctx, snap); err != nil {
		return err
	}
	return gone(api.Delete(ctx, name, metav1.DeleteOptions{}))
}

// goesWith has the driver's snapshot go with its object, whatever the class keeps: also with a
// namespace that is deleted.
func (v *Volumes) goesWith(ctx context.Context, snap *unstructured.Unstructured) error {
	bound, _, _ := unstructured.NestedString(snap.Object, "status", "boundVolumeSnapshotContentName")
	if bound == "" {
		return nil
	}
	content, err := v.system.Dynamic.Resource(contents).Get(ctx, bound, metav1.GetOptions{})
	if err == nil {
		if policy, _, _ := unstructured.NestedString(content.Object, "spec", "deletionPolicy"); policy != policyDelete {
			_, err = v.system.Dynamic.Resource(contents).Patch(ctx, bound, types.MergePatchType, patch("deletionPolicy", policyDelete), metav1.PatchOptions{})
		}
	}
	if gone(err) != nil {
		return fmt.Errorf("release snapshot %s/%s: %w", snap.GetNamespace(), snap.GetName(), err)
	}
	return nil
}

// Sweep removes what captures that died left in the cluster. running tells
// which points are being captured now; nil means none.
func (v *Volumes) Sweep(ctx context.Context, running func(point string) bool) error {
	live := map[string]bool{}
	keep := func(o metav1.Object) bool {
		id := o.GetLabels()[v1alpha1.LabelPoint]
		if live[id] || running == nil {
			return live[id]
		}
		live[id] = running(id)
		return live[id]
	}
	selector := metav1.ListOptions{LabelSelector: v1alpha1.LabelManagedBy + "=" + managedBy + "," + v1alpha1.LabelPoint}
	var errs []error
	list, err := v.app.Dynamic.Resource(snapshots).List(ctx, metav1.ListOptions{LabelSelector: v1alpha1.LabelManagedBy + "=" + managedBy})
	if gone(err) != nil {
		return fmt.Errorf("sweep captures: %w", err)
	}
	if list != nil {
		for i := range list.Items {
			o := &list.Items[i]
			if o.GetLabels()[v1alpha1.LabelPoint] != "" && !keep(o) && o.GetNamespace() != v1alpha1.SystemNamespace {
				errs = append(errs, v.remove(ctx, o.GetNamespace(), o.GetName()))
			}
			errs = append(errs, v.letForgottenGo(ctx, o))
		}
	}
	errs = append(errs, v.sweepScratch(ctx, selector, keep), v.sweepGroups(ctx, selector, keep), v.sweepGone(ctx))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sweep captures: %w", err)
	}
	return nil
}

// sweepScratch removes scratch objects whose snapshot is gone already.
func (v *Volumes) sweepScratch(ctx context.Context, selector metav1.ListOptions, keep func(metav1.Object) bool) error {
	names := map[string]bool{}
	claims, err := v.system.Kubernetes.CoreV1().PersistentVolumeClaims(v1alpha1.SystemNamespace).List(ctx, selector)
	if err != nil {
		return err
	}
	for i := range claims.Items {
		if o := &claims.Items[i]; !keep(o) {
			names[o.Name] = true
		}
	}
	for _, api := range []dynamic.ResourceInterface{v.system.Dynamic.Resource(contents), v.system.Dynamic.Resource(snapshots).Namespace(v1alpha1.SystemNamespace)} {
		list, err := api.List(ctx, selector)
		if gone(err) != nil {
			return err
		}
		if list == nil {
			continue
		}
		for i := range list.Items {
			if o := &list.Items[i]; !keep(o) {
				names[o.GetName()] = true
			}
		}
	}
	var errs []error
	for name := range names {
		errs = append(errs, v.remove(ctx, v1alpha1.SystemNamespace, name))
	}
	return errors.Join(errs...)
}
