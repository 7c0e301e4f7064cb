package application

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
)

// fencer stops what writes: Deployments, StatefulSets, and ReplicaSets and
// ReplicationControllers of their own are scaled to zero, CronJobs and Jobs
// suspended, DaemonSets sent to nodes that do not exist. Annotations keep what
// they were. Pods that none of these stands for are deleted, last, so that
// their operators, if they are of the application, are stopped before. Nothing
// starts any of it again by itself.
type fencer struct {
	client client.Client
	reader client.Reader
	now    func() time.Time
}

// fence stops everything of the application that runs, and names what it
// stopped. Done again it finds nothing to do. It goes on after an error.
func (f fencer) fence(ctx context.Context, app *v1alpha1.Application) ([]string, error) {
	selector := labels.Everything()
	if app.Spec.Selector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(app.Spec.Selector); err != nil {
			return nil, fmt.Errorf("read selector: %w", err)
		}
	}
	kinds := []func(context.Context, []client.ListOption) ([]string, error){
		f.cronJobs, f.deployments, f.statefulSets, f.replicaSets, f.controllers, f.daemonSets, f.jobs, f.pods,
	}
	var stopped []string
	var errs []error
	for _, kind := range kinds {
		for _, ns := range app.CapturedNamespaces() {
			done, err := kind(ctx, []client.ListOption{client.InNamespace(ns), client.MatchingLabelsSelector{Selector: selector}})
			stopped = append(stopped, done...)
			errs = append(errs, err)
		}
	}
	return stopped, errors.Join(errs...)
}

func (f fencer) deployments(ctx context.Context, where []client.ListOption) ([]string, error) {
	var list appsv1.DeploymentList
	if err := f.reader.List(ctx, &list, where...); err != nil {
		return nil, fmt.Errorf("list deployments: %w", err)
	}
	var all []client.Object
	for i := range list.Items {
		if d := &list.Items[i]; ptr.Deref(d.Spec.Replicas, 1) > 0 {
			all = append(all, d)
		}
	}
	return f.stop(ctx, "Deployment", all)
}

func (f fencer) statefulSets(ctx context.Context, where []client.ListOption) ([]string, error) {
	var list appsv1.StatefulSetList
	if err := f.reader.List(ctx, &list, where...); err != nil {
		return nil, fmt.Errorf("list statefulsets: %w", err)
	}
	var all []client.Object
	for i := range list.Items {
		if s := &list.Items[i]; ptr.Deref(s.Spec.Replicas, 1) > 0 {
			all = append(all, s)
		}
	}
	return f.stop(ctx, "StatefulSet", all)
}

// replicaSets leaves those of Deployments alone: they follow their owners.
func (f fencer) replicaSets(ctx context.Context, where []client.ListOption) ([]string, error) {
	var list appsv1.ReplicaSetList
	if err := f.reader.List(ctx, &list, where...); err != nil {
		return nil, fmt.Errorf("list replicasets: %w", err)
	}
	var all []client.Object
	for i := range list.Items {
		if s := &list.Items[i]; metav1.GetControllerOf(s) == nil && ptr.Deref(s.Spec.Replicas, 1) > 0 {
			all = append(all, s)
		}
	}
	return f.stop(ctx, "ReplicaSet", all)
}

func (f fencer) cronJobs(ctx context.Context, where []client.ListOption) ([]string, error) {
	var list batchv1.CronJobList
	if err := f.reader.List(ctx, &list, where...); err != nil {
		return nil, fmt.Errorf("list cronjobs: %w", err)
	}
	var all []client.Object
	for i := range list.Items {
		if c := &list.Items[i]; !ptr.Deref(c.Spec.Suspend, false) {
			all = append(all, c)
		}
	}
	return f.stop(ctx, "CronJob", all)
}

func (f fencer) jobs(ctx context.Context, where []client.ListOption) ([]string, error) {
	var list batchv1.JobList
	if err := f.reader.List(ctx, &list, where...); err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	var all []client.Object
	for i := range list.Items {
		if j := &list.Items[i]; !ptr.Deref(j.Spec.Suspend, false) && !jobFinished(j) {
			all = append(all, j)
		}
	}
	return f.stop(ctx, "Job", all)
}

func jobFinished(j *batchv1.Job) bool {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == "True" {
			return true
		}
	}
	return false
}

// stop patches each object to zero, or suspended.
func (f fencer) stop(ctx context.Context, kind string, objects []client.Object) ([]string, error) {
	var stopped []string
	var errs []error
	for _, o := range objects {
		if o.GetLabels()[v1alpha1.LabelManagedBy] == "davit" {
			continue
		}
		old := o.DeepCopyObject().(client.Object) //nolint:forcetypeassert // a copy of the same
		was := halt(o)
		if err := f.client.Patch(ctx, o, client.MergeFrom(old)); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("stop %s %s/%s: %w", kind, o.GetNamespace(), o.GetName(), err))
			continue
		}
		stopped = append(stopped, fmt.Sprintf("%s %s/%s (%s)", kind, o.GetNamespace(), o.GetName(), was))
	}
	return stopped, errors.Join(errs...)
}

// halt changes the object in memory and says what it was.
func halt(o client.Object) string {
	zero := ptr.To[int32](0)
	switch w := o.(type) {
	case *appsv1.Deployment:
		return halted(w, &w.Spec.Replicas, zero)
	case *appsv1.StatefulSet:
		return halted(w, &w.Spec.Replicas, zero)
	case *appsv1.ReplicaSet:
		return halted(w, &w.Spec.Replicas, zero)
	case *corev1.ReplicationController:
		return halted(w, &w.Spec.Replicas, zero)
	case *appsv1.DaemonSet:
		return displace(w)
	case *batchv1.CronJob:
		w.Spec.Suspend = ptr.To(true)
		annotate(w, v1alpha1.AnnotationSuspended, "true")
	case *batchv1.Job:
		w.Spec.Suspend = ptr.To(true)
		annotate(w, v1alpha1.AnnotationSuspended, "true")
	}
	return "not suspended"
}

func halted(o client.Object, replicas **int32, zero *int32) string {
	was := strconv.Itoa(int(ptr.Deref(*replicas, 1)))
	*replicas = zero
	annotate(o, v1alpha1.AnnotationReplicas, was)
	return was + " replicas"
}

func annotate(o client.Object, key, value string) {
	a := o.GetAnnotations()
	if a == nil {
		a = map[string]string{}
	}
	a[key] = value
	o.SetAnnotations(a)
}
