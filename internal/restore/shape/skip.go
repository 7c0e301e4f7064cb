package shape

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// NeverRestored are kinds whose objects belong to the cluster they were in,
// with the reason.
var NeverRestored = map[schema.GroupKind]string{
	{Kind: "Event"}: "events are of the source", {Group: "events.k8s.io", Kind: "Event"}: "events are of the source",
	{Kind: "Node"}: "nodes are of the source", {Kind: "Binding"}: "not an object", {Kind: "ComponentStatus"}: "not an object",
	{Kind: "PersistentVolume"}: "volumes are made anew",
	KindLease:                  "leases are of the source",
	{Group: GroupStorage, Kind: "VolumeAttachment"}:   "attachments are of the source",
	{Group: GroupStorage, Kind: "CSINode"}:            "nodes are of the source",
	{Group: GroupStorage, Kind: "CSIStorageCapacity"}: "capacity is of the source",
	KindDriver: "storage drivers are the target's own",
	{Group: GroupSnapshots, Kind: "VolumeSnapshot"}:                   "snapshots name data of the source's storage",
	{Group: GroupSnapshots, Kind: "VolumeSnapshotContent"}:            "snapshots name data of the source's storage",
	{Group: "certificates.k8s.io", Kind: "CertificateSigningRequest"}: "requests are of the source",
	{Group: GroupApps, Kind: "ControllerRevision"}:                    "made anew by the workload's controller",
	{Group: "metrics.k8s.io", Kind: "PodMetrics"}:                     "not stored",
	{Group: "metrics.k8s.io", Kind: "NodeMetrics"}:                    "not stored",
}

// TokenSecret is the type of a Secret that asks for a token of the account that
// AnnotationAccount names. The token in it is made anew, and opens nothing elsewhere.
const (
	TokenSecret       = "kubernetes.io/service-account-token" //nolint:gosec // a type
	AnnotationAccount = "kubernetes.io/service-account.name"
)

// SkipByHead decides on objects that are not restored whatever they hold.
func SkipByHead(kind schema.GroupKind, h Head) (why string, warn bool) {
	switch {
	case h.Metadata.Name == "":
		return "has no name", true
	case h.Metadata.Deletion != "":
		return "was being deleted when it was captured", true
	case h.Metadata.Labels[LabelManagedBy] != "":
		return "is a helper of Davit's own", false
	case kind == KindConfigMap && (h.Metadata.Name == "kube-root-ca.crt" || h.Metadata.Name == "openshift-service-ca.crt"):
		return "made by the cluster in every namespace", false
	case kind == KindSecret && h.Type == TokenSecret && h.Metadata.Annotations[AnnotationAccount] == "":
		return "tokens are made anew", false
	case h.Metadata.Annotations["kubernetes.io/config.mirror"] != "":
		return "a node's static pod", false
	case kind.Group == GroupDiscovery && strings.HasSuffix(h.Metadata.Labels["endpointslice.kubernetes.io/managed-by"], ".k8s.io"):
		return "made anew by the Service's controller", false
	case kind.Group == GroupAPIService && h.Metadata.Labels["kube-aggregator.kubernetes.io/automanaged"] != "":
		return "made by the API server", false
	}
	return "", false
}

// SkipByBody decides on objects that would do their work a second time.
func SkipByBody(kind schema.GroupKind, d Document) (why string, warn bool) {
	switch kind {
	case KindPod:
		if phase := Text(d, "status", "phase"); phase == "Succeeded" || phase == "Failed" {
			return "the pod had finished", false
		}
	case KindJob:
		for _, c := range Items(d, "status", "conditions") {
			if t := Text(c, "type"); Text(c, "status") == "True" && (t == "Complete" || t == "Failed") {
				return "the Job had finished", false
			}
		}
	}
	return "", false
}

// MadeByController are kinds that their controller makes again, if it is in
// the point as well.
var MadeByController = map[schema.GroupKind]bool{
	KindPod: true, KindReplicaSet: true, KindJob: true, KindController: true,
	{Group: GroupDiscovery, Kind: "EndpointSlice"}: true, {Kind: "Endpoints"}: true,
}
