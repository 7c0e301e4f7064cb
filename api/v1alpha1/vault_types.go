package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Vault is object storage outside the sites, and this cluster's way into one
// project of it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=davit
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.spec.url`
// +kubebuilder:printcolumn:name="Project",type=string,JSONPath=`.spec.project`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Checked",type=date,JSONPath=`.status.lastChecked`
// +kubebuilder:printcolumn:name="Copy of",type=string,JSONPath=`.spec.copyOf`,priority=1
type Vault struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   VaultSpec   `json:"spec"`
	Status VaultStatus `json:"status,omitempty"`
}

// VaultSpec says where the vault is. Credentials and keys stay in a Secret.
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.immutability) || has(self.immutability) && self.immutability.days >= oldSelf.immutability.days && (self.immutability.mode == 'Compliance' || oldSelf.immutability.mode == 'Governance')",message="immutability cannot be weakened or taken off: what is locked stays locked; remove the Vault and add it again to lock less from now on"
type VaultSpec struct {
	// URL is s3://bucket/prefix?endpoint=https://host:port&region=r&pathStyle=true
	// or file:///directory.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.startsWith('s3://') || self.startsWith('file:///')",message="url must start with s3:// or file:///"
	URL string `json:"url"`
	// Project is the tenant within the vault.
	// +kubebuilder:default=default
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="project cannot change: add another vault instead"
	Project string `json:"project"`
	// SecretName names the Secret in davit-system with accessKey, secretKey,
	// sessionToken (optional) and identity (this site's age identity).
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName"`
	// CABundle holds PEM certificates that vouch for the endpoint, for vaults
	// behind a private CA.
	// +optional
	// +kubebuilder:validation:MaxLength=262144
	CABundle string `json:"caBundle,omitempty"`
	// FailureDomain names where the vault lives. Capturing a site of the same
	// failure domain is refused: both would be lost together.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	FailureDomain string `json:"failureDomain,omitempty"`
	// DeletionDelay is how long a recovery point stays in the vault after it
	// was deleted, by retention or by a person: until then it can be undeleted.
	// Default: none.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s')",message="deletionDelay must not be negative"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	DeletionDelay *metav1.Duration `json:"deletionDelay,omitempty"`
	// Immutability locks what is written, with the store's object lock, so that
	// who has the store's credentials can destroy no recovery point. The bucket
	// must have object lock enabled. It cannot be taken off again, as what is
	// locked stays locked.
	// +optional
	Immutability *Immutability `json:"immutability,omitempty"`
	// NoOverwrite says that nobody with this site's credentials is to be able
	// to destroy what was written: the bucket keeps versions, and its policy
	// lets the site destroy none. It is proven when the vault is added, by vault check,
	// and each hour by the agent.
	// +optional
	NoOverwrite bool `json:"noOverwrite,omitempty"`
	// CopyOf names the Vault of which this one is a second copy: its recovery
	// points are copied here, and nothing else is written. Points are restored
	// as clones and verified from it as from any vault; it holds no epochs, so
	// nothing is captured into it or taken over from it.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="copyOf cannot change: add another vault instead"
	CopyOf string `json:"copyOf,omitempty"`
	// Bandwidth bounds the bytes per second that each process sends to this
	// vault, and those that it reads from it, such as 20Mi; at least 64Ki.
	// Default: no bound.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('64Ki')) >= 0",message="bandwidth must be at least 64Ki bytes per second"
	Bandwidth *resource.Quantity `json:"bandwidth,omitempty"`
}

// LockMode is who may lift a lock before its time.
// +kubebuilder:validation:Enum=Governance;Compliance
type LockMode string

// The modes of locks.
const (
	// LockGovernance leaves it to whoever has the store's right to.
	LockGovernance LockMode = "Governance"
	// LockCompliance leaves it to nobody, the store's owner included.
	LockCompliance LockMode = "Compliance"
)

// Immutability is how objects in a vault are locked.
type Immutability struct {
	Mode LockMode `json:"mode"`
	// Days is for how long, at the least, an object stays locked after it was
	// written, and after the agents that prolong the locks of kept points fell
	// silent. A deleted point goes a quarter longer after that.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3650
	Days int32 `json:"days"`
}

// LockStatus is how far the locks of kept recovery points reach.
type LockStatus struct {
	// ExtendedAt is when all of them were last prolonged, and Until to when.
	// +optional
	ExtendedAt *metav1.Time `json:"extendedAt,omitempty"`
	// +optional
	Until *metav1.Time `json:"until,omitempty"`
	// +optional
	Objects int64 `json:"objects,omitempty"`
	// Error is what keeps them from being prolonged; tried again by itself.
	// +optional
	Error string `json:"error,omitempty"`
}

// KeepingStatus is whether the store keeps what this site's credentials
// overwrite or delete, of a vault with noOverwrite.
type KeepingStatus struct {
	// ProvenAt is when that was last proven.
	// +optional
	ProvenAt *metav1.Time `json:"provenAt,omitempty"`
	// Error is why it could not be proven, or what could be destroyed; tried
	// again by itself.
	// +optional
	Error string `json:"error,omitempty"`
}

// VaultStatus is what the last check found.
type VaultStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// VaultID is the random id written into the vault when it was made.
	// +optional
	VaultID string `json:"vaultID,omitempty"`
	// KeyID is the newest of the project's data keys that this site knows, and
	// KeyVersion its number: what is new is sealed with it.
	// +optional
	KeyID string `json:"keyID,omitempty"`
	// +optional
	KeyVersion int64 `json:"keyVersion,omitempty"`
	// +optional
	LastChecked *metav1.Time `json:"lastChecked,omitempty"`
	// Latency is the round trip of a small write.
	// +optional
	Latency *metav1.Duration `json:"latency,omitempty"`
	// ClockSkew is the vault's clock minus this site's.
	// +optional
	ClockSkew *metav1.Duration `json:"clockSkew,omitempty"`
	// Lock says how far the locks of kept recovery points reach.
	// +optional
	Lock *LockStatus `json:"lock,omitempty"`
	// Keeping says whether this site's credentials can destroy what was written.
	// +optional
	Keeping *KeepingStatus `json:"keeping,omitempty"`
	// Copy says how far a second copy is.
	// +optional
	Copy *CopyStatus `json:"copy,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// CopyStatus is how far a second copy of a vault is, as this site sees it.
type CopyStatus struct {
	// LookedAt is when both vaults were last compared.
	// +optional
	LookedAt *metav1.Time `json:"lookedAt,omitempty"`
	// Pending counts recovery points that are to be copied yet.
	// +optional
	Pending int64 `json:"pending,omitempty"`
	// PendingSince is the instant of the oldest of them.
	// +optional
	PendingSince *metav1.Time `json:"pendingSince,omitempty"`
	// Objects and Bytes are what the last pass that had something to do copied.
	// +optional
	Objects int64 `json:"objects,omitempty"`
	// +optional
	Bytes int64 `json:"bytes,omitempty"`
	// Error is what keeps it from going on; tried again by itself.
	// +optional
	Error string `json:"error,omitempty"`
	// Damaged names what the first vault has that is not what was written.
	// +optional
	// +kubebuilder:validation:MaxItems=20
	Damaged []string `json:"damaged,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=name
	Applications []ApplicationCopy `json:"applications,omitempty"`
}

// ApplicationCopy is what a second copy has of one application.
type ApplicationCopy struct {
	// Name is the application's name in the vault.
	Name string `json:"name"`
	// Points counts its recovery points there that may be offered.
	// +optional
	Points int64 `json:"points,omitempty"`
	// Newest is the instant of the newest.
	// +optional
	Newest *metav1.Time `json:"newest,omitempty"`
	// +optional
	Pending int64 `json:"pending,omitempty"`
	// +optional
	Error string `json:"error,omitempty"`
}

// VaultList is a list of Vault.
//
// +kubebuilder:object:root=true
type VaultList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Vault `json:"items"`
}
