package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/keeping"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/trial"
)

// restoreTest is what `restore-test` was asked.
type restoreTest struct {
	access.Address
	probes         keeping.Probes
	limit, ready   time.Duration
	storageClasses []string
	excludeKinds   []string
	dryRun, sweep  bool
}

func (e *env) restoreTestCommand() *cobra.Command {
	var o restoreTest
	cmd := &cobra.Command{
		Use:   "restore-test POINT|APP",
		Short: "Bring a recovery point up as an isolated copy, ask it, remove it",
		Long: `Restores a recovery point, of an application the newest, into namespaces made for it (davit-test-...), beside the application,
with your own rights. It waits for the workloads, asks the probes, writes what it found into the vault, and removes the copy, on
every way out. Exit code 7 says that the copy did not come up or failed a probe, 4 that nothing is proven, as nothing ran or not all. Without --probe the policy's probes are asked.

The copy has no Ingress, no node port, no load balancer; CronJobs and Jobs are suspended; cluster-scoped objects are not made or
changed. A NetworkPolicy keeps its pods to each other and the API server, which not every network enforces: where it does not, a
copy that mails, bills or calls others does so for real. "protect --test-every" lets the agent do it on a schedule.`,
		Example: `  davit restore-test shop
  davit restore-test shop --probe 'name=orders; pods=app=db; sql=psql SELECT count(*) > 0 FROM orders; expect=t'
  davit restore-test shop --probe 'name=front; http=web:80/healthz; status=200; timeout=2m'`,
		Args: args(cobra.MaximumNArgs(1), "one POINT or APP"),
		RunE: func(cmd *cobra.Command, given []string) error { return e.runRestoreTest(cmd, &o, given) },
	}
	flags := cmd.Flags()
	o.probes.Register(flags, "")
	flags.DurationVar(&o.limit, "test-timeout", 0, "how long the test may take, without the removal (default: the policy's, or 30m)")
	flags.DurationVar(&o.ready, "ready-timeout", 0, "how long to wait for workloads (default: the policy's, or 10m)")
	flags.StringSliceVar(&o.storageClasses, "map-storage-class", nil, "FROM=TO; may be repeated")
	flags.StringSliceVar(&o.excludeKinds, "exclude-kinds", nil, `leave these kinds out of the copy: resource.group, "*" allowed`)
	flags.BoolVar(&o.dryRun, "dry-run", false, "say which point would be tested, and how")
	flags.BoolVar(&o.sweep, "sweep", false, "remove what tests that are over left behind, and test nothing")
	o.BreakGlass(flags)
	return cmd
}

func (e *env) runRestoreTest(cmd *cobra.Command, o *restoreTest, given []string) error {
	ctx, cancel := e.working(cmd)
	defer cancel()
	c, err := e.cluster()
	if err != nil {
		return err
	}
	if o.sweep {
		return e.sweepTests(ctx, c)
	}
	if len(given) != 1 {
		return exit.Usage("", "restore-test takes one POINT or APP")
	}
	e.progress.Step("opening the vault")
	in, err := e.opener().Open(ctx, c, &o.Address, cmd.Flags())
	if err != nil {
		return err
	}
	named := &order.Restore{AsClone: true}
	if err := e.nameSite(ctx, c, in, named); err != nil {
		return err
	}
	app, id, err := choosePoint(ctx, e, in, given[0])
	if err != nil {
		return err
	}
	opts, err := o.options(ctx, c, app)
	if err != nil {
		return err
	}
	opts.Application, opts.Point = app, id
	if o.dryRun {
		return e.print(view.Done(fmt.Sprintf("Would bring up %s as an isolated copy and ask %s.", id, output.Plural(int64(len(opts.Probes)), "probe"))))
	}
	host, _ := os.Hostname()
	opts.Owner = fmt.Sprintf("cli/%s/%d", host, os.Getpid())
	report, err := c.Test(ctx, opts, wiring.Recovering{
		Project: in.Project, VaultName: in.VaultName, Site: in.Site, ClusterID: in.ClusterID, Holder: c.User(ctx),
		Progress: &restoreProgress{p: e.progress}, Now: e.now,
	})
	return e.concludeTest(ctx, c, report, err, o.URL == "")
}

// options are the policy's, where the cluster has one, and what was given.
func (o *restoreTest) options(ctx context.Context, c wiring.Cluster, app string) (trial.Options, error) {
	var opts trial.Options
	if object, err := findApplication(ctx, c, app); err == nil {
		if policy, err := view.PolicyOf(ctx, c, object); err == nil && policy != nil && policy.Spec.RestoreTest != nil {
			opts = trial.FromPolicy(policy.Spec.RestoreTest)
		}
	}
	probes, err := o.probes.All()
	if err != nil {
		return opts, err
	}
	if len(probes) > 0 {
		opts.Probes = probes
	}
	if o.limit != 0 {
		opts.Timeout = o.limit
	}
	if o.ready != 0 {
		opts.ReadyTimeout = o.ready
	}
	if opts.Timeout < 0 || opts.ReadyTimeout < 0 {
		return opts, exit.Usage("", "--test-timeout and --ready-timeout cannot be negative")
	}
	if len(o.storageClasses) > 0 {
		if opts.StorageClassMapping, err = order.Mapping("map-storage-class", o.storageClasses); err != nil {
			return opts, err
		}
	}
	opts.ExcludeKinds = append(opts.ExcludeKinds, o.excludeKinds...)
	return opts, nil
}

func (e *env) concludeTest(ctx context.Context, c wiring.Cluster, report trial.Report, err error, here bool) error {
	for _, left := range report.Leftovers {
		e.progress.Note("not removed: %s; `%s restore-test --sweep` tries again when the test's time is over", left, e.program)
	}
	unproven := errors.Is(err, trial.ErrNothingProven)
	if err != nil && !errors.Is(err, trial.ErrFailed) && !unproven {
		return err
	}
	if here && !unproven {
		e.mirrorTest(ctx, c, report)
	}
	if printErr := e.print(view.Tested(report)); printErr != nil {
		return printErr
	}
	if unproven {
		return &exit.Error{Code: exit.Warnings, Err: err, Hint: "give it --probe, and the policy --test-probe, that shows whether the application works"}
	}
	if !report.Passed {
		return &exit.Error{Code: exit.TestFailed, Err: err, Hint: "its bytes may be whole: `verify " + report.Point + "`; an older point may come up: `points " + report.Application + "`"}
	}
	return nil
}

func (e *env) sweepTests(ctx context.Context, c wiring.Cluster) error {
	tests, err := c.SweepTests(ctx, e.now())
	if err != nil {
		return err
	}
	return e.print(view.Done(fmt.Sprintf("Removed the copies of %s.", output.Plural(int64(len(tests)), "test"))))
}

// mirrorTest writes the verdict into the RecoveryPoint's status at once.
func (e *env) mirrorTest(ctx context.Context, c wiring.Cluster, report trial.Report) {
	p, err := findPointObject(ctx, c, report.Point)
	if err != nil {
		return
	}
	before := p.DeepCopy()
	p.Status.RestoreTest = &v1alpha1.PointTest{At: metav1.NewTime(e.now()), Passed: report.Passed, Message: output.Short(report.Failure, 500)}
	if report.RTO > 0 {
		p.Status.RestoreTest.RTO = &metav1.Duration{Duration: report.RTO.Round(time.Millisecond)}
	}
	if err := c.Status().Patch(ctx, p, client.MergeFrom(before)); err != nil {
		e.progress.Note("note: the RecoveryPoint object does not say so yet: %v", err)
	}
}
