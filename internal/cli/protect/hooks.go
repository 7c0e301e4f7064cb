package protect

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/selection"
)

// Idle says which of the application's hooks would act in no pod that is here
// now: a misspelt selector shows before the day on which the hook was needed.
// It says nothing where the caller may not list pods.
func Idle(ctx context.Context, c client.Reader, app *v1alpha1.Application) []string {
	var said []string
	for _, h := range app.Spec.Hooks {
		if h.PodSelector == nil { // of a request or a Job
			continue
		}
		choice, err := metav1.LabelSelectorAsSelector(h.PodSelector)
		if err != nil {
			continue
		}
		var pods corev1.PodList
		if c.List(ctx, &pods, client.MatchingLabelsSelector{Selector: choice}) != nil {
			return nil
		}
		if !slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return mayCover(app, p.Namespace) }) {
			said = append(said, fmt.Sprintf("hook %s: no pod of the application has the labels %q now: it would run nowhere", h.Name, choice))
		}
	}
	return said
}

// mayCover tells whether the namespace may be the application's: one that is
// chosen by pattern or labels is given the benefit of the doubt.
func mayCover(app *v1alpha1.Application, namespace string) bool {
	return len(app.Spec.Namespaces) == 0 || app.Spec.NamespaceSelector != nil || slices.ContainsFunc(app.Spec.Namespaces, func(n string) bool { return n == namespace || selection.IsGlob(n) })
}
