package standby

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/reason"
	"davit.dev/davit/internal/restore/shape"
)

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

// stop brings to rest what a restore made, and waits until none of its pods is
// left.
func stop(ctx context.Context, c restore.Cluster, id string) (string, error) {
	selector := shape.LabelRestore + "=" + id
	n := 0
	for kind, patch := range halting {
		at, err := serving(ctx, c, kind)
		if err != nil {
			return "", err
		}
		err = c.List(ctx, at, "", selector, func(u *unstructured.Unstructured) error {
			body := patch(u)
			if body == nil || len(u.GetOwnerReferences()) > 0 {
				return nil
			}
			data, err := json.Marshal(body)
			if err != nil {
				return fmt.Errorf("encode patch: %w", err)
			}
			n++
			if _, err := c.Patch(ctx, at, u.GetNamespace(), u.GetName(), data); err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("stop %s %s/%s: %w", kind.Kind, u.GetNamespace(), u.GetName(), err)
			}
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d workloads", n), drained(ctx, c, selector)
}

// drained deletes pods of their own, and waits until no pod of the restore's
// workloads runs.
func drained(ctx context.Context, c restore.Cluster, selector string) error {
	for {
		left, err := running(ctx, c, selector)
		if err != nil {
			return fmt.Errorf("stop pods: %w", err)
		}
		if left == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the pods of %s to end: %w", left, context.Cause(ctx))
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// counters say how many pods a workload has.
var counters = map[schema.GroupKind]string{
	shape.KindDeployment: "replicas", shape.KindStatefulSet: "replicas", shape.KindReplicaSet: "replicas", shape.KindController: "replicas",
	shape.KindDaemonSet: "currentNumberScheduled", shape.KindJob: "active",
}

// running names something of the restore that has pods, empty if nothing has.
func running(ctx context.Context, c restore.Cluster, selector string) (left string, err error) {
	for kind, counter := range counters {
		at, err := serving(ctx, c, kind)
		if err != nil {
			return "", err
		}
		err = c.List(ctx, at, "", selector, func(u *unstructured.Unstructured) error {
			if n, _, _ := unstructured.NestedInt64(u.Object, "status", counter); n > 0 {
				left = kind.Kind + " " + u.GetNamespace() + "/" + u.GetName()
			}
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	at, err := serving(ctx, c, shape.KindPod)
	if err != nil {
		return "", err
	}
	err = c.List(ctx, at, "", selector, func(u *unstructured.Unstructured) error {
		phase, _, _ := unstructured.NestedString(u.Object, "status", "phase")
		if phase == "Succeeded" || phase == "Failed" {
			return nil
		}
		left = "Pod " + u.GetNamespace() + "/" + u.GetName()
		if len(u.GetOwnerReferences()) > 0 || u.GetDeletionTimestamp() != nil {
			return nil
		}
		if err := c.Delete(ctx, at, u, false); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		return nil
	})
	return left, err
}

func serving(ctx context.Context, c restore.Cluster, kind schema.GroupKind) (restore.Served, error) {
	served, err := c.Serves(ctx, kind)
	if err != nil {
		return restore.Served{}, fmt.Errorf("look at %s: %w", kind, err)
	}
	return served[0], nil
}

// unready are the workloads of a restore that are not ready, for people.
func unready(ctx context.Context, c restore.Cluster, id string, namespaces []string) (string, error) {
	lag, _, err := reason.Watch{Finder: reason.Finder{Cluster: c}, ID: id, Kinds: reason.WaitedFor, Namespaces: namespaces}.Laggards(ctx, true)
	switch {
	case errors.Is(err, restore.ErrNotServed):
		return "", nil
	case err != nil || len(lag) == 0:
		return "", err
	}
	return lag[0].Object + ": " + lag[0].Why, nil
}
