package cli

import (
	"context"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/planning"
	"davit.dev/davit/internal/cli/running"
	"davit.dev/davit/internal/cli/wiring"
)

// planning is what the commands about plans work with.
func (e *env) planning() planning.Host { return planning.Host{In: e.In, Out: e.Out, Print: e.print} }

// running is what the commands about runs work with.
func (e *env) running() *running.Host {
	return &running.Host{
		Err: e.Err, Print: e.print, Now: e.now, Bounded: e.working, AskFor: e.askFor, Read: e.planning().Read,
		Progress: func() *output.Progress { return e.progress },
		Open: func(ctx context.Context, cmd *cobra.Command, a *access.Address, site string) (*access.Opened, wiring.Cluster, error) {
			c, err := e.cluster()
			if err != nil {
				return nil, nil, err
			}
			in, err := e.opener().Open(ctx, c, a, cmd.Flags())
			if err != nil {
				return nil, nil, err
			}
			err = e.nameSite(ctx, c, in, &order.Restore{})
			if err != nil && site != "" { // only a cluster that knows no name is given one
				err = e.nameSite(ctx, c, in, &order.Restore{Site: site})
			}
			return in, c, err
		},
	}
}
