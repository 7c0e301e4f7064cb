// Package gitops knows the objects that Flux and Argo CD make from git, by the
// marks these leave, and what makes them; and suspends those reconcilers for
// the time of a restore. What one was before is written on it by the write
// that suspends it, so that whoever comes after a crash can resume it.
package gitops

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/shape"
)

// Mode says what a restore does about objects that git holds.
type Mode string

// The modes.
const (
	Keep    Mode = "Keep"    // they are restored like any other
	Skip    Mode = "Skip"    // they are left to git, but for claims, namespaces and definitions
	Suspend Mode = "Suspend" // they are restored while their reconcilers are suspended
)

// The kinds that make objects from git.
var (
	KindKustomization = schema.GroupKind{Group: "kustomize.toolkit.fluxcd.io", Kind: "Kustomization"}
	KindHelmRelease   = schema.GroupKind{Group: "helm.toolkit.fluxcd.io", Kind: "HelmRelease"}
	KindApplication   = schema.GroupKind{Group: "argoproj.io", Kind: "Application"}
)

// Kinds are all of them.
var Kinds = []schema.GroupKind{KindKustomization, KindHelmRelease, KindApplication}

// Marks.
const (
	trackingID    = "argocd.argoproj.io/tracking-id"
	argoInstance  = "argocd.argoproj.io/instance"
	anyInstance   = "app.kubernetes.io/instance" // Argo CD's of old, and any chart's
	skipReconcile = "argocd.argoproj.io/skip-reconcile"
)

// Reconciler is one that makes objects from git. The namespace of an Argo CD
// Application is not in its marks unless it is an unusual one.
type Reconciler struct {
	Kind            schema.GroupKind
	Namespace, Name string
}

// String names it for people.
func (r Reconciler) String() string {
	if r.Namespace == "" {
		return r.Kind.String() + " " + r.Name
	}
	return r.Kind.String() + " " + r.Namespace + "/" + r.Name
}

// Of tells what made an object from git, by the marks on it. known tells
// whether Argo CD has an Application of a name: charts set the label that it
// used of old to names of their own.
func Of(kind schema.GroupKind, h shape.Head, known func(application string) bool) (Reconciler, bool) {
	labels := h.Metadata.Labels
	for _, flux := range []schema.GroupKind{KindHelmRelease, KindKustomization} {
		r := Reconciler{Kind: flux, Namespace: labels[flux.Group+"/namespace"], Name: labels[flux.Group+"/name"]}
		if r.Name != "" && r.Namespace != "" && h.Metadata.Annotations[flux.Group+"/reconcile"] != "disabled" {
			return r, true
		}
	}
	if id := h.Metadata.Annotations[trackingID]; id != "" {
		return tracked(kind, h, id)
	}
	if name := labels[argoInstance]; name != "" {
		return application(name), true
	}
	if name := labels[anyInstance]; name != "" && known(name) {
		return application(name), true
	}
	return Reconciler{}, false
}

// tracked reads application:group/kind:namespace/name. Controllers copy
// annotations to what they make, so one that names another object says nothing
// of this one.
func tracked(kind schema.GroupKind, h shape.Head, id string) (Reconciler, bool) {
	name, rest, ok := strings.Cut(id, ":")
	what := kind.Group + "/" + kind.Kind + ":"
	itself := rest == what+h.Metadata.Namespace+"/"+h.Metadata.Name
	if h.Metadata.Namespace == "" { // Argo CD writes the Application's namespace there
		itself = strings.HasPrefix(rest, what) && strings.HasSuffix(rest, "/"+h.Metadata.Name)
	}
	if !ok || !itself {
		return Reconciler{}, false
	}
	return application(name), true
}

// application reads a name, which has the namespace before it where that is
// not the usual one.
func application(name string) Reconciler {
	r := Reconciler{Kind: KindApplication, Name: name}
	if namespace, rest, ok := strings.Cut(name, "_"); ok { // no name has an underscore
		r.Namespace, r.Name = namespace, rest
	}
	return r
}

// Unmark takes the marks off a copy that goes to another namespace: git does
// not hold it, and must not prune it.
func Unmark(d shape.Document) {
	shape.Drop(d, []string{"metadata", "annotations"}, trackingID)
	labels := []string{argoInstance}
	for _, flux := range []schema.GroupKind{KindHelmRelease, KindKustomization} {
		labels = append(labels, flux.Group+"/name", flux.Group+"/namespace")
	}
	shape.Drop(d, []string{"metadata", "labels"}, labels...)
}

// Needed tells whether objects of a kind are restored although git holds them:
// data is not in git, and the rest needs the others.
func Needed(kind schema.GroupKind) bool {
	return kind == shape.KindClaim || kind == shape.KindNamespace || kind == shape.KindCRD
}
