package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/vault"
)

func (e *env) logsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "logs", Short: "What a backup or restore had to say, object by object", Args: args(cobra.NoArgs, "one of: backup, restore"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var a address
	backup := &cobra.Command{
		Use: "backup POINT", Short: "Log and warnings of a backup", Args: args(cobra.ExactArgs(1), "one POINT"),
		RunE: func(cmd *cobra.Command, given []string) error { return e.runLogsBackup(cmd, &a, given[0]) },
	}
	a.breakGlass(backup.Flags())
	restore := &cobra.Command{
		Use: "restore ID", Short: "Steps, warnings and failures of a restore", Args: args(cobra.ExactArgs(1), "one restore's ID"),
		Long: `Shows a restore by the name of its Restore object, by the ID in its report, or the newest one of an application.`,
		RunE: func(cmd *cobra.Command, given []string) error { return e.runLogsRestore(cmd, given[0]) },
	}
	cmd.AddCommand(backup, restore)
	return cmd
}

func (e *env) runLogsBackup(cmd *cobra.Command, a *address, id string) error {
	ctx, cancel := e.looking(cmd)
	defer cancel()
	if !isPoint(id) {
		return usageError("`points --all` lists them", "%q is not the name of a recovery point", id)
	}
	in, err := e.open(ctx, nil, a, cmd.Flags())
	if err != nil {
		return err
	}
	m, err := in.project.Manifest(ctx, appOfPoint(id), id)
	if errors.Is(err, vault.ErrNotFound) {
		return e.describeUnfinished(ctx, a, appOfPoint(id), id)
	}
	if err != nil {
		return err
	}
	entries, err := in.project.Log(ctx, m)
	if err != nil {
		return err
	}
	lines := logLines{ID: id, Entries: []vault.LogEntry{}}
	lines.Entries = append(lines.Entries, entries...)
	for _, w := range m.Warnings {
		if !lines.has(w.Object, w.Message) {
			lines.Entries = append(lines.Entries, vault.LogEntry{At: m.FinishedAt, Level: "warning", Object: w.Object, Message: w.Message})
		}
	}
	return e.print(lines)
}

// logLines is a log.
type logLines struct {
	ID      string           `json:"id"`
	Entries []vault.LogEntry `json:"entries"`
}

func (l logLines) has(object, message string) bool {
	for _, entry := range l.Entries {
		if entry.Object == object && entry.Message == message {
			return true
		}
	}
	return false
}

// Text is a line for each entry.
func (l logLines) Text(t *output.Text) {
	if len(l.Entries) == 0 {
		t.Line("%s has nothing to say: no warnings.", l.ID)
	}
	for _, entry := range l.Entries {
		text := entry.Message
		if entry.Object != "" {
			text = entry.Object + ": " + text
		}
		t.Line("%s %-7s %s", entry.At.UTC().Format("15:04:05.000"), entry.Level, text)
	}
}

// Document is all of them.
func (l logLines) Document() any { return l }

func (e *env) runLogsRestore(cmd *cobra.Command, id string) error {
	ctx, cancel := e.looking(cmd)
	defer cancel()
	c, err := e.cluster()
	if err != nil {
		return err
	}
	var r v1alpha1.Restore
	err = c.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: id}, &r)
	if err == nil {
		return e.print(restoreStatus{&r})
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("look for restore %s: %w", id, err)
	}
	report, err := findReport(ctx, c, id)
	if err != nil {
		return err
	}
	return e.print(restoreLog{restoreReport{Report: *report}})
}

// findReport finds a kept report by the restore's id, or the newest one of an
// application.
func findReport(ctx context.Context, c client.Client, id string) (*recovery.Report, error) {
	var all corev1.ConfigMapList
	if err := c.List(ctx, &all, client.InNamespace(v1alpha1.SystemNamespace), client.HasLabels{v1alpha1.LabelRestore}); err != nil {
		return nil, fmt.Errorf("list restore reports: %w", err)
	}
	var best *recovery.Report
	var known []string
	for i := range all.Items {
		var report recovery.Report
		if err := json.Unmarshal([]byte(all.Items[i].Data[reportKey]), &report); err != nil {
			continue // not one of ours
		}
		known = append(known, report.RestoreID)
		if report.RestoreID == id {
			return &report, nil
		}
		if report.Application == vaultApp(id) && (best == nil || report.StartedAt.After(best.StartedAt)) {
			best = &report
		}
	}
	if best == nil {
		return nil, refuse("`kubectl get restores -A` lists those of the agent", "there is no restore %q here; known: %s", id, listed(known))
	}
	return best, nil
}

func listed(names []string) string { return cmp.Or(strings.Join(names, ", "), "none") }

// restoreLog is a report with every warning and failure.
type restoreLog struct{ restoreReport }

// Text is the report, and all that was said.
func (r restoreLog) Text(t *output.Text) {
	t.Line("Restore %s of %s at %s", r.RestoreID, r.Application, output.Time(r.StartedAt.Truncate(time.Second)))
	t.Line("%s", r.headline())
	t.Fields("  ", "point", r.pointText(), "epoch", r.epochText(), "error", r.Error)
	t.Section("Steps")
	t.Table("  ", output.Columns("STEP", ">TOOK", "NOTE"), r.stepRows())
	listText(t, fmt.Sprintf("Failures (%d)", len(r.Result.Failures)), len(r.Result.Failures), func(i int) string { return r.Result.Failures[i].String() })
	listText(t, fmt.Sprintf("Warnings (%d)", len(r.Result.Warnings)), len(r.Result.Warnings), func(i int) string { return r.Result.Warnings[i].String() })
}
