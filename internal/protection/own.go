package protection

import (
	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
)

// OwnNamespaces is the application, with no namespace that it may not stop: one
// outside davit-system is of its own namespace alone, whatever it names.
func OwnNamespaces(app *v1alpha1.Application) *v1alpha1.Application {
	if app.Namespace == v1alpha1.SystemNamespace {
		return app
	}
	own := app.DeepCopy()
	own.Spec.Namespaces, own.Spec.NamespaceSelector, own.Spec.ExcludeNamespaces = nil, nil, nil
	return own
}

// WantedKinds tells which kinds of workloads are the application's. If the data
// of its volumes is, so is whatever may write into them; and a filter that
// cannot be read leaves nothing out.
func WantedKinds(app *v1alpha1.Application) func(resource, group string) bool {
	filter, err := capture.ParseFilter(app.Spec.IncludeKinds, app.Spec.ExcludeKinds)
	if err != nil || filter.Match("persistentvolumeclaims", "") && app.Spec.Volumes.Mode != v1alpha1.VolumeNone {
		return func(string, string) bool { return true }
	}
	return filter.Match
}

// MayWrite tells whether this site holds the application's newest epoch, as far
// as the agent last saw.
func MayWrite(app *v1alpha1.Application) bool {
	return app.Status.Role == v1alpha1.RoleActive && app.DeletionTimestamp.IsZero()
}
