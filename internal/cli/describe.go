package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/view"
)

func (e *env) describeCommand() *cobra.Command {
	var a access.Address
	cmd := &cobra.Command{
		Use:   "describe APP|POINT",
		Short: "Everything about one application or recovery point",
		Long: `Of an application: what is captured, when, where to, and how it stands. Of a recovery point: kinds and counts, volumes,
images, hooks, warnings, consistency, verification, read from the vault.`,
		Args: args(cobra.ExactArgs(1), "one APP or POINT"),
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx, cancel := e.looking(cmd)
			defer cancel()
			if order.IsPoint(given[0]) {
				return e.describePoint(ctx, cmd, &a, given[0])
			}
			if a.URL != "" {
				return exit.Usage("`points "+given[0]+"` with the same flags lists its recovery points; `describe POINT` shows one", "an application is described by its cluster, not by the vault")
			}
			return e.describeApp(ctx, given[0])
		},
	}
	a.BreakGlass(cmd.Flags())
	return cmd
}

func (e *env) describePoint(ctx context.Context, cmd *cobra.Command, a *access.Address, id string) error {
	in, err := e.opener().Open(ctx, nil, a, cmd.Flags())
	if err != nil {
		return err
	}
	app := order.AppOfPoint(id)
	infos, points, err := in.Protector(e.now).Points(ctx, app)
	if err != nil {
		return err
	}
	for i := range infos {
		if infos[i].ID == id {
			return e.print(view.PointDetail{View: view.OfVault(app, infos[i], points[i]), Manifest: infos[i].Manifest, Marks: infos[i].Marks, Now: e.now()})
		}
	}
	return e.describeUnfinished(ctx, a, app, id)
}

// describeUnfinished is for a point that is not in the vault, or not yet.
func (e *env) describeUnfinished(ctx context.Context, a *access.Address, app, id string) error {
	missing := exit.Refuse("`points "+app+" --all` lists what there is", "the vault has no recovery point %s", id)
	if a.URL != "" {
		return missing
	}
	c, err := e.cluster()
	if err != nil {
		return err
	}
	p, err := findPointObject(ctx, c, id)
	if apierrors.IsNotFound(err) {
		return missing
	}
	if err != nil {
		return err
	}
	return e.print(view.PointDetail{View: view.OfObject(p), Now: e.now()})
}

func (e *env) describeApp(ctx context.Context, name string) error {
	c, err := e.cluster()
	if err != nil {
		return err
	}
	app, err := findApplication(ctx, c, name)
	if err != nil {
		return err
	}
	policy, err := view.PolicyOf(ctx, c, app)
	if err != nil {
		return err
	}
	points, err := e.pointsFromCluster(ctx, app.VaultName())
	if err != nil && !exit.IsRefusal(err) {
		return err
	}
	slices.SortFunc(points, func(a, b view.Point) int { return b.Instant.Compare(a.Instant) })
	return e.print(view.AppDetail{App: app, Policy: policy, Points: points, Now: e.now()})
}
