package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of every kind here.
var GroupVersion = schema.GroupVersion{Group: "davit.dev", Version: "v1alpha1"}

// SystemNamespace is where Davit runs. An Application in it may span
// namespaces, so whoever may write there is an administrator of Davit.
const SystemNamespace = "davit-system"

// ConsoleSecret is the Secret in SystemNamespace that has the agent's ways to
// consoles.
const ConsoleSecret = "davit-console"

// AddToScheme registers the kinds of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&Vault{}, &VaultList{},
		&Site{}, &SiteList{},
		&Application{}, &ApplicationList{},
		&ProtectionPolicy{}, &ProtectionPolicyList{},
		&RecoveryPoint{}, &RecoveryPointList{},
		&Restore{}, &RestoreList{},
		&VolumeTask{}, &VolumeTaskList{},
		&VolumeFreeze{}, &VolumeFreezeList{},
		&NodeFence{}, &NodeFenceList{},
		&RecoveryPlan{}, &RecoveryPlanList{},
		&Run{}, &RunList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
