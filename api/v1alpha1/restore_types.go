package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Restore brings an application back from a recovery point.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=davit
// +kubebuilder:printcolumn:name="Application",type=string,JSONPath=`.spec.application`
// +kubebuilder:printcolumn:name="Point",type=string,JSONPath=`.status.point`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Step",type=string,JSONPath=`.status.step`
// +kubebuilder:printcolumn:name="Objects",type=integer,JSONPath=`.status.restored`
// +kubebuilder:printcolumn:name="RTO",type=string,JSONPath=`.status.rto`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Restore struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   RestoreSpec   `json:"spec"`
	Status RestoreStatus `json:"status,omitempty"`
}

// RestoreMode says what becomes of the right to write.
// +kubebuilder:validation:Enum=InPlace;TakeOver;Clone
type RestoreMode string

// The restore modes.
const (
	// RestoreInPlace restores at the site that holds the epoch already.
	RestoreInPlace RestoreMode = "InPlace"
	// RestoreTakeOver raises the epoch first: the other site is fenced when
	// it sees it, and protection goes on here.
	RestoreTakeOver RestoreMode = "TakeOver"
	// RestoreClone makes a copy under other namespaces that is never
	// protected under the application's name.
	RestoreClone RestoreMode = "Clone"
)

// ExistingPolicy says what happens to objects that exist already and differ.
// Volumes are left alone by Skip and Update, and rolled back in place by
// Replace and Exact: what uses them is stopped before, and started again.
// +kubebuilder:validation:Enum=Skip;Update;Replace;Exact
type ExistingPolicy string

// What happens to objects that exist already.
const (
	ExistingSkip    ExistingPolicy = "Skip"    // left alone, with a warning
	ExistingUpdate  ExistingPolicy = "Update"  // server-side apply with force
	ExistingReplace ExistingPolicy = "Replace" // deleted and made anew
	// ExistingExact overwrites, and deletes what the application has and the
	// recovery point does not.
	ExistingExact ExistingPolicy = "Exact"
)

// NodePortPolicy says what happens to node ports of Services.
// +kubebuilder:validation:Enum=Reassign;Preserve
type NodePortPolicy string

// What happens to node ports.
const (
	NodePortReassign NodePortPolicy = "Reassign"
	NodePortPreserve NodePortPolicy = "Preserve"
)

// GitOpsPolicy says what is done about objects that Flux or Argo CD make from git.
// +kubebuilder:validation:Enum=Keep;Skip;Suspend
type GitOpsPolicy string

// What is done about objects that git holds.
const (
	GitOpsKeep    GitOpsPolicy = "Keep"    // restored like any other
	GitOpsSkip    GitOpsPolicy = "Skip"    // left to git, but for claims, namespaces and definitions
	GitOpsSuspend GitOpsPolicy = "Suspend" // restored while what makes them is suspended; that goes on afterwards
)

// RestoreSpec asks for a restore. It cannot change once given.
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a restore cannot change: create another"
// +kubebuilder:validation:XValidation:rule="!(has(self.point) && has(self.asOf))",message="give point or asOf, not both"
// +kubebuilder:validation:XValidation:rule="self.mode != 'Clone' || (has(self.namespaceMapping) && size(self.namespaceMapping) > 0)",message="a clone needs namespaceMapping, so that it cannot be taken for the original"
// +kubebuilder:validation:XValidation:rule="self.mode != 'TakeOver' || !has(self.namespaceMapping) || size(self.namespaceMapping) == 0",message="take-over keeps the namespaces: use Clone to rename them"
// +kubebuilder:validation:XValidation:rule="!has(self.mode) || self.mode != 'Clone' || ((!has(self.existing) || self.existing != 'Exact') && (!has(self.existingKinds) || self.existingKinds.all(k, self.existingKinds[k] != 'Exact')))",message="a clone prunes nothing: Exact is for the application's own namespaces"
type RestoreSpec struct {
	// Vault names the Vault to read from.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Vault string `json:"vault"`
	// Application is the application's name in the vault.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Application string `json:"application"`
	// Point names the recovery point; default the newest that may be offered.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Point string `json:"point,omitempty"`
	// AsOf chooses the newest point whose instant is not after it.
	// +optional
	AsOf *metav1.Time `json:"asOf,omitempty"`
	// +kubebuilder:default=InPlace
	// +optional
	Mode RestoreMode `json:"mode,omitempty"`
	// NamespaceMapping renames namespaces, from captured to wanted.
	// +optional
	// +kubebuilder:validation:MaxProperties=256
	NamespaceMapping map[string]string `json:"namespaceMapping,omitempty"`
	// StorageClassMapping replaces storage classes, from captured to wanted.
	// +optional
	// +kubebuilder:validation:MaxProperties=256
	StorageClassMapping map[string]string `json:"storageClassMapping,omitempty"`
	// +kubebuilder:default=Skip
	// +optional
	Existing ExistingPolicy `json:"existing,omitempty"`
	// ExistingKinds are policies of single kinds, written resource.group with
	// "*" allowed, or as the kind's name: {"secrets": "Replace"}.
	// +optional
	// +kubebuilder:validation:MaxProperties=256
	ExistingKinds map[string]ExistingPolicy `json:"existingKinds,omitempty"`
	// Transforms change objects on their way, in this order, after namespaces
	// and storage classes are mapped and after the site's overlays.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Transforms []TransformRule `json:"transforms,omitempty"`
	// TransformsFrom names ConfigMaps of the Restore's namespace that hold
	// rules; theirs come before Transforms. They are read with the rights of
	// the service account.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	TransformsFrom []TransformSource `json:"transformsFrom,omitempty"`
	// NoOverlays leaves out the site's overlays, which a take-over and a
	// restore in place apply.
	// +optional
	NoOverlays bool `json:"noOverlays,omitempty"`
	// MirrorImagesFrom has images taken from a mirror, host[:port][/path], to
	// which davit images mirror copied them.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	MirrorImagesFrom string `json:"mirrorImagesFrom,omitempty"`
	// NodePorts defaults to Preserve, and to Reassign for a clone, which would
	// take them from the original. A port that is taken is assigned anew, with
	// a warning.
	// +optional
	NodePorts NodePortPolicy `json:"nodePorts,omitempty"`
	// GitOps is about objects that Flux or Argo CD make from git; default Keep.
	// +kubebuilder:default=Keep
	// +optional
	GitOps GitOpsPolicy `json:"gitOps,omitempty"`
	// IncludeKinds and ExcludeKinds narrow what is restored, as in Application.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	IncludeKinds []string `json:"includeKinds,omitempty"`
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	ExcludeKinds []string `json:"excludeKinds,omitempty"`
	// RestoreStatusOf names kinds whose status is restored too.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	RestoreStatusOf []string `json:"restoreStatusOf,omitempty"`
	// Epoch is the application's newest epoch as whoever orders the restore
	// saw it, 0 if it was never claimed. A take-over or a restore in place is
	// refused when another site has raised it since.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Epoch *int64 `json:"epoch,omitempty"`
	// Again has volumes rolled back again that an earlier Restore of the same point, mode and
	// namespaces rolled back without ending whole. Without it these are left alone.
	// +optional
	Again bool `json:"again,omitempty"`
	// AcceptFuzzy allows a point whose volumes were read while being written.
	// +optional
	AcceptFuzzy bool `json:"acceptFuzzy,omitempty"`
	// ServiceAccountName is the account in the Restore's namespace whose
	// rights are used: a restore never exceeds them.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ServiceAccountName string `json:"serviceAccountName"`
	// ReadyTimeout bounds the wait for workloads; default 10m. Workloads not
	// ready by then become warnings.
	// +optional
	ReadyTimeout *metav1.Duration `json:"readyTimeout,omitempty"`
	// Timeout bounds the whole restore, from its first start; default 24h. What
	// was waited for then is in the status, and a new Restore goes on from there.
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// TransformSource names a ConfigMap with rules.
type TransformSource struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ConfigMap string `json:"configMap"`
	// Key is one entry of it; default all, in the order of their names.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`
}

// TransformRule is one change of all objects that it matches. It may not change
// what an object is: its version, kind, name, namespace and Davit's own marks.
type TransformRule struct {
	// Name names the rule in messages.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// +optional
	Match TransformMatch `json:"match,omitempty"`
	// JSONPatch is an RFC 6902 patch, as JSON or YAML.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	JSONPatch string `json:"jsonPatch,omitempty"`
	// MergePatch is an RFC 7396 merge patch, as JSON or YAML.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	MergePatch string `json:"mergePatch,omitempty"`
	// Images maps prefixes of image names, by whole parts of the path. Tags and
	// digests stay.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Images []NameMapping `json:"images,omitempty"`
	// Hosts maps host names in Ingresses, Gateways and their routes. One that
	// begins with a dot is a suffix.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Hosts []NameMapping `json:"hosts,omitempty"`
	// StorageClasses maps those of claims and of claim templates.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	StorageClasses map[string]string `json:"storageClasses,omitempty"`
	// IngressClasses maps those of Ingresses.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	IngressClasses map[string]string `json:"ingressClasses,omitempty"`
	// NodeLabels maps labels by which pods choose nodes, written KEY or KEY=VALUE.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	NodeLabels []NameMapping `json:"nodeLabels,omitempty"`
}

// TransformMatch says which objects a rule is for. What is empty matches all.
type TransformMatch struct {
	// Kinds are resource.group with "*" allowed, or kinds' names.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=253
	Kinds []string `json:"kinds,omitempty"`
	// Namespaces are those at the target, "*" allowed.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=253
	Namespaces []string `json:"namespaces,omitempty"`
	// Names of objects, "*" allowed.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=253
	Names []string `json:"names,omitempty"`
	// +optional
	LabelSelector *metav1.LabelSelector `json:"labelSelector,omitempty"`
	// Condition is a CEL expression over object, such as
	// "has(object.spec.replicas) && object.spec.replicas > 1".
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Condition string `json:"condition,omitempty"`
}

// NameMapping replaces one name.
type NameMapping struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	From string `json:"from"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	To string `json:"to"`
}

// RestorePhase is where a restore is in its life.
// +kubebuilder:validation:Enum=Pending;Running;Completed;CompletedWithWarnings;Failed
type RestorePhase string

// The phases of a restore.
const (
	RestorePending   RestorePhase = "Pending"
	RestoreRunning   RestorePhase = "Running"
	RestoreCompleted RestorePhase = "Completed"
	RestoreWarned    RestorePhase = "CompletedWithWarnings"
	RestoreFailed    RestorePhase = "Failed"
)

// RestoreStatus reports progress and what was measured.
type RestoreStatus struct {
	// +optional
	Phase RestorePhase `json:"phase,omitempty"`
	// +optional
	Step string `json:"step,omitempty"`
	// Point is the recovery point that was chosen.
	// +optional
	Point string `json:"point,omitempty"`
	// Overlays are the site's overlays that were applied.
	// +optional
	Overlays []string `json:"overlays,omitempty"`
	// Epoch is what a take-over claimed.
	// +optional
	Epoch int64 `json:"epoch,omitempty"`
	// ObservedEpoch is the application's newest epoch when an agent first took
	// the restore up. An agent that comes back to it later refuses it when
	// another site has raised the epoch since.
	// +optional
	ObservedEpoch *int64 `json:"observedEpoch,omitempty"`
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// +optional
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`
	// RPO is measured: start of the restore minus the point's instant.
	// +optional
	RPO *metav1.Duration `json:"rpo,omitempty"`
	// RTO is measured: start of the restore until all workloads were ready.
	// +optional
	RTO *metav1.Duration `json:"rto,omitempty"`
	// +optional
	Restored int64 `json:"restored,omitempty"`
	// +optional
	Skipped int64 `json:"skipped,omitempty"`
	// Pruned counts what was deleted because the point does not have it.
	// +optional
	Pruned int64 `json:"pruned,omitempty"`
	// +optional
	FailedObjects int64 `json:"failedObjects,omitempty"`
	// +optional
	VolumeBytes int64 `json:"volumeBytes,omitempty"`
	// Warnings counts them; the first hundred are in WarningList and all are
	// in davit logs.
	// +optional
	Warnings int64 `json:"warnings,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=100
	WarningList []string `json:"warningList,omitempty"`
	// Steps are the restore's steps with their times.
	// +optional
	Steps []StepStatus `json:"steps,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// StepStatus is one step's time and outcome.
type StepStatus struct {
	Name string `json:"name"`
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// +optional
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`
	// Took is how long the step ran, to the millisecond: the times are whole
	// seconds.
	// +optional
	Took *metav1.Duration `json:"took,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
}

// RestoreList is a list of Restore.
//
// +kubebuilder:object:root=true
type RestoreList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Restore `json:"items"`
}
