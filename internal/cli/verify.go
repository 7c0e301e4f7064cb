package cli

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/vault"
)

func (e *env) verifyCommand() *cobra.Command {
	var a access.Address
	var dryRun bool
	var sample int
	cmd := &cobra.Command{
		Use:   "verify POINT|APP",
		Short: "Read a recovery point back, every byte, and say so in its status",
		Long: `Reads a recovery point back from the vault, whole: every object, every byte of every volume, compared with what was
written. Of an application, the newest point. What it finds is written into the vault: a point that is whole counts as
verified, a damaged one is no longer offered. The vault's own documents, keys and epochs are read as well. Exit code 6 says
that something is missing or changed. --sample reads all
objects and directories, looks for every blob, and reads a part of the volumes' data, another one each time.
"protect --verify-every" lets the agent do it on a schedule.`,
		Args: args(cobra.ExactArgs(1), "one POINT or APP"),
		RunE: func(cmd *cobra.Command, given []string) error { return e.runVerify(cmd, &a, given[0], sample, dryRun) },
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say which point would be read")
	cmd.Flags().IntVar(&sample, "sample", 100, "percent of the volumes' data to read, 1 to 100")
	a.BreakGlass(cmd.Flags())
	return cmd
}

func (e *env) runVerify(cmd *cobra.Command, a *access.Address, name string, sample int, dryRun bool) error {
	if sample < 1 || sample > 100 {
		return exit.Usage("give percent, 1 to 100", "--sample %d is not possible", sample)
	}
	ctx, cancel := e.working(cmd)
	defer cancel()
	e.progress.Step("opening the vault")
	in, err := e.opener().Open(ctx, nil, a, cmd.Flags())
	if err != nil {
		return err
	}
	app, id, err := choosePoint(ctx, e, in, name)
	if err != nil {
		return err
	}
	if dryRun {
		return e.print(view.Done("Would read back " + id + "."))
	}
	e.progress.Step("reading back %s", id)
	start := e.now()
	report, err := in.Protector(e.now).Verify(ctx, app, id, protection.VerifyOptions{
		Sample: sample, SampleFrom: rand.N(100), //nolint:gosec // no secret: any part will do
		Progress: func(p protection.VerifyProgress) {
			e.progress.Detail("%d of %d packs, %d of %d volumes, %s", p.Packs, p.PacksTotal, p.Volumes, p.VolumesTotal, output.Bytes(p.Bytes))
		},
	})
	if err != nil && !errors.Is(err, protection.ErrDamaged) {
		return err
	}
	if a.URL == "" {
		e.mirrorVerdict(ctx, id, report)
	}
	around, err := vaultDamage(ctx, in.Project)
	if err != nil {
		return err
	}
	if printErr := e.print(view.Verified{
		ID: id, Application: app, How: report.How, Objects: report.Objects, Volumes: report.Volumes, Bytes: report.Bytes,
		Damage: append([]string{}, report.Damage...), VaultDamage: around, Took: e.now().Sub(start),
	}); printErr != nil {
		return printErr
	}
	if len(report.Damage) > 0 {
		return &exit.Error{Code: exit.Damaged, Err: fmt.Errorf("recovery point %s is damaged", id), Hint: "an older point may be whole: `points " + app + "`, `verify POINT`"}
	}
	if len(around) > 0 {
		return &exit.Error{Code: exit.Damaged, Err: errors.New("the point is whole, but the vault is damaged"), Hint: "bring the objects back from a copy of the vault, then `vault check`"}
	}
	return nil
}

// vaultDamage reads what the vault holds besides points: a restore needs that, too.
func vaultDamage(ctx context.Context, project *vault.Project) (damage []string, err error) {
	var unknown []error
	verdict := project.VerifyMetadata(ctx, func(f vault.Finding) {
		switch {
		case f.Err == nil:
		case errors.Is(f.Err, vault.ErrDamaged), errors.Is(f.Err, vault.ErrNotFound):
			damage = append(damage, f.Err.Error())
		default:
			unknown = append(unknown, f.Err)
		}
	})
	if verdict != nil && len(damage) == 0 {
		return nil, errors.Join(unknown...)
	}
	return damage, nil
}

// mirrorVerdict writes the exit.Verdict into the RecoveryPoint's status at once.
func (e *env) mirrorVerdict(ctx context.Context, id string, report protection.VerifyReport) {
	c, err := e.cluster()
	if err != nil {
		return
	}
	p, err := findPointObject(ctx, c, id)
	if err != nil {
		return
	}
	before := p.DeepCopy()
	p.Status.Verification = &v1alpha1.Verification{At: metav1.NewTime(e.now()), How: report.How, Damaged: len(report.Damage) > 0}
	if len(report.Damage) > 0 {
		p.Status.Verification.Message = output.Short(report.Damage[0], 500)
	}
	if err := c.Status().Patch(ctx, p, client.MergeFrom(before)); err != nil {
		e.progress.Note("note: the RecoveryPoint object does not say so yet: %v", err)
	}
}
