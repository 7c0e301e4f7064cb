// Package v1alpha1 holds Davit's API kinds, group davit.dev. The same Go types
// serve the CLI, the agent and, later, the console.
//
// +kubebuilder:object:generate=true
// +groupName=davit.dev
package v1alpha1
