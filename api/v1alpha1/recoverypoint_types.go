package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// RecoveryPoint is one application at one instant. Creating one without a
// status asks the agent to capture now; those found in the vault appear by
// themselves at every site. The truth is the manifest in the vault.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=davit,shortName=rp
// +kubebuilder:printcolumn:name="Application",type=string,JSONPath=`.spec.application`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Instant",type=date,JSONPath=`.status.instant`
// +kubebuilder:printcolumn:name="Consistency",type=string,JSONPath=`.status.consistency`
// +kubebuilder:printcolumn:name="Objects",type=integer,JSONPath=`.status.objects`
// +kubebuilder:printcolumn:name="Site",type=string,JSONPath=`.status.site`,priority=1
// +kubebuilder:printcolumn:name="Epoch",type=integer,JSONPath=`.status.epoch`,priority=1
// +kubebuilder:printcolumn:name="Verified",type=date,JSONPath=`.status.verification.at`
type RecoveryPoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   RecoveryPointSpec   `json:"spec"`
	Status RecoveryPointStatus `json:"status,omitempty"`
}

// RecoveryPointSpec asks for a capture.
type RecoveryPointSpec struct {
	// Application names the Application in the same namespace.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="application cannot change"
	Application string `json:"application"`
	// Trigger says who asked.
	// +kubebuilder:default=Manual
	// +optional
	Trigger PointTrigger `json:"trigger,omitempty"`
	// Pinned points never expire.
	// +optional
	Pinned bool `json:"pinned,omitempty"`
	// Diverged captures what this site still has of an application that another
	// site runs by now, under the epoch that this one held. The point is
	// quarantined: it is for people to look into, and never offered by itself.
	// The application must be at rest here.
	// +optional
	Diverged bool `json:"diverged,omitempty"`
}

// PointTrigger says who asked for a recovery point.
// +kubebuilder:validation:Enum=Manual;Schedule
type PointTrigger string

// Who asked for a recovery point.
const (
	TriggerManual   PointTrigger = "Manual"
	TriggerSchedule PointTrigger = "Schedule"
)

// PointPhase is where a recovery point is in its life.
// +kubebuilder:validation:Enum=Pending;Capturing;Available;Failed;Quarantined;Deleting
type PointPhase string

// The phases of a recovery point.
const (
	PointPending     PointPhase = "Pending"
	PointCapturing   PointPhase = "Capturing"
	PointAvailable   PointPhase = "Available"
	PointFailed      PointPhase = "Failed"
	PointQuarantined PointPhase = "Quarantined" // written under a lower epoch after it was raised
	PointDeleting    PointPhase = "Deleting"
)

// RecoveryPointStatus summarises the manifest in the vault.
type RecoveryPointStatus struct {
	// +optional
	Phase PointPhase `json:"phase,omitempty"`
	// Step says what the capture is doing now, for people.
	// +optional
	Step string `json:"step,omitempty"`
	// +optional
	Site string `json:"site,omitempty"`
	// +optional
	Epoch int64 `json:"epoch,omitempty"`
	// Instant is the moment the point stands for.
	// +optional
	Instant *metav1.Time `json:"instant,omitempty"`
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// +optional
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`
	// +optional
	Consistency string `json:"consistency,omitempty"`
	// Freeze says how the file systems were held still, where that was tried.
	// +optional
	Freeze *PointFreeze `json:"freeze,omitempty"`
	// Quiesce says how hooks held the application at rest, where any was to.
	// +optional
	Quiesce *PointQuiesce `json:"quiesce,omitempty"`
	// +optional
	Namespaces []string `json:"namespaces,omitempty"`
	// +optional
	Objects int64 `json:"objects,omitempty"`
	// +optional
	Volumes int64 `json:"volumes,omitempty"`
	// Bytes is the plain size of objects and volume data.
	// +optional
	Bytes int64 `json:"bytes,omitempty"`
	// StoredBytes is what this point added to the vault.
	// +optional
	StoredBytes int64 `json:"storedBytes,omitempty"`
	// +optional
	Warnings int64 `json:"warnings,omitempty"`
	// +optional
	Verification *Verification `json:"verification,omitempty"`
	// Copies names the Vaults that hold a whole second copy of the point.
	// +optional
	Copies []string `json:"copies,omitempty"`
	// CopyProofs are what verification on schedule last found of the point in
	// second copies.
	// +optional
	// +listType=map
	// +listMapKey=vault
	CopyProofs []CopyProof `json:"copyProofs,omitempty"`
	// RestoreTest is what the newest restore test of the point found.
	// +optional
	RestoreTest *PointTest `json:"restoreTest,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PointFreeze says how file systems were held still for a recovery point.
type PointFreeze struct {
	// Held says that all volumes show one instant.
	// +optional
	Held bool `json:"held,omitempty"`
	// Frozen is the longest that any volume stood still, by its node's clock.
	// +optional
	Frozen *metav1.Duration `json:"frozen,omitempty"`
	// Reason says why it did not hold.
	// +optional
	Reason string `json:"reason,omitempty"`
}

// PointQuiesce says how an application was held at rest for a recovery point.
type PointQuiesce struct {
	// Held says that it was proven to have been at rest.
	// +optional
	Held bool `json:"held,omitempty"`
	// Rested is the longest that any pod was held.
	// +optional
	Rested *metav1.Duration `json:"rested,omitempty"`
	// Reason says why it was not proven.
	// +optional
	Reason string `json:"reason,omitempty"`
}

// Verification is the newest proof, or disproof, of a recovery point.
type Verification struct {
	At metav1.Time `json:"at"`
	// How is "full" when every byte was read back, "sample" when all objects
	// and directories and a part of the volumes' data were, "boot" when a
	// restore test brought the point up.
	How string `json:"how"`
	// +optional
	Damaged bool `json:"damaged,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
}

// CopyProof is the newest proof, or disproof, of a second copy of a recovery
// point.
type CopyProof struct {
	// Vault names the copy.
	Vault        string `json:"vault"`
	Verification `json:",inline"`
}

// RecoveryPointList is a list of RecoveryPoint.
//
// +kubebuilder:object:root=true
type RecoveryPointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []RecoveryPoint `json:"items"`
}
