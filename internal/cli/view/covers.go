package view

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
)

// covers says in a few words what an application covers.
func covers(app *v1alpha1.Application) string {
	text := namespacesText(app)
	if parts := narrowedText(app); parts != "" {
		text += ", " + parts
	}
	return text
}

func namespacesText(app *v1alpha1.Application) string {
	text := "namespaces " + strings.Join(app.CapturedNamespaces(), ", ")
	if s := app.Spec.NamespaceSelector; s != nil {
		if len(app.Spec.Namespaces) > 0 {
			text += " and those labelled " + metav1.FormatLabelSelector(s)
		} else {
			text = "namespaces labelled " + metav1.FormatLabelSelector(s)
		}
	}
	if len(app.Spec.ExcludeNamespaces) > 0 {
		text += " except " + strings.Join(app.Spec.ExcludeNamespaces, ", ")
	}
	return text
}

// narrowedText says which part of its namespaces an application covers; empty
// for all of them.
func narrowedText(app *v1alpha1.Application) string {
	var parts []string
	if len(app.Spec.Workloads) > 0 {
		parts = append(parts, strings.Join(app.Spec.Workloads, ", "))
	}
	for _, s := range app.Spec.PodSelectors {
		parts = append(parts, "pods with "+metav1.FormatLabelSelector(&s))
	}
	if s := app.Spec.Selector; s != nil {
		parts = append(parts, "objects with "+metav1.FormatLabelSelector(s))
	}
	for _, s := range app.Spec.Selectors {
		parts = append(parts, "objects with "+metav1.FormatLabelSelector(&s))
	}
	return strings.Join(parts, " or ")
}

// volumesText says which volumes are captured, and how.
func volumesText(v v1alpha1.VolumeCapture) string {
	text := string(v.Mode)
	for _, list := range []struct {
		word  string
		rules []v1alpha1.VolumeRule
	}{{"only", v.Include}, {"without", v.Exclude}} {
		for _, r := range list.rules {
			var parts []string
			if len(r.Claims) > 0 {
				parts = append(parts, strings.Join(r.Claims, " or "))
			}
			if r.StorageClass != "" {
				parts = append(parts, "class "+r.StorageClass)
			}
			if r.Selector != nil {
				parts = append(parts, "labels "+metav1.FormatLabelSelector(r.Selector))
			}
			text += ", " + list.word + " " + strings.Join(parts, " of ")
		}
	}
	return text
}

func retentionText(p *v1alpha1.ProtectionPolicy) string {
	if p == nil {
		return ""
	}
	r := p.Spec.Retention
	var parts []string
	if r.Last != nil {
		parts = append(parts, fmt.Sprintf("the last %d", *r.Last))
	}
	for _, rule := range []struct {
		count  *int32
		period string
	}{{r.Hourly, "hour"}, {r.Daily, "day"}, {r.Weekly, "week"}, {r.Monthly, "month"}, {r.Yearly, "year"}} {
		if rule.count != nil {
			parts = append(parts, "one of each of "+output.Plural(int64(*rule.count), rule.period))
		}
	}
	if r.MaxAge != nil {
		parts = append(parts, "those younger than "+output.Duration(r.MaxAge.Duration))
	}
	if len(parts) == 0 {
		return "the last 48"
	}
	return strings.Join(parts, ", and ")
}
