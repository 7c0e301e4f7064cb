package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Site is one Kubernetes cluster known to Davit. The local one is made by
// davit install; others appear from their heartbeats in the vault.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=davit
// +kubebuilder:printcolumn:name="Local",type=boolean,JSONPath=`.status.local`
// +kubebuilder:printcolumn:name="Kubernetes",type=string,JSONPath=`.status.kubeVersion`
// +kubebuilder:printcolumn:name="Davit",type=string,JSONPath=`.status.davitVersion`
// +kubebuilder:printcolumn:name="Seen",type=date,JSONPath=`.status.lastSeen`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
type Site struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec   SiteSpec   `json:"spec,omitempty"`
	Status SiteStatus `json:"status,omitempty"`
}

// SiteSpec is what only a person knows about a site.
type SiteSpec struct {
	// FailureDomain names what the site shares its fate with. It is written where it is empty, too: an API server
	// refuses what takes the last field out of a spec.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	FailureDomain string `json:"failureDomain"`
}

// SiteStatus is what the site last said of itself.
type SiteStatus struct {
	// +optional
	Local bool `json:"local,omitempty"`
	// LastSeen is when the site last wrote to the vault, by the vault's clock.
	// +optional
	LastSeen *metav1.Time `json:"lastSeen,omitempty"`
	// ClusterID is the cluster that bears the site's name: the UID of its
	// kube-system namespace.
	// +optional
	ClusterID string `json:"clusterID,omitempty"`
	// +optional
	KubeVersion string `json:"kubeVersion,omitempty"`
	// +optional
	DavitVersion string `json:"davitVersion,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// SiteList is a list of Site.
//
// +kubebuilder:object:root=true
type SiteList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Site `json:"items"`
}
