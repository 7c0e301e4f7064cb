package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"davit.dev/davit/api/v1alpha1"
	view "davit.dev/davit/internal/cli/coverage"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/coverage"
)

func (e *env) coverageCommand() *cobra.Command {
	var opts coverage.Options
	var volumesOnly, fail bool
	cmd := &cobra.Command{
		Use:   "coverage",
		Short: "What in this cluster is protected, by which application, and what is not",
		Long: `Says of every namespace which applications cover it, and how many of its volumes and objects a capture would hold now. It asks
the rules of the applications, not their recovery points; -o wide names the objects. What the cluster makes again by itself, and
what the label davit.dev/exclude=true leaves out, is not counted; nor are namespaces that are being deleted, and the
cluster's own without --system.`,
		Args: args(cobra.NoArgs, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := e.working(cmd)
			defer cancel()
			c, err := e.cluster()
			if err != nil {
				return err
			}
			var apps v1alpha1.ApplicationList
			if err := c.List(ctx, &apps); err != nil {
				return fmt.Errorf("list applications: %w", err)
			}
			e.progress.Step("looking at what is protected")
			opts.Objects = !volumesOnly
			report, err := coverage.Survey(ctx, c.Look, apps.Items, opts)
			if err != nil {
				return err
			}
			if err := e.print(view.View{Report: report}); err != nil {
				return err
			}
			if volumes, objects := report.Unprotected(); fail && volumes+objects > 0 {
				return &exit.Error{Code: exit.Warnings}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&opts.System, "system", false, "count the cluster's own namespaces as well")
	cmd.Flags().BoolVar(&volumesOnly, "volumes-only", false, "look at volumes alone, which is faster")
	cmd.Flags().BoolVar(&fail, "fail-unprotected", false, "end with 4 if anything is not protected")
	return cmd
}
