// Package reports keeps what foreground restores did, as ConfigMaps of
// davit-system, for `logs restore`.
package reports

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/objects"
	"davit.dev/davit/internal/recovery"
)

const (
	// maxReport bounds a report in bytes: an object of Kubernetes holds a
	// little more than a million.
	maxReport = 900_000
	// Newest is how many reports of one application are kept, and the agent
	// removes those that are too old.
	Newest = 10
	// key is where a ConfigMap holds its report.
	key = "report.json"
)

// Keep writes the report, and removes all but the newest ones of its
// application. Each is a few kilobytes to a megabyte in etcd.
func Keep(ctx context.Context, c client.Client, report *recovery.Report) error {
	data, err := encode(report)
	if err != nil {
		return err
	}
	m := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.SystemNamespace, Name: v1alpha1.RestoreReportPrefix + report.RestoreID,
			Labels: map[string]string{v1alpha1.LabelRestore: report.RestoreID, "app.kubernetes.io/part-of": "davit"},
		},
		Data: map[string]string{key: data},
	}
	if err := objects.Put(ctx, c, m, &corev1.ConfigMap{}, func(old *corev1.ConfigMap) { old.Data = m.Data }); err != nil {
		return fmt.Errorf("keep report: %w", err)
	}
	return prune(ctx, c, report.Application)
}

// encode shortens a report that is too large for an object.
func encode(report *recovery.Report) (string, error) {
	data, err := json.Marshal(report)
	if err == nil && len(data) > maxReport {
		short := *report
		short.Plan = nil
		short.Result.Warnings = short.Result.Warnings[:min(len(short.Result.Warnings), 1000)]
		short.Result.Failures = short.Result.Failures[:min(len(short.Result.Failures), 1000)]
		data, err = json.Marshal(short)
	}
	if err != nil {
		return "", fmt.Errorf("encode report: %w", err)
	}
	if len(data) > maxReport {
		return "", errors.New("encode report: it is too large")
	}
	return string(data), nil
}

// kept is a report and the object that holds it.
type kept struct {
	object *corev1.ConfigMap
	report recovery.Report
}

func list(ctx context.Context, c client.Client) ([]kept, error) {
	var all corev1.ConfigMapList
	if err := c.List(ctx, &all, client.InNamespace(v1alpha1.SystemNamespace), client.HasLabels{v1alpha1.LabelRestore}); err != nil {
		return nil, fmt.Errorf("list restore reports: %w", err)
	}
	var reports []kept
	for i := range all.Items {
		k := kept{object: &all.Items[i]}
		if err := json.Unmarshal([]byte(k.object.Data[key]), &k.report); err != nil || k.report.RestoreID == "" {
			continue // not one of ours
		}
		reports = append(reports, k)
	}
	return reports, nil
}

// prune removes an application's oldest reports.
func prune(ctx context.Context, c client.Client, app string) error {
	reports, err := list(ctx, c)
	if err != nil {
		return err
	}
	reports = slices.DeleteFunc(reports, func(k kept) bool { return k.report.Application != app })
	slices.SortFunc(reports, func(a, b kept) int { return b.report.StartedAt.Compare(a.report.StartedAt) })
	var errs []error
	for _, old := range reports[min(len(reports), Newest):] {
		if err := client.IgnoreNotFound(c.Delete(ctx, old.object)); err != nil {
			errs = append(errs, fmt.Errorf("remove old report %s: %w", old.object.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Find returns a kept report by the restore's id, or the newest one of an
// application.
func Find(ctx context.Context, c client.Client, id, app string) (*recovery.Report, error) {
	all, err := list(ctx, c)
	if err != nil {
		return nil, err
	}
	var best *recovery.Report
	var known []string
	for i := range all {
		report := &all[i].report
		known = append(known, report.RestoreID)
		if report.RestoreID == id {
			return report, nil
		}
		if report.Application == app && (best == nil || report.StartedAt.After(best.StartedAt)) {
			best = report
		}
	}
	if best == nil {
		return nil, exit.Refuse("`kubectl get restores -A` lists those of the agent", "there is no restore %q here; known: %s", id, cmp.Or(strings.Join(known, ", "), "none"))
	}
	return best, nil
}
