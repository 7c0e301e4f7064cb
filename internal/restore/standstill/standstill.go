// Package standstill brings to rest what uses a volume, so that the volume can
// be filled, and starts it again as it was. What it was is written on the
// object in the same write that stops it: after a crash at any instant
// whoever comes next knows it.
package standstill

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/answer"
	"davit.dev/davit/internal/restore/hold"
	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

// Annotation of what is at rest holds what it was before, as JSON:
// {"replicas":3}, {"suspend":false}, {"nodeSelector":true}.
const Annotation = shape.AnnotationBefore

// parked is a node label that no node has.
const parked = "davit.dev/restoring"

const look = 500 * time.Millisecond

// Stage stops and starts workloads of one cluster.
type Stage struct {
	Cluster  port.Cluster
	Clock    port.Clock
	Progress port.Progress
	// Brought tells whether the restore brings the pod back: a pod that
	// nothing makes anew is deleted only then.
	Brought func(namespace, name string) bool
	// Brings tells whether the restore has data for a claim, and Warn what a
	// person should know; both may be nil.
	Brings func(kind schema.GroupKind, namespace, name string) bool
	Warn   func(object, format string, args ...any)
	// Patience bounds the wait for pods to end.
	Patience time.Duration
}

// kinds that can be at rest, those first that make others.
var kinds = []schema.GroupKind{
	shape.KindCronJob, shape.KindDeployment, shape.KindStatefulSet, shape.KindDaemonSet,
	shape.KindReplicaSet, shape.KindController, shape.KindJob,
}

// Stop brings to rest everything in the namespace that mounts the claim, and
// returns when no pod does any more. Done again it finds nothing to do.
func (s Stage) Stop(ctx context.Context, namespace, claim string) (stopped []string, err error) {
	for _, kind := range kinds {
		at, err := s.served(ctx, kind)
		if errors.Is(err, port.ErrNotServed) {
			continue
		}
		if err != nil {
			return stopped, err
		}
		var users []*unstructured.Unstructured
		err = s.Cluster.List(ctx, at, namespace, "", func(u *unstructured.Unstructured) error {
			if shape.Active(kind, u) && !atRest(kind, u) && shape.Mounts(kind, u.Object, claim) && !follows(u) {
				users = append(users, u)
			}
			return nil
		})
		if err != nil {
			return stopped, fmt.Errorf("look who uses claim %s/%s: %w", namespace, claim, err)
		}
		if len(users) > 0 { // a process that stood still may find what others have started
			if err := hold.Still(ctx); err != nil {
				return stopped, err
			}
		}
		for _, u := range users {
			name := kind.String() + " " + namespace + "/" + u.GetName()
			s.Progress.Note("stopping " + name + ", which uses claim " + claim)
			s.tellOfOthers(kind, u, claim)
			if err := s.rest(ctx, at, kind, u); err != nil {
				return stopped, fmt.Errorf("stop %s: %w", name, err)
			}
			stopped = append(stopped, name)
		}
	}
	return stopped, s.awaitNoPods(ctx, namespace, claim)
}

// tellOfOthers names the pods of a StatefulSet that stand still only because
// one of them has to: it can leave no pod out of its row.
func (s Stage) tellOfOthers(kind schema.GroupKind, u *unstructured.Unstructured, claim string) {
	if kind != shape.KindStatefulSet || s.Brings == nil || s.Warn == nil {
		return
	}
	replicas, set := shape.Number(u.Object, "spec", "replicas")
	if !set {
		replicas = 1
	}
	first, _ := shape.Number(u.Object, "spec", "ordinals", "start")
	for _, t := range shape.Items(u.Object, "spec", "volumeClaimTemplates") {
		prefix := shape.Text(t, "metadata", "name") + "-" + u.GetName() + "-"
		if !strings.HasPrefix(claim, prefix) {
			continue
		}
		var others []string
		for n := first; n < first+replicas; n++ {
			if its := fmt.Sprint(prefix, n); its != claim && !s.Brings(shape.KindClaim, u.GetNamespace(), its) {
				others = append(others, fmt.Sprint(u.GetName(), "-", n))
			}
		}
		if len(others) > 0 {
			s.Warn("StatefulSet.apps "+u.GetNamespace()+"/"+u.GetName(),
				"stands still with %s as well while claim %s is filled, though the point has no data for those: a StatefulSet can leave none of its pods out; they start again with the data they have",
				shape.Names(others, 3), claim)
		}
	}
}

// atRest tells whether a DaemonSet waits for a node that there is not: every
// other kind shows by itself that it is not active.
func atRest(kind schema.GroupKind, u *unstructured.Unstructured) bool {
	_, waits := shape.Child(u.Object, "spec", "template", "spec", "nodeSelector")[parked]
	return kind == shape.KindDaemonSet && waits
}

// follows tells whether a controller of one of the kinds decides on the object.
func follows(u *unstructured.Unstructured) bool {
	for _, o := range u.GetOwnerReferences() {
		gv, err := schema.ParseGroupVersion(o.APIVersion)
		if err == nil && o.Controller != nil && *o.Controller && slices.Contains(kinds, schema.GroupKind{Group: gv.Group, Kind: o.Kind}) {
			return true
		}
	}
	return false
}

// rest stops one object and writes on it what it was. The resource version
// makes a change in between a conflict, which is looked at again.
func (s Stage) rest(ctx context.Context, at port.Served, kind schema.GroupKind, u *unstructured.Unstructured) error {
	for range answer.Attempts {
		change, was := stop(kind, u)
		note, err := json.Marshal(was)
		if err != nil {
			return fmt.Errorf("encode what it was: %w", err)
		}
		change["metadata"] = shape.Document{
			"resourceVersion": u.GetResourceVersion(), "annotations": shape.Document{Annotation: string(note)},
		}
		err = s.patch(ctx, at, u, change)
		if !apierrors.IsConflict(err) {
			return notFoundIsFine(err)
		}
		if u, err = s.Cluster.Get(ctx, at, u.GetNamespace(), u.GetName()); err != nil {
			return notFoundIsFine(err)
		}
		if !shape.Active(kind, u) || atRest(kind, u) {
			return nil
		}
		if err := hold.Still(ctx); err != nil { // who changed it may be who restores by now
			return err
		}
	}
	return errors.New("it changes faster than it can be stopped")
}

func notFoundIsFine(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// stop is the change that stops an object, and what it was before. A
// StatefulSet that would delete the claims of pods that it scales away is told
// to keep them.
func stop(kind schema.GroupKind, u *unstructured.Unstructured) (change, was shape.Document) {
	switch kind {
	case shape.KindCronJob, shape.KindJob:
		return shape.Document{"spec": shape.Document{"suspend": true}}, shape.Document{"suspend": false}
	case shape.KindDaemonSet:
		return shape.Document{"spec": shape.Document{"template": shape.Document{"spec": shape.Document{
			"nodeSelector": shape.Document{parked: "true"},
		}}}}, shape.Document{"nodeSelector": true}
	}
	replicas, set := shape.Number(u.Object, "spec", "replicas")
	if !set {
		replicas = 1
	}
	spec := shape.Document{"replicas": int64(0)}
	was = shape.Document{"replicas": replicas}
	if scaled := shape.Text(u.Object, "spec", "persistentVolumeClaimRetentionPolicy", "whenScaled"); scaled == "Delete" {
		spec["persistentVolumeClaimRetentionPolicy"] = shape.Document{"whenScaled": "Retain"}
		was["whenScaled"] = scaled
	}
	return shape.Document{"spec": spec}, was
}

// Before returns the change that makes an object again what it was, or nil
// when it is not at rest.
func Before(u *unstructured.Unstructured) (shape.Document, error) {
	note, at := u.GetAnnotations()[Annotation]
	if !at {
		return nil, nil
	}
	var was struct {
		Replicas     *int64 `json:"replicas"`
		WhenScaled   string `json:"whenScaled"`
		Suspend      *bool  `json:"suspend"`
		NodeSelector bool   `json:"nodeSelector"`
	}
	if err := json.Unmarshal([]byte(note), &was); err != nil {
		return nil, fmt.Errorf("read annotation %s: %w", Annotation, err)
	}
	spec := shape.Document{}
	if was.Replicas != nil {
		spec["replicas"] = *was.Replicas
	}
	if was.WhenScaled != "" {
		spec["persistentVolumeClaimRetentionPolicy"] = shape.Document{"whenScaled": was.WhenScaled}
	}
	if was.Suspend != nil {
		spec["suspend"] = *was.Suspend
	}
	if was.NodeSelector {
		spec["template"] = shape.Document{"spec": shape.Document{"nodeSelector": shape.Document{parked: nil}}}
	}
	return shape.Document{"metadata": shape.Document{"annotations": shape.Document{Annotation: nil}}, "spec": spec}, nil
}

// Undone is the object as it was before it was brought to rest.
func Undone(u *unstructured.Unstructured) *unstructured.Unstructured {
	change, err := Before(u)
	if change == nil || err != nil {
		return u
	}
	was := u.DeepCopy()
	shape.Merge(was.Object, change)
	for _, path := range [][]string{{"spec", "template", "spec"}} {
		if m := shape.Child(was.Object, path...); m != nil {
			shape.DropEmpty(m, "nodeSelector")
		}
	}
	shape.DropEmpty(shape.Child(was.Object, "metadata"), "annotations")
	return was
}

// Forget takes off what was written on an object whose spec somebody has set
// anew since, and what only kept it at rest.
func (s Stage) Forget(ctx context.Context, at port.Served, u *unstructured.Unstructured) error {
	if u.GetAnnotations()[Annotation] == "" {
		return nil
	}
	change := shape.Document{"metadata": shape.Document{"annotations": shape.Document{Annotation: nil}}}
	if atRest(at.GVK.GroupKind(), u) {
		change["spec"] = shape.Document{"template": shape.Document{"spec": shape.Document{"nodeSelector": shape.Document{parked: nil}}}}
	}
	return s.patch(ctx, at, u, change)
}

// Start makes everything in the namespaces that is at rest again what it was,
// but for what keep names a reason for, and what mounts a claim that any restore
// has not filled yet. It returns what it started, and what stays at rest with the
// reason.
func (s Stage) Start(ctx context.Context, namespaces []string, keep func(kind schema.GroupKind, u *unstructured.Unstructured) string) (started []*unstructured.Unstructured, kept map[string]string, err error) {
	kept = map[string]string{}
	for _, kind := range kinds {
		at, err := s.served(ctx, kind)
		if errors.Is(err, port.ErrNotServed) {
			continue
		}
		if err != nil {
			return started, kept, err
		}
		for _, namespace := range namespaces {
			var resting []*unstructured.Unstructured
			err := s.Cluster.List(ctx, at, namespace, "", func(u *unstructured.Unstructured) error {
				if u.GetAnnotations()[Annotation] != "" {
					resting = append(resting, u)
				}
				return nil
			})
			if err != nil {
				return started, kept, fmt.Errorf("look for what was stopped: %w", err)
			}
			if len(resting) == 0 {
				continue
			}
			if err := hold.Still(ctx); err != nil {
				return started, kept, err
			}
			half, err := HalfFilled(ctx, s.Cluster, namespace) // after what is at rest: who stopped it may be about to fill
			if err != nil {
				return started, kept, fmt.Errorf("look what others fill: %w", err)
			}
			for _, u := range resting {
				name := kind.String() + " " + namespace + "/" + u.GetName()
				if why := cmp.Or(keep(kind, u), ofOthers(kind, u, half)); why != "" {
					kept[name] = why
					continue
				}
				if err := s.start(ctx, at, u); err != nil {
					return started, kept, fmt.Errorf("start %s again: %w", name, err)
				}
				started = append(started, u)
			}
		}
	}
	return started, kept, nil
}

// ofOthers says why what is at rest stays so, whoever stopped it: it would run on a
// volume that is not whole.
func ofOthers(kind schema.GroupKind, u *unstructured.Unstructured, half map[string]string) string {
	for _, claim := range slices.Sorted(maps.Keys(half)) {
		if shape.Mounts(kind, u.Object, claim) {
			return "stays stopped, because it mounts claim " + claim + ", which restore " + half[claim] + " has not filled: when that is through, it is started; if it died, give it again; if the claim was filled by other means, take label " + shape.LabelRestore + " off it, and restore again"
		}
	}
	return ""
}

// start starts one object again, unless somebody changes it meanwhile: then it looks again, and
// whether this restore is still the one under way.
func (s Stage) start(ctx context.Context, at port.Served, u *unstructured.Unstructured) error {
	for range answer.Attempts {
		change, err := Before(u)
		if change == nil || err != nil {
			return err
		}
		shape.Child(change, "metadata")["resourceVersion"] = u.GetResourceVersion()
		if err = s.patch(ctx, at, u, change); !apierrors.IsConflict(err) {
			return notFoundIsFine(err)
		}
		if u, err = s.Cluster.Get(ctx, at, u.GetNamespace(), u.GetName()); err != nil {
			return notFoundIsFine(err)
		}
		if err := hold.Still(ctx); err != nil {
			return err
		}
	}
	return errors.New("it changes faster than it can be started")
}

func (s Stage) patch(ctx context.Context, at port.Served, u *unstructured.Unstructured, change shape.Document) error {
	patch, err := json.Marshal(change)
	if err != nil {
		return fmt.Errorf("encode patch: %w", err)
	}
	_, err = s.Cluster.Patch(ctx, at, u.GetNamespace(), u.GetName(), patch)
	return err
}

func (s Stage) served(ctx context.Context, kind schema.GroupKind) (port.Served, error) {
	all, err := s.Cluster.Serves(ctx, kind)
	if err != nil {
		return port.Served{}, err
	}
	return all[0], nil
}

// awaitNoPods waits until no pod mounts the claim, and deletes those that
// nothing makes anew but this restore.
func (s Stage) awaitNoPods(ctx context.Context, namespace, claim string) error {
	at, err := s.served(ctx, shape.KindPod)
	if err != nil {
		return err
	}
	deadline := s.Clock.Now().Add(s.Patience)
	for {
		left, err := s.pods(ctx, at, namespace, claim)
		if err != nil || len(left) == 0 {
			return err
		}
		if !s.Clock.Now().Before(deadline) {
			return fmt.Errorf("still mounted by %s after %s: see why it does not end, or delete it, and restore again",
				strings.Join(left, ", "), s.Patience)
		}
		s.Progress.Note("waiting for " + shape.Names(left, 3) + " to end")
		if err := s.Clock.Sleep(ctx, look); err != nil {
			return fmt.Errorf("wait for %s to end: %w", shape.Names(left, 3), err)
		}
	}
}

func (s Stage) pods(ctx context.Context, at port.Served, namespace, claim string) (left []string, err error) {
	var bare []*unstructured.Unstructured
	err = s.Cluster.List(ctx, at, namespace, "", func(u *unstructured.Unstructured) error {
		if !shape.Active(shape.KindPod, u) || !shape.Mounts(shape.KindPod, u.Object, claim) {
			return nil
		}
		text := "pod " + u.GetName()
		owned := false
		for _, o := range u.GetOwnerReferences() {
			if o.Controller != nil && *o.Controller {
				owned = true
				text += " of " + o.Kind + " " + o.Name
			}
		}
		if u.GetDeletionTimestamp() != nil {
			text += " (being deleted)"
		} else if !owned {
			bare = append(bare, u)
		}
		left = append(left, text)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look who uses claim %s/%s: %w", namespace, claim, err)
	}
	for _, u := range bare {
		if !s.Brought(namespace, u.GetName()) {
			return nil, fmt.Errorf("pod %s/%s uses the volume, nothing makes it anew and the recovery point does not hold it: delete it, and restore again", namespace, u.GetName())
		}
		if err := s.Cluster.Delete(ctx, at, u, false); err != nil {
			return nil, fmt.Errorf("delete pod %s/%s, which is restored afterwards: %w", namespace, u.GetName(), err)
		}
	}
	return left, nil
}
