package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Run is one execution of a plan. Created at its target, it is an order that the
// agent there carries out; the agent also shows, as Runs, what others carry.
// The truth is the run's journal in the vault, of the same name: deleting a Run
// ends nothing.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=davit,shortName=drun
// +kubebuilder:printcolumn:name="Plan",type=string,JSONPath=`.spec.plan`
// +kubebuilder:printcolumn:name="Verb",type=string,JSONPath=`.spec.verb`
// +kubebuilder:printcolumn:name="To",type=string,JSONPath=`.spec.to`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Fence",type=string,JSONPath=`.status.fence`
// +kubebuilder:printcolumn:name="RPO",type=string,JSONPath=`.status.rpo`
// +kubebuilder:printcolumn:name="RTO",type=string,JSONPath=`.status.rto`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Next",type=string,JSONPath=`.status.next`,priority=1
type Run struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   RunSpec   `json:"spec"`
	Status RunStatus `json:"status,omitempty"`
}

// Verbs that may be given to people on single recoveryplans: what is asked of a
// plan's runs takes them.
const (
	// VerbApprove lets a person approve and reject runs of the plan.
	VerbApprove = "approve"
	// VerbSteer lets a person pause, resume, retry, skip, answer, consent to,
	// commit, roll back and cancel them.
	VerbSteer = "steer"
)

// ConsoleGroup begins the names of the groups by which a cluster is asked what those
// may who have a role at a console, such as davit:console:recoverer.
const ConsoleGroup = "davit:console:"

// AcceptedFence is how weak a fence may be for a run to go on without asking.
// +kubebuilder:validation:Enum=TimedOutLease;Asked
type AcceptedFence string

// The levels that can be accepted beforehand.
const (
	AcceptTimedOut AcceptedFence = "TimedOutLease"
	AcceptAsked    AcceptedFence = "Asked"
)

// PointName is the name of a recovery point.
// +kubebuilder:validation:MaxLength=253
type PointName string

// RunSpec is what was asked for. It cannot change: a run is steered by davit
// runs. A Run that no agent has taken up within an hour of its creation is
// refused.
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a run cannot change: steer it with davit runs, or create another"
// +kubebuilder:validation:XValidation:rule="!has(self.lost) || self.lost.size() == 0 || self.verb in ['failover', 'switchover', 'failback']",message="a drill and a restore have no lost sites"
// +kubebuilder:validation:XValidation:rule="!has(self.acceptFence) || self.acceptFence != 'Asked' || self.verb == 'failover'",message="only a failover may accept that a site was merely asked to stop"
// +kubebuilder:validation:XValidation:rule="!(has(self.points) && has(self.asOf))",message="give points or asOf, not both"
// +kubebuilder:validation:XValidation:rule="!(has(self.points) || has(self.asOf)) || self.verb in ['failover', 'drill', 'restore']",message="a planned move takes the point that its own sync makes"
type RunSpec struct {
	// Plan names the RecoveryPlan, or a plan that the vault holds.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=200
	Plan string `json:"plan"`
	// Vault names the Vault that holds plan and applications; default the
	// plan's.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Vault string   `json:"vault,omitempty"`
	Verb  PlanVerb `json:"verb"`
	// To is the target: the site that the Run is created at.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	To string `json:"to"`
	// RequestedBy is who asked: he cannot approve the run.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	RequestedBy string `json:"requestedBy"`
	// Reason is for the journal.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Reason string `json:"reason,omitempty"`
	// Lost are sites of which whoever asks made sure that they have stopped. Of a
	// switchover or a failback they are sites that held the applications before: where
	// it goes from takes part in it.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	Lost []string `json:"lost,omitempty"`
	// LostAt is when the source was lost, if that is known: what RPO counts to.
	// +optional
	LostAt *metav1.Time `json:"lostAt,omitempty"`
	// AcceptFence is the weakest fence with which the run goes on without
	// asking a person; default TimedOutLease.
	// +optional
	AcceptFence AcceptedFence `json:"acceptFence,omitempty"`
	// Points are recovery points, by application; default the newest that may
	// be offered.
	// +optional
	// +kubebuilder:validation:MaxProperties=1000
	Points map[string]PointName `json:"points,omitempty"`
	// AsOf takes, for every application, the newest point that is not after it.
	// +optional
	AsOf *metav1.Time `json:"asOf,omitempty"`
}

// RunStatus is a projection of the run's journal.
type RunStatus struct {
	// Phase is that of the journal: Evaluating, AwaitingApproval, Running,
	// Paused, Verifying, AwaitingCommit, Completed, RollingBack, RolledBack,
	// RollbackFailed, Failed, Canceled, OutcomeUnknown or SplitBrain.
	// +optional
	Phase string `json:"phase,omitempty"`
	// Why says what is wrong, or what the run waits for.
	// +optional
	Why string `json:"why,omitempty"`
	// WaitsFor is what the run is doing or waiting for right now.
	// +optional
	// +kubebuilder:validation:MaxItems=20
	WaitsFor []string `json:"waitsFor,omitempty"`
	// Next is what a person can do about it.
	// +optional
	Next string `json:"next,omitempty"`
	// From is the site that held the applications.
	// +optional
	From string `json:"from,omitempty"`
	// Executor is the process that carries the run.
	// +optional
	Executor string `json:"executor,omitempty"`
	// Sequence is the journal's newest record.
	// +optional
	Sequence int64 `json:"sequence,omitempty"`
	// +optional
	BegunAt *metav1.Time `json:"begunAt,omitempty"`
	// +optional
	EndedAt *metav1.Time `json:"endedAt,omitempty"`
	// Fence is the weakest level that was relied on.
	// +optional
	Fence string `json:"fence,omitempty"`
	// RPO and RTO are the worst of the applications', measured.
	// +optional
	RPO *metav1.Duration `json:"rpo,omitempty"`
	// +optional
	RTO *metav1.Duration `json:"rto,omitempty"`
	// ApprovedBy are the people who agreed, of ApprovalsWanted.
	// +optional
	ApprovedBy []string `json:"approvedBy,omitempty"`
	// +optional
	ApprovalsWanted int32 `json:"approvalsWanted,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=1000
	Applications []RunApplication `json:"applications,omitempty"`
	// StepsDone of StepsTotal have ended.
	// +optional
	StepsDone int32 `json:"stepsDone,omitempty"`
	// +optional
	StepsTotal int32 `json:"stepsTotal,omitempty"`
	// Steps in the order of the run; of long runs those that are under way, that
	// failed, and the newest that ended. The journal has all.
	// +optional
	// +kubebuilder:validation:MaxItems=300
	Steps []RunStep `json:"steps,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// RunApplication is what a run measured of an application.
type RunApplication struct {
	Name string `json:"name"`
	// +optional
	Epoch int64 `json:"epoch,omitempty"`
	// +optional
	Fence string `json:"fence,omitempty"`
	// +optional
	Point string `json:"point,omitempty"`
	// RPO is zero when the source gave its last write.
	// +optional
	RPO *metav1.Duration `json:"rpo,omitempty"`
	// +optional
	RTO *metav1.Duration `json:"rto,omitempty"`
}

// RunStep is a step of a run.
type RunStep struct {
	Name string `json:"name"`
	// State is Doing, Succeeded, Failed, Skipped, Unknown, Undone or Left; empty: not
	// begun.
	// +optional
	State string `json:"state,omitempty"`
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// +optional
	Took *metav1.Duration `json:"took,omitempty"`
	// +optional
	Attempts int32 `json:"attempts,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
}

// RunList is a list of Run.
//
// +kubebuilder:object:root=true
type RunList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Run `json:"items"`
}
