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
// +kubebuilder:validation:XValidation:rule=`!has(self.schedule) || !has(self.objectives) || !has(self.objectives.rpo) || duration(has(self.schedule.every) ? self.schedule.every : !has(self.schedule.cron) ? '0s' : self.schedule.cron.trim().matches('^@(year|annual)ly') ? '8760h' : self.schedule.cron.trim().matches('^@monthly') ? '744h' : self.schedule.cron.trim().matches('^@weekly') ? '168h' : self.schedule.cron.trim().matches('^@(daily|midnight)') ? '24h' : self.schedule.cron.trim().matches('^@hourly') ? '1h' : self.schedule.cron.trim().matches('^[^ ]+ +[^ ]+ +[0-9]+ +[^ ]+ +[*?]$') ? '720h' : self.schedule.cron.trim().matches('^[^ ]+ +[^ ]+ +[*?] +[^ ]+ +([0-7]|[A-Za-z]{3})$') ? '144h' : self.schedule.cron.trim().matches('^[0-9]+ +[0-9]+ ') ? '24h' : self.schedule.cron.trim().matches('^[^ ]+ +[0-9]+ ') ? '23h' : self.schedule.cron.trim().matches('^[0-9]+ +[*]/(1?[1-9]|10|2[0-3]) ') ? self.schedule.cron.trim().split('/')[1].split(' ')[0] + 'h' : self.schedule.cron.trim().matches('^[0-9]+ ') ? '1h' : self.schedule.cron.trim().matches('^[*]/[1-5]?[0-9] ') ? self.schedule.cron.trim().split('/')[1].split(' ')[0] + 'm' : '0s') <= duration(self.objectives.rpo)`,messageExpression=`[has(self.schedule.every) ? self.schedule.every : !has(self.schedule.cron) ? '0s' : self.schedule.cron.trim().matches('^@(year|annual)ly') ? '8760h' : self.schedule.cron.trim().matches('^@monthly') ? '744h' : self.schedule.cron.trim().matches('^@weekly') ? '168h' : self.schedule.cron.trim().matches('^@(daily|midnight)') ? '24h' : self.schedule.cron.trim().matches('^@hourly') ? '1h' : self.schedule.cron.trim().matches('^[^ ]+ +[^ ]+ +[0-9]+ +[^ ]+ +[*?]$') ? '720h' : self.schedule.cron.trim().matches('^[^ ]+ +[^ ]+ +[*?] +[^ ]+ +([0-7]|[A-Za-z]{3})$') ? '144h' : self.schedule.cron.trim().matches('^[0-9]+ +[0-9]+ ') ? '24h' : self.schedule.cron.trim().matches('^[^ ]+ +[0-9]+ ') ? '23h' : self.schedule.cron.trim().matches('^[0-9]+ +[*]/(1?[1-9]|10|2[0-3]) ') ? self.schedule.cron.trim().split('/')[1].split(' ')[0] + 'h' : self.schedule.cron.trim().matches('^[0-9]+ ') ? '1h' : self.schedule.cron.trim().matches('^[*]/[1-5]?[0-9] ') ? self.schedule.cron.trim().split('/')[1].split(' ')[0] + 'm' : '0s'].map(gap, (has(self.schedule.every) ? 'a capture every ' + gap : 'the cron expression ' + self.schedule.cron) + ' leaves up to ' + gap + ' of work unprotected' + (has(self.schedule.every) ? "" : ', or more') + ': that can never keep an RPO of ' + self.objectives.rpo)[0]`
type ProtectionPolicySpec struct {
	// +optional
	Schedule Schedule `json:"schedule,omitempty"`
	// Suspend pauses the schedule; points already taken are kept.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
	// CaptureTimeout bounds a whole capture; default 24h. One that takes longer
	// is stopped, what it held is let go, and the point says what it was doing.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m') && duration(self) <= duration('168h')",message="captureTimeout must be between 1m and 168h"
	CaptureTimeout *metav1.Duration `json:"captureTimeout,omitempty"`
	// +optional
	Retention Retention `json:"retention,omitempty"`
	// +optional
	Objectives Objectives `json:"objectives,omitempty"`
	// Verify reads recovery points back on a schedule of its own. Suspend does
	// not pause it: what is kept goes on being proven.
	// +optional
	Verify *VerifyPolicy `json:"verify,omitempty"`
	// RestoreTest brings recovery points up as isolated copies on a schedule of
	// its own. Suspend does not pause it.
	// +optional
	RestoreTest *RestoreTestPolicy `json:"restoreTest,omitempty"`
}

// Schedule is either an interval or a cron expression.
// +kubebuilder:validation:XValidation:rule="!(has(self.every) && has(self.cron))",message="give every or cron, not both"
type Schedule struct {
	// Every is the interval between the starts of captures, at least 10s.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="every must be 10s or more"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	Every *metav1.Duration `json:"every,omitempty"`
	// Cron is a five-field cron expression, in TimeZone.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Cron string `json:"cron,omitempty"`
	// TimeZone is the zone that Cron and the retention's days, weeks, months
	// and years are meant in, by its IANA name, such as "Europe/Lisbon";
	// default UTC.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z][A-Za-z0-9_+/-]*$`
	TimeZone string `json:"timeZone,omitempty"`
}

// Retention says which points may expire. A point is kept while any rule
// keeps it; pinned points and the last good one never expire.
type Retention struct {
	// Last keeps the newest so many points; default 48 where no other rule is
	// given.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Last *int32 `json:"last,omitempty"`
	// MaxAge keeps points younger than this.
	// +optional
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
	// Hourly keeps the newest point of each of the newest so many hours that
	// have one.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Hourly *int32 `json:"hourly,omitempty"`
	// Daily keeps the newest point of each of the newest so many days.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	Daily *int32 `json:"daily,omitempty"`
	// Weekly keeps the newest point of each of the newest so many weeks, which
	// begin on Monday.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	Weekly *int32 `json:"weekly,omitempty"`
	// Monthly keeps the newest point of each of the newest so many months.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	Monthly *int32 `json:"monthly,omitempty"`
	// Yearly keeps the newest point of each of the newest so many years.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Yearly *int32 `json:"yearly,omitempty"`
}

// Objectives are what the application's owner asks for.
type Objectives struct {
	// RPO is how much time of work may be lost.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="rpo must be more than nothing"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
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
