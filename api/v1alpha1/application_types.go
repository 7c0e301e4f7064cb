package v1alpha1

import (
	"encoding/json"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Application is what is protected. In davit-system it may span namespaces;
// in any other namespace it protects that namespace only.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=davit,shortName=dapp
// +kubebuilder:printcolumn:name="Role",type=string,JSONPath=`.status.role`
// +kubebuilder:printcolumn:name="Epoch",type=integer,JSONPath=`.status.epoch`
// +kubebuilder:printcolumn:name="Newest",type=date,JSONPath=`.status.newestInstant`
// +kubebuilder:printcolumn:name="Points",type=integer,JSONPath=`.status.points`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="name must be 63 characters or fewer"
// +kubebuilder:validation:XValidation:rule="!self.metadata.name.contains('.')",message="name must not contain a dot: in the vault, shop.web is the application web of namespace shop"
type Application struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ApplicationSpec   `json:"spec"`
	Status ApplicationStatus `json:"status,omitempty"`
}

// ApplicationSpec selects what belongs to the application.
type ApplicationSpec struct {
	// Vault names the Vault that holds its recovery points.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Vault string `json:"vault"`
	// Policy names a ProtectionPolicy in the same namespace. Without one the
	// application is captured only when asked.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Policy string `json:"policy,omitempty"`
	// Namespaces to capture, by name or with "*" for any run of characters.
	// The cluster's own and davit-system are taken only by their very names.
	// Outside davit-system it must be empty or hold only the Application's own
	// namespace.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	Namespaces []string `json:"namespaces,omitempty"`
	// NamespaceSelector adds the namespaces whose labels match; only in
	// davit-system.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	// ExcludeNamespaces leaves namespaces out again, by name or with "*"; only
	// in davit-system.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	ExcludeNamespaces []string `json:"excludeNamespaces,omitempty"`
	// Selector narrows the capture to objects whose labels match. What they
	// need (Secrets, ConfigMaps, claims, accounts they name) comes along.
	// Selector, Selectors, Workloads and PodSelectors are joined by "or"; with
	// none of them everything in the namespaces is captured.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
	// Selectors are further label selectors: an object that matches any of
	// them, or Selector, is captured.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Selectors []metav1.LabelSelector `json:"selectors,omitempty"`
	// Workloads captures single objects, with what they make and need, written
	// kind/name, or namespace/kind/name: "deployment/web", "statefulset/pg-*",
	// "pod/db-0". Each must exist.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=400
	Workloads []string `json:"workloads,omitempty"`
	// PodSelectors capture groups of pods by label: what makes the pods, their
	// volumes and no others, and what they need.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	PodSelectors []metav1.LabelSelector `json:"podSelectors,omitempty"`
	// IncludeKinds limits capture to these, written resource.group with "*"
	// allowed ("deployments.apps", "*.shop.example.com", "secrets").
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	IncludeKinds []string `json:"includeKinds,omitempty"`
	// ExcludeKinds leaves these out; it wins over IncludeKinds.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	ExcludeKinds []string `json:"excludeKinds,omitempty"`
	// Volumes says how volume data is captured.
	// +optional
	Volumes VolumeCapture `json:"volumes,omitempty"`
	// Profiles says whether pods of known databases that no hook acts in are
	// brought to rest by a ready-made profile: davit profiles lists them. A
	// pod's annotation davit.dev/profile names another, or says none.
	// +kubebuilder:default=Auto
	// +optional
	Profiles ProfileMode `json:"profiles,omitempty"`
	// Hooks run commands, requests or Jobs before and after the volumes are cut.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Hooks []Hook `json:"hooks,omitempty"`
}

// VolumeMode chooses how volume data is captured.
// +kubebuilder:validation:Enum=Snapshot;SnapshotOrLive;None
type VolumeMode string

// The volume modes.
const (
	// VolumeSnapshot cuts CSI snapshots, and fails where a volume has none.
	VolumeSnapshot VolumeMode = "Snapshot"
	// VolumeSnapshotOrLive reads volumes that cannot be cut while they are in
	// use; the point is then marked fuzzy.
	VolumeSnapshotOrLive VolumeMode = "SnapshotOrLive"
	// VolumeNone captures claims without their data.
	VolumeNone VolumeMode = "None"
)

// VolumeCapture says how volume data is captured.
type VolumeCapture struct {
	// +kubebuilder:default=Snapshot
	// +optional
	Mode VolumeMode `json:"mode,omitempty"`
	// SnapshotClass names the VolumeSnapshotClass to use; by default the
	// driver's default class, or its only one.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	SnapshotClass string `json:"snapshotClass,omitempty"`
	// GroupSnapshotClass names the VolumeGroupSnapshotClass with which the
	// volumes of its driver are cut by one act; by default each driver's
	// default class, or its only one. Volumes are cut one by one where there is
	// none, where snapshotClass is set and this is not, and where freeze is Never.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	GroupSnapshotClass string `json:"groupSnapshotClass,omitempty"`
	// Freeze says whether the file systems of all volumes are held still
	// together while they are cut, so that all show one instant. It matters
	// for applications with more than one volume.
	// +kubebuilder:default=Auto
	// +optional
	Freeze FreezeMode `json:"freeze,omitempty"`
	// FreezeWindow bounds how long they are held still; default 10s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('60s')",message="freezeWindow must be between 1s and 60s"
	FreezeWindow *metav1.Duration `json:"freezeWindow,omitempty"`
	// ChangedBlocks says whether large files that were changed are read only where
	// the volume's CSI driver says that blocks were changed, if it offers that
	// (KEP 3314). It keeps a snapshot of each volume from one capture to the next,
	// where a policy captures more often than every 8 days.
	// +kubebuilder:default=Never
	// +optional
	ChangedBlocks ChangedBlocksMode `json:"changedBlocks,omitempty"`
	// Include limits the volumes whose data is captured to those that match
	// one of the rules. Claims of the others are captured without data.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Include []VolumeRule `json:"include,omitempty"`
	// Exclude leaves out the data of volumes that match one of the rules; it
	// wins over Include. Their claims come back empty.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Exclude []VolumeRule `json:"exclude,omitempty"`
}

// Distrusted tells of volumes, by namespace/claim, what their storage was found to have called
// unchanged that was not, as the annotation has it; nil where nothing was.
func (a *Application) Distrusted() map[string]string {
	var found map[string]string
	if err := json.Unmarshal([]byte(a.Annotations[AnnotationDistrusted]), &found); err != nil {
		return nil // nobody else writes it
	}
	return found
}

// VolumeRule matches volumes by all that it says.
// +kubebuilder:validation:XValidation:rule="has(self.claims) || has(self.storageClass) || has(self.selector)",message="give claims, storageClass or selector"
type VolumeRule struct {
	// Claims are names of claims, "*" allowed, with or without
	// "namespace/" before them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:MinItems=1
	Claims []string `json:"claims,omitempty"`
	// StorageClass is a class's name, "*" allowed.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	StorageClass string `json:"storageClass,omitempty"`
	// Selector matches the labels of claims.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// FreezeMode says whether file systems are held still while they are cut.
// +kubebuilder:validation:Enum=Auto;Required;Never
type FreezeMode string

// The freeze modes.
const (
	// FreezeAuto freezes where that is possible; else the point is marked
	// per-volume and says why.
	FreezeAuto FreezeMode = "Auto"
	// FreezeRequired fails the capture where volumes cannot be cut at one
	// instant.
	FreezeRequired FreezeMode = "Required"
	// FreezeNever freezes nothing.
	FreezeNever FreezeMode = "Never"
)

// ChangedBlocksMode says whether a driver's word on what was changed is taken.
// +kubebuilder:validation:Enum=Never;Auto
type ChangedBlocksMode string

// The modes of changed blocks.
const (
	// ChangedBlocksNever reads files whole whose time or size was changed.
	ChangedBlocksNever ChangedBlocksMode = "Never"
	// ChangedBlocksAuto asks the drivers that tell, for applications with a
	// policy, and compares now and then.
	ChangedBlocksAuto ChangedBlocksMode = "Auto"
)

// ProfileMode says whether ready-made profiles are used.
// +kubebuilder:validation:Enum=Auto;Never
type ProfileMode string

// The modes.
const (
	// ProfilesAuto chooses proven profiles by image, any by annotation.
	ProfilesAuto ProfileMode = "Auto"
	// ProfilesNever uses none, whatever annotations say.
	ProfilesNever ProfileMode = "Never"
)

// HookFailure says what a failed hook does to the capture.
// +kubebuilder:validation:Enum=Fail;Continue
type HookFailure string

// What a failed hook does.
const (
	HookFail     HookFailure = "Fail"
	HookContinue HookFailure = "Continue"
)

// Hook acts around the cut: before it, after it, or across it. It runs commands
// in containers of matching pods or asks these pods over HTTP; or it runs Jobs,
// or asks Services, once for the whole application.
// +kubebuilder:validation:XValidation:rule="has(self.before) || has(self.beforeHTTP) || has(self.beforeJob) || has(self.after) || has(self.afterHTTP) || has(self.afterJob) || has(self.hold)",message="give before, after or hold, or one of their HTTP and Job forms"
// +kubebuilder:validation:XValidation:rule="[has(self.before), has(self.beforeHTTP), has(self.beforeJob)].filter(x, x).size() <= 1 && [has(self.after), has(self.afterHTTP), has(self.afterJob)].filter(x, x).size() <= 1",message="one thing can be done before and one after: give more hooks, with an order"
// +kubebuilder:validation:XValidation:rule="has(self.beforeJob) || has(self.afterJob) || (has(self.beforeHTTP) && has(self.beforeHTTP.service)) || (has(self.afterHTTP) && has(self.afterHTTP.service)) ? !has(self.before) && !has(self.after) && !has(self.hold) && (!has(self.beforeHTTP) || has(self.beforeHTTP.service)) && (!has(self.afterHTTP) || has(self.afterHTTP.service)) && !has(self.podSelector) && !has(self.container) : has(self.podSelector) && !has(self.__namespace__)",message="what acts in pods (commands, hold, HTTP without service) needs a podSelector and no namespace; Jobs and Services have none, and are hooks of their own"
type Hook struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// Order: hooks of a lower one act earlier before the cut and later after
	// it. Those of the same order, and all pods of a hook, act at once.
	// +optional
	Order int32 `json:"order,omitempty"`
	// PodSelector chooses the pods by label. Jobs and Services need none.
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`
	// Namespace is where the hook's Jobs and Services are. It is one of the
	// application's, and may be left out where that has only one.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// Container defaults to the pod's first.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Container string `json:"container,omitempty"`
	// Before runs before the first volume is cut, and before Hold.
	// +optional
	// +kubebuilder:validation:MaxItems=256
	Before []string `json:"before,omitempty"`
	// BeforeHTTP asks instead of running a command.
	// +optional
	BeforeHTTP *HookHTTP `json:"beforeHTTP,omitempty"`
	// BeforeJob runs a Job instead of a command.
	// +optional
	BeforeJob *HookJob `json:"beforeJob,omitempty"`
	// Hold runs across the cut and keeps the application at rest meanwhile.
	// A recovery point is application-consistent when all that hold were
	// proven to have held.
	// +optional
	Hold *HookHold `json:"hold,omitempty"`
	// After runs after the last volume is cut, also when the capture failed.
	// It may run more than once.
	// +optional
	// +kubebuilder:validation:MaxItems=256
	After []string `json:"after,omitempty"`
	// AfterHTTP asks instead of running a command.
	// +optional
	AfterHTTP *HookHTTP `json:"afterHTTP,omitempty"`
	// AfterJob runs a Job instead of a command.
	// +optional
	AfterJob *HookJob `json:"afterJob,omitempty"`
	// Timeout bounds each action, and the wait until Hold holds; default 30s.
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// OnError says what an action that fails, or a hold that never held, does
	// to the capture. A hold that is lost afterwards weakens the point instead.
	// +kubebuilder:default=Fail
	// +optional
	OnError HookFailure `json:"onError,omitempty"`
}

// HookHTTP is a request of the agent to a pod, or to one pod that a Service is
// in front of. Redirections are answers and are not followed.
type HookHTTP struct {
	// Service to ask, in the hook's namespace: one that selects pods. The
	// first of them that is ready is asked.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Service string `json:"service,omitempty"`
	// Port of the Service or, without one, of the pod: a number, or its name.
	// +kubebuilder:validation:XIntOrString
	Port intstr.IntOrString `json:"port"`
	// Scheme defaults to http. Certificates are not verified: who answers is
	// known by its address, which is the pod's.
	// +optional
	// +kubebuilder:validation:Enum=http;https
	Scheme string `json:"scheme,omitempty"`
	// Method defaults to POST.
	// +optional
	// +kubebuilder:validation:Enum=GET;HEAD;POST;PUT;PATCH;DELETE
	Method string `json:"method,omitempty"`
	// Path with its query; default "/".
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:Pattern=`^/`
	Path string `json:"path,omitempty"`
	// Headers of the request. They are no place for secrets: who may read the
	// Application reads them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Headers []HookHeader `json:"headers,omitempty"`
	// Body of the request.
	// +optional
	// +kubebuilder:validation:MaxLength=16384
	Body string `json:"body,omitempty"`
	// Status are the answers that are a success; default: 200 to 299.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Minimum=200
	// +kubebuilder:validation:items:Maximum=599
	Status []int32 `json:"status,omitempty"`
}

// HookHeader is a header of a request.
type HookHeader struct {
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9-]+$`
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name"`
	// +kubebuilder:validation:MaxLength=4096
	Value string `json:"value"`
}

// HookJob runs a Job to its end. What it is made of is a CronJob's template:
// who wrote that was allowed to run it.
type HookJob struct {
	// CronJob in the hook's namespace. It may be suspended, and best is, if it
	// is for this alone.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=52
	CronJob string `json:"cronJob"`
}

// HookHold is a command that keeps an application at rest for as long as its
// standard input is open.
type HookHold struct {
	// Command brings the application to rest, prints Marker on a line of its
	// own, and reads lines. For the line Ask it prints Marker again, but only
	// if the application has been at rest without a break. When its input ends
	// it lets the application go, and ends.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Command []string `json:"command"`
	// Marker defaults to "DAVIT HELD".
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Marker string `json:"marker,omitempty"`
	// Ask defaults to "DAVIT CHECK".
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Ask string `json:"ask,omitempty"`
	// Limit bounds the whole session; default 60s. What is not let go by then
	// is cut off, and the point weakened.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('10m')",message="limit must be between 1s and 10m"
	Limit *metav1.Duration `json:"limit,omitempty"`
}

// Role is an application's standing at this site.
// +kubebuilder:validation:Enum=Active;Superseded;Standby;Unknown
type Role string

// The roles.
const (
	RoleActive     Role = "Active"     // this site holds the newest epoch
	RoleSuperseded Role = "Superseded" // this site held it once: fenced
	RoleStandby    Role = "Standby"    // this site never held it
	RoleUnknown    Role = "Unknown"    // the vault has not answered yet
)

// FenceLevel is how surely a superseded application is stopped.
// +kubebuilder:validation:Enum=proven;asked
type FenceLevel string

// The levels that a site can say of itself.
const (
	FenceProven FenceLevel = "proven" // every node says that no writer runs, and that none will start
	FenceAsked  FenceLevel = "asked"  // the agent has read the newer epoch and stops it
)

// FenceStatus is the fence of a superseded application at this site.
type FenceStatus struct {
	Level FenceLevel `json:"level"`
	// Epoch is the one that fences it.
	Epoch int64 `json:"epoch"`
	// Since is when the level was first seen for the epoch.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
	// Message says which nodes have not proven it yet, and why.
	// +optional
	Message string `json:"message,omitempty"`
}

// LeaseStatus is the lease under which this site holds its epoch of an
// application: when the vault has been silent for so long, nodes stop it.
type LeaseStatus struct {
	// Epoch is the one whose claim says the terms.
	Epoch int64 `json:"epoch"`
	// Lease is how long the application runs after a node began to ask the vault
	// and was told that it may.
	Lease metav1.Duration `json:"lease"`
	// Bound is how long a node may then take until nothing of it runs.
	// +optional
	Bound metav1.Duration `json:"bound,omitempty"`
	// DriftPPM is how fast or slow clocks may run, in parts in a million.
	// +optional
	DriftPPM int64 `json:"driftPPM,omitempty"`
	// Kept says that every node keeps the lease, and that the vault says so: from
	// then on another site may go by it.
	// +optional
	Kept bool `json:"kept,omitempty"`
	// Peers are the sites that together may stand in for a silent vault: nodes ask them from
	// when the vault says that every node keeps the lease.
	// +optional
	Peers []string `json:"peers,omitempty"`
	// Over says that a node has stopped the application: the vault is silent.
	// +optional
	Over bool `json:"over,omitempty"`
	// Message says which nodes do not keep it, or stopped it.
	// +optional
	Message string `json:"message,omitempty"`
}

// ApplicationStatus is what the agent last observed.
type ApplicationStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	Role Role `json:"role,omitempty"`
	// Epoch is the newest one seen in the vault.
	// +optional
	Epoch int64 `json:"epoch,omitempty"`
	// EpochSite holds that epoch.
	// +optional
	EpochSite string `json:"epochSite,omitempty"`
	// HeldEpoch is the newest epoch this site ever held; 0 if none.
	// +optional
	HeldEpoch int64 `json:"heldEpoch,omitempty"`
	// Fence says how surely nothing of a superseded application writes here.
	// +optional
	Fence *FenceStatus `json:"fence,omitempty"`
	// Lease is set while this site holds the newest epoch under lease terms.
	// +optional
	Lease *LeaseStatus `json:"lease,omitempty"`
	// NewestPoint is the newest recovery point that may be offered.
	// +optional
	NewestPoint string `json:"newestPoint,omitempty"`
	// NewestInstant is that point's instant.
	// +optional
	NewestInstant *metav1.Time `json:"newestInstant,omitempty"`
	// Points counts recovery points that may be offered.
	// +optional
	Points int64 `json:"points,omitempty"`
	// NextCapture is when the policy asks for the next point.
	// +optional
	NextCapture *metav1.Time `json:"nextCapture,omitempty"`
	// Verification is what the scheduled verification did last.
	// +optional
	Verification *VerificationStatus `json:"verification,omitempty"`
	// RestoreTest is what the scheduled restore test did last.
	// +optional
	RestoreTest *RestoreTestStatus `json:"restoreTest,omitempty"`
	// Rest is set while the application is kept from running here: held by
	// runs, or superseded.
	// +optional
	Rest *RestStatus `json:"rest,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// RestStatus says how far an application that must not run here has come to rest.
type RestStatus struct {
	// Runs hold it. What was stopped for them is started again when the last lets
	// go, if this site may write then.
	// +optional
	// +listType=set
	Runs []string `json:"runs,omitempty"`
	// Epoch is the one in force at the last look.
	// +optional
	Epoch int64 `json:"epoch,omitempty"`
	// Stopped says that at the last look nothing was left to stop, and no pod of
	// the application existed in the cluster.
	// +optional
	Stopped bool `json:"stopped,omitempty"`
	// Running names what is still there, or what cannot be stopped.
	// +optional
	// +listType=atomic
	Running []string `json:"running,omitempty"`
	// LastRan is when something of the application was last found to run here, by the
	// agent's clock, and what.
	// +optional
	LastRan *LastRanStatus `json:"lastRan,omitempty"`
	// Waits is set when the application may run here again and no run holds it, until
	// it does: it names nodes that would still stop it, which it waits for, and then
	// workloads that were started again and are not ready.
	// +optional
	// +listType=atomic
	Waits []string `json:"waits,omitempty"`
	// Unready names workloads that were started again and are not ready, as they were
	// not before they were stopped. Nobody waits for them.
	// +optional
	// +listType=atomic
	Unready []string `json:"unready,omitempty"`
	// Refused says why the application cannot be held at rest. Nothing is
	// stopped then.
	// +optional
	Refused string `json:"refused,omitempty"`
}

// LastRanStatus says what of an application that must not run was last found to run.
type LastRanStatus struct {
	// At is when that was. What has ended since counts when it is first seen.
	// +required
	At metav1.MicroTime `json:"at"`
	// What was found.
	// +optional
	// +listType=atomic
	What []string `json:"what,omitempty"`
	// Ended is when the newest of the pods that have ended was made.
	// +optional
	Ended *metav1.Time `json:"ended,omitempty"`
}

// Mark tells one time at which something was found to run from all others.
func (r *RestStatus) Mark() string {
	if r == nil || r.LastRan == nil {
		return "never"
	}
	return r.LastRan.At.UTC().Format(metav1.RFC3339Micro)
}

// ApplicationList is a list of Application.
//
// +kubebuilder:object:root=true
type ApplicationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Application `json:"items"`
}

// VaultName is the application's name in the vault: its own name when it lives
// in davit-system, else namespace.name, so that tenants cannot collide.
func (a *Application) VaultName() string {
	if a.Namespace == SystemNamespace {
		return a.Name
	}
	return a.Namespace + "." + a.Name
}

// HeldBy are the runs that hold the application at rest, sorted.
func (a *Application) HeldBy() []string {
	runs := strings.FieldsFunc(a.Annotations[AnnotationHeldBy], func(c rune) bool { return c == ',' })
	slices.Sort(runs)
	return slices.Compact(runs)
}

// CapturedNamespaces are the namespaces the application covers, as its spec
// names them: patterns and labels are for who lists namespaces.
func (a *Application) CapturedNamespaces() []string {
	if len(a.Spec.Namespaces) > 0 || a.Spec.NamespaceSelector != nil {
		return a.Spec.Namespaces
	}
	return []string{a.Namespace}
}
