package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// VolumeTask asks the node process on one node to read a volume into the
// vault, to fill a volume from it, or to check one that is there. It is made
// and removed by the engines, in davit-system; people only look at it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=davit
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`
// +kubebuilder:printcolumn:name="Operation",type=string,JSONPath=`.spec.operation`
// +kubebuilder:printcolumn:name="Claim",type=string,JSONPath=`.spec.source`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Bytes",type=integer,JSONPath=`.status.bytesDone`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type VolumeTask struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   VolumeTaskSpec   `json:"spec"`
	Status VolumeTaskStatus `json:"status,omitempty"`
}

// VolumeOperation is what a VolumeTask does.
// +kubebuilder:validation:Enum=Read;Write
type VolumeOperation string

// The operations.
const (
	VolumeRead  VolumeOperation = "Read"  // volume to vault
	VolumeWrite VolumeOperation = "Write" // vault to volume
)

// VolumeTaskSpec is one volume's work.
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a task cannot change"
type VolumeTaskSpec struct {
	// Node is the node whose process does the work.
	Node      string          `json:"node"`
	Operation VolumeOperation `json:"operation"`
	// Vault names the Vault.
	Vault string `json:"vault"`
	// Site whose volume repository is used: this one for Read.
	Site string `json:"site"`
	// Source labels the data across points: application/namespace/claim.
	Source string `json:"source"`
	// PodUID and PersistentVolume locate a CSI volume under the kubelet's
	// directory: the holder pod that mounts it.
	// +optional
	PodUID string `json:"podUID,omitempty"`
	// +optional
	PersistentVolume string `json:"persistentVolume,omitempty"`
	// HostPath locates a volume that is a directory of the node itself.
	// +optional
	HostPath string `json:"hostPath,omitempty"`
	// Live says that the volume is being written while it is read.
	// +optional
	Live bool `json:"live,omitempty"`
	// Cut is the instant at which the volume was cut, for Read; none for a
	// live volume.
	// +optional
	Cut *metav1.MicroTime `json:"cut,omitempty"`
	// Snapshot to write, as JSON of point.Snapshot; for Read, the previous
	// snapshot of the same source, if any.
	// +optional
	Snapshot string `json:"snapshot,omitempty"`
	// Blocks has a Read note where large files lie, and ask the volume's driver
	// which blocks were changed since the previous snapshot. None: files that
	// may have changed are read whole.
	// +optional
	Blocks *VolumeBlocks `json:"blocks,omitempty"`
}

// VolumeBlocks is what a driver is asked about.
type VolumeBlocks struct {
	// Driver is the CSI driver. Volume and Snapshot are what it calls the volume,
	// and the snapshot of it that is read.
	Driver   string `json:"driver"`
	Volume   string `json:"volume"`
	Snapshot string `json:"snapshot"`
	// Name is the VolumeSnapshot of that snapshot in davit-system.
	Name string `json:"name"`
	// Capacity of the volume, of the snapshot and of the claim that is read, in bytes.
	Capacity int64 `json:"capacity"`
	// Refused says why the driver cannot be asked.
	// +optional
	Refused string `json:"refused,omitempty"`
}

// TaskPhase is where a task is in its life.
// +kubebuilder:validation:Enum=Pending;Running;Succeeded;Failed
type TaskPhase string

// The phases of a task.
const (
	TaskPending   TaskPhase = "Pending"
	TaskRunning   TaskPhase = "Running"
	TaskSucceeded TaskPhase = "Succeeded"
	TaskFailed    TaskPhase = "Failed"
)

// VolumeTaskStatus is the node's report.
type VolumeTaskStatus struct {
	// +optional
	Phase TaskPhase `json:"phase,omitempty"`
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// Heartbeat is refreshed while the node works; a silent one means that
	// the node process is gone, and the task is started again.
	// +optional
	Heartbeat *metav1.Time `json:"heartbeat,omitempty"`
	// +optional
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`
	// +optional
	BytesDone int64 `json:"bytesDone,omitempty"`
	// +optional
	BytesTotal int64 `json:"bytesTotal,omitempty"`
	// +optional
	FilesDone int64 `json:"filesDone,omitempty"`
	// BytesFetched is what a Write got out of the vault: the rest of BytesDone
	// was in the volume already.
	// +optional
	BytesFetched int64 `json:"bytesFetched,omitempty"`
	// BytesUnread is what a Read took over of changed files because their driver
	// says that it is unchanged.
	// +optional
	BytesUnread int64 `json:"bytesUnread,omitempty"`
	// Distrusted says what the driver of a Read was found to have called unchanged that was not,
	// also where the Read fails later.
	// +optional
	Distrusted string `json:"distrusted,omitempty"`
	// Snapshot is the result of a Read, as JSON of point.Snapshot.
	// +optional
	Snapshot string `json:"snapshot,omitempty"`
	// Warnings are entries a person should know about, at most 100.
	// +optional
	// +kubebuilder:validation:MaxItems=100
	Warnings []string `json:"warnings,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
	// NoAnswer says of a failed task that the vault gave no answer: nothing is
	// known of the data, and the same task may succeed later.
	// +optional
	NoAnswer bool `json:"noAnswer,omitempty"`
}

// VolumeTaskList is a list of VolumeTask.
//
// +kubebuilder:object:root=true
type VolumeTaskList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []VolumeTask `json:"items"`
}
