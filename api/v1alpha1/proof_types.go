package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// VerifyPolicy says how often the newest recovery points are read back from
// the vault, and how much of them.
// +kubebuilder:validation:XValidation:rule="has(self.every) != has(self.cron)",message="give every or cron"
type VerifyPolicy struct {
	// Every is the pause between the end of one verification and the start of
	// the next, at least 1m.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="every must be 1m or more"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	Every *metav1.Duration `json:"every,omitempty"`
	// Cron is a five-field cron expression in UTC.
	// +optional
	// +kubebuilder:validation:MinLength=9
	// +kubebuilder:validation:MaxLength=128
	Cron string `json:"cron,omitempty"`
	// Sample is how many percent of the volumes' data are read each time; 100,
	// the default, is all of it. Objects, directories and the presence of every
	// blob are always checked whole. Each run goes on where the one before it
	// ended, so that 100/sample runs read all that stays.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Sample *int32 `json:"sample,omitempty"`
	// Newest is how many of the newest points are read; default 1.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Newest *int32 `json:"newest,omitempty"`
}

// How a recovery point was proven.
const (
	// ProvenFull says that every byte was read back.
	ProvenFull = "full"
	// ProvenSample says that all objects and directories and a part of the
	// volumes' data were read back.
	ProvenSample = "sample"
)

// VerificationStatus is what the scheduled verification did last.
type VerificationStatus struct {
	// At is when the last one ended that gave a verdict.
	// +optional
	At *metav1.Time `json:"at,omitempty"`
	// How is "full" or "sample".
	// +optional
	How string `json:"how,omitempty"`
	// Points are those that it read, newest first.
	// +optional
	Points []string `json:"points,omitempty"`
	// Damaged are those of them that it found damaged.
	// +optional
	Damaged []string `json:"damaged,omitempty"`
	// Bytes is how much was read back.
	// +optional
	Bytes int64 `json:"bytes,omitempty"`
	// SampleFrom is where the next sample begins, in percent.
	// +optional
	SampleFrom int32 `json:"sampleFrom,omitempty"`
	// Next is when the next one is due.
	// +optional
	Next *metav1.Time `json:"next,omitempty"`
	// TriedAt and Error tell of a newer one that gave no verdict, as without an
	// answer of the vault. It is tried again.
	// +optional
	TriedAt *metav1.Time `json:"triedAt,omitempty"`
	// +optional
	Error string `json:"error,omitempty"`
}
