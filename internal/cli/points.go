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
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/vault"
)

// listPoints is what `points` was asked.
type listPoints struct {
	address
	app       string
	asOf      string
	all       bool
	fromVault bool
}

func (e *env) pointsCommand() *cobra.Command {
	var o listPoints
	cmd := &cobra.Command{
		Use:   "points [APP]",
		Short: "List recovery points; pin, unpin and delete them",
		Long: `Lists the recovery points that may be restored, newest first. --all adds those that may not, and says why. They are read
from the cluster, where the agent mirrors the vault, or with --from-vault or --vault-url from the vault itself.`,
		Args: args(cobra.MaximumNArgs(1), "at most one APP, or one of: pin, unpin, delete"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				o.app = vaultApp(given[0])
			}
			return e.runPoints(cmd, &o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.asOf, "as-of", "", "only points not after this time: 2026-01-31T15:04:05Z, or 10m for ten minutes ago")
	flags.BoolVarP(&o.all, "all", "a", false, "also points that may not be restored")
	flags.BoolVar(&o.fromVault, "from-vault", false, "read the vault itself; needs no agent")
	o.breakGlass(flags)
	cmd.AddCommand(e.pinCommand("pin", vault.MarkPinned, "Keep a recovery point until it is unpinned"),
		e.pinCommand("unpin", vault.MarkUnpinned, "Let a recovery point expire again"), e.deleteCommand())
	return cmd
}

func (e *env) runPoints(cmd *cobra.Command, o *listPoints) error {
	ctx, cancel := e.looking(cmd)
	defer cancel()
	asOf, err := parseInstant(o.asOf, e.now())
	if err != nil {
		return err
	}
	var views []pointView
	if o.fromVault || o.url != "" {
		views, err = e.pointsFromVault(ctx, cmd, o)
	} else {
		views, err = e.pointsFromCluster(ctx, o.app)
	}
	if err != nil {
		return err
	}
	shown := pointViews{Points: []pointView{}, now: e.now(), all: o.all}
	for _, v := range views {
		switch {
		case !asOf.IsZero() && v.Instant.After(asOf):
		case !o.all && v.Phase != v1alpha1.PointAvailable:
			shown.hidden++
		default:
			shown.Points = append(shown.Points, v)
		}
	}
	slices.SortStableFunc(shown.Points, func(a, b pointView) int {
		return cmp.Or(b.Instant.Compare(a.Instant), cmp.Compare(b.ID, a.ID))
	})
	return e.print(shown)
}

func (e *env) pointsFromCluster(ctx context.Context, app string) ([]pointView, error) {
	c, err := e.cluster()
	if err != nil {
		return nil, err
	}
	var all v1alpha1.RecoveryPointList
	if err := c.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list recovery points: %w", err)
	}
	var views []pointView
	for i := range all.Items {
		if app == "" || appOfPointObject(&all.Items[i]) == app {
			views = append(views, viewPoint(&all.Items[i]))
		}
	}
	if app == "" || len(views) > 0 {
		return views, nil
	}
	_, err = findApplication(ctx, c, app) // nothing yet, or a slip of the pen
	return nil, err
}

func (e *env) pointsFromVault(ctx context.Context, cmd *cobra.Command, o *listPoints) ([]pointView, error) {
	e.progress.Step("reading the vault")
	in, err := e.open(ctx, nil, &o.address, cmd.Flags())
	if err != nil {
		return nil, err
	}
	apps, err := in.project.Apps(ctx)
	if err != nil {
		return nil, err
	}
	if o.app != "" {
		if !slices.Contains(apps, o.app) {
			return nil, refuse("names in the vault are NAME, or NAMESPACE.NAME for tenants", "the vault has no application %q; it has: %s", o.app, listed(apps))
		}
		apps = []string{o.app}
	}
	var views []pointView
	p := in.protector(e)
	for _, app := range apps {
		infos, points, err := p.Points(ctx, app)
		if err != nil {
			return nil, err
		}
		for i := range infos {
			views = append(views, viewInfo(app, infos[i], points[i]))
		}
	}
	return views, nil
}

// pointView is one recovery point as commands show it.
type pointView struct {
	ID          string              `json:"id"`
	Application string              `json:"application"`
	Phase       v1alpha1.PointPhase `json:"phase"`
	Instant     time.Time           `json:"instant,omitzero"`
	Consistency string              `json:"consistency,omitempty"`
	Site        string              `json:"site,omitempty"`
	Epoch       int64               `json:"epoch,omitempty"`
	Objects     int64               `json:"objects"`
	Volumes     int64               `json:"volumes"`
	Bytes       int64               `json:"bytes"`
	StoredBytes int64               `json:"storedBytes"`
	Warnings    int64               `json:"warnings,omitempty"`
	Pinned      bool                `json:"pinned,omitempty"`
	Verified    time.Time           `json:"verified,omitzero"`
	Damaged     bool                `json:"damaged,omitempty"`
	Message     string              `json:"message,omitempty"`
}

// viewPoint reads a RecoveryPoint object.
func viewPoint(p *v1alpha1.RecoveryPoint) pointView {
	s := &p.Status
	view := pointView{
		ID: p.Name, Application: appOfPointObject(p), Phase: s.Phase, Instant: timeOf(s.Instant), Consistency: s.Consistency,
		Site: s.Site, Epoch: s.Epoch, Objects: s.Objects, Volumes: s.Volumes, Bytes: s.Bytes, StoredBytes: s.StoredBytes,
		Warnings: s.Warnings, Pinned: p.Spec.Pinned, Message: conditionText(s.Conditions, v1alpha1.ConditionReady),
	}
	if view.Phase == "" {
		view.Phase, view.Message = v1alpha1.PointPending, "the agent has not begun"
	}
	if p.DeletionTimestamp != nil {
		view.Phase = v1alpha1.PointDeleting
	}
	if s.Step != "" && view.Phase == v1alpha1.PointCapturing {
		view.Message = s.Step
	}
	if v := s.Verification; v != nil {
		if view.Damaged = v.Damaged; v.Damaged {
			view.Message = v.Message
		} else {
			view.Verified = v.At.Time
		}
	}
	return view
}

// viewInfo reads what the vault knows of a point; summary has quarantine decided.
func viewInfo(app string, info vault.PointInfo, summary point.Point) pointView {
	view := pointView{
		ID: info.ID, Application: app, Phase: v1alpha1.PointAvailable, Pinned: summary.Pinned,
		Verified: summary.Verified, Damaged: summary.Damaged,
	}
	switch {
	case summary.Deleting:
		view.Phase, view.Message = v1alpha1.PointDeleting, "deletion has begun"
	case summary.Damaged:
		view.Phase = v1alpha1.PointFailed
		if info.Err != nil {
			view.Message = info.Err.Error()
		}
	case summary.Quarantined:
		view.Phase, view.Message = v1alpha1.PointQuarantined, quarantineReason(info)
	}
	if m := info.Manifest; m != nil {
		view.Instant, view.Consistency, view.Site, view.Epoch = m.Instant, string(m.Consistency), m.Site, m.Epoch
		view.Objects, view.Volumes, view.Bytes, view.StoredBytes = m.Objects, int64(len(m.Volumes)), m.Bytes, m.StoredBytes
		view.Warnings = int64(len(m.Warnings))
	}
	return view
}

func quarantineReason(info vault.PointInfo) string {
	for _, mark := range slices.Backward(info.Marks) {
		if mark.Kind == vault.MarkQuarantined {
			return mark.Note
		}
	}
	return "written under an epoch that had been superseded"
}

type pointViews struct {
	Points []pointView `json:"points"`
	now    time.Time
	hidden int
	all    bool
}

// Text is a table, newest first.
func (p pointViews) Text(t *output.Text) {
	if len(p.Points) == 0 {
		t.Line("No recovery point to show.")
	} else {
		t.Table("", output.Columns("POINT", "APPLICATION", "AGE", "+INSTANT", "PHASE", "CONSISTENCY", ">OBJECTS", ">VOLUMES", ">SIZE", "+>STORED", "+SITE", "+>EPOCH", "+>WARNINGS", "VERIFIED", "NOTE"), p.rows())
	}
	if p.hidden > 0 {
		t.Line("%s not shown that cannot be restored: --all", output.Plural(int64(p.hidden), "point"))
	}
}

func (p pointViews) rows() [][]string {
	var rows [][]string
	for _, v := range p.Points {
		note := output.Short(v.Message, 60)
		if v.Pinned {
			note = joinNotes("pinned", note)
		}
		if v.Damaged {
			note = joinNotes("DAMAGED", note)
		}
		rows = append(rows, []string{
			v.ID, v.Application, output.Age(v.Instant, p.now), output.Time(v.Instant), string(v.Phase), v.Consistency,
			fmt.Sprint(v.Objects), fmt.Sprint(v.Volumes), output.Bytes(v.Bytes), output.Bytes(v.StoredBytes), v.Site,
			fmt.Sprint(v.Epoch), fmt.Sprint(v.Warnings), output.Age(v.Verified, p.now), note,
		})
	}
	return rows
}

func joinNotes(a, b string) string {
	if b == "" {
		return a
	}
	return a + "; " + b
}

// Document is all of them.
func (p pointViews) Document() any { return p }

// choosePoint finds the point that a person named, or an application's newest.
func choosePoint(ctx context.Context, e *env, in *opened, name string) (app, id string, err error) {
	if isPoint(name) {
		return appOfPoint(name), name, nil
	}
	app = vaultApp(name)
	_, points, err := in.protector(e).Points(ctx, app)
	if err != nil {
		return "", "", err
	}
	newest, ok := point.Newest(points, time.Time{})
	if !ok {
		return "", "", refuse("`points "+name+" --all` lists what there is", "application %q has no recovery point that may be restored", name)
	}
	return app, newest.ID, nil
}

func (e *env) pinCommand(name string, kind vault.MarkKind, short string) *cobra.Command {
	var a address
	var dryRun bool
	cmd := &cobra.Command{
		Use: name + " POINT", Short: short, Args: args(cobra.ExactArgs(1), "one POINT"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return e.runPin(cmd, &a, given[0], kind, dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be changed")
	a.breakGlass(cmd.Flags())
	return cmd
}

func (e *env) runPin(cmd *cobra.Command, a *address, id string, kind vault.MarkKind, dryRun bool) error {
	ctx, cancel := e.looking(cmd)
	defer cancel()
	in, app, err := e.namedPoint(ctx, cmd, a, id)
	if err != nil {
		return err
	}
	if dryRun {
		return e.print(done(fmt.Sprintf("%s would be %s.", id, kind)))
	}
	mark := vault.Mark{Kind: kind, At: e.now().UTC(), Site: siteName(in), By: "command line"}
	if err := in.project.Mark(ctx, app, id, mark); err != nil {
		return err
	}
	if a.url == "" {
		e.mirrorPin(ctx, id, kind == vault.MarkPinned)
	}
	return e.print(done(fmt.Sprintf("%s is %s.", id, kind)))
}

func siteName(in *opened) string {
	return cmp.Or(in.site, "cli")
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
func (e *env) namedPoint(ctx context.Context, cmd *cobra.Command, a *address, id string) (*opened, string, error) {
	if !isPoint(id) {
		return nil, "", usageError("`points` lists them", "%q is not the name of a recovery point", id)
	}
	in, err := e.open(ctx, nil, a, cmd.Flags())
	if err != nil {
		return nil, "", err
	}
	app := appOfPoint(id)
	_, err = in.project.Manifest(ctx, app, id)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, "", refuse("`points "+app+" --all` lists what there is", "the vault has no recovery point %s", id)
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
		Long:  `Deletes a recovery point from the vault. A pinned point is refused, and the last good one of an application without --last-good.`,
		Args:  args(cobra.ExactArgs(1), "one POINT"),
		RunE:  func(cmd *cobra.Command, given []string) error { return e.runDelete(cmd, &o, given[0]) },
	}
	cmd.Flags().BoolVar(&o.lastGood, "last-good", false, "even if it is the application's last good point")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would be deleted")
	o.breakGlass(cmd.Flags())
	return cmd
}

// deletePoint is what `points delete` was asked.
type deletePoint struct {
	address
	lastGood, yes, dryRun bool
}

func (e *env) runDelete(cmd *cobra.Command, o *deletePoint, id string) error {
	ctx, cancel := e.working(cmd)
	defer cancel()
	in, app, err := e.namedPoint(ctx, cmd, &o.address, id)
	if err != nil {
		return err
	}
	if o.dryRun {
		return e.print(done("Would delete " + id + " from the vault."))
	}
	if !o.yes {
		if err := e.askFor(id, "the point's name"); err != nil {
			return err
		}
	}
	e.progress.Step("deleting %s", id)
	if err := in.protector(e).Delete(ctx, app, id, protection.DeleteOptions{By: "command line", LastGood: o.lastGood}); err != nil {
		return err
	}
	if o.url == "" {
		e.mirrorDelete(ctx, id)
	}
	return e.print(done(id + " is deleted."))
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
