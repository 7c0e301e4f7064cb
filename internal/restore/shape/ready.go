package shape

import (
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Wanted is how many pods a workload asks for. A DaemonSet asks for one at
// least, as its spec does not say.
func Wanted(kind schema.GroupKind, d Document) int64 {
	if replicas, set := Number(d, "spec", "replicas"); set && kind != KindDaemonSet && kind != KindPod {
		return replicas
	}
	return 1
}

// Running tells whether a workload has pods that are ready, if not all.
func Running(kind schema.GroupKind, d Document) bool {
	field := "readyReplicas"
	switch kind {
	case KindPod:
		return condition(d, "Ready") == "True"
	case KindDaemonSet:
		field = "numberReady"
	}
	n, _ := Number(d, "status", field)
	return n > 0
}

// Followed tells whether a built-in controller decides on the object.
func Followed(d Document) bool {
	for _, o := range Items(d, "metadata", "ownerReferences") {
		group, _, grouped := strings.Cut(Text(o, "apiVersion"), "/")
		if controller, _ := o["controller"].(bool); controller && (!grouped || group == GroupApps || group == KindJob.Group) {
			return true
		}
	}
	return false
}

// Ready tells whether a workload has the pods it asks for.
func Ready(kind schema.GroupKind, d Document) bool { return Lacks(kind, d) == "" }

// Lacks says what a workload still lacks to be ready; empty: nothing, or it is of a kind that
// has no pods.
func Lacks(kind schema.GroupKind, d Document) string {
	generation, _ := Number(d, "metadata", "generation")
	observed, _ := Number(d, "status", "observedGeneration")
	want := Wanted(kind, d)
	have := func(field string) int64 { n, _ := Number(d, "status", field); return n }
	ready := have("readyReplicas")
	switch kind {
	case KindDeployment:
		ready = min(have("availableReplicas"), have("updatedReplicas"))
	case KindStatefulSet, KindReplicaSet, KindController:
	case KindDaemonSet:
		ready, want = have("numberReady"), have("desiredNumberScheduled")
	case KindPod:
		if Text(d, "status", "phase") == "Succeeded" || condition(d, "Ready") == "True" {
			return ""
		}
		return PodReason(d)
	default:
		return ""
	}
	switch {
	case observed < generation:
		return "its controller has not taken it up yet"
	case ready < want:
		return fmt.Sprintf("%d of %d ready", ready, want)
	}
	return ""
}

func condition(d Document, kind string) string {
	for _, c := range Items(d, "status", "conditions") {
		if Text(c, "type") == kind {
			return Text(c, "status")
		}
	}
	return ""
}

// SelectorOf is the label selector of the pods that a workload makes, as text.
// An empty one, which would choose every pod, is an error.
func SelectorOf(d Document) (string, error) {
	raw := Child(d, "spec", "selector")
	var selector metav1.LabelSelector
	if Child(raw, "matchLabels") == nil && raw["matchExpressions"] == nil {
		raw = Document{"matchLabels": raw} // a ReplicationController's
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &selector); err != nil {
		return "", fmt.Errorf("read selector: %w", err)
	}
	s, err := metav1.LabelSelectorAsSelector(&selector)
	if err != nil {
		return "", fmt.Errorf("read selector: %w", err)
	}
	if s.Empty() {
		return "", errors.New("read selector: it is empty")
	}
	return s.String(), nil
}

// PodReason is why a pod is not ready, in the cluster's own words.
func PodReason(d Document) string {
	for _, c := range Items(d, "status", "conditions") {
		if Text(c, "type") == "PodScheduled" && Text(c, "status") == "False" {
			return "cannot be scheduled: " + Text(c, "message")
		}
	}
	for _, field := range []string{"initContainerStatuses", "containerStatuses"} {
		for _, c := range Items(d, "status", field) {
			if why := containerReason(c); why != "" {
				return why
			}
		}
	}
	for _, c := range Items(d, "status", "conditions") {
		if Text(c, "type") == "Ready" && Text(c, "message") != "" {
			return "is not ready: " + Text(c, "message")
		}
	}
	return "is in phase " + Text(d, "status", "phase")
}

func containerReason(c Document) string {
	name := Text(c, "name")
	if reason := Text(c, "state", "waiting", "reason"); reason != "" && reason != "PodInitializing" {
		why := fmt.Sprintf("container %s waits: %s: %s", name, reason, Text(c, "state", "waiting", "message"))
		if strings.Contains(reason, "Image") || strings.Contains(reason, "ErrImagePull") {
			why = fmt.Sprintf("image %s cannot be pulled: %s: %s", Text(c, "image"), reason, Text(c, "state", "waiting", "message"))
		}
		return strings.TrimSuffix(why, ": ")
	}
	if code, ok := Number(c, "state", "terminated", "exitCode"); ok && code != 0 {
		return fmt.Sprintf("container %s ended with %d: %s", name, code, Text(c, "state", "terminated", "reason"))
	}
	return ""
}

// Terminating says what a namespace that is being deleted waits for, in the
// cluster's own words, and what a person can do about it.
func Terminating(d Document) (why, remedy string) {
	var said []string
	remedy = "wait until it is gone and restore again, or restore into another one with --map-namespace"
	for _, c := range Items(d, "status", "conditions") {
		if Text(c, "status") != "True" {
			continue
		}
		switch Text(c, "type") {
		case "NamespaceDeletionDiscoveryFailure", "NamespaceDeletionGroupVersionParsingFailure":
			remedy = "mend or remove the API service that does not answer (kubectl get apiservices), and restore again"
		case "NamespaceFinalizersRemaining":
			remedy = "have whoever put the finalizers there finish (its operator may be gone), or take them off those objects yourself, and restore again"
		case "NamespaceDeletionContentFailure", "NamespaceContentRemaining":
		default:
			continue
		}
		said = append(said, Text(c, "message"))
	}
	if len(said) > 0 {
		why = ": " + strings.Join(said, "; ")
	}
	return why, remedy
}
