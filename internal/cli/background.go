package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/recovery"
)

// maxReport bounds a report that is kept in the cluster, in bytes: an object
// of Kubernetes holds a little more than a million.
const maxReport = 900_000

// reportKey is where a ConfigMap holds a restore's report.
const reportKey = "report.json"

// endGrace is how long a restore whose time is over may take to say why.
const endGrace = time.Minute

// restoreInBackground has the agent restore, and follows it.
func (e *env) restoreInBackground(ctx context.Context, c client.Client, in *access.Opened, o *order.Restore) error {
	o.Limit = e.global.timeout
	if o.Limit > 0 { // the restore ends by itself then, and says why
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Limit+endGrace)
		defer cancel()
	}
	r := o.Object(in.VaultName, e.now())
	if err := c.Create(ctx, r); err != nil {
		return fmt.Errorf("ask for a restore: %w", err)
	}
	e.progress.Step("restore %s", r.Name)
	err := e.poll(ctx, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(r), r); err != nil {
			return false, fmt.Errorf("look at restore %s: %w", r.Name, err)
		}
		if r.Status.Step != "" {
			e.progress.Step("%s", r.Status.Step)
		}
		return view.Ended(r), nil
	})
	if err != nil {
		return exit.Hint(fmt.Errorf("follow restore %s: %w", r.Name, err), "it goes on by itself: `logs restore "+r.Name+"`")
	}
	if err := e.print(view.RestoreObject{Restore: r}); err != nil {
		return err
	}
	switch r.Status.Phase {
	case v1alpha1.RestoreFailed:
		return e.failedRestore(r)
	case v1alpha1.RestoreWarned:
		return exit.Quietly(exit.Warnings)
	}
	return nil
}

// failedRestore gives a background restore the exit code it would have had in
// the foreground: one that did not begin was refused.
func (e *env) failedRestore(r *v1alpha1.Restore) error {
	why := fmt.Errorf("restore %s: %s", r.Name, view.Condition(r.Status.Conditions, v1alpha1.ConditionReady))
	code := exit.Failed
	if r.Status.Restored == 0 && r.Status.Epoch == 0 {
		code = exit.Refused
	}
	return &exit.Error{Code: code, Err: why, Hint: "`logs restore " + r.Name + "` tells more"}
}

// keepReport keeps a foreground restore's report in davit-system, for `logs
// restore`. Without the right to do so it is only printed.
func (e *env) keepReport(ctx context.Context, c client.Client, report *recovery.Report) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	data, err := json.Marshal(report)
	if err == nil && len(data) > maxReport {
		short := *report
		short.Plan = nil
		short.Result.Warnings = short.Result.Warnings[:min(len(short.Result.Warnings), 1000)]
		short.Result.Failures = short.Result.Failures[:min(len(short.Result.Failures), 1000)]
		data, err = json.Marshal(short)
	}
	if err != nil || len(data) > maxReport {
		return
	}
	m := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.SystemNamespace, Name: "restore-report-" + report.RestoreID,
			Labels: map[string]string{v1alpha1.LabelRestore: report.RestoreID, "app.kubernetes.io/part-of": "davit"},
		},
		Data: map[string]string{reportKey: string(data)},
	}
	err = put(ctx, c, m, &corev1.ConfigMap{}, func(old *corev1.ConfigMap) { old.Data = m.Data })
	if err != nil {
		e.progress.Note("note: the report is not kept in the cluster: %v", err)
	}
}

func duration(d time.Duration) *metav1.Duration {
	if d == 0 {
		return nil
	}
	return &metav1.Duration{Duration: d}
}
