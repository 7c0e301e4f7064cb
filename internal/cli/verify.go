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
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/vault"
)

func (e *env) verifyCommand() *cobra.Command {
	var a access.Address
	var dryRun bool
	var sample int
	var repair, blobs bool
	cmd := &cobra.Command{
		Use:   "verify POINT|APP",
		Short: "Read a recovery point back, every byte, and say so in its status",
		Long: `Reads a recovery point back from the vault, whole: every object, every byte of every volume, compared with what was
written. Of an application, the newest point. What it finds is written into the vault: a point that is whole counts as
verified, a damaged one is no longer offered. The vault's own documents, keys, epochs and what stands beside those are read as well. Exit code 6 says
that something is missing or changed. --sample reads all
objects and directories, looks for every blob, and reads a part of the volumes' data, another one each time. --blobs also compares
every blob of the repositories that its volumes are in, other points' and applications' too, with the SHA-256 it was written with.
"protect --verify-every" lets the agent do it on a schedule. --repair puts back what is damaged from a second copy of the vault,
reads the point back once more, and offers it again if it is whole; the agent does that by itself. Of a second copy (--vault
NAME), the verdict is only printed.`,
		Args: args(cobra.ExactArgs(1), "one POINT or APP"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return e.runVerify(cmd, &a, given[0], verifying{sample: sample, repair: repair, blobs: blobs, dryRun: dryRun})
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say which point would be read")
	cmd.Flags().BoolVar(&repair, "repair", false, "mend what is damaged from a second copy of the vault")
	cmd.Flags().IntVar(&sample, "sample", 100, "percent of the volumes' data to read, 1 to 100")
	cmd.Flags().BoolVar(&blobs, "blobs", false, "compare every blob of the volumes' repositories as well")
	a.BreakGlass(cmd.Flags())
	return cmd
}

// verifying is how `verify` was asked to read.
type verifying struct {
	sample                int
	repair, blobs, dryRun bool
}

func (e *env) runVerify(cmd *cobra.Command, a *access.Address, name string, how verifying) error {
	if how.sample < 1 || how.sample > 100 {
		return exit.Usage("give percent, 1 to 100", "--sample %d is not possible", how.sample)
	}
	if how.repair && a.URL != "" {
		return exit.Usage("leave --vault-url out", "--repair takes the second copies from the cluster's Vault objects")
	}
	ctx, cancel := e.working(cmd)
	defer cancel()
	e.progress.Step("opening the vault")
	in, err := e.opener().Open(ctx, nil, a, cmd.Flags())
	if err != nil {
		return err
	}
	if how.repair && in.Project.IsCopy() {
		return exit.Usage("leave --repair out; the agent mends copies, as verification on schedule finds their damage", "%s is a second copy", in.VaultName)
	}
	app, id, err := choosePoint(ctx, e, in, name)
	if err != nil {
		return err
	}
	if how.dryRun {
		return e.print(view.Done("Would read back " + id + "."))
	}
	e.progress.Step("reading back %s", id)
	start := e.now()
	report, err := in.Protector(e.now).Verify(ctx, app, id, protection.VerifyOptions{
		Sample: how.sample, SampleFrom: rand.N(100), Blobs: how.blobs, //nolint:gosec // no secret: any part will do
		Progress: func(p protection.VerifyProgress) {
			e.progress.Detail("%d of %d packs, %d of %d volumes, %s", p.Packs, p.PacksTotal, p.Volumes, p.VolumesTotal, output.Bytes(p.Bytes))
		},
	})
	if err != nil && !errors.Is(err, protection.ErrDamaged) {
		return err
	}
	if how.repair && len(report.Damage)+len(report.BlobDamage) > 0 {
		report = e.repairPoint(ctx, in, app, id, report)
	}
	if a.URL == "" && !in.Project.IsCopy() {
		e.mirrorVerdict(ctx, id, report)
	}
	around, err := vaultDamage(ctx, in.Project)
	if err != nil {
		return err
	}
	if printErr := e.print(view.Verified{
		ID: id, Application: app, How: report.How, Objects: report.Objects, Volumes: report.Volumes, Bytes: report.Bytes,
		Damage: append([]string{}, report.Damage...), VaultDamage: append(around, report.BlobDamage...), Blobs: report.Blobs, Took: e.now().Sub(start),
	}); printErr != nil {
		return printErr
	}
	if len(report.Damage) > 0 {
		return &exit.Error{Code: exit.Damaged, Err: fmt.Errorf("recovery point %s is damaged", id), Hint: "a second copy may mend it: `verify --repair`; or an older point may be whole: `points " + app + "`"}
	}
	if len(report.BlobDamage) > 0 {
		return &exit.Error{Code: exit.Damaged, Err: fmt.Errorf("recovery point %s is whole, but blobs of volume data are damaged", id), Hint: "a second copy may mend them: `verify --blobs --repair`; `verify POINT` says which points they hurt"}
	}
	if len(around) > 0 {
		return &exit.Error{Code: exit.Damaged, Err: errors.New("the point is whole, but the vault is damaged"), Hint: "bring the objects back from a copy of the vault, then `vault check`"}
	}
	return nil
}

// vaultDamage reads what the vault holds besides points: a restore needs that, too.
func vaultDamage(ctx context.Context, project *vault.Project) (damage []string, err error) {
	var unknown []error
	collect := func(f vault.Finding) {
		switch {
		case f.Err == nil:
		case errors.Is(f.Err, vault.ErrDamaged), errors.Is(f.Err, vault.ErrNotFound):
			damage = append(damage, f.Err.Error())
		default:
			unknown = append(unknown, f.Err)
		}
	}
	verdict := errors.Join(project.VerifyMetadata(ctx, collect), lease.Verify(ctx, project, collect))
	if verdict != nil && len(damage) == 0 {
		return nil, errors.Join(unknown...)
	}
	return damage, nil
}

// repairPoint mends a point from the copies of its vault, one after the other,
// and returns the verdict after that.
func (e *env) repairPoint(ctx context.Context, in *access.Opened, app, id string, found protection.VerifyReport) protection.VerifyReport {
	c, err := e.cluster()
	if err != nil {
		e.progress.Note("not repaired: %v", err)
		return found
	}
	var all v1alpha1.VaultList
	if err := c.List(ctx, &all); err != nil {
		e.progress.Note("not repaired: list vaults: %v", err)
		return found
	}
	tried := false
	for i := range all.Items {
		name := all.Items[i].Name
		if in.VaultName == "" || all.Items[i].Spec.CopyOf != in.VaultName {
			continue
		}
		tried = true
		e.progress.Step("repairing %s from %s", id, name)
		from, err := e.opener().OpenHere(ctx, c, name)
		if err != nil {
			e.progress.Note("not repaired from %s: %v", name, err)
			continue
		}
		report, err := in.Protector(e.now).Repair(ctx, app, id, from.Project, name, found)
		if err == nil {
			e.progress.Note("repaired from %s: %s, %s", name, output.Plural(int64(len(report.Repaired)), "object"), output.Bytes(report.Bytes))
			return report.Verified
		}
		e.progress.Note("not repaired from %s: %v", name, err)
	}
	if !tried {
		e.progress.Note("not repaired: vault %s has no second copy here: `vault add --copy-of`", in.VaultName)
	}
	return found
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
