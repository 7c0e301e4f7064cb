package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NodeFence is what the node process of one node says of the fences that it
// keeps by itself: which applications may not run there, and whether any still
// does. It is in davit-system, bears the node's name, and goes with the node.
// It reports; nothing is ordered by it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=davit
// +kubebuilder:printcolumn:name="Seen",type=date,JSONPath=`.status.observedAt`
// +kubebuilder:printcolumn:name="Fenced",type=string,JSONPath=`.status.applications[*].application`
// +kubebuilder:printcolumn:name="Problem",type=string,JSONPath=`.status.problem`
type NodeFence struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status NodeFenceStatus `json:"status,omitempty"`
}

// NodeFenceStatus is the node's report.
type NodeFenceStatus struct {
	// ObservedAt is when the node process last looked, by the node's clock.
	// +optional
	ObservedAt *metav1.Time `json:"observedAt,omitempty"`
	// Applications are those that may not run on the node.
	// +optional
	Applications []FencedApplication `json:"applications,omitempty"`
	// Sandboxes are the copies whose pods are closed in here.
	// +optional
	Sandboxes []IsolatedSandbox `json:"sandboxes,omitempty"`
	// Leases are those that the node keeps: when one is over, the application
	// stops here.
	// +optional
	Leases []KeptLease `json:"leases,omitempty"`
	// Bound is the shortest time in which the node can promise that nothing of an
	// application runs after its lease.
	// +optional
	Bound *metav1.Duration `json:"bound,omitempty"`
	// Problem is why the node cannot fence at all. It proves nothing then.
	// +optional
	Problem string `json:"problem,omitempty"`
}

// FencedApplication is one application that may not run on a node.
type FencedApplication struct {
	// Application is its name in the vault.
	Application string `json:"application"`
	// Reason is "superseded" or "lease over".
	Reason string `json:"reason"`
	// Epoch is the number below which nothing of it starts here, across
	// restarts; 0 where a lease is over, which a newer answer of the vault ends.
	// +optional
	Epoch int64 `json:"epoch,omitempty"`
	// Pods is how many of its pods are on the node, Running how many containers
	// in them have not ended, Open how many of them are not cut off.
	// +optional
	Pods int32 `json:"pods,omitempty"`
	// +optional
	Running int32 `json:"running,omitempty"`
	// +optional
	Open int32 `json:"open,omitempty"`
	// Proven says that no writer runs here and that none will start below Epoch.
	// +optional
	Proven bool `json:"proven,omitempty"`
	// Problem is what could not be done.
	// +optional
	Problem string `json:"problem,omitempty"`
}

// KeptLease is the lease of one application that a node keeps.
type KeptLease struct {
	// Application is its name in the vault.
	Application string `json:"application"`
	// Epoch is the one whose claim says the terms.
	Epoch int64 `json:"epoch"`
	// Problem is why the node cannot obey them. It promises nothing then.
	// +optional
	Problem string `json:"problem,omitempty"`
}

// IsolatedSandbox is one copy whose pods speak to each other only.
type IsolatedSandbox struct {
	Name string `json:"name"`
	// Pods is how many of its pods are closed in on the node.
	Pods int32 `json:"pods"`
}

// NodeFenceList is a list of NodeFence.
//
// +kubebuilder:object:root=true
type NodeFenceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []NodeFence `json:"items"`
}
