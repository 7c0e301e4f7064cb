package shape

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Rank is what an object is to others, and its rough place in the order: the
// rules of package sequence say what really waits for what.
type Rank int

// The ranks, and what objects of the later ones may need of the earlier.
const (
	RankDefinitions Rank = iota // CRDs: before their custom resources
	RankNamespaces              // before what is in them
	RankClasses                 // classes are named by claims, pods and ingresses
	RankAccounts                // accounts are named by bindings and pods
	RankConfig                  // Secrets and ConfigMaps are mounted by pods
	RankRoles                   // roles are named by bindings
	RankBindings                // rights are needed by operators and pods from their first second
	RankClaims                  // claims are filled before anything can mount them
	RankNetwork                 // Services, NetworkPolicies, LimitRanges: before pods
	RankCustom                  // custom resources and unknown kinds: before their operators run
	RankWorkloads               // what makes pods
	RankAround                  // what looks at workloads: HPA, PDB, Ingress
	RankServed                  // API groups that workloads serve
	// The last ranks could refuse what comes before them, so they wait until
	// the workloads are ready.
	RankLimits // ResourceQuotas
	RankGuards // admission webhooks and policies
	RankCount  // how many there are
)

// String names the rank for people; it is also the step's name.
func (r Rank) String() string {
	return [...]string{
		"definitions", "namespaces", "classes", "accounts", "configuration", "roles", "bindings", "volumes",
		"network", "custom resources", "workloads", "around workloads", "served APIs", "quotas", "admission",
	}[r]
}

// Ranks are the places of the kinds that have one of their own.
var Ranks = map[schema.GroupKind]Rank{
	KindCRD:       RankDefinitions,
	KindNamespace: RankNamespaces,

	KindClass: RankClasses,
	{Group: GroupStorage, Kind: "VolumeAttributesClass"}: RankClasses,
	{Group: GroupSnapshots, Kind: "VolumeSnapshotClass"}: RankClasses,
	{Group: "scheduling.k8s.io", Kind: "PriorityClass"}:  RankClasses,
	{Group: GroupNetworking, Kind: "IngressClass"}:       RankClasses,
	{Group: "node.k8s.io", Kind: "RuntimeClass"}:         RankClasses,
	{Group: GroupGateway, Kind: "GatewayClass"}:          RankClasses,
	KindAccount:   RankAccounts,
	KindSecret:    RankConfig,
	KindConfigMap: RankConfig,

	{Group: GroupRBAC, Kind: "Role"}:        RankRoles,
	{Group: GroupRBAC, Kind: "ClusterRole"}: RankRoles,
	KindRoleBinding:                         RankBindings,
	KindClusterRoleBinding:                  RankBindings,

	KindClaim: RankClaims,

	KindService:          RankNetwork,
	{Kind: "Endpoints"}:  RankNetwork,
	{Kind: "LimitRange"}: RankNetwork,
	{Group: GroupDiscovery, Kind: "EndpointSlice"}:  RankNetwork,
	{Group: GroupNetworking, Kind: "NetworkPolicy"}: RankNetwork,

	KindPod: RankWorkloads, KindController: RankWorkloads, KindDeployment: RankWorkloads, KindReplicaSet: RankWorkloads,
	KindStatefulSet: RankWorkloads, KindDaemonSet: RankWorkloads, KindJob: RankWorkloads, KindCronJob: RankWorkloads,

	{Group: GroupPolicy, Kind: "PodDisruptionBudget"}:      RankAround,
	{Group: GroupScaling, Kind: "HorizontalPodAutoscaler"}: RankAround,
	{Group: GroupNetworking, Kind: "Ingress"}:              RankAround,

	KindAPIService:          RankServed,
	{Kind: "ResourceQuota"}: RankLimits,

	KindValidating: RankGuards,
	KindMutating:   RankGuards,
	{Group: GroupAdmission, Kind: "ValidatingAdmissionPolicy"}:        RankGuards,
	{Group: GroupAdmission, Kind: "ValidatingAdmissionPolicyBinding"}: RankGuards,
	{Group: GroupAdmission, Kind: "MutatingAdmissionPolicy"}:          RankGuards,
	{Group: GroupAdmission, Kind: "MutatingAdmissionPolicyBinding"}:   RankGuards,
}

// RankOf is the kind's place; kinds that nobody knows are custom resources.
func RankOf(kind schema.GroupKind) Rank {
	if r, ok := Ranks[kind]; ok {
		return r
	}
	return RankCustom
}
