// Package reason asks a cluster why something does not run: the workload's
// pods, the claims that they wait for, and the events about all of these.
package reason

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

// shown is how many pods, and how many events of one object, are told of.
const shown = 3

// Finder asks one cluster.
type Finder struct{ Cluster port.Cluster }

// Workload says why a workload, or a pod, is not ready.
func (f Finder) Workload(ctx context.Context, kind schema.GroupKind, u *unstructured.Unstructured) string {
	if kind == shape.KindPod {
		return f.pod(ctx, u)
	}
	why, err := f.pods(ctx, u)
	if err != nil {
		return "its pods cannot be listed: " + err.Error()
	}
	if why != "" {
		return why
	}
	for _, c := range shape.Items(u.Object, "status", "conditions") {
		if shape.Text(c, "type") == "ReplicaFailure" || shape.Text(c, "status") == "False" {
			return shape.Text(c, "reason") + ": " + shape.Text(c, "message")
		}
	}
	if events := f.events(ctx, kind, u.GetNamespace(), u.GetName()); events != "" {
		return "it has no pods: " + events
	}
	return "it has no pods: see its events"
}

func (f Finder) pods(ctx context.Context, u *unstructured.Unstructured) (string, error) {
	selector, err := shape.SelectorOf(u.Object)
	if err != nil {
		return "", err
	}
	at, err := f.Cluster.Serves(ctx, shape.KindPod)
	if err != nil {
		return "", err
	}
	var reasons []string
	more := 0
	err = f.Cluster.List(ctx, at[0], u.GetNamespace(), selector, func(pod *unstructured.Unstructured) error {
		switch {
		case shape.Ready(shape.KindPod, pod.Object):
		case len(reasons) == shown:
			more++
		default:
			reasons = append(reasons, "pod "+pod.GetName()+" "+f.pod(ctx, pod))
		}
		return nil
	})
	return shape.Names(append(reasons, make([]string, more)...), shown), err
}

// pod is why a pod is not ready; one that waits for a claim has the claim's
// reason with its own.
func (f Finder) pod(ctx context.Context, pod *unstructured.Unstructured) string {
	why := []string{shape.PodReason(pod.Object)}
	for _, claim := range shape.ClaimsOf(shape.Child(pod.Object, "spec")) {
		if text := f.Claim(ctx, pod.GetNamespace(), claim); text != "" {
			why = append(why, "claim "+claim+" "+text)
		}
	}
	phase := shape.Text(pod.Object, "status", "phase")
	if len(why) == 1 && (phase == "Pending" || phase == "") {
		if events := f.events(ctx, shape.KindPod, pod.GetNamespace(), pod.GetName()); events != "" && !strings.Contains(why[0], events) {
			why = append(why, events)
		}
	}
	return strings.Join(why, "; ")
}

// Claim says why a claim is not bound, or nothing when it is.
func (f Finder) Claim(ctx context.Context, namespace, name string) string {
	at, err := f.Cluster.Serves(ctx, shape.KindClaim)
	if err != nil {
		return ""
	}
	live, err := f.Cluster.Get(ctx, at[0], namespace, name)
	if err != nil {
		return "cannot be read: " + err.Error()
	}
	if shape.Text(live.Object, "status", "phase") == "Bound" {
		return ""
	}
	text := "is not bound"
	if class := shape.Text(live.Object, "spec", "storageClassName"); class != "" {
		text += " (storage class " + class + ")"
	}
	if events := f.events(ctx, shape.KindClaim, namespace, name); events != "" {
		text += ": " + events
	}
	return text
}

// events are the newest few that tell something about an object.
func (f Finder) events(ctx context.Context, kind schema.GroupKind, namespace, name string) string {
	at, err := f.Cluster.Serves(ctx, schema.GroupKind{Kind: "Event"})
	if err != nil {
		return ""
	}
	type event struct{ at, text string }
	var found []event
	err = f.Cluster.List(ctx, at[0], namespace, "", func(u *unstructured.Unstructured) error {
		about := shape.Child(u.Object, "involvedObject")
		why := shape.Text(u.Object, "reason")
		telling := shape.Text(u.Object, "type") == "Warning" || why == "WaitForFirstConsumer" || why == "ExternalProvisioning"
		if telling && shape.Text(about, "kind") == kind.Kind && shape.Text(about, "name") == name {
			found = append(found, event{shape.Text(u.Object, "lastTimestamp"), why + ": " + shape.Text(u.Object, "message")})
		}
		return nil
	})
	if err != nil {
		return ""
	}
	slices.SortStableFunc(found, func(a, b event) int { return strings.Compare(b.at, a.at) })
	var texts []string
	for _, e := range found {
		if len(texts) < shown && !slices.Contains(texts, e.text) {
			texts = append(texts, e.text)
		}
	}
	return strings.Join(texts, "; ")
}
