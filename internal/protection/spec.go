package protection

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
)

// specOf turns the API's document into the engine's, and checks it.
func specOf(app *v1alpha1.Application) (capture.Spec, error) {
	spec := capture.Spec{
		Application: app.VaultName(), Namespaces: slices.Clone(app.CapturedNamespaces()),
		Mode: capture.Mode(app.Spec.Volumes.Mode), SnapshotClass: app.Spec.Volumes.SnapshotClass,
	}
	if spec.Mode == "" {
		spec.Mode = capture.ModeSnapshot
	}
	slices.Sort(spec.Namespaces)
	spec.Namespaces = slices.Compact(spec.Namespaces)
	if err := checkNamespaces(app); err != nil {
		return capture.Spec{}, err
	}
	var err error
	if spec.Filter, err = capture.ParseFilter(app.Spec.IncludeKinds, app.Spec.ExcludeKinds); err != nil {
		return capture.Spec{}, fmt.Errorf("%w: %s: %w", ErrInvalid, app.Name, err)
	}
	if app.Spec.Selector != nil {
		if spec.Selector, err = metav1.LabelSelectorAsSelector(app.Spec.Selector); err != nil {
			return capture.Spec{}, fmt.Errorf("%w: %s: selector: %w", ErrInvalid, app.Name, err)
		}
		if spec.Selector.Empty() {
			spec.Selector = nil
		}
	}
	if spec.Hooks, err = hooksOf(app.Spec.Hooks); err != nil {
		return capture.Spec{}, fmt.Errorf("%w: %s: %w", ErrInvalid, app.Name, err)
	}
	return spec, nil
}

// checkNamespaces keeps an Application outside davit-system in its own
// namespace: whoever may write there is not thereby an administrator.
func checkNamespaces(app *v1alpha1.Application) error {
	system := app.Namespace == v1alpha1.SystemNamespace
	if system && len(app.Spec.Namespaces) == 0 {
		return fmt.Errorf("%w: %s: in %s it must name the namespaces to capture", ErrInvalid, app.Name, v1alpha1.SystemNamespace)
	}
	for _, ns := range app.Spec.Namespaces {
		if ns == "" {
			return fmt.Errorf("%w: %s: an empty namespace name", ErrInvalid, app.Name)
		}
		if !system && ns != app.Namespace {
			return fmt.Errorf("%w: %s: namespace %s is not its own: only an Application in %s may span namespaces", ErrInvalid, app.Name, ns, v1alpha1.SystemNamespace)
		}
	}
	return nil
}

func hooksOf(hooks []v1alpha1.Hook) ([]capture.Hook, error) {
	var all []capture.Hook
	for _, h := range hooks {
		pods, err := metav1.LabelSelectorAsSelector(&h.PodSelector)
		if err != nil {
			return nil, fmt.Errorf("hook %s: podSelector: %w", h.Name, err)
		}
		if len(h.Before) == 0 && len(h.After) == 0 {
			return nil, fmt.Errorf("hook %s: has neither before nor after", h.Name)
		}
		hook := capture.Hook{
			Name: h.Name, Pods: pods, Container: h.Container, Before: h.Before, After: h.After,
			Continue: h.OnError == v1alpha1.HookContinue,
		}
		if h.Timeout != nil {
			hook.Timeout = h.Timeout.Duration
		}
		if hook.Timeout < 0 {
			return nil, fmt.Errorf("hook %s: timeout %s is negative", h.Name, hook.Timeout)
		}
		all = append(all, hook)
	}
	return all, nil
}
