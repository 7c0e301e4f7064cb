package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
)

// A group is cut through a VolumeGroupSnapshotContent of its own, which names
// the volumes as the driver does. A VolumeGroupSnapshot would find claims by
// labels, in one namespace: it would take labels on other people's claims, and
// one group for each namespace. See docs/decisions/0018-group-snapshots.md.
const (
	groupAPI       = "groupsnapshot.storage.k8s.io"
	groupMarks     = "groupsnapshot.storage.kubernetes.io/"
	defaultGroup   = groupMarks + "is-default-class"
	groupFinalizer = groupMarks + "volumegroupsnapshotcontent-bound-protection"
	beingCreated   = groupMarks + "volumegroupsnapshot-being-created"
	// beingDeleted lets the driver's sidecar remove the group when its content
	// is deleted. It means nothing before that, so it is there from the start.
	beingDeleted = groupMarks + "volumegroupsnapshot-being-deleted"
	// secretParameter starts the parameters of a class that name secrets.
	secretParameter = "csi.storage.k8s.io/"
)

// groupVersions are those whose contents hold what is read here, best first.
var groupVersions = []string{"v1", "v1beta2"}

var _ capture.Grouper = (*Volumes)(nil)

// groupResource finds a kind of the API of group snapshots in the version that
// the cluster serves; false where it serves none.
func (v *Volumes) groupResource(resource string) (schema.GroupVersionResource, bool, error) {
	for _, version := range groupVersions {
		gv := schema.GroupVersion{Group: groupAPI, Version: version}
		list, err := v.system.Discovery.ServerResourcesForGroupVersion(gv.String())
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return schema.GroupVersionResource{}, false, fmt.Errorf("discover %s: %w", gv, err)
		}
		if slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == resource }) {
			return gv.WithResource(resource), true, nil
		}
	}
	return schema.GroupVersionResource{}, false, nil
}

// GroupClasses implements capture.Grouper.
func (v *Volumes) GroupClasses(ctx context.Context, drivers []string, asked string) (map[string]string, error) {
	gvr, served, err := v.groupResource("volumegroupsnapshotclasses")
	if err != nil {
		return nil, err
	}
	if !served && asked != "" {
		return nil, fmt.Errorf("%w: VolumeGroupSnapshotClass %s: this cluster serves no %s of version %s: take volumes.groupSnapshotClass back, or install its CRDs", ErrSnapshotClass, asked, groupAPI, strings.Join(groupVersions, " or "))
	}
	if !served {
		return nil, nil
	}
	list, err := v.app.Dynamic.Resource(gvr).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list group snapshot classes: %w", err)
	}
	return pickGroups(list.Items, drivers, asked)
}

// pickGroups chooses each driver's class: the one asked for, or its default, or
// its only one. More than one without a default is no reason to fail a capture
// that can do without.
func pickGroups(list []unstructured.Unstructured, drivers []string, asked string) (map[string]string, error) {
	all, defaults := map[string][]string{}, map[string][]string{}
	for i := range list {
		driver, _, _ := unstructured.NestedString(list[i].Object, "driver")
		if list[i].GetName() == asked {
			if !slices.Contains(drivers, driver) {
				return nil, fmt.Errorf("%w: VolumeGroupSnapshotClass %s is for driver %s, the volumes are of %s", ErrSnapshotClass, asked, driver, strings.Join(drivers, ", "))
			}
			return map[string]string{driver: asked}, nil
		}
		if _, err := groupSecret(&list[i]); err != nil {
			continue
		}
		all[driver] = append(all[driver], list[i].GetName())
		if list[i].GetAnnotations()[defaultGroup] == "true" {
			defaults[driver] = append(defaults[driver], list[i].GetName())
		}
	}
	if asked != "" {
		return nil, fmt.Errorf("%w: VolumeGroupSnapshotClass %s does not exist", ErrSnapshotClass, asked)
	}
	chosen := map[string]string{}
	for _, driver := range drivers {
		switch {
		case len(defaults[driver]) == 1:
			chosen[driver] = defaults[driver][0]
		case len(all[driver]) == 1:
			chosen[driver] = all[driver][0]
		}
	}
	return chosen, nil
}

// groupSecret names the secret with which the driver cuts and removes groups of
// a class, as annotations of a content. A template cannot be filled in: it may
// hold the name of a VolumeGroupSnapshot, and there is none.
func groupSecret(class *unstructured.Unstructured) (map[string]string, error) {
	parameters, _, _ := unstructured.NestedStringMap(class.Object, "parameters")
	marks := map[string]string{}
	for _, part := range []string{"name", "namespace"} {
		value := parameters[secretParameter+"group-snapshotter-secret-"+part]
		if strings.Contains(value, "$") {
			return nil, fmt.Errorf("class %s names its secret by a template: %s", class.GetName(), value)
		}
		if value != "" {
			marks[groupMarks+"deletion-secret-"+part] = value
		}
	}
	return marks, nil
}

// groupName is that of the content of a driver's group in one point of one application: the group
// of one node, where volumes are a node's own.
func groupName(plan capture.VolumePlan) string {
	sum := sha256.Sum256([]byte(plan.Options.Application + "\x00" + plan.Options.Point + "\x00group\x00" + plan.Driver + "\x00" + plan.Node))
	return "davit-" + hex.EncodeToString(sum[:10])
}

// CutGroup implements capture.Grouper.
func (v *Volumes) CutGroup(ctx context.Context, class string, plans []capture.VolumePlan) ([]capture.Cut, error) {
	gvr, served, err := v.groupResource("volumegroupsnapshotcontents")
	if err != nil || !served {
		return nil, errors.Join(err, fmt.Errorf("%s is not served any more", groupAPI))
	}
	classes := gvr.GroupVersion().WithResource("volumegroupsnapshotclasses")
	o, err := v.app.Dynamic.Resource(classes).Get(ctx, class, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("get group snapshot class: %w", err)
	}
	secret, err := groupSecret(o)
	if err != nil {
		return nil, err
	}
	content := groupContent(gvr.GroupVersion(), class, secret, plans)
	api := v.system.Dynamic.Resource(gvr)
	// One that is there already proves nothing of when it was cut: that is an error.
	if _, err := api.Create(ctx, content, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("create VolumeGroupSnapshotContent: %w", err)
	}
	done, err := awaitObject(ctx, api, content.GetName(), func(o *unstructured.Unstructured) bool { return groupWasCut(o) || errorOf(o) != "" })
	if err != nil && context.Cause(ctx) != nil && !errors.Is(context.Cause(ctx), ctx.Err()) {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("wait for VolumeGroupSnapshotContent %s: %w", content.GetName(), err)
	}
	if !groupWasCut(done) {
		return nil, fmt.Errorf("driver %s: %s", plans[0].Driver, errorOf(done))
	}
	cuts := make([]capture.Cut, len(plans))
	for i, p := range plans {
		if snapshotIn(done, p.Handle) == nil {
			return nil, fmt.Errorf("the group of driver %s lacks claim %s", p.Driver, p.Claim.Key())
		}
		cuts[i] = capture.Cut{Plan: p, Handle: name(p)}
	}
	return cuts, nil
}

// groupContent asks the driver's sidecar for a group of the plans' volumes.
func groupContent(gv schema.GroupVersion, class string, secret map[string]string, plans []capture.VolumePlan) *unstructured.Unstructured {
	first := plans[0]
	var handles []any
	for _, p := range plans {
		handles = append(handles, p.Handle)
	}
	id := groupName(first)
	o := document("VolumeGroupSnapshotContent", "", id, first.Options.Point, map[string]any{
		"deletionPolicy": policyDelete, "driver": first.Driver,
		"source":                       map[string]any{"volumeHandles": handles},
		"volumeGroupSnapshotClassName": class,
		"volumeGroupSnapshotRef": map[string]any{
			"apiVersion": gv.String(), "kind": "VolumeGroupSnapshot", "namespace": v1alpha1.SystemNamespace, "name": id,
			"uid": string(uuid.NewUUID()), // the sidecar names the group by it
		},
	})
	o.SetAPIVersion(gv.String())
	ofNode(o, first.Node)
	marks := maps.Clone(secret)
	marks[beingDeleted] = "yes"
	o.SetAnnotations(marks)
	// Else the content could go before the sidecar has seen that it must remove the group.
	o.SetFinalizers([]string{groupFinalizer})
	return o
}

// groupWasCut says whether the driver has answered: it does so when every
// volume is cut (CSI, CreateVolumeGroupSnapshot).
func groupWasCut(o *unstructured.Unstructured) bool {
	handle, _, _ := unstructured.NestedString(o.Object, "status", "volumeGroupSnapshotHandle")
	return handle != "" && wasCut(o)
}

// errorOf is what the driver complains of in a snapshot or a content.
func errorOf(o *unstructured.Unstructured) string {
	text, _, _ := unstructured.NestedString(o.Object, "status", "error", "message")
	return text
}

// snapshotIn finds a volume's snapshot in a group.
func snapshotIn(content *unstructured.Unstructured, volume string) map[string]any {
	list, _, _ := unstructured.NestedSlice(content.Object, "status", "volumeSnapshotInfoList")
	for _, item := range list {
		one, _ := item.(map[string]any)
		if of, _, _ := unstructured.NestedString(one, "volumeHandle"); of == volume {
			return one
		}
	}
	return nil
}

// readyMember waits until a group can be read, and returns one volume's
// snapshot in it.
func (v *Volumes) readyMember(ctx context.Context, cut capture.Cut) (made, error) {
	gvr, served, err := v.groupResource("volumegroupsnapshotcontents")
	if err != nil || !served {
		return made{}, errors.Join(err, fmt.Errorf("%s is not served any more", groupAPI))
	}
	id := groupName(cut.Plan)
	content, err := awaitObject(ctx, v.system.Dynamic.Resource(gvr), id, isReady)
	if err != nil {
		return made{}, fmt.Errorf("wait until group snapshot %s can be read: %w", id, err)
	}
	one := snapshotIn(content, cut.Plan.Handle)
	out := made{annotations: v.listSecret(ctx, cut.Plan.Class), node: cut.Plan.Node}
	out.handle, _, _ = unstructured.NestedString(one, "snapshotHandle")
	out.size, _, _ = unstructured.NestedInt64(one, "restoreSize")
	if out.handle == "" {
		return made{}, fmt.Errorf("group snapshot %s names no snapshot of claim %s", id, cut.Plan.Claim.Key())
	}
	return out, nil
}

// listSecret names the secret with which the driver tells of snapshots of a
// VolumeSnapshotClass, where it is named outright.
func (v *Volumes) listSecret(ctx context.Context, class string) map[string]string {
	o, err := v.app.Dynamic.Resource(classes).Get(ctx, class, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	parameters, _, _ := unstructured.NestedStringMap(o.Object, "parameters")
	marks := map[string]string{}
	for _, part := range []string{"name", "namespace"} {
		if value := parameters[secretParameter+"snapshotter-list-secret-"+part]; value != "" && !strings.Contains(value, "$") {
			marks["snapshot.storage.kubernetes.io/snapshotter-list-secret-"+part] = value
		}
	}
	return marks
}

// releaseGroup removes the group that the plan was cut with, if any.
func (v *Volumes) releaseGroup(ctx context.Context, plan capture.VolumePlan) error {
	if plan.Group == "" {
		return nil
	}
	return v.removeGroup(ctx, groupName(plan))
}

// removeGroup deletes a group, and the driver's snapshots with it. One that no
// sidecar ever took up has no snapshots, and nobody who would let it go.
func (v *Volumes) removeGroup(ctx context.Context, id string) error {
	gvr, served, err := v.groupResource("volumegroupsnapshotcontents")
	if err != nil || !served {
		return err
	}
	api := v.system.Dynamic.Resource(gvr)
	if err := api.Delete(ctx, id, metav1.DeleteOptions{}); err != nil {
		return gone(err)
	}
	o, err := api.Get(ctx, id, metav1.GetOptions{})
	if err != nil {
		return gone(err)
	}
	_, told := o.Object["status"]
	if _, taken := o.GetAnnotations()[beingCreated]; taken || told {
		return nil
	}
	// The version makes this fail if a sidecar has taken it up meanwhile.
	patch := fmt.Appendf(nil, `{"metadata":{"resourceVersion":%q,"finalizers":null}}`, o.GetResourceVersion())
	if _, err = api.Patch(ctx, id, types.MergePatchType, patch, metav1.PatchOptions{}); apierrors.IsConflict(err) {
		return nil
	}
	return gone(err)
}

// sweepGroups removes groups of captures that died.
func (v *Volumes) sweepGroups(ctx context.Context, selector metav1.ListOptions, keep func(metav1.Object) bool) error {
	gvr, served, err := v.groupResource("volumegroupsnapshotcontents")
	if err != nil || !served {
		return err
	}
	list, err := v.system.Dynamic.Resource(gvr).List(ctx, selector)
	if err != nil {
		return gone(err)
	}
	var errs []error
	for i := range list.Items {
		if o := &list.Items[i]; !keep(o) {
			errs = append(errs, v.removeGroup(ctx, o.GetName()))
		}
	}
	return errors.Join(errs...)
}
