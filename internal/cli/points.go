package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/reading"
)

// listPoints is what `points` was asked.
type listPoints struct {
	access.Address
	app       string
	asOf      string
	all       bool
	newest    bool
	fromVault bool
}

func (e *env) pointsCommand() *cobra.Command {
	var o listPoints
	cmd := &cobra.Command{
		Use:   "points [APP]",
		Short: "List recovery points; pin, unpin, delete and undelete them",
		Long: `Lists the recovery points that may be restored, newest first. --all adds those that may not, and says why. They are read
from the cluster, where the agent mirrors the vault, or with --from-vault or --vault-url from the vault itself. NOTE marks each
application's newest point, which a restore takes, and its newest proven one: --newest lists these alone.`,
		Args: args(cobra.MaximumNArgs(1), "at most one APP, or one of: pin, unpin, delete, undelete"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				o.app = order.VaultApp(given[0])
			}
			return e.runPoints(cmd, &o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.asOf, "as-of", "", "only points not after this time: 2026-01-31T15:04:05Z, or 10m for ten minutes ago")
	flags.BoolVarP(&o.all, "all", "a", false, "also points that may not be restored")
	flags.BoolVar(&o.newest, "newest", false, "of each application only the newest point and the newest proven one")
	flags.BoolVar(&o.fromVault, "from-vault", false, "read the vault itself; needs no agent")
	o.BreakGlass(flags)
	cmd.AddCommand(e.pinCommand("pin", vault.MarkPinned, "Keep a recovery point until it is unpinned"),
		e.pinCommand("unpin", vault.MarkUnpinned, "Let a recovery point expire again"), e.deleteCommand(), e.undeleteCommand())
	return cmd
}

func (e *env) runPoints(cmd *cobra.Command, o *listPoints) error {
	ctx, cancel := e.looking(cmd)
	defer cancel()
	asOf, err := order.Instant(o.asOf, e.now())
	if err != nil {
		return err
	}
	var views []view.Point
	shown := view.Points{Points: []view.Point{}, Now: e.now(), OneApp: o.app != ""}
	if o.fromVault || o.URL != "" {
		views, err = e.pointsFromVault(ctx, cmd, o)
	} else {
		if c, err := e.cluster(); err == nil {
			shown.AsOf = view.ShownAsOf(ctx, c)
		}
		views, err = e.pointsFromCluster(ctx, o.app)
	}
	if err != nil {
		return err
	}
	views = slices.DeleteFunc(views, func(v view.Point) bool { return !asOf.IsZero() && v.Instant.After(asOf) })
	view.MarkNewest(views)
	for _, v := range views {
		switch {
		case o.newest && !v.Newest && !v.NewestProven:
		case !o.all && v.Phase != v1alpha1.PointAvailable:
			shown.Hidden++
		default:
			shown.Points = append(shown.Points, v)
		}
	}
	slices.SortStableFunc(shown.Points, func(a, b view.Point) int {
		return cmp.Or(b.Instant.Compare(a.Instant), cmp.Compare(b.ID, a.ID))
	})
	return e.print(shown)
}

func (e *env) pointsFromCluster(ctx context.Context, app string) ([]view.Point, error) {
	c, err := e.cluster()
	if err != nil {
		return nil, err
	}
	var all v1alpha1.RecoveryPointList
	if err := c.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list recovery points: %w", err)
	}
	var views []view.Point
	for i := range all.Items {
		if app == "" || view.ApplicationOf(&all.Items[i]) == app {
			views = append(views, view.OfObject(&all.Items[i]))
		}
	}
	if app == "" || len(views) > 0 {
		return views, nil
	}
	_, err = findApplication(ctx, c, app) // nothing yet, or a slip of the pen
	return nil, err
}

func (e *env) pointsFromVault(ctx context.Context, cmd *cobra.Command, o *listPoints) ([]view.Point, error) {
	e.progress.Step("reading the vault")
	in, err := e.opener().Open(ctx, nil, &o.Address, cmd.Flags())
	if err != nil {
		return nil, err
	}
	apps, err := in.Project.Apps(ctx)
	if err != nil {
		return nil, err
	}
	if o.app != "" {
		if !slices.Contains(apps, o.app) {
			return nil, exit.Refuse("names in the vault are NAME, or NAMESPACE.NAME for tenants", "the vault has no application %q; it has: %s", o.app, listed(apps))
		}
		apps = []string{o.app}
	}
	readers, err := reading.Readers(ctx, in.Project, o.app, e.now())
	if err != nil { // a remark beside what there is
		e.progress.Note("who reads points now is not known: %v", err)
	}
	var views []view.Point
	p := in.Protector(e.now)
	for _, app := range apps {
		infos, points, err := p.Points(ctx, app)
		if err != nil {
			return nil, err
		}
		for i := range infos {
			views = append(views, view.OfVault(app, infos[i], points[i]).ReadBy(readers))
		}
	}
	return views, nil
}

// choosePoint finds the point that a person named, or an application's newest.
func choosePoint(ctx context.Context, e *env, in *access.Opened, name string) (app, id string, err error) {
	if order.IsPoint(name) {
		return order.AppOfPoint(name), name, nil
	}
	app = order.VaultApp(name)
	_, points, err := in.Protector(e.now).Points(ctx, app)
	if err != nil {
		return "", "", err
	}
	newest, ok := point.Newest(points, time.Time{})
	if !ok {
		return "", "", exit.Refuse("`points "+name+" --all` lists what there is", "application %q has no recovery point that may be restored", name)
	}
	return app, newest.ID, nil
}

func (e *env) pinCommand(name string, kind vault.MarkKind, short string) *cobra.Command {
	var a access.Address
	var dryRun bool
	cmd := &cobra.Command{
		Use: name + " POINT", Short: short, Args: args(cobra.ExactArgs(1), "one POINT"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return e.runPin(cmd, &a, given[0], kind, dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be changed")
	a.BreakGlass(cmd.Flags())
	return cmd
}

func (e *env) runPin(cmd *cobra.Command, a *access.Address, id string, kind vault.MarkKind, dryRun bool) error {
	ctx, cancel := e.looking(cmd)
	defer cancel()
	in, app, err := e.namedPoint(ctx, cmd, a, id)
	if err != nil {
		return err
	}
	if dryRun {
		return e.print(view.Done(fmt.Sprintf("%s would be %s.", id, kind)))
	}
	mark := vault.Mark{Kind: kind, Site: siteName(in), By: "command line"}
	if kind == vault.MarkPinned {
		err = protection.Pin(ctx, in.Project, app, id, mark)
	} else {
		err = in.Project.Mark(ctx, app, id, mark)
	}
	if errors.Is(err, protection.ErrRemoved) {
		return exit.Refuse("`points undelete "+id+"` takes a deletion back that has not begun; `points "+app+" --all` lists what there is", "%v", err)
	}
	if err != nil {
		return err
	}
	if a.URL == "" {
		e.mirrorPin(ctx, id, kind == vault.MarkPinned)
	}
	return e.print(view.Done(fmt.Sprintf("%s is %s.", id, kind)))
}

func siteName(in *access.Opened) string {
	return cmp.Or(in.Site, "cli")
}

// mirrorPin makes the RecoveryPoint object agree with the vault at once; the
// agent would do it by itself.
func (e *env) mirrorPin(ctx context.Context, id string, pinned bool) {
	c, err := e.cluster()
	if err != nil {
		return
	}
	p, err := findPointObject(ctx, c, id)
	if err != nil {
		return
	}
	before := p.DeepCopy()
	p.Spec.Pinned = pinned
	if err := c.Patch(ctx, p, client.MergeFrom(before)); err != nil {
		e.progress.Note("note: the RecoveryPoint object is not up to date yet: %v", err)
	}
}

// namedPoint opens the vault and makes sure that the point is in it.
func (e *env) namedPoint(ctx context.Context, cmd *cobra.Command, a *access.Address, id string) (*access.Opened, string, error) {
	if !order.IsPoint(id) {
		return nil, "", exit.Usage("`points` lists them", "%q is not the name of a recovery point", id)
	}
	in, err := e.opener().Open(ctx, nil, a, cmd.Flags())
	if err != nil {
		return nil, "", err
	}
	app := order.AppOfPoint(id)
	_, err = in.Project.Manifest(ctx, app, id)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, "", exit.Refuse("`points "+app+" --all` lists what there is", "the vault has no recovery point %s", id)
	}
	if err != nil && !errors.Is(err, vault.ErrDamaged) {
		return nil, "", err
	}
	return in, app, nil
}

func (e *env) deleteCommand() *cobra.Command {
	var o deletePoint
	cmd := &cobra.Command{
		Use:   "delete POINT",
		Short: "Delete a recovery point for good",
		Long: `Deletes a recovery point from the vault. A pinned point is refused, without --last-good the newest
good one of its application, and without --while-read one that a restore reads. Where the vault has a deletion delay, the point is no longer offered, and "points undelete" takes
the deletion back until the delay is over.`,
		Args: args(cobra.ExactArgs(1), "one POINT"),
		RunE: func(cmd *cobra.Command, given []string) error { return e.runDelete(cmd, &o, given[0]) },
	}
	cmd.Flags().BoolVar(&o.lastGood, "last-good", false, "even if it is the newest good point of its application")
	cmd.Flags().BoolVar(&o.whileRead, "while-read", false, "even if it is being read: that restore fails")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would be deleted")
	o.BreakGlass(cmd.Flags())
	return cmd
}

// deletePoint is what `points delete` was asked.
type deletePoint struct {
	access.Address
	lastGood, whileRead, yes, dryRun bool
}

func (e *env) runDelete(cmd *cobra.Command, o *deletePoint, id string) error {
	ctx, cancel := e.working(cmd)
	defer cancel()
	in, app, err := e.namedPoint(ctx, cmd, &o.Address, id)
	if err != nil {
		return err
	}
	protector, options := in.Protector(e.now), protection.DeleteOptions{By: "command line", LastGood: o.lastGood, Read: o.whileRead}
	if _, err := protector.Deletable(ctx, app, id, options); err != nil {
		return err // before anybody is asked
	}
	if o.dryRun {
		return e.print(view.Done("Would delete " + id + " from the vault."))
	}
	if !o.yes {
		if err := e.askFor(id, "the point's name"); err != nil {
			return err
		}
	}
	e.progress.Step("deleting %s", id)
	if err := protector.Delete(ctx, app, id, options); err != nil {
		return err
	}
	_, err = in.Project.Manifest(ctx, app, id) // it was deleted before, perhaps, and the delay is over
	if in.Delay > 0 && !errors.Is(err, vault.ErrNotFound) {
		return e.print(view.Done(fmt.Sprintf("%s is no longer offered, and removed after %s. Until then: points undelete %s", id, output.Duration(in.Delay), id)))
	}
	if o.URL == "" {
		e.mirrorDelete(ctx, id)
	}
	return e.print(view.Done(id + " is deleted."))
}

// mirrorDelete removes the RecoveryPoint object of a point that is gone.
func (e *env) mirrorDelete(ctx context.Context, id string) {
	c, err := e.cluster()
	if err != nil {
		return
	}
	if p, err := findPointObject(ctx, c, id); err == nil {
		if err := client.IgnoreNotFound(c.Delete(ctx, p)); err != nil {
			e.progress.Note("note: the RecoveryPoint object is not removed yet: %v", err)
		}
	}
}
