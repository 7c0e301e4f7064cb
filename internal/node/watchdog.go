package node

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"davit.dev/davit/internal/freeze"
	"davit.dev/davit/internal/process"
)

// watch parses the arguments of `davit node watchdog` and thaws after node
// processes that die, until ctx is done. It needs no cluster.
func watch(ctx context.Context, args []string, logs io.Writer) error {
	var dir, level string
	flags := pflag.NewFlagSet("davit node watchdog", pflag.ContinueOnError)
	flags.StringVar(&dir, "run-dir", "/run/davit", "directory in memory that outlives this process, shared with the node process")
	flags.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("davit node watchdog: %w", err)
	}
	log, err := process.Logger(logs, level)
	if err != nil {
		return fmt.Errorf("davit node watchdog: %w", err)
	}
	if err := freeze.NewWatchdog(dir, log).Run(ctx); err != nil {
		return fmt.Errorf("davit node watchdog: %w", err)
	}
	return nil
}
