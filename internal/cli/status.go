package cli

import (
	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/view"
)

func (e *env) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Is everything protected, what is not, and what is running",
		Long: `Shows this site, its vaults, the other sites they know, every application, what is running now, and the namespaces with
workloads or volumes that nothing protects. Ends with 0 whenever it can answer: scripts read "healthy" in -o json.`,
		Args: args(cobra.NoArgs, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := e.looking(cmd)
			defer cancel()
			c, err := e.cluster()
			if err != nil {
				return err
			}
			view, err := view.Gather(ctx, c, e.now())
			if err != nil {
				return err
			}
			return e.print(view)
		},
	}
}
