package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/reports"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/vault"
)

func (e *env) logsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "logs", Short: "What a backup or restore had to say, object by object", Args: args(cobra.NoArgs, "one of: backup, restore"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var a access.Address
	backup := &cobra.Command{
		Use: "backup POINT", Short: "Log and warnings of a backup", Args: args(cobra.ExactArgs(1), "one POINT"),
		RunE: func(cmd *cobra.Command, given []string) error { return e.runLogsBackup(cmd, &a, given[0]) },
	}
	a.BreakGlass(backup.Flags())
	restore := &cobra.Command{
		Use: "restore ID", Short: "Steps, warnings and failures of a restore", Args: args(cobra.ExactArgs(1), "one restore's ID"),
		Long: `Shows a restore by the name of its Restore object, by the ID in its report, or the newest one of an application.`,
		RunE: func(cmd *cobra.Command, given []string) error { return e.runLogsRestore(cmd, given[0]) },
	}
	cmd.AddCommand(backup, restore)
	return cmd
}

func (e *env) runLogsBackup(cmd *cobra.Command, a *access.Address, id string) error {
	ctx, cancel := e.looking(cmd)
	defer cancel()
	if !order.IsPoint(id) {
		return exit.Usage("`points --all` lists them", "%q is not the name of a recovery point", id)
	}
	in, err := e.opener().Open(ctx, nil, a, cmd.Flags())
	if err != nil {
		return err
	}
	m, err := in.Project.Manifest(ctx, order.AppOfPoint(id), id)
	if errors.Is(err, vault.ErrNotFound) {
		return e.describeUnfinished(ctx, a, order.AppOfPoint(id), id)
	}
	if err != nil {
		return err
	}
	entries, err := in.Project.Log(ctx, m)
	if err != nil {
		return err
	}
	lines := view.Log{ID: id, Entries: []vault.LogEntry{}}
	lines.Entries = append(lines.Entries, entries...)
	for _, w := range m.Warnings {
		if !lines.Has(w.Object, w.Message) {
			lines.Entries = append(lines.Entries, vault.LogEntry{At: m.FinishedAt, Level: "warning", Object: w.Object, Message: w.Message})
		}
	}
	return e.print(lines)
}

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
		return e.print(view.RestoreObject{Restore: &r})
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("look for restore %s: %w", id, err)
	}
	report, err := reports.Find(ctx, c, id, order.VaultApp(id))
	if err != nil {
		return err
	}
	return e.print(view.RestoreLog{Restore: view.Restore{Report: *report}})
}

func listed(names []string) string { return cmp.Or(strings.Join(names, ", "), "none") }
