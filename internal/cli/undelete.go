package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/protection"
)

func (e *env) undeleteCommand() *cobra.Command {
	var a access.Address
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "undelete POINT",
		Short: "Take the deletion of a recovery point back",
		Long: `Takes the deletion of a recovery point back, whether retention or a person deleted it, while the vault's deletion delay lasts
("vault add --deletion-delay"). What retention deleted it will delete again: pin the point to keep it.`,
		Args: args(cobra.ExactArgs(1), "one POINT"),
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx, cancel := e.looking(cmd)
			defer cancel()
			in, app, err := e.namedPoint(ctx, cmd, &a, given[0])
			if err != nil {
				return err
			}
			if dryRun {
				return e.print(view.Done(given[0] + " would be offered again."))
			}
			err = in.Protector(e.now).Undelete(ctx, app, given[0], "command line")
			if errors.Is(err, protection.ErrRemoved) {
				return exit.Refuse("`points "+app+" --all` lists what there is", "%v", err)
			}
			if err != nil {
				return err
			}
			return e.print(view.Done(given[0] + " is offered again."))
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done")
	a.BreakGlass(cmd.Flags())
	return cmd
}
