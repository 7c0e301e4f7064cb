package restore

import (
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// rank is an object's place in the order. Everything of a lower rank is there
// before the first object of a higher one is created.
type rank int

// The ranks, and what the later ones need of the earlier.
const (
	rankDefinitions rank = iota // CRDs: before their custom resources
	rankNamespaces              // before what is in them
	rankClasses                 // classes are named by claims, pods and ingresses
	rankAccounts                // accounts are named by bindings and pods
	rankConfig                  // Secrets and ConfigMaps are mounted by pods
	rankRoles                   // roles are named by bindings
	rankBindings                // rights are needed by operators and pods from their first second
	rankClaims                  // claims are filled before anything can mount them
	rankNetwork                 // Services, NetworkPolicies, LimitRanges: before pods
	rankCustom                  // custom resources and unknown kinds: before their operators run
	rankWorkloads               // what makes pods
	rankAround                  // what looks at workloads: HPA, PDB, Ingress
	rankServed                  // API groups that workloads serve
	// The last ranks could refuse what comes before them, so they wait until
	// the workloads are ready.
	rankLimits // ResourceQuotas
	rankGuards // admission webhooks and policies
	rankCount
)

// afterReady tells whether a rank waits for the workloads.
func (r rank) afterReady() bool { return r >= rankLimits }

// String names the rank for people; it is also the step's name.
func (r rank) String() string {
	return [...]string{
		"definitions", "namespaces", "classes", "accounts", "configuration", "roles", "bindings", "volumes",
		"network", "custom resources", "workloads", "around workloads", "served APIs", "quotas", "admission",
	}[r]
}

const (
	groupApps       = "apps"
	groupBatch      = "batch"
	groupRBAC       = "rbac.authorization.k8s.io"
	groupCRD        = "apiextensions.k8s.io"
	groupStorage    = "storage.k8s.io"
	groupNetworking = "networking.k8s.io"
	groupAdmission  = "admissionregistration.k8s.io"
	groupAPIService = "apiregistration.k8s.io"
	groupPolicy     = "policy"
	groupScaling    = "autoscaling"
	groupDiscovery  = "discovery.k8s.io"
	groupSnapshots  = "snapshot.storage.k8s.io"
	groupDavit      = "davit.dev"
	groupGateway    = "gateway.networking.k8s.io"
)

// Kinds that the engine treats in a way of their own.
var (
	kindCRD         = schema.GroupKind{Group: groupCRD, Kind: "CustomResourceDefinition"}
	kindNamespace   = schema.GroupKind{Kind: "Namespace"}
	kindClaim       = schema.GroupKind{Kind: "PersistentVolumeClaim"}
	kindClass       = schema.GroupKind{Group: groupStorage, Kind: "StorageClass"}
	kindDriver      = schema.GroupKind{Group: groupStorage, Kind: "CSIDriver"}
	kindPod         = schema.GroupKind{Kind: "Pod"}
	kindService     = schema.GroupKind{Kind: "Service"}
	kindAccount     = schema.GroupKind{Kind: "ServiceAccount"}
	kindSecret      = schema.GroupKind{Kind: "Secret"}
	kindConfigMap   = schema.GroupKind{Kind: "ConfigMap"}
	kindController  = schema.GroupKind{Kind: "ReplicationController"}
	kindDeployment  = schema.GroupKind{Group: groupApps, Kind: "Deployment"}
	kindReplicaSet  = schema.GroupKind{Group: groupApps, Kind: "ReplicaSet"}
	kindStatefulSet = schema.GroupKind{Group: groupApps, Kind: "StatefulSet"}
	kindDaemonSet   = schema.GroupKind{Group: groupApps, Kind: "DaemonSet"}
	kindJob         = schema.GroupKind{Group: groupBatch, Kind: "Job"}
	kindCronJob     = schema.GroupKind{Group: groupBatch, Kind: "CronJob"}
	kindLease       = schema.GroupKind{Group: "coordination.k8s.io", Kind: "Lease"}
)

var ranks = map[schema.GroupKind]rank{
	kindCRD:       rankDefinitions,
	kindNamespace: rankNamespaces,

	kindClass: rankClasses,
	{Group: groupStorage, Kind: "VolumeAttributesClass"}: rankClasses,
	{Group: groupSnapshots, Kind: "VolumeSnapshotClass"}: rankClasses,
	{Group: "scheduling.k8s.io", Kind: "PriorityClass"}:  rankClasses,
	{Group: groupNetworking, Kind: "IngressClass"}:       rankClasses,
	{Group: "node.k8s.io", Kind: "RuntimeClass"}:         rankClasses,
	{Group: groupGateway, Kind: "GatewayClass"}:          rankClasses,
	kindAccount:   rankAccounts,
	kindSecret:    rankConfig,
	kindConfigMap: rankConfig,

	{Group: groupRBAC, Kind: "Role"}:               rankRoles,
	{Group: groupRBAC, Kind: "ClusterRole"}:        rankRoles,
	{Group: groupRBAC, Kind: "RoleBinding"}:        rankBindings,
	{Group: groupRBAC, Kind: "ClusterRoleBinding"}: rankBindings,

	kindClaim: rankClaims,

	kindService:          rankNetwork,
	{Kind: "Endpoints"}:  rankNetwork,
	{Kind: "LimitRange"}: rankNetwork,
	{Group: groupDiscovery, Kind: "EndpointSlice"}:  rankNetwork,
	{Group: groupNetworking, Kind: "NetworkPolicy"}: rankNetwork,

	kindPod: rankWorkloads, kindController: rankWorkloads, kindDeployment: rankWorkloads, kindReplicaSet: rankWorkloads,
	kindStatefulSet: rankWorkloads, kindDaemonSet: rankWorkloads, kindJob: rankWorkloads, kindCronJob: rankWorkloads,

	{Group: groupPolicy, Kind: "PodDisruptionBudget"}:      rankAround,
	{Group: groupScaling, Kind: "HorizontalPodAutoscaler"}: rankAround,
	{Group: groupNetworking, Kind: "Ingress"}:              rankAround,

	{Group: groupAPIService, Kind: "APIService"}: rankServed,
	{Kind: "ResourceQuota"}:                      rankLimits,

	{Group: groupAdmission, Kind: "ValidatingWebhookConfiguration"}:   rankGuards,
	{Group: groupAdmission, Kind: "MutatingWebhookConfiguration"}:     rankGuards,
	{Group: groupAdmission, Kind: "ValidatingAdmissionPolicy"}:        rankGuards,
	{Group: groupAdmission, Kind: "ValidatingAdmissionPolicyBinding"}: rankGuards,
	{Group: groupAdmission, Kind: "MutatingAdmissionPolicy"}:          rankGuards,
	{Group: groupAdmission, Kind: "MutatingAdmissionPolicyBinding"}:   rankGuards,
}

// rankOf is the kind's place; kinds that nobody knows are custom resources.
func rankOf(kind schema.GroupKind) rank {
	if r, ok := ranks[kind]; ok {
		return r
	}
	return rankCustom
}

// neverRestored are kinds whose objects belong to the cluster they were in,
// with the reason.
var neverRestored = map[schema.GroupKind]string{
	{Kind: "Event"}: "events are of the source", {Group: "events.k8s.io", Kind: "Event"}: "events are of the source",
	{Kind: "Node"}: "nodes are of the source", {Kind: "Binding"}: "not an object", {Kind: "ComponentStatus"}: "not an object",
	{Kind: "PersistentVolume"}: "volumes are made anew",
	kindLease:                  "leases are of the source",
	{Group: groupStorage, Kind: "VolumeAttachment"}:   "attachments are of the source",
	{Group: groupStorage, Kind: "CSINode"}:            "nodes are of the source",
	{Group: groupStorage, Kind: "CSIStorageCapacity"}: "capacity is of the source",
	kindDriver: "storage drivers are the target's own",
	{Group: groupSnapshots, Kind: "VolumeSnapshot"}:                   "snapshots name data of the source's storage",
	{Group: groupSnapshots, Kind: "VolumeSnapshotContent"}:            "snapshots name data of the source's storage",
	{Group: "certificates.k8s.io", Kind: "CertificateSigningRequest"}: "requests are of the source",
	{Group: groupApps, Kind: "ControllerRevision"}:                    "made anew by the workload's controller",
	{Group: "metrics.k8s.io", Kind: "PodMetrics"}:                     "not stored",
	{Group: "metrics.k8s.io", Kind: "NodeMetrics"}:                    "not stored",
}

// matchesKind tells whether a resource.group pattern fits. "*" stands for
// anything; the core group is written without a dot ("secrets").
func matchesKind(patterns []string, gr schema.GroupResource) bool {
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
