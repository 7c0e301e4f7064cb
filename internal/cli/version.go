package cli

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/version"
)

func (e *env) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Which davit this is",
		Args:  args(cobra.NoArgs, ""),
		RunE: func(*cobra.Command, []string) error {
			return e.print(view.Versions{Davit: version.String(), VaultFormat: vault.FormatVersion, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH})
		},
	}
}

// partCommands are the long-lived parts, which run in the cluster and read
// their own flags. People do not call them.
func (e *env) partCommands() []*cobra.Command {
	var commands []*cobra.Command
	for part, short := range map[string]string{"agent": "Run the agent", "node": "Run the node process", "hold": "Keep a volume mounted until told to stop"} {
		commands = append(commands, &cobra.Command{
			Use: part, Short: short, Hidden: true, DisableFlagParsing: true,
			// The global flags are not for parts.
			PersistentPreRunE: func(*cobra.Command, []string) error { e.begun = true; return nil },
			RunE: func(cmd *cobra.Command, given []string) error {
				err := e.backend.Serve(cmd.Context(), part, given)
				if errors.Is(err, context.Canceled) || errors.Is(err, exit.ErrInterrupted) {
					return nil // told to stop
				}
				if err != nil {
					return fmt.Errorf("run %s: %w", part, err)
				}
				return nil
			},
		})
	}
	return commands
}
