package shape

import (
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// API groups.
const (
	GroupApps       = "apps"
	GroupBatch      = "batch"
	GroupRBAC       = "rbac.authorization.k8s.io"
	GroupCRD        = "apiextensions.k8s.io"
	GroupStorage    = "storage.k8s.io"
	GroupNetworking = "networking.k8s.io"
	GroupAdmission  = "admissionregistration.k8s.io"
	GroupAPIService = "apiregistration.k8s.io"
	GroupPolicy     = "policy"
	GroupScaling    = "autoscaling"
	GroupDiscovery  = "discovery.k8s.io"
	GroupSnapshots  = "snapshot.storage.k8s.io"
	GroupDavit      = "davit.dev"
	GroupGateway    = "gateway.networking.k8s.io"
)

// Kinds that the engine treats in a way of their own.
var (
	KindCRD         = schema.GroupKind{Group: GroupCRD, Kind: "CustomResourceDefinition"}
	KindNamespace   = schema.GroupKind{Kind: "Namespace"}
	KindClaim       = schema.GroupKind{Kind: "PersistentVolumeClaim"}
	KindClass       = schema.GroupKind{Group: GroupStorage, Kind: "StorageClass"}
	KindDriver      = schema.GroupKind{Group: GroupStorage, Kind: "CSIDriver"}
	KindPod         = schema.GroupKind{Kind: "Pod"}
	KindService     = schema.GroupKind{Kind: "Service"}
	KindAccount     = schema.GroupKind{Kind: "ServiceAccount"}
	KindSecret      = schema.GroupKind{Kind: "Secret"}
	KindConfigMap   = schema.GroupKind{Kind: "ConfigMap"}
	KindController  = schema.GroupKind{Kind: "ReplicationController"}
	KindDeployment  = schema.GroupKind{Group: GroupApps, Kind: "Deployment"}
	KindReplicaSet  = schema.GroupKind{Group: GroupApps, Kind: "ReplicaSet"}
	KindStatefulSet = schema.GroupKind{Group: GroupApps, Kind: "StatefulSet"}
	KindDaemonSet   = schema.GroupKind{Group: GroupApps, Kind: "DaemonSet"}
	KindJob         = schema.GroupKind{Group: GroupBatch, Kind: "Job"}
	KindCronJob     = schema.GroupKind{Group: GroupBatch, Kind: "CronJob"}
	KindLease       = schema.GroupKind{Group: "coordination.k8s.io", Kind: "Lease"}

	KindRoleBinding        = schema.GroupKind{Group: GroupRBAC, Kind: "RoleBinding"}
	KindClusterRoleBinding = schema.GroupKind{Group: GroupRBAC, Kind: "ClusterRoleBinding"}
	KindAPIService         = schema.GroupKind{Group: GroupAPIService, Kind: "APIService"}
	KindValidating         = schema.GroupKind{Group: GroupAdmission, Kind: "ValidatingWebhookConfiguration"}
	KindMutating           = schema.GroupKind{Group: GroupAdmission, Kind: "MutatingWebhookConfiguration"}
)

// MatchesKind tells whether a resource.group pattern fits. "*" stands for
// anything; the core group is written without a dot ("secrets").
func MatchesKind(patterns []string, gr schema.GroupResource) bool {
	name := strings.ToLower(gr.Resource)
	if gr.Group != "" {
		name += "." + gr.Group
	}
	for _, p := range patterns {
		if ok, err := path.Match(strings.ToLower(p), name); err == nil && ok {
			return true
		}
	}
	return false
}

// SameShape are versions of built-in kinds between which an object that one
// of them took reads the same.
var SameShape = map[schema.GroupKind][]string{
	KindCronJob: {"v1", "v1beta1"},
	{Group: GroupPolicy, Kind: "PodDisruptionBudget"}:      {"v1", "v1beta1"},
	{Group: GroupScaling, Kind: "HorizontalPodAutoscaler"}: {"v2", "v2beta2"},
	{Group: GroupRBAC, Kind: "Role"}:                       {"v1", "v1beta1"},
	{Group: GroupRBAC, Kind: "RoleBinding"}:                {"v1", "v1beta1"},
	{Group: GroupRBAC, Kind: "ClusterRole"}:                {"v1", "v1beta1"},
	{Group: GroupRBAC, Kind: "ClusterRoleBinding"}:         {"v1", "v1beta1"},
	{Group: "scheduling.k8s.io", Kind: "PriorityClass"}:    {"v1", "v1beta1"},
	{Group: GroupNetworking, Kind: "IngressClass"}:         {"v1", "v1beta1"},
	{Group: "node.k8s.io", Kind: "RuntimeClass"}:           {"v1", "v1beta1"},
	KindClass: {"v1", "v1beta1"},
	{Group: GroupSnapshots, Kind: "VolumeSnapshotClass"}:              {"v1", "v1beta1"},
	{Group: GroupAdmission, Kind: "ValidatingAdmissionPolicy"}:        {"v1", "v1beta1"},
	{Group: GroupAdmission, Kind: "ValidatingAdmissionPolicyBinding"}: {"v1", "v1beta1"},
	{Group: GroupGateway, Kind: "GatewayClass"}:                       {"v1", "v1beta1"},
	{Group: GroupGateway, Kind: "Gateway"}:                            {"v1", "v1beta1"},
	{Group: GroupGateway, Kind: "HTTPRoute"}:                          {"v1", "v1beta1"},
}
