package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What makes objects from git: the resources that a suspend or resume step can name.
const (
	Kustomizations = "kustomizations.kustomize.toolkit.fluxcd.io"
	HelmReleases   = "helmreleases.helm.toolkit.fluxcd.io"
	ArgoCD         = "applications.argoproj.io"
)

var errReconciler = errors.New("write " + Kustomizations + "/, " + HelmReleases + "/ or " + ArgoCD + "/ with NAMESPACE/NAME")

// Reconciler reads RESOURCE.GROUP/NAMESPACE/NAME, the object of a suspend or resume
// step. The namespace of an Argo CD Application may be left out.
func Reconciler(object string) (resource, namespace, name string, err error) {
	resource, rest, _ := strings.Cut(object, "/")
	namespace, name, both := strings.Cut(rest, "/")
	if !both {
		namespace, name = "", rest
	}
	switch {
	case !slices.Contains([]string{Kustomizations, HelmReleases, ArgoCD}, resource):
		return "", "", "", fmt.Errorf("%q is nothing that makes objects from git: %w", object, errReconciler)
	case name == "" || strings.Contains(name, "/") || namespace == "" && (both || resource != ArgoCD):
		return "", "", "", fmt.Errorf("%q does not say which one: %w", object, errReconciler)
	}
	return resource, namespace, name, nil
}

// reconciler complains of an object that no suspend or resume step can have, before
// a run meets it half way.
func (c *checker) reconciler(where string, s Step) {
	if s.Object == "" || s.Kind != KindSuspend && s.Kind != KindResume {
		return
	}
	_, _, _, err := Reconciler(s.Object)
	if err == nil {
		return
	}
	what, _, _ := strings.Cut(err.Error(), ": write ")
	c.say(where, what, errReconciler.Error())
}

// Resumption is how people resume what a suspend step suspended; empty, if object is
// nothing that makes objects from git.
func Resumption(object string) string {
	resource, namespace, name, err := Reconciler(object)
	switch {
	case err != nil:
		return ""
	case resource != ArgoCD:
		return fmt.Sprintf(`kubectl -n %s patch %s %s --type merge -p '{"spec":{"suspend":false}}'`, namespace, resource, name)
	case namespace == "":
		namespace = "NAMESPACE"
	}
	return fmt.Sprintf("kubectl -n %s annotate %s %s argocd.argoproj.io/skip-reconcile-, and turn its automated sync on again, as its annotation davit.dev/gitops-before-restore has it", namespace, resource, name)
}
