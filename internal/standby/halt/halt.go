// Package halt brings to rest, when a run is taken back, what its restore made at a site.
package halt

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/shape"
)

const (
	look = 500 * time.Millisecond
	// foughtAfter is how long what starts a workload again has to end: an operator that came
	// along is stopped as well.
	foughtAfter = time.Minute
)

// kinds are in the order in which they are stopped: what starts others comes first.
var kinds = []schema.GroupKind{
	shape.KindDeployment, shape.KindCronJob, shape.KindJob, shape.KindStatefulSet, shape.KindDaemonSet, shape.KindReplicaSet, shape.KindController,
}

// halting says how a workload of a kind is stopped: the same way as a
// superseded site does it, so that the same annotations lead back.
var halting = map[schema.GroupKind]func(u *unstructured.Unstructured) map[string]any{
	shape.KindDeployment:  toZero,
	shape.KindStatefulSet: toZero,
	shape.KindReplicaSet:  toZero,
	shape.KindController:  toZero,
	shape.KindCronJob:     suspended,
	shape.KindJob:         suspended,
	shape.KindDaemonSet:   nowhere,
}

func nowhere(u *unstructured.Unstructured) map[string]any {
	was, _, _ := unstructured.NestedMap(u.Object, "spec", "template", "spec", "nodeSelector")
	if was[v1alpha1.LabelNowhere] != nil {
		return nil
	}
	before, err := json.Marshal(was)
	if err != nil {
		return nil // what came from JSON goes back to it
	}
	return map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{v1alpha1.AnnotationNodeSelector: string(before)}},
		"spec":     map[string]any{"template": map[string]any{"spec": map[string]any{"nodeSelector": map[string]any{v1alpha1.LabelNowhere: "true"}}}},
	}
}

func toZero(u *unstructured.Unstructured) map[string]any {
	was, found, _ := unstructured.NestedInt64(u.Object, "spec", "replicas")
	if !found {
		was = 1
	}
	if was == 0 {
		return nil
	}
	notes, spec := map[string]any{v1alpha1.AnnotationReplicas: strconv.FormatInt(was, 10)}, map[string]any{"replicas": 0}
	// What was brought is to stay, at rest: also where scaling down deletes claims.
	policy, _, _ := unstructured.NestedString(u.Object, "spec", "persistentVolumeClaimRetentionPolicy", "whenScaled")
	if policy == string(appsv1.DeletePersistentVolumeClaimRetentionPolicyType) {
		notes[v1alpha1.AnnotationClaims] = policy
		spec["persistentVolumeClaimRetentionPolicy"] = map[string]any{"whenScaled": string(appsv1.RetainPersistentVolumeClaimRetentionPolicyType)}
	}
	return map[string]any{"metadata": map[string]any{"annotations": notes}, "spec": spec}
}

func suspended(u *unstructured.Unstructured) map[string]any {
	if was, _, _ := unstructured.NestedBool(u.Object, "spec", "suspend"); was {
		return nil
	}
	return map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{v1alpha1.AnnotationSuspended: "true"}},
		"spec":     map[string]any{"suspend": true},
	}
}

// halt is one restore's standstill.
type halt struct {
	restore.Cluster
	selector string
	first    map[string]time.Time // when a workload was stopped first
	fought   error
}

// Stop brings to rest what a restore made, by its id, and waits until none of its pods is left. What
// its operator starts again meanwhile is stopped again, for a while. It says what was stopped; with
// an error, that something still runs, or may.
func Stop(ctx context.Context, c restore.Cluster, id string) (string, error) {
	h := &halt{Cluster: c, selector: shape.LabelRestore + "=" + id, first: map[string]time.Time{}}
	for {
		left, err := h.look(ctx)
		did := fmt.Sprintf("%d workloads", len(h.first))
		switch {
		case err != nil:
			return did, err
		case left == "":
			return did, nil
		case h.fought != nil:
			return did, h.fought
		}
		select {
		case <-ctx.Done():
			return did, fmt.Errorf("wait for the pods of %s to end: %w", left, context.Cause(ctx))
		case <-time.After(look):
		}
	}
}

// look stops what runs, and names something that has pods; empty if nothing has.
func (h *halt) look(ctx context.Context) (left string, err error) {
	var idle []*unstructured.Unstructured // that say that they have none
	for _, kind := range kinds {
		at, err := h.serving(ctx, kind)
		if err != nil {
			return "", err
		}
		err = h.List(ctx, at, "", h.selector, func(u *unstructured.Unstructured) error {
			if n, _ := shape.Number(u.Object, "status", counters[kind]); n > 0 {
				left = kind.Kind + " " + u.GetNamespace() + "/" + u.GetName()
			} else {
				idle = append(idle, u.DeepCopy())
			}
			if err := h.stop(ctx, at, kind, u); err != nil || kind != shape.KindCronJob {
				return err
			}
			job, err := h.begun(ctx, u)
			left = cmp.Or(left, job)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	pods, err := h.serving(ctx, shape.KindPod)
	if err != nil {
		return "", err
	}
	bare, err := h.bare(ctx, pods)
	if left != "" || bare != "" || err != nil {
		return cmp.Or(left, bare), err
	}
	for _, u := range idle {
		if left, err := h.madeBy(ctx, pods, u); left != "" || err != nil {
			return left, err
		}
	}
	return "", nil
}

// stop stops a workload that runs. What belongs to one that is stopped itself follows that.
func (h *halt) stop(ctx context.Context, at restore.Served, kind schema.GroupKind, u *unstructured.Unstructured) error {
	if owner := metav1.GetControllerOf(u); owner != nil && owner.Kind == shape.KindDeployment.Kind {
		return nil
	}
	body := halting[kind](u)
	if body == nil {
		return nil
	}
	name := kind.Kind + " " + u.GetNamespace() + "/" + u.GetName()
	since, again := h.first[name]
	if !again {
		since = time.Now()
		h.first[name] = since
	}
	if time.Since(since) > foughtAfter {
		h.fought = fmt.Errorf("%s is started again whenever it is stopped: stop what does that (its operator), then resume the run", name)
	}
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode patch: %w", err)
	}
	if _, err := h.Patch(ctx, at, u.GetNamespace(), u.GetName(), data); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	return nil
}

// begun stops the Jobs that a CronJob has made, which bear no mark of the restore, and names one
// that has pods.
func (h *halt) begun(ctx context.Context, cron *unstructured.Unstructured) (left string, err error) {
	at, err := h.serving(ctx, shape.KindJob)
	if err != nil {
		return "", err
	}
	for _, ref := range shape.Items(cron.Object, "status", "active") {
		job, err := h.Get(ctx, at, cron.GetNamespace(), shape.Text(ref, "name"))
		if apierrors.IsNotFound(err) {
			continue
		}
		if err == nil && !metav1.IsControlledBy(job, cron) {
			continue // somebody else's, which bears the name now
		}
		if err == nil {
			err = h.stop(ctx, at, shape.KindJob, job)
		}
		if err != nil {
			return "", err
		}
		active, _ := shape.Number(job.Object, "status", "active")
		if ending, _ := shape.Number(job.Object, "status", "terminating"); active+ending > 0 {
			left = "Job " + job.GetNamespace() + "/" + job.GetName()
		}
	}
	return left, nil
}

// counters say how many pods a workload has. They leave out those that are about to end.
var counters = map[schema.GroupKind]string{
	shape.KindDeployment: "replicas", shape.KindStatefulSet: "replicas", shape.KindReplicaSet: "replicas", shape.KindController: "replicas",
	shape.KindDaemonSet: "currentNumberScheduled", shape.KindJob: "active",
}

// bare deletes pods of their own, and names one of the restore's that runs.
func (h *halt) bare(ctx context.Context, at restore.Served) (left string, err error) {
	err = h.List(ctx, at, "", h.selector, func(u *unstructured.Unstructured) error {
		if ended(u) {
			return nil
		}
		left = "Pod " + u.GetNamespace() + "/" + u.GetName()
		if len(u.GetOwnerReferences()) > 0 || u.GetDeletionTimestamp() != nil {
			return nil
		}
		if err := h.Delete(ctx, at, u, false); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("stop pods: %w", err)
		}
		return nil
	})
	return left, err
}

// madeBy names a pod of a workload that has not ended: those that were told to are in no counter.
func (h *halt) madeBy(ctx context.Context, at restore.Served, workload *unstructured.Unstructured) (left string, err error) {
	selector, err := podsOf(workload)
	if selector == "" || err != nil {
		return "", err
	}
	err = h.List(ctx, at, workload.GetNamespace(), selector, func(u *unstructured.Unstructured) error {
		if owner := metav1.GetControllerOf(u); owner == nil || ended(u) {
			return nil
		} else if owner.UID == workload.GetUID() || owner.Name == workload.GetName()+"-"+u.GetLabels()["pod-template-hash"] {
			left = "Pod " + u.GetNamespace() + "/" + u.GetName()
			if u.GetDeletionTimestamp() != nil { // its node may never say so
				left += " (which was told to: if its node is lost, delete it by force)"
			}
		}
		return nil
	})
	return left, err
}

// podsOf selects the pods of a workload; empty: it has none of its own.
func podsOf(u *unstructured.Unstructured) (string, error) {
	found, _, _ := unstructured.NestedMap(u.Object, "spec", "selector")
	if len(found) == 0 {
		return "", nil
	}
	if u.GetKind() == shape.KindController.Kind {
		found = map[string]any{"matchLabels": found}
	}
	var selector metav1.LabelSelector
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(found, &selector)
	chosen := labels.Nothing()
	if err == nil {
		chosen, err = metav1.LabelSelectorAsSelector(&selector)
	}
	if err == nil {
		return chosen.String(), nil
	}
	return "", fmt.Errorf("read the selector of %s %s/%s: %w", u.GetKind(), u.GetNamespace(), u.GetName(), err)
}

func ended(pod *unstructured.Unstructured) bool {
	phase := shape.Text(pod.Object, "status", "phase")
	return phase == "Succeeded" || phase == "Failed"
}

func (h *halt) serving(ctx context.Context, kind schema.GroupKind) (restore.Served, error) {
	served, err := h.Serves(ctx, kind)
	if err != nil {
		return restore.Served{}, fmt.Errorf("look at %s: %w", kind, err)
	}
	return served[0], nil
}
