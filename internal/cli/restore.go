package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/equipping"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/recovery"
)

func (e *env) restoreCommand() *cobra.Command {
	var o order.Restore
	cmd := &cobra.Command{
		Use:   "restore APP|POINT",
		Short: "Bring an application back, here",
		Long: `Brings an application back into this cluster from a recovery point: the newest that may be offered, the newest not after
--as-of, or the one named. It works with your own rights and asks nothing of the site that was lost.

  --take-over   the other site is lost: raises the application's epoch first, so that the other site is fenced when it comes
                back; protection goes on here
  --as-clone    a copy under other namespaces (--map-namespace), never protected under the application's name
  neither       at the site that holds the epoch already: what is missing is brought back

It brings back all that the point holds. For one namespace of several, one object or one file, make a copy and take from that.
A restore that was interrupted continues when the same command is given again. With only the vault's address and the recovery
key, give --vault-url and --recovery-key-file; volumes are filled by Davit's node processes, which need "install" and
"vault add --join" first. In a cluster without Davit --install --site NAME --image IMAGE does both.`,
		Example: `  davit restore shop --take-over
  davit restore shop                                          # what was deleted; what is there stays, data too
  davit restore shop --existing exact --dry-run --diff        # what a roll-back would change, roll back and delete
  davit restore shop --take-over --transform west.yaml        # with other host names, say
  davit restore shop --as-of '2026-01-31 15:04' --as-clone --map-namespace shop=shop-copy`,
		Args: args(cobra.ExactArgs(1), "one APP or POINT"),
		RunE: func(cmd *cobra.Command, given []string) error {
			o.Name = given[0]
			return e.runRestore(cmd, &o)
		},
	}
	o.Flags(cmd.Flags())
	o.BreakGlass(cmd.Flags())
	return cmd
}

func (e *env) runRestore(cmd *cobra.Command, o *order.Restore) error {
	if err := o.Complete(e.now()); err != nil {
		return err
	}
	ctx, cancel := e.bounded(cmd, recovery.DefaultTimeout)
	defer cancel()
	c, err := e.cluster()
	if err != nil {
		return err
	}
	e.progress.Step("opening the vault")
	in, err := e.opener().Open(ctx, c, &o.Address, cmd.Flags())
	if err != nil {
		return err
	}
	if err := e.nameSite(ctx, c, in, o); err != nil {
		return err
	}
	equip, ask := e.running().Equip, equipping.Ask{Address: &o.Address, Flags: cmd.Flags(), Way: &o.Way, Site: o.Site}
	need, err := equip.Before(ctx, c, in, ask)
	if err != nil {
		return err
	}
	how := wiring.Recovering{
		Project: in.Project, VaultName: in.VaultName, Site: in.Site, ClusterID: in.ClusterID, Holder: c.User(ctx),
		Plan: o.DryRun, Coming: need != nil, InsecureRegistries: o.Insecure, Progress: &restoreProgress{p: e.progress}, Now: e.now,
	}
	if o.TakeOver && !o.DryRun && !o.Yes {
		// What is in the way is said before anybody types a name.
		foreseen := how
		foreseen.Check = true
		report, err := c.Recover(ctx, o.Options, foreseen)
		if err = cmp.Or(err, recovery.Blocked(report.Findings)); err != nil && exit.Code(err) == exit.Refused {
			return e.reportRestore(report, true, err)
		}
		if err := e.confirmTakeOver(ctx, in, o); err != nil {
			return err
		}
	}
	if o.Overwrites() && !o.TakeOver && !o.DryRun && !o.Yes {
		if err := e.confirmOverwrite(o); err != nil {
			return err
		}
	}
	if need != nil && !o.DryRun {
		if c, err = equip.Anew(ctx, need, ask, o.Yes); err != nil {
			return err
		}
		how.VaultName = need.Vault
		in.VaultName = need.Vault
	}
	if o.Background && !o.DryRun {
		return e.restoreInBackground(cmd.Context(), c, in, o)
	}
	report, err := c.Recover(ctx, o.Options, how)
	if !o.DryRun && report.RestoreID != "" {
		e.keepReport(ctx, c, &report)
	}
	if o.Drawn == "dot" && err == nil && report.Order != nil {
		_, err := io.WriteString(e.Out, report.Order.DOT())
		return err
	}
	return e.reportRestore(report, o.DryRun, err)
}

// nameSite finds out which site this is; a clone can do without.
func (e *env) nameSite(ctx context.Context, c wiring.Cluster, in *access.Opened, o *order.Restore) error {
	if in.VaultName == "" { // opened by address: volumes are filled through a Vault object
		if v, err := access.ChooseVault(ctx, c, e.global.vault); err == nil {
			in.VaultName = v.Name
		}
	}
	if o.Site != "" {
		in.Site = o.Site
	}
	if in.Site == "" {
		site, err := access.LocalSite(ctx, c)
		if err == nil {
			in.Site, in.SiteDomain = site.Name, site.Spec.FailureDomain
		} else if o.AsClone {
			in.Site = "cli"
		} else {
			return exit.Hint(fmt.Errorf("the epoch needs a site's name: %w", err), "`install --site NAME` first, or give --site NAME")
		}
	}
	if in.ClusterID == "" && !o.AsClone {
		id, err := access.ClusterID(ctx, c)
		if err != nil {
			return err
		}
		in.ClusterID = id
	}
	return nil
}

// confirmTakeOver says what a take-over costs and has a person confirm it.
func (e *env) confirmTakeOver(ctx context.Context, in *access.Opened, o *order.Restore) error {
	p := in.Protector(e.now)
	standing, err := p.Standing(ctx, o.Options.Application)
	if err != nil {
		return err
	}
	_, points, err := p.Points(ctx, o.Options.Application)
	if err != nil {
		return err
	}
	chosen, ok := point.Newest(points, o.Options.AsOf)
	for _, candidate := range points {
		if candidate.ID == o.Options.Point {
			chosen, ok = candidate, true
		}
	}
	if !ok {
		return nil // the recovery itself says what is wrong
	}
	now := e.now()
	e.progress.Done()
	fmt.Fprintf(e.Err, "Take over %s at site %s.\n", o.Options.Application, in.Site)
	if standing.Current.Number > 0 {
		fmt.Fprintf(e.Err, "  Now:   %s holds epoch %d, since %s. It is fenced as soon as it sees the new epoch.\n",
			p.Holder(standing), standing.Current.Number, output.Time(standing.Current.Claim.At))
	}
	fmt.Fprintf(e.Err, "  From:  %s, %s old (%s), consistency %s.\n", chosen.ID, output.Age(chosen.Instant, now), output.Time(chosen.Instant), chosen.Consistency)
	fmt.Fprintf(e.Err, "  Lost:  whatever was written after that instant.\n")
	return e.askFor(o.Options.Application, "the application's name")
}

// confirmOverwrite says what may be lost and has a person confirm it.
func (e *env) confirmOverwrite(o *order.Restore) error {
	e.progress.Done()
	fmt.Fprintf(e.Err, "Restore %s over what is here: objects that differ are made anew, volumes are rolled back.\n", o.Options.Application)
	fmt.Fprintf(e.Err, "  Lost:  whatever was written here after the recovery point, unless you `%s backup %s` first. --dry-run lists it.\n", e.program, o.Options.Application)
	return e.askFor(o.Options.Application, "the application's name")
}

// restoreProgress shows a recovery's progress.
type restoreProgress struct{ p *output.Progress }

func (r *restoreProgress) StepStarted(step string) { r.p.Step("%s", step) }

func (r *restoreProgress) StepFinished(string, error) {}

func (r *restoreProgress) Objects(n, total int64) { r.p.Detail("%d of %d objects", n, total) }

func (r *restoreProgress) Note(text string) { r.p.Detail("%s", text) }

func (r *restoreProgress) Bytes(n, total int64) {
	r.p.Detail("%s of %s", output.Bytes(n), output.Bytes(max(n, total)))
}

// reportRestore prints a recovery's report and decides the exit code.
func (e *env) reportRestore(report recovery.Report, dryRun bool, err error) error {
	if report.StartedAt.IsZero() && err != nil {
		return err
	}
	if printErr := e.print(view.Restore{Report: report, DryRun: dryRun}); printErr != nil {
		return printErr
	}
	if err != nil {
		return err
	}
	if report.Phase == v1alpha1.RestoreFailed {
		return exit.Hint(errors.New(report.Error), "give the same command again when that is solved: what is there is not made again")
	}
	switch {
	case dryRun && report.Blocked():
		return exit.Quietly(exit.Refused) // as without --dry-run
	case report.Phase == v1alpha1.RestoreWarned || dryRun && len(report.Findings) > 0:
		return exit.Quietly(exit.Warnings)
	}
	return nil
}
