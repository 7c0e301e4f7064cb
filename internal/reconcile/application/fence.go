package application

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/selection"
)

// fencer stops what writes: Deployments, StatefulSets, and ReplicaSets and
// ReplicationControllers that no Deployment stands for are scaled to zero,
// CronJobs and Jobs suspended, DaemonSets sent to nodes that do not exist.
// Annotations keep what they were. Pods that none of these stands for are
// deleted, last, so that their operators, if they are of the application, are
// stopped before. Nothing starts any of it again by itself.
type fencer struct {
	client client.Client
	reader client.Reader
	now    func() time.Time
}

// fenced is what a fence did.
type fenced struct {
	stopped []string
	// spared is what the application covers and another one, which this site
	// may write, covers as narrowly or more so.
	spared []string
	// running are the application's pods that exist, those that are about to
	// end among them, and what else was found running.
	running []string
	// ended is the newest of the application's pods that have run to their end.
	ended *corev1.Pod
}

// fence stops everything of the application that runs, and names what it
// stopped. Done again it finds nothing to do. It goes on after an error. What
// is as much one of the others is spared: those are Applications that this
// site may write.
func (f fencer) fence(ctx context.Context, app *v1alpha1.Application, others []v1alpha1.Application) (fenced, error) {
	var done fenced
	w, err := f.look(ctx, app, others)
	if w == nil {
		return done, err
	}
	errs := []error{err}
	unready := f.unready(ctx, app, w) // before anything is stopped, for which others may wait
	for i := range w.kinds {
		stopped, err := f.stop(ctx, w, &w.kinds[i], unready)
		done.stopped = append(done.stopped, stopped...)
		errs = append(errs, err)
	}
	stopped, err := f.pods(ctx, w)
	done.stopped = append(done.stopped, stopped...)
	done.spared, done.ended = w.spared, w.ended()
	done.running = append(slices.Clone(done.stopped), w.running()...)
	return done, errors.Join(append(errs, err)...)
}

// look reads what runs in the application's namespaces, and judges what of it is
// the application's. What could be read is there also with an error; without
// rules there is nothing.
func (f fencer) look(ctx context.Context, app *v1alpha1.Application, others []v1alpha1.Application) (*world, error) {
	rules, err := rulesOf(app)
	if err != nil {
		return nil, err
	}
	theirs := rivals(app, rules, others)
	known, err := f.namespaces(ctx, rules, theirs)
	errs := []error{err}
	w := &world{kinds: kinds(app)}
	for _, ns := range slices.Sorted(maps.Keys(known)) {
		if rules.Namespaces.Match(ns, known[ns]) {
			errs = append(errs, w.read(ctx, f.reader, ns))
		}
	}
	w.judge(rules, theirs, known)
	return w, errors.Join(errs...)
}

// rulesOf is what the application covers. Rules outside of its own namespace
// are cut off, whatever else is wrong with them; others that cannot be read
// leave nothing to go by.
func rulesOf(app *v1alpha1.Application) (selection.Selection, error) {
	rules, err := protection.Selection(protection.OwnNamespaces(app))
	if err != nil {
		return rules, fmt.Errorf("read what to stop: %w", err)
	}
	return rules, nil
}

// namespaces are those that the rules may choose, with their labels where
// these matter. Without an answer, those that are named stay known.
func (f fencer) namespaces(ctx context.Context, rules selection.Selection, theirs []rival) (map[string]labels.Set, error) {
	known := map[string]labels.Set{}
	for _, name := range rules.Namespaces.Literal() {
		known[name] = nil
	}
	if rules.Namespaces.Static() && !slices.ContainsFunc(theirs, func(r rival) bool { return !r.rules.Namespaces.Static() }) {
		return known, nil
	}
	var list corev1.NamespaceList
	if err := f.reader.List(ctx, &list); err != nil {
		return known, fmt.Errorf("list namespaces: %w", err)
	}
	for _, ns := range list.Items {
		known[ns.Name] = ns.Labels
	}
	return known, nil
}

func jobFinished(j *batchv1.Job) bool {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == "True" {
			return true
		}
	}
	return false
}

// stop patches each object that runs to zero, or suspended. What was not ready is marked so.
func (f fencer) stop(ctx context.Context, w *world, k *kind, unready map[string]string) ([]string, error) {
	var stopped []string
	var errs []error
	for _, o := range k.objects {
		if !k.runs(o) || !w.stops(k, o) {
			continue
		}
		old := o.DeepCopyObject().(client.Object) //nolint:forcetypeassert // a copy of the same
		was := halt(o)
		delete(o.GetAnnotations(), v1alpha1.AnnotationUnready)
		if why := unready[k.nameOf(o)]; why != "" {
			annotate(o, v1alpha1.AnnotationUnready, why)
		}
		if err := f.client.Patch(ctx, o, client.MergeFrom(old)); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("stop %s %s/%s: %w", k.name, o.GetNamespace(), o.GetName(), err))
			continue
		}
		stopped = append(stopped, fmt.Sprintf("%s %s/%s (%s)", k.name, o.GetNamespace(), o.GetName(), was))
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
		keepClaims(w)
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

// keepClaims makes a StatefulSet keep the claims of pods that it is scaled down
// by: the fence must not delete the diverged data of the lost site.
func keepClaims(s *appsv1.StatefulSet) {
	policy := s.Spec.PersistentVolumeClaimRetentionPolicy
	if policy == nil || policy.WhenScaled != appsv1.DeletePersistentVolumeClaimRetentionPolicyType {
		return
	}
	policy.WhenScaled = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	annotate(s, v1alpha1.AnnotationClaims, string(appsv1.DeletePersistentVolumeClaimRetentionPolicyType))
}

func annotate(o client.Object, key, value string) {
	a := o.GetAnnotations()
	if a == nil {
		a = map[string]string{}
	}
	a[key] = value
	o.SetAnnotations(a)
}
