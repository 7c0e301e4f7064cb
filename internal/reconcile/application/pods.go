package application

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
)

// nowhere is a label that no node has: a DaemonSet that asks for it runs on none.
const nowhere = "davit.dev/superseded"

// daemonSets are sent to nodes that do not exist, as they have no replicas.
func (f fencer) daemonSets(ctx context.Context, where []client.ListOption) ([]string, error) {
	var list appsv1.DaemonSetList
	if err := f.reader.List(ctx, &list, where...); err != nil {
		return nil, fmt.Errorf("list daemonsets: %w", err)
	}
	var all []client.Object
	for i := range list.Items {
		if d := &list.Items[i]; d.Spec.Template.Spec.NodeSelector[nowhere] == "" {
			all = append(all, d)
		}
	}
	return f.stop(ctx, "DaemonSet", all)
}

// displace keeps the node selector in an annotation and replaces it.
func displace(d *appsv1.DaemonSet) string {
	was := "{}"
	if selector := d.Spec.Template.Spec.NodeSelector; len(selector) > 0 {
		if text, err := json.Marshal(selector); err == nil { // a map of strings always encodes
			was = string(text)
		}
	}
	d.Spec.Template.Spec.NodeSelector = map[string]string{nowhere: "true"}
	annotate(d, v1alpha1.AnnotationNodeSelector, was)
	return "node selector " + was
}

// followers are pods whose controller this fence stops by itself.
var followers = map[string]bool{
	"apps/v1/ReplicaSet": true, "apps/v1/StatefulSet": true, "apps/v1/DaemonSet": true,
	"batch/v1/Job": true, "v1/ReplicationController": true,
}

// pods deletes what no workload stands for: bare pods, and those that an
// operator makes by itself. A pod cannot be suspended, and one that writes
// would be a second writer.
func (f fencer) pods(ctx context.Context, where []client.ListOption) ([]string, error) {
	var list corev1.PodList
	if err := f.reader.List(ctx, &list, where...); err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	var stopped []string
	var errs []error
	for i := range list.Items {
		p := &list.Items[i]
		if !onItsOwn(p) {
			continue
		}
		name := "Pod " + p.Namespace + "/" + p.Name
		uid := p.UID
		if err := f.client.Delete(ctx, p, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", name, err))
			continue
		}
		stopped = append(stopped, name+" (deleted: "+whose(p)+")")
	}
	return stopped, errors.Join(errs...)
}

// onItsOwn says whether nothing but the pod itself can be stopped. A node's
// static pods are the cluster's, and finished ones write nothing.
func onItsOwn(p *corev1.Pod) bool {
	owner := metav1.GetControllerOf(p)
	switch {
	case !p.DeletionTimestamp.IsZero(), p.Status.Phase == corev1.PodSucceeded, p.Status.Phase == corev1.PodFailed:
		return false
	case p.Annotations[corev1.MirrorPodAnnotationKey] != "", p.Labels[v1alpha1.LabelManagedBy] == "davit":
		return false
	}
	return owner == nil || !followers[owner.APIVersion+"/"+owner.Kind]
}

func whose(p *corev1.Pod) string {
	if owner := metav1.GetControllerOf(p); owner != nil {
		return "made by " + owner.Kind + " " + owner.Name + ", which may make it again: stop its operator"
	}
	return "it has no controller; a recovery point has it"
}

// controllers are ReplicationControllers.
func (f fencer) controllers(ctx context.Context, where []client.ListOption) ([]string, error) {
	var list corev1.ReplicationControllerList
	if err := f.reader.List(ctx, &list, where...); err != nil {
		return nil, fmt.Errorf("list replicationcontrollers: %w", err)
	}
	var all []client.Object
	for i := range list.Items {
		if c := &list.Items[i]; metav1.GetControllerOf(c) == nil && (c.Spec.Replicas == nil || *c.Spec.Replicas > 0) {
			all = append(all, c)
		}
	}
	return f.stop(ctx, "ReplicationController", all)
}
