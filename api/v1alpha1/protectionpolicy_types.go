package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ProtectionPolicy says how often applications are captured, how long points
// are kept, and what is promised.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories=davit,shortName=dpol
// +kubebuilder:printcolumn:name="Every",type=string,JSONPath=`.spec.schedule.every`
// +kubebuilder:printcolumn:name="Cron",type=string,JSONPath=`.spec.schedule.cron`
// +kubebuilder:printcolumn:name="Suspended",type=boolean,JSONPath=`.spec.suspend`
// +kubebuilder:printcolumn:name="RPO",type=string,JSONPath=`.spec.objectives.rpo`
type ProtectionPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec ProtectionPolicySpec `json:"spec"`
}

// ProtectionPolicySpec is the policy.
type ProtectionPolicySpec struct {
	// +optional
	Schedule Schedule `json:"schedule,omitempty"`
	// Suspend pauses the schedule; points already taken are kept.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
	// +optional
	Retention Retention `json:"retention,omitempty"`
	// +optional
	Objectives Objectives `json:"objectives,omitempty"`
	// Verify reads recovery points back on a schedule of its own. Suspend does
	// not pause it: what is kept goes on being proven.
	// +optional
	Verify *VerifyPolicy `json:"verify,omitempty"`
}

// Schedule is either an interval or a cron expression.
// +kubebuilder:validation:XValidation:rule="!(has(self.every) && has(self.cron))",message="give every or cron, not both"
type Schedule struct {
	// Every is the interval between the starts of captures, at least 10s.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="every must be 10s or more"
	// +kubebuilder:validation:Type=string
	Every *metav1.Duration `json:"every,omitempty"`
	// Cron is a five-field cron expression in UTC.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Cron string `json:"cron,omitempty"`
}

// Retention says which points may expire. A point is kept while any rule
// keeps it; pinned points and the last good one never expire.
type Retention struct {
	// Last keeps the newest so many points; default 48.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Last *int32 `json:"last,omitempty"`
	// MaxAge keeps points younger than this.
	// +optional
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
}

// Objectives are what the application's owner asks for.
type Objectives struct {
	// RPO is how much time of work may be lost.
	// +optional
	RPO *metav1.Duration `json:"rpo,omitempty"`
	// RTO is how long recovery may take.
	// +optional
	RTO *metav1.Duration `json:"rto,omitempty"`
}

// ProtectionPolicyList is a list of ProtectionPolicy.
//
// +kubebuilder:object:root=true
type ProtectionPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []ProtectionPolicy `json:"items"`
}
