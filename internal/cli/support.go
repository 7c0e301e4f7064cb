package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/bundle"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/version"
)

// bundleLines is how much of each log goes into a bundle.
const bundleLines = 20_000

func (e *env) bundleCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "support-bundle",
		Short: "Collect what somebody needs who is asked for help; no secrets",
		Long: `Writes Davit's objects, its logs, events and versions into one archive. Secrets and ConfigMaps are not collected, and the
values of davit-system's Secrets, keys, tokens and passwords are replaced wherever they stand. The file is never overwritten.
-f - writes it to standard output.`,
		Args: args(cobra.NoArgs, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return e.runBundle(cmd, file) },
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the archive (default: davit-support-TIME.tar.gz)")
	return cmd
}

func (e *env) runBundle(cmd *cobra.Command, file string) error {
	ctx, cancel := e.working(cmd)
	defer cancel()
	c, err := e.cluster()
	if err != nil {
		return err
	}
	if file == "" {
		file = "davit-support-" + e.now().UTC().Format("20060102-150405") + ".tar.gz"
	}
	src := bundle.Source{
		Objects: c, Versions: versionsOf(ctx, c), Now: e.now(),
		Progress: func(what string) { e.progress.Step("collecting %s", what) },
		OpenLog: func(ctx context.Context, l bundle.Log) (io.ReadCloser, error) {
			return c.PodLogs(ctx, PodLog{Namespace: l.Namespace, Pod: l.Pod, Container: l.Container, Previous: l.Previous, Lines: bundleLines})
		},
	}
	if file == "-" {
		_, err := bundle.Write(ctx, e.Out, src)
		return err
	}
	report, err := writeBundle(ctx, file, src)
	if err != nil {
		return err
	}
	if err := e.print(bundled{File: file, Report: report}); err != nil {
		return err
	}
	if len(report.Missing) > 0 {
		return exit.Quietly(exit.Warnings)
	}
	return nil
}

func versionsOf(ctx context.Context, c Cluster) map[string]string {
	kube, err := c.ServerVersion(ctx)
	if err != nil {
		kube = "unknown: " + err.Error()
	}
	return map[string]string{"davit": version.String(), "kubernetes": kube}
}

func writeBundle(ctx context.Context, file string, src bundle.Source) (report bundle.Report, err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return report, exit.Refuse("name another with -f", "%s exists and is not overwritten", file)
	}
	if err != nil {
		return report, fmt.Errorf("write bundle: %w", err)
	}
	report, err = bundle.Write(ctx, f, src)
	if err := errors.Join(err, f.Close()); err != nil {
		return report, errors.Join(err, os.Remove(file))
	}
	return report, nil
}

// bundled is what `support-bundle` did.
type bundled struct {
	File string `json:"file"`
	bundle.Report
}

// Text names the file and what is missing from it.
func (b bundled) Text(t *output.Text) {
	t.Line("%s holds %s. Look through it before you hand it on.", b.File, output.Plural(int64(b.Files), "file"))
	if !b.SecretsKnown {
		t.Line("The Secrets of davit-system could not be read: only what looks like a secret was taken out.")
	}
	for _, missing := range b.Missing {
		t.Line("missing: %s", missing)
	}
}

// Document is all of it.
func (b bundled) Document() any { return b }
