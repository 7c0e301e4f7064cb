package shape

import (
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// PodSpecOf returns the spec of the pods that an object makes, or nil.
func PodSpecOf(kind schema.GroupKind, d Document) Document {
	switch kind {
	case KindPod:
		return Child(d, "spec")
	case KindCronJob:
		return Child(d, "spec", "jobTemplate", "spec", "template", "spec")
	case KindDeployment, KindReplicaSet, KindStatefulSet, KindDaemonSet, KindJob, KindController:
		return Child(d, "spec", "template", "spec")
	}
	return nil
}

// PodLabelsOf returns the labels of the pods that an object makes, or nil.
func PodLabelsOf(kind schema.GroupKind, d Document) Document {
	switch kind {
	case KindPod:
		return Child(d, "metadata", "labels")
	case KindCronJob:
		return Child(d, "spec", "jobTemplate", "spec", "template", "metadata", "labels")
	}
	return Child(d, "spec", "template", "metadata", "labels")
}

// ClaimsOf returns the claims that pods of this spec mount.
func ClaimsOf(spec Document) []string {
	var names []string
	for _, v := range Items(spec, "volumes") {
		if name := Text(v, "persistentVolumeClaim", "claimName"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Mounts tells whether pods of the object mount the claim.
func Mounts(kind schema.GroupKind, d Document, claim string) bool {
	for _, name := range ClaimsOf(PodSpecOf(kind, d)) {
		if name == claim {
			return true
		}
	}
	for _, t := range Items(d, "spec", "volumeClaimTemplates") {
		prefix := Text(t, "metadata", "name") + "-" + Text(d, "metadata", "name") + "-"
		ordinal, is := strings.CutPrefix(claim, prefix)
		if kind == KindStatefulSet && is && ordinal != "" && strings.Trim(ordinal, "0123456789") == "" {
			return true // and not that of a set whose name only begins the same
		}
	}
	return false
}

// Active tells whether the object has pods, or may make some.
func Active(kind schema.GroupKind, u *unstructured.Unstructured) bool {
	if u.GetLabels()[LabelManagedBy] != "" {
		return false // Davit's own holder pods
	}
	switch kind {
	case KindPod:
		why, _ := SkipByBody(kind, u.Object)
		return why == ""
	case KindJob:
		why, _ := SkipByBody(kind, u.Object)
		suspended, _ := Child(u.Object, "spec")["suspend"].(bool)
		return why == "" && !suspended
	case KindCronJob:
		suspended, _ := Child(u.Object, "spec")["suspend"].(bool)
		return !suspended
	case KindStatefulSet, KindDeployment, KindReplicaSet, KindController:
		replicas, ok := Number(u.Object, "spec", "replicas")
		return !ok || replicas > 0
	}
	return true
}

// Inspected are kinds whose bodies a restore looks into before it starts.
var Inspected = map[schema.GroupKind]bool{
	KindCRD: true, KindService: true, KindClaim: true, KindPod: true, KindJob: true, KindDeployment: true,
	KindStatefulSet: true, KindDaemonSet: true, KindReplicaSet: true, KindCronJob: true, KindClass: true,
	KindController: true, KindRoleBinding: true, KindClusterRoleBinding: true, KindAPIService: true,
	KindValidating: true, KindMutating: true,
}

// KeepOnly forgets what the order of a restore does not need of an inspected object.
func KeepOnly(kind schema.GroupKind, d Document) Document {
	switch kind {
	case KindService, KindClaim, KindCRD, KindClass:
		return d
	}
	spec := PodSpecOf(kind, d)
	if len(ClaimsOf(spec)) == 0 && kind != KindStatefulSet {
		return nil
	}
	return d
}
