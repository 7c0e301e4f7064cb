package application

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/selection"
)

// kind is one kind of workload, and what of it was found.
type kind struct {
	group, name, resource string
	list                  func() client.ObjectList
	runs                  func(client.Object) bool // something that can be stopped
	wanted                bool                     // by the application's kind filter
	objects               []client.Object
}

// kinds are what a fence stops, in the order in which it does.
func kinds(app *v1alpha1.Application) []kind {
	all := []kind{
		{group: "batch", name: "CronJob", list: func() client.ObjectList { return &batchv1.CronJobList{} }, runs: func(o client.Object) bool {
			return !ptr.Deref(o.(*batchv1.CronJob).Spec.Suspend, false)
		}},
		{group: "apps", name: "Deployment", list: func() client.ObjectList { return &appsv1.DeploymentList{} }, runs: func(o client.Object) bool {
			return ptr.Deref(o.(*appsv1.Deployment).Spec.Replicas, 1) > 0
		}},
		{group: "apps", name: "StatefulSet", list: func() client.ObjectList { return &appsv1.StatefulSetList{} }, runs: func(o client.Object) bool {
			return ptr.Deref(o.(*appsv1.StatefulSet).Spec.Replicas, 1) > 0
		}},
		{group: "apps", name: "ReplicaSet", list: func() client.ObjectList { return &appsv1.ReplicaSetList{} }, runs: func(o client.Object) bool {
			owner := metav1.GetControllerOf(o) // those of Deployments follow them
			return ptr.Deref(o.(*appsv1.ReplicaSet).Spec.Replicas, 1) > 0 && (owner == nil || owner.Kind != "Deployment")
		}},
		{name: "ReplicationController", list: func() client.ObjectList { return &corev1.ReplicationControllerList{} }, runs: func(o client.Object) bool {
			return ptr.Deref(o.(*corev1.ReplicationController).Spec.Replicas, 1) > 0
		}},
		{group: "apps", name: "DaemonSet", list: func() client.ObjectList { return &appsv1.DaemonSetList{} }, runs: func(o client.Object) bool {
			return o.(*appsv1.DaemonSet).Spec.Template.Spec.NodeSelector[v1alpha1.LabelNowhere] == ""
		}},
		{group: "batch", name: "Job", list: func() client.ObjectList { return &batchv1.JobList{} }, runs: func(o client.Object) bool {
			j := o.(*batchv1.Job)
			return !ptr.Deref(j.Spec.Suspend, false) && !jobFinished(j)
		}},
	}
	wanted := protection.WantedKinds(app)
	for i := range all {
		all[i].resource = strings.ToLower(all[i].name) + "s"
		all[i].wanted = wanted(all[i].resource, all[i].group)
	}
	return all
}

// world is what runs in an application's namespaces.
type world struct {
	kinds   []kind
	pods    []*corev1.Pod
	objects []selection.Object

	cover  *selection.Cover
	rivals []rivalCover
	spared []string
}

// read adds a namespace. What could be read is there also with an error.
func (w *world) read(ctx context.Context, reader client.Reader, namespace string) error {
	var errs []error
	for i := range w.kinds {
		k := &w.kinds[i]
		list := k.list()
		if err := reader.List(ctx, list, client.InNamespace(namespace)); err != nil {
			errs = append(errs, fmt.Errorf("list %s: %w", k.resource, err))
			continue
		}
		_ = meta.EachListItem(list, func(item runtime.Object) error { // the function gives no error
			if o := item.(client.Object); !leftOut(o) {
				k.objects = append(k.objects, o)
				w.objects = append(w.objects, workload(k.group, k.name, o))
			}
			return nil
		})
	}
	var pods corev1.PodList
	if err := reader.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
		return errors.Join(append(errs, fmt.Errorf("list pods: %w", err))...)
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		if !leftOut(p) {
			w.pods = append(w.pods, p)
			o := workload("", "Pod", p)
			o.Ended = !p.DeletionTimestamp.IsZero() || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
			w.objects = append(w.objects, o)
		}
	}
	return errors.Join(errs...)
}

// leftOut tells whether an object is of no application.
func leftOut(o client.Object) bool {
	set := o.GetLabels()
	return set[v1alpha1.LabelManagedBy] == "davit" || set[capture.LabelExclude] == "true"
}

// workload takes out of an object what a selection goes by.
func workload(group, name string, o client.Object) selection.Object {
	out := selection.Object{
		Group: group, Kind: name, Namespace: o.GetNamespace(), Name: o.GetName(), UID: string(o.GetUID()), Labels: o.GetLabels(), Replicas: -1,
	}
	switch w := o.(type) {
	case *appsv1.Deployment:
		out.Template, out.Replicas = w.Spec.Template.Labels, int(ptr.Deref(w.Spec.Replicas, 1))
	case *appsv1.StatefulSet:
		out.Template, out.Replicas = w.Spec.Template.Labels, int(ptr.Deref(w.Spec.Replicas, 1))
		if w.Spec.Ordinals != nil {
			out.First = int(w.Spec.Ordinals.Start)
		}
	case *appsv1.ReplicaSet:
		out.Template, out.Replicas = w.Spec.Template.Labels, int(ptr.Deref(w.Spec.Replicas, 1))
	case *corev1.ReplicationController:
		out.Replicas = int(ptr.Deref(w.Spec.Replicas, 1))
		if w.Spec.Template != nil {
			out.Template = w.Spec.Template.Labels
		}
	case *appsv1.DaemonSet:
		out.Template = w.Spec.Template.Labels
	case *batchv1.Job:
		out.Template = w.Spec.Template.Labels
	case *batchv1.CronJob:
		out.Template = w.Spec.JobTemplate.Spec.Template.Labels
	}
	if owner := metav1.GetControllerOf(o); owner != nil {
		gv, _ := schema.ParseGroupVersion(owner.APIVersion) // one that cannot be read names no group
		out.Owner = &selection.Owner{Group: gv.Group, Kind: owner.Kind, Name: owner.Name, UID: string(owner.UID)}
	}
	return out
}

// rival is another application that this site may write.
type rival struct {
	name  string
	rules selection.Selection
	kinds func(resource, group string) bool
}

type rivalCover struct {
	rival
	cover *selection.Cover
}

// rivals are the others that are as narrow as the application, or narrower. A
// broader one, such as a whole cluster's, does not keep a single application
// from being moved away from under it.
func rivals(app *v1alpha1.Application, rules selection.Selection, others []v1alpha1.Application) []rival {
	var all []rival
	for i := range others {
		other := &others[i]
		if other.UID == app.UID && other.Namespace == app.Namespace && other.Name == app.Name || !protection.MayWrite(other) {
			continue
		}
		theirs, err := protection.Selection(other)
		if err == nil && theirs.Rank() >= rules.Rank() {
			all = append(all, rival{name: other.VaultName(), rules: theirs, kinds: protection.WantedKinds(other)})
		}
	}
	return all
}

// judge decides what is the application's, and what is a rival's too.
func (w *world) judge(rules selection.Selection, others []rival, namespaces map[string]labels.Set) {
	w.cover = rules.Cover(w.objects)
	for _, r := range others {
		theirs := slices.DeleteFunc(slices.Clone(w.objects), func(o selection.Object) bool {
			return !r.rules.Namespaces.Match(o.Namespace, namespaces[o.Namespace])
		})
		w.rivals = append(w.rivals, rivalCover{r, r.rules.Cover(theirs)})
	}
}

// stops tells whether a workload is the application's and nobody else's.
func (w *world) stops(k *kind, o client.Object) bool {
	return k.wanted && w.cover.Has(k.group, k.name, o.GetNamespace(), o.GetName()) && !w.spare(k.resource, k.group, k.name, o)
}

// stopsPod does the same for a pod that no workload of the application stands for.
func (w *world) stopsPod(p *corev1.Pod) bool {
	if !w.cover.Alone(p.Namespace, p.Name) || !w.follows(p) {
		return false
	}
	return !w.spare("pods", "", "Pod", p)
}

// follows is false for a pod of a controller that a fence stops and that was
// not found: it was not listed, or its pods are about to go as it did.
func (w *world) follows(p *corev1.Pod) bool {
	owner := metav1.GetControllerOf(p)
	if owner == nil || !followers[owner.APIVersion+"/"+owner.Kind] {
		return true
	}
	return slices.ContainsFunc(w.objects, func(o selection.Object) bool {
		return o.Kind == owner.Kind && o.Namespace == p.Namespace && o.Name == owner.Name
	})
}

// spare tells whether a rival covers the object as well, and notes it.
func (w *world) spare(resource, group, name string, o client.Object) bool {
	for _, r := range w.rivals {
		if r.kinds(resource, group) && r.cover.Has(group, name, o.GetNamespace(), o.GetName()) {
			w.spared = append(w.spared, fmt.Sprintf("%s %s/%s, which is application %s's too", name, o.GetNamespace(), o.GetName(), r.name))
			return true
		}
	}
	return false
}
