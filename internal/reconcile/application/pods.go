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

// displace keeps the node selector in an annotation and replaces it.
func displace(d *appsv1.DaemonSet) string {
	was := "{}"
	if selector := d.Spec.Template.Spec.NodeSelector; len(selector) > 0 {
		if text, err := json.Marshal(selector); err == nil { // a map of strings always encodes
			was = string(text)
		}
	}
	d.Spec.Template.Spec.NodeSelector = map[string]string{v1alpha1.LabelNowhere: "true"}
	annotate(d, v1alpha1.AnnotationNodeSelector, was)
	return "node selector " + was
}

// followers are pods whose controller this fence stops by itself.
var followers = map[string]bool{
	"apps/v1/ReplicaSet": true, "apps/v1/StatefulSet": true, "apps/v1/DaemonSet": true,
	"batch/v1/Job": true, "v1/ReplicationController": true,
}

// pods deletes what no workload stands for: bare pods, those that an operator
// makes by itself, and those whose controller also makes pods of others. A pod
// cannot be suspended, and one that writes would be a second writer.
func (f fencer) pods(ctx context.Context, w *world) ([]string, error) {
	var stopped []string
	var errs []error
	for _, p := range w.pods {
		if !onItsOwn(p) || !w.stopsPod(p) {
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

// onItsOwn says whether a pod may have to be stopped by itself. A node's
// static pods are the cluster's, and finished ones write nothing.
func onItsOwn(p *corev1.Pod) bool {
	switch {
	case !p.DeletionTimestamp.IsZero(), p.Status.Phase == corev1.PodSucceeded, p.Status.Phase == corev1.PodFailed:
		return false
	case p.Annotations[corev1.MirrorPodAnnotationKey] != "", leftOut(p):
		return false
	}
	return true
}

func whose(p *corev1.Pod) string {
	switch owner := metav1.GetControllerOf(p); {
	case owner != nil && followers[owner.APIVersion+"/"+owner.Kind]:
		return owner.Kind + " " + owner.Name + " makes it again: it makes pods that are not the application's, too, so that it cannot be stopped"
	case owner != nil:
		return "made by " + owner.Kind + " " + owner.Name + ", which may make it again: stop its operator"
	}
	return "it has no controller; a recovery point has it"
}
