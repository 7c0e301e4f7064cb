package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/vault"
)

// restoration is what `restore` was asked.
type restoration struct {
	access.Address
	opts           recovery.Options
	name           string
	asOf           string
	takeOver       bool
	asClone        bool
	namespaces     []string
	storageClasses []string
	existing       string
	nodePorts      string
	dryRun         bool
	yes            bool
	background     bool
	limit          time.Duration // of a restore in the background
	account        string
	site           string
}

func (e *env) restoreCommand() *cobra.Command {
	var o restoration
	cmd := &cobra.Command{
		Use:   "restore APP|POINT",
		Short: "Bring an application back, here",
		Long: `Brings an application back into this cluster from a recovery point: the newest that may be offered, the newest not after
--as-of, or the one named. It works with your own rights and asks nothing of the site that was lost.

  --take-over   the other site is lost: raises the application's epoch first, so that the other site is fenced when it comes
                back; protection goes on here
  --as-clone    a copy under other namespaces (--map-namespace), never protected under the application's name
  neither       at the site that holds the epoch already: what is missing is brought back

A restore that was interrupted continues when the same command is given again. With only the vault's address and the recovery
key, give --vault-url and --recovery-key-file; volumes are filled by Davit's node processes, which need "install" and
"vault add --join" first.`,
		Example: `  davit restore shop --take-over
  davit restore shop --exclude-kinds persistentvolumeclaims   # what was deleted, and no data
  davit restore shop --as-of '2026-01-31 15:04' --as-clone --map-namespace shop=shop-copy`,
		Args: args(cobra.ExactArgs(1), "one APP or POINT"),
		RunE: func(cmd *cobra.Command, given []string) error {
			o.name = given[0]
			return e.runRestore(cmd, &o)
		},
	}
	o.restoreFlags(cmd.Flags())
	o.BreakGlass(cmd.Flags())
	return cmd
}

func (o *restoration) restoreFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.asOf, "as-of", "", "the newest point not after this time: 2026-01-31T15:04:05Z, or 10m for ten minutes ago")
	flags.BoolVar(&o.takeOver, "take-over", false, "move the right to write to this site")
	flags.BoolVar(&o.asClone, "as-clone", false, "make a copy; needs --map-namespace")
	flags.StringSliceVar(&o.namespaces, "map-namespace", nil, "FROM=TO; may be repeated")
	flags.StringSliceVar(&o.storageClasses, "map-storage-class", nil, "FROM=TO; may be repeated")
	flags.StringVar(&o.existing, "existing", "skip", "objects that exist already: skip or update")
	flags.StringVar(&o.nodePorts, "node-ports", "", "node ports of Services: preserve (the default, where they are free) or reassign (the default of a copy)")
	flags.StringSliceVar(&o.opts.IncludeKinds, "include-kinds", nil, `restore only these kinds: resource.group, "*" allowed`)
	flags.StringSliceVar(&o.opts.ExcludeKinds, "exclude-kinds", nil, "leave these kinds out")
	flags.StringSliceVar(&o.opts.RestoreStatusOf, "restore-status-of", nil, "kinds whose status is restored too")
	flags.BoolVar(&o.opts.AcceptFuzzy, "accept-fuzzy", false, "allow a point whose volumes were read while they were written")
	flags.BoolVar(&o.opts.AcceptQuarantined, "accept-quarantined", false, "allow the quarantined point that is named")
	flags.BoolVar(&o.opts.Force, "accept-damaged", false, "allow the named point although verification found damage in it")
	flags.DurationVar(&o.opts.ReadyTimeout, "ready-timeout", 0, "how long to wait for workloads (default: 10m)")
	flags.IntVar(&o.opts.Workers, "workers", 0, "objects restored at a time (default: 32)")
	flags.BoolVar(&o.dryRun, "dry-run", false, "check everything, say what would be done, change nothing")
	flags.BoolVar(&o.yes, "yes", false, "do not ask")
	flags.BoolVar(&o.background, "background", false, "have the agent do it, through a Restore object, and follow it")
	flags.StringVar(&o.account, "service-account", "davit-restore", "with --background: account in davit-system whose rights are used")
	flags.StringVar(&o.site, "site", "", "name of this site, where the cluster does not know it")
}

// complete checks the flags and fills in the options.
func (o *restoration) complete(now time.Time) (err error) {
	o.opts.Mode = v1alpha1.RestoreInPlace
	switch {
	case o.takeOver:
		o.opts.Mode = v1alpha1.RestoreTakeOver
	case o.asClone:
		o.opts.Mode = v1alpha1.RestoreClone
	}
	switch {
	case o.takeOver && o.asClone:
		return exit.Usage("`restore --help` tells them apart", "give --take-over or --as-clone, not both")
	case o.asClone && len(o.namespaces) == 0:
		return exit.Usage("give --map-namespace FROM=TO for each namespace", "--as-clone needs other namespaces, so that nobody takes the copy for the original")
	case o.takeOver && len(o.namespaces) > 0:
		return exit.Usage("--as-clone makes a copy under other names", "--take-over keeps the namespaces")
	case o.background && o.URL != "":
		return exit.Usage("", "--background works through this site's vaults: --vault-url does not go with it")
	}
	if o.opts.NamespaceMapping, err = parseMapping("map-namespace", o.namespaces); err != nil {
		return err
	}
	if o.opts.StorageClassMapping, err = parseMapping("map-storage-class", o.storageClasses); err != nil {
		return err
	}
	if o.opts.AsOf, err = parseInstant(o.asOf, now); err != nil {
		return err
	}
	switch o.existing {
	case "skip":
		o.opts.Existing = v1alpha1.ExistingSkip
	case "update":
		o.opts.Existing = v1alpha1.ExistingUpdate
	default:
		return exit.Usage("", "--existing %q is not skip or update", o.existing)
	}
	switch o.nodePorts {
	case "": // by mode
	case "preserve":
		o.opts.NodePorts = v1alpha1.NodePortPreserve
	case "reassign":
		o.opts.NodePorts = v1alpha1.NodePortReassign
	default:
		return exit.Usage("", "--node-ports %q is not preserve or reassign", o.nodePorts)
	}
	return o.completeTarget()
}

func (o *restoration) completeTarget() error {
	o.opts.Application = vaultApp(o.name)
	if isPoint(o.name) {
		if !o.opts.AsOf.IsZero() {
			return exit.Usage("", "a point is named already: --as-of does not go with it")
		}
		o.opts.Application, o.opts.Point = appOfPoint(o.name), o.name
	}
	if err := vault.CheckName(o.opts.Application); err != nil {
		return exit.AsUsage(err)
	}
	return nil
}

func (e *env) runRestore(cmd *cobra.Command, o *restoration) error {
	if err := o.complete(e.now()); err != nil {
		return err
	}
	ctx, cancel := e.working(cmd)
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
	if o.takeOver && !o.dryRun && !o.yes {
		if err := e.confirmTakeOver(ctx, in, o); err != nil {
			return err
		}
	}
	if o.background && !o.dryRun {
		return e.restoreInBackground(cmd.Context(), c, in, o)
	}
	how := Recovering{
		Project: in.Project, VaultName: in.VaultName, Site: in.Site, Holder: c.User(ctx),
		Plan: o.dryRun, Progress: &restoreProgress{p: e.progress}, Now: e.now,
	}
	report, err := c.Recover(ctx, o.opts, how)
	if !o.dryRun && report.RestoreID != "" {
		e.keepReport(ctx, c, &report)
	}
	return e.reportRestore(report, o.dryRun, err)
}

// nameSite finds out which site this is; a clone can do without.
func (e *env) nameSite(ctx context.Context, c Cluster, in *access.Opened, o *restoration) error {
	if in.VaultName == "" { // opened by address: volumes are filled through a Vault object
		if v, err := access.ChooseVault(ctx, c, e.global.vault); err == nil {
			in.VaultName = v.Name
		}
	}
	if o.site != "" {
		in.Site = o.site
	}
	if in.Site == "" {
		site, err := access.LocalSite(ctx, c)
		if err == nil {
			in.Site, in.SiteDomain = site.Name, site.Spec.FailureDomain
		} else if o.asClone {
			in.Site = "cli"
		} else {
			return exit.Hint(fmt.Errorf("the epoch needs a site's name: %w", err), "`install --site NAME` first, or give --site NAME")
		}
	}
	return nil
}

// confirmTakeOver says what a take-over costs and has a person confirm it.
func (e *env) confirmTakeOver(ctx context.Context, in *access.Opened, o *restoration) error {
	p := in.Protector(e.now)
	standing, err := p.Standing(ctx, o.opts.Application)
	if err != nil {
		return err
	}
	_, points, err := p.Points(ctx, o.opts.Application)
	if err != nil {
		return err
	}
	chosen, ok := point.Newest(points, o.opts.AsOf)
	for _, candidate := range points {
		if candidate.ID == o.opts.Point {
			chosen, ok = candidate, true
		}
	}
	if !ok {
		return nil // the recovery itself says what is wrong
	}
	now := e.now()
	e.progress.Done()
	fmt.Fprintf(e.Err, "Take over %s at site %s.\n", o.opts.Application, in.Site)
	if standing.Current.Number > 0 {
		fmt.Fprintf(e.Err, "  Now:   site %s holds epoch %d, since %s. It is fenced as soon as it sees the new epoch.\n",
			standing.Current.Claim.Site, standing.Current.Number, output.Time(standing.Current.Claim.At))
	}
	fmt.Fprintf(e.Err, "  From:  %s, %s old (%s), consistency %s.\n", chosen.ID, output.Age(chosen.Instant, now), output.Time(chosen.Instant), chosen.Consistency)
	fmt.Fprintf(e.Err, "  Lost:  whatever was written after that instant.\n")
	return e.askFor(o.opts.Application, "the application's name")
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
	if report.Phase == v1alpha1.RestoreWarned || dryRun && len(report.Findings) > 0 {
		return exit.Quietly(exit.Warnings)
	}
	return nil
}
