package protection

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/profile"
	"davit.dev/davit/internal/selection"
)

// specOf turns the API's document into the engine's, and checks it.
func specOf(app *v1alpha1.Application) (capture.Spec, error) {
	spec := capture.Spec{
		Application: app.VaultName(),
		Mode:        capture.Mode(app.Spec.Volumes.Mode), SnapshotClass: app.Spec.Volumes.SnapshotClass,
		GroupSnapshotClass: app.Spec.Volumes.GroupSnapshotClass,
	}
	if spec.Mode == "" {
		spec.Mode = capture.ModeSnapshot
	}
	spec.Freeze = capture.FreezeMode(app.Spec.Volumes.Freeze)
	if w := app.Spec.Volumes.FreezeWindow; w != nil {
		spec.FreezeWindow = w.Duration
	}
	if strings.Contains(app.Name, ".") {
		return capture.Spec{}, fmt.Errorf("%w: %s: a name with a dot stands for a tenant's application in the vault: choose one without", ErrInvalid, app.Name)
	}
	var err error
	if spec.Select, err = Selection(app); err != nil {
		return capture.Spec{}, err
	}
	spec.Namespaces = spec.Select.Namespaces.Literal()
	for _, name := range spec.Select.Workloads {
		if app.Namespace != v1alpha1.SystemNamespace && !name.In(app.Namespace) {
			return capture.Spec{}, fmt.Errorf("%w: %s: workload %s is in a namespace that is not its own", ErrInvalid, app.Name, name)
		}
	}
	if spec.Filter, err = capture.ParseFilter(app.Spec.IncludeKinds, app.Spec.ExcludeKinds); err != nil {
		return capture.Spec{}, fmt.Errorf("%w: %s: %w", ErrInvalid, app.Name, err)
	}
	if spec.Volumes, err = volumesOf(&app.Spec.Volumes); err != nil {
		return capture.Spec{}, fmt.Errorf("%w: %s: volumes: %w", ErrInvalid, app.Name, err)
	}
	if spec.Hooks, err = hooksOf(app.Spec.Hooks); err != nil {
		return capture.Spec{}, fmt.Errorf("%w: %s: %w", ErrInvalid, app.Name, err)
	}
	if app.Spec.Profiles != v1alpha1.ProfilesNever {
		spec.Profile = profile.Chooser()
	}
	return spec, nil
}

// SpecOf is what a capture of the application would be asked for; ErrInvalid
// says why there can be none.
func SpecOf(app *v1alpha1.Application) (capture.Spec, error) { return specOf(app) }

// Selection is what the application covers. An Application outside davit-system
// covers its own namespace and nothing else, whatever it says: whoever may
// write there is not thereby an administrator.
func Selection(app *v1alpha1.Application) (selection.Selection, error) {
	var s selection.Selection
	var err error
	if s.Namespaces, err = namespacesOf(app); err != nil {
		return s, fmt.Errorf("%w: %s: %w", ErrInvalid, app.Name, err)
	}
	if only := app.Spec.Selector; only != nil {
		matching, err := metav1.LabelSelectorAsSelector(only)
		if err != nil {
			return s, fmt.Errorf("%w: %s: selector: %w", ErrInvalid, app.Name, err)
		}
		if !matching.Empty() {
			s.Any = append(s.Any, matching)
		}
	}
	for _, list := range []struct {
		field string
		from  []metav1.LabelSelector
		into  *[]labels.Selector
	}{{"selectors", app.Spec.Selectors, &s.Any}, {"podSelectors", app.Spec.PodSelectors, &s.Pods}} {
		for i := range list.from {
			selector, err := metav1.LabelSelectorAsSelector(&list.from[i])
			if err == nil && selector.Empty() {
				err = errors.New("is empty and would match everything: leave it out, or say which labels")
			}
			if err != nil {
				return s, fmt.Errorf("%w: %s: %s[%d]: %w", ErrInvalid, app.Name, list.field, i, err)
			}
			*list.into = append(*list.into, selector)
		}
	}
	for _, text := range app.Spec.Workloads {
		name, err := selection.ParseName(text)
		if err != nil {
			return s, fmt.Errorf("%w: %s: %w", ErrInvalid, app.Name, err)
		}
		s.Workloads = append(s.Workloads, name)
	}
	return s, nil
}

// namespacesOf is which namespaces the application covers.
func namespacesOf(app *v1alpha1.Application) (selection.Namespaces, error) {
	spec := &app.Spec
	n := selection.Namespaces{Names: slices.Clone(app.CapturedNamespaces()), Exclude: spec.ExcludeNamespaces}
	if app.Namespace != v1alpha1.SystemNamespace {
		if spec.NamespaceSelector != nil || len(spec.ExcludeNamespaces) > 0 {
			return n, fmt.Errorf("namespaceSelector and excludeNamespaces are for an Application in %s: this one is of namespace %s alone", v1alpha1.SystemNamespace, app.Namespace)
		}
		for _, ns := range spec.Namespaces {
			if ns != app.Namespace {
				return n, fmt.Errorf("namespace %q is not its own: only an Application in %s may span namespaces", ns, v1alpha1.SystemNamespace)
			}
		}
		return n, nil
	}
	if len(spec.Namespaces) == 0 && spec.NamespaceSelector == nil {
		return n, fmt.Errorf("in %s it must name the namespaces to capture", v1alpha1.SystemNamespace)
	}
	for _, name := range append(slices.Clone(spec.Namespaces), spec.ExcludeNamespaces...) {
		if err := selection.CheckNamespace(name); err != nil {
			return n, err
		}
	}
	if spec.NamespaceSelector != nil {
		var err error
		if n.Labels, err = metav1.LabelSelectorAsSelector(spec.NamespaceSelector); err != nil {
			return n, fmt.Errorf("namespaceSelector: %w", err)
		}
	}
	if n.Static() && len(n.Literal()) == 0 {
		return n, fmt.Errorf("excludeNamespaces %s leaves none of its namespaces", strings.Join(n.Exclude, ", "))
	}
	return n, nil
}

func volumesOf(v *v1alpha1.VolumeCapture) (selection.Volumes, error) {
	var all selection.Volumes
	for _, list := range []struct {
		field string
		from  []v1alpha1.VolumeRule
		into  *[]selection.Volume
	}{{"include", v.Include, &all.Include}, {"exclude", v.Exclude, &all.Exclude}} {
		for i, rule := range list.from {
			r := selection.Volume{Claims: rule.Claims, StorageClass: rule.StorageClass}
			if rule.Selector != nil {
				var err error
				if r.Labels, err = metav1.LabelSelectorAsSelector(rule.Selector); err != nil {
					return all, fmt.Errorf("%s[%d]: selector: %w", list.field, i, err)
				}
			}
			if r.Empty() {
				return all, fmt.Errorf("%s[%d] says nothing: give claims, storageClass or selector", list.field, i)
			}
			*list.into = append(*list.into, r)
		}
	}
	return all, nil
}
