package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/arming"
	"davit.dev/davit/internal/cli/equipping"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/forecast"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/planning"
	"davit.dev/davit/internal/cli/remote"
	"davit.dev/davit/internal/cli/running"
	"davit.dev/davit/internal/cli/wiring"
)

// planning is what the commands about plans work with.
func (e *env) planning() planning.Host {
	f := e.forecast()
	return planning.Host{In: e.In, Out: e.Out, Print: e.print, Judge: f.Judge(), More: []*cobra.Command{f.Runbook()}}
}

// forecast is what the commands that look ahead work with. Without a cluster
// they make do with the vault's address.
func (e *env) forecast() *forecast.Host {
	return &forecast.Host{
		Out: e.Out, Print: e.print, Now: e.now, Bounded: e.looking, Read: planning.Host{In: e.In}.Read,
		Progress: func() *output.Progress { return e.progress },
		Other:    func(kubeconfig string) (wiring.Cluster, error) { return e.backend.Cluster(kubeconfig, "") },
		Open: func(ctx context.Context, cmd *cobra.Command, a *access.Address) (*access.Opened, wiring.Cluster, error) {
			c, err := e.cluster()
			if err != nil && a.URL == "" {
				return nil, nil, err
			}
			in, openErr := e.opener().Open(ctx, c, a, cmd.Flags())
			if openErr != nil || err != nil { // without a cluster there is the vault alone
				return in, nil, openErr
			}
			if site, err := access.LocalSite(ctx, c); err == nil {
				in.Site, in.SiteDomain = site.Name, site.Spec.FailureDomain
			}
			return in, c, nil
		},
	}
}

// remote is what the commands at a console work with.
func (e *env) remote() remote.Host {
	return remote.Host{
		In: e.In, Out: e.Out, Err: e.Err, Print: e.print, Progress: func() *output.Progress { return e.progress }, Now: e.now, Getenv: e.getenv,
		Format: func() output.Format { return output.Format(e.global.output) }, URL: func() string { return e.global.console },
		Looking: e.looking, Working: e.working, AskFor: e.askFor,
	}
}

// planCommand is `plan`, with what of it needs a vault.
func (e *env) planCommand() *cobra.Command {
	cmd, r := planning.Command(e.planning()), e.running()
	h := &arming.Host{Err: e.Err, Print: e.print, Progress: r.Progress, Now: e.now, Bounded: e.working, Open: r.Open, AskFor: e.askFor, Read: r.Read}
	cmd.AddCommand(arming.Arm(h), arming.Disarm(h), running.PlanLs(r), running.PlanShow(r))
	return cmd
}

// running is what the commands about runs work with.
func (e *env) running() *running.Host {
	return &running.Host{
		Err: e.Err, Out: e.Out, Print: e.print, Now: e.now, Bounded: e.working, AskFor: e.askFor, Read: planning.Host{In: e.In}.Read,
		Progress: func() *output.Progress { return e.progress },
		Equip: &equipping.Host{
			Err: e.Err, Now: e.now, AskFor: e.askFor, Cluster: e.cluster, Opener: e.opener, Timeout: func() time.Duration { return e.global.timeout },
			Step: func(format string, args ...any) { e.progress.Step(format, args...) }, Quiet: func() { e.progress.Done() },
		},
		Open: func(ctx context.Context, cmd *cobra.Command, a *access.Address, site string) (*access.Opened, wiring.Cluster, error) {
			c, err := e.cluster()
			if err != nil {
				return nil, nil, err
			}
			in, err := e.opener().Open(ctx, c, a, cmd.Flags())
			if meta.IsNoMatchError(err) {
				return nil, nil, equipping.Nothing()
			}
			if err != nil {
				return nil, nil, err
			}
			err = e.nameSite(ctx, c, in, &order.Restore{})
			// Only a cluster that knows no name is given one: one that did not answer, or does not
			// let see, may be another site.
			if site != "" && (exit.IsRefusal(err) || meta.IsNoMatchError(err) || apierrors.IsNotFound(err)) {
				err = e.nameSite(ctx, c, in, &order.Restore{Site: site})
			}
			return in, c, err
		},
	}
}
