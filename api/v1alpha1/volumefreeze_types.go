package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// VolumeFreeze asks the node process on one node to hold the file systems of
// an application's volumes still while they are cut, all at once. It is made,
// ordered about and removed by the agent, in davit-system; people only look at
// it. Whatever becomes of it, the node thaws when the window is over.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=davit
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`
// +kubebuilder:printcolumn:name="Point",type=string,JSONPath=`.spec.point`
// +kubebuilder:printcolumn:name="Order",type=string,JSONPath=`.spec.order`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Held",type=boolean,JSONPath=`.status.held`
// +kubebuilder:printcolumn:name="Took",type=string,JSONPath=`.status.took`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.message`
type VolumeFreeze struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   VolumeFreezeSpec   `json:"spec"`
	Status VolumeFreezeStatus `json:"status,omitempty"`
}

// FreezeOrder is what the node is to do now. Orders only go forward.
// +kubebuilder:validation:Enum=Arm;Freeze;Thaw
type FreezeOrder string

// The orders, in their order.
const (
	OrderArm    FreezeOrder = "Arm"    // open everything, start nothing
	OrderFreeze FreezeOrder = "Freeze" // hold all of it still
	OrderThaw   FreezeOrder = "Thaw"   // let go
)

// VolumeFreezeSpec is one node's part of a freeze.
// +kubebuilder:validation:XValidation:rule="self.node == oldSelf.node && self.point == oldSelf.point && self.window == oldSelf.window && self.volumes == oldSelf.volumes",message="only the order can change"
type VolumeFreezeSpec struct {
	// Node is the node whose process does it.
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`
	// Point is the recovery point that is being captured.
	// +kubebuilder:validation:MaxLength=253
	Point string `json:"point"`
	// Window bounds how long anything is frozen. The node keeps it by its own
	// clock.
	// +kubebuilder:validation:Type=string
	Window metav1.Duration `json:"window"`
	// Order is what to do now.
	Order FreezeOrder `json:"order"`
	// Volumes to hold still, all or none.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=200
	Volumes []FrozenVolume `json:"volumes"`
}

// FrozenVolume locates one mounted volume under the kubelet's directory.
type FrozenVolume struct {
	// Claim is namespace/name, for people.
	// +kubebuilder:validation:MaxLength=320
	Claim string `json:"claim"`
	// PodUID is a pod that has the volume mounted.
	// +kubebuilder:validation:MaxLength=63
	PodUID string `json:"podUID"`
	// PersistentVolume is the volume's name.
	// +kubebuilder:validation:MaxLength=253
	PersistentVolume string `json:"persistentVolume"`
}

// FreezePhase is where a freeze is in its life.
// +kubebuilder:validation:Enum=Armed;Frozen;Ended
type FreezePhase string

// The phases of a freeze.
const (
	FreezeArmed  FreezePhase = "Armed"  // everything is open, nothing is frozen
	FreezeFrozen FreezePhase = "Frozen" // all of it is frozen
	FreezeEnded  FreezePhase = "Ended"  // nothing is frozen any more
)

// VolumeFreezeStatus is the node's report.
type VolumeFreezeStatus struct {
	// +optional
	Phase FreezePhase `json:"phase,omitempty"`
	// Held says that all file systems stood still without a break from when
	// Frozen was reported until Thaw was ordered.
	// +optional
	Held bool `json:"held,omitempty"`
	// Took is the time from before the first freeze until after the last thaw,
	// by the node's own clock.
	// +optional
	Took *metav1.Duration `json:"took,omitempty"`
	// Message says why it did not hold.
	// +optional
	Message string `json:"message,omitempty"`
}

// VolumeFreezeList is a list of VolumeFreeze.
//
// +kubebuilder:object:root=true
type VolumeFreezeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []VolumeFreeze `json:"items"`
}
