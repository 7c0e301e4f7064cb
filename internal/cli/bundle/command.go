package bundle

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/version"
)

// logLines is how much of each log goes into a bundle.
const logLines = 20_000

// Host is what the command line gives the command.
type Host struct {
	Out io.Writer
	// Bounded ends with the command's time.
	Bounded func(*cobra.Command) (context.Context, context.CancelFunc)
	Cluster func() (Cluster, error)
	Now     func() time.Time
	Print   func(output.Result) error
	Step    func(format string, args ...any)
}

// Cluster is what a bundle is collected from.
type Cluster interface {
	client.Reader
	ServerVersion(ctx context.Context) (string, error)
	PodLogs(ctx context.Context, pod wiring.PodLog) (io.ReadCloser, error)
}

// Command makes `support-bundle`; none checks that no arguments are given.
func Command(none cobra.PositionalArgs, h Host) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "support-bundle",
		Short: "Collect what somebody needs who is asked for help; no secrets",
		Long: `Writes Davit's objects, its logs, events and versions into one archive. Secrets and ConfigMaps are not collected, and the
values of davit-system's Secrets, keys, tokens and passwords are replaced wherever they stand. The file is never overwritten.
-f - writes it to standard output.`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return h.run(cmd, file) },
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the archive (default: davit-support-TIME.tar.gz)")
	return cmd
}

func (h Host) run(cmd *cobra.Command, file string) error {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	c, err := h.Cluster()
	if err != nil {
		return err
	}
	if file == "" {
		file = "davit-support-" + h.Now().UTC().Format("20060102-150405") + ".tar.gz"
	}
	src := Source{
		Objects: c, Versions: versionsOf(ctx, c), Now: h.Now(),
		Progress: func(what string) { h.Step("collecting %s", what) },
		OpenLog: func(ctx context.Context, l Log) (io.ReadCloser, error) {
			return c.PodLogs(ctx, wiring.PodLog{Namespace: l.Namespace, Pod: l.Pod, Container: l.Container, Previous: l.Previous, Lines: logLines})
		},
	}
	if file == "-" {
		_, err := Write(ctx, h.Out, src)
		return err
	}
	report, err := writeFile(ctx, file, src)
	if err != nil {
		return err
	}
	if err := h.Print(bundled{File: file, Report: report}); err != nil {
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

func writeFile(ctx context.Context, file string, src Source) (report Report, err error) {
	f, err := exit.NewFile(file, "write bundle")
	if err != nil {
		return report, err
	}
	report, err = Write(ctx, f, src)
	if err := errors.Join(err, f.Close()); err != nil {
		return report, errors.Join(err, os.Remove(file))
	}
	return report, nil
}

// bundled is what `support-bundle` did.
type bundled struct {
	File string `json:"file"`
	Report
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
