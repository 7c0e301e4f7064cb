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
// processes that die, and keeps their fences, until ctx is done. It needs no
// cluster.
func watch(ctx context.Context, args []string, logs io.Writer) error {
	var opts Options
	var level string
	flags := pflag.NewFlagSet("davit node watchdog", pflag.ContinueOnError)
	flags.StringVar(&opts.RunDir, "run-dir", "/run/davit", "directory in memory that outlives this process, shared with the node process")
	fenceFlags(flags, &opts)
	flags.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("davit node watchdog: %w", err)
	}
	log, err := process.Logger(logs, level)
	if err != nil {
		return fmt.Errorf("davit node watchdog: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wait, err := beside(ctx, opts, log)
	if err != nil {
		return fmt.Errorf("davit node watchdog: %w", err)
	}
	defer wait()
	defer cancel()
	if err := freeze.NewWatchdog(opts.RunDir, log).Run(ctx); err != nil {
		return fmt.Errorf("davit node watchdog: %w", err)
	}
	return nil
}
