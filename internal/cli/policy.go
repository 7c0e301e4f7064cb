package cli

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/cli/waiting"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/reconcile/project"
)

func (e *env) unprotectCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "unprotect APP",
		Short: "End an application's protection; its recovery points stay",
		Long: `Removes the Application, and its ProtectionPolicy if no other application uses it. The application itself goes on running,
and its recovery points stay in the vault: "points" lists them, "points delete" removes them.`,
		Args: args(cobra.ExactArgs(1), "one APP"),
		RunE: func(cmd *cobra.Command, given []string) error { return e.runUnprotect(cmd, given[0], dryRun) },
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be removed")
	return cmd
}

func (e *env) runUnprotect(cmd *cobra.Command, name string, dryRun bool) error {
	ctx, cancel := e.looking(cmd)
	defer cancel()
	c, err := e.cluster()
	if err != nil {
		return err
	}
	app, err := findApplication(ctx, c, name)
	if err != nil {
		return err
	}
	if err := access.Unleased(*app); err != nil {
		return err
	}
	policy, err := ownPolicy(ctx, c, app)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("Application %s/%s", app.Namespace, app.Name)
	if policy != nil {
		what += fmt.Sprintf(" and ProtectionPolicy %s/%s", policy.Namespace, policy.Name)
	}
	if dryRun {
		return e.print(view.Done("Would remove " + what + ". Recovery points would stay."))
	}
	if err := c.Delete(ctx, app); err != nil {
		return fmt.Errorf("remove application %s: %w", app.Name, err)
	}
	if policy != nil {
		if err := client.IgnoreNotFound(c.Delete(ctx, policy)); err != nil {
			return fmt.Errorf("remove policy %s: %w", policy.Name, err)
		}
	}
	return e.print(view.Done("Removed " + what + ". Its recovery points stay in the vault."))
}

// ownPolicy returns the application's policy unless another one uses it.
func ownPolicy(ctx context.Context, c client.Client, app *v1alpha1.Application) (*v1alpha1.ProtectionPolicy, error) {
	policy, err := view.PolicyOf(ctx, c, app)
	if err != nil || policy == nil {
		return nil, err
	}
	var all v1alpha1.ApplicationList
	if err := c.List(ctx, &all, client.InNamespace(app.Namespace)); err != nil {
		return nil, fmt.Errorf("list applications: %w", err)
	}
	for _, other := range all.Items {
		if other.Name != app.Name && other.Spec.Policy == policy.Name {
			return nil, nil
		}
	}
	return policy, nil
}

func (e *env) suspendCommand(name string, suspend bool) *cobra.Command {
	short := "Pause an application's schedule; points already taken are kept"
	if !suspend {
		short = "Resume an application's schedule"
	}
	var dryRun bool
	cmd := &cobra.Command{
		Use: name + " APP", Short: short, Args: args(cobra.ExactArgs(1), "one APP"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return e.runSuspend(cmd, given[0], suspend, dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be changed")
	return cmd
}

func (e *env) runSuspend(cmd *cobra.Command, name string, suspend, dryRun bool) error {
	ctx, cancel := e.looking(cmd)
	defer cancel()
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
	if policy == nil {
		return exit.Refuse("`protect` gives it one", "application %s has no policy: it is captured only when asked", app.VaultName())
	}
	word := map[bool]string{true: "paused", false: "active"}[suspend]
	switch {
	case policy.Spec.Suspend == suspend:
		return e.print(view.Done(fmt.Sprintf("The schedule of %s is %s already.", app.VaultName(), word)))
	case dryRun:
		return e.print(view.Done(fmt.Sprintf("The schedule of %s would be %s.", app.VaultName(), word)))
	}
	before := policy.DeepCopy()
	policy.Spec.Suspend = suspend
	if err := c.Patch(ctx, policy, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("change policy %s: %w", policy.Name, err)
	}
	return e.print(view.Done(fmt.Sprintf("The schedule of %s is %s.", app.VaultName(), word)))
}

func (e *env) backupCommand() *cobra.Command {
	var wait, pin, dryRun bool
	cmd := &cobra.Command{
		Use:   "backup APP",
		Short: "Capture an application now",
		Long: `Asks the agent for a recovery point now. With --wait the command ends when the point is in the vault, and with exit code 4
if it holds warnings.`,
		Args: args(cobra.ExactArgs(1), "one APP"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return e.runBackup(cmd, given[0], backup{wait: wait, pin: pin, dryRun: dryRun})
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the point is in the vault")
	cmd.Flags().BoolVar(&pin, "pin", false, "keep the point until it is unpinned")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print the RecoveryPoint that would be made")
	return cmd
}

// backup is what `backup` was asked.
type backup struct{ wait, pin, dryRun bool }

func (e *env) runBackup(cmd *cobra.Command, name string, o backup) error {
	ctx, cancel := e.working(cmd)
	defer cancel()
	c, err := e.cluster()
	if err != nil {
		return err
	}
	app, err := findApplication(ctx, c, name)
	if err != nil {
		return err
	}
	if app.Status.Role == v1alpha1.RoleSuperseded {
		return exit.Refuse("", "site %s took over %s with epoch %d: nothing is captured here", app.Status.EpochSite, app.VaultName(), app.Status.Epoch)
	}
	id, err := point.NewID(app.VaultName(), e.now(), rand.Reader)
	if err != nil {
		return err
	}
	p := &v1alpha1.RecoveryPoint{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "RecoveryPoint"},
		ObjectMeta: metav1.ObjectMeta{Namespace: app.Namespace, Name: id},
		Spec:       v1alpha1.RecoveryPointSpec{Application: app.Name, Trigger: v1alpha1.TriggerManual, Pinned: o.pin},
	}
	project.Label(p, app.Spec.Vault, app.VaultName()) // as the agent would: that is one write less until the capture begins
	if o.dryRun {
		return e.print(view.Sentence{Value: p, Line: "Would ask for recovery point " + id + "."})
	}
	if err := c.Create(ctx, p); err != nil {
		return fmt.Errorf("ask for recovery point %s: %w", id, err)
	}
	if !o.wait {
		return e.print(view.Sentence{Value: view.OfObject(p), Line: fmt.Sprintf("Asked for %s. Follow it with `points %s`, or give --wait.", id, app.VaultName())})
	}
	return e.awaitPoint(ctx, c, p)
}

// awaitPoint follows a capture to its end, under another name if the agent
// died and the next one started it again.
func (e *env) awaitPoint(ctx context.Context, c client.WithWatch, p *v1alpha1.RecoveryPoint) error {
	e.progress.Step("capturing %s", p.Name)
	err := waiting.For(ctx, c, p, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(p), p); err != nil {
			return false, fmt.Errorf("look at recovery point %s: %w", p.Name, err)
		}
		if next := p.Annotations[project.AnnotationRestarted]; next != "" && p.Status.Phase == v1alpha1.PointFailed {
			e.progress.Note("the agent stopped in the middle of %s: it is started again as %s", p.Name, next)
			*p = v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: next}}
			return false, nil
		}
		if p.Status.Step != "" {
			e.progress.Step("%s", p.Status.Step)
		}
		return p.Status.Phase == v1alpha1.PointAvailable || p.Status.Phase == v1alpha1.PointFailed || p.Status.Phase == v1alpha1.PointQuarantined, nil
	})
	if err != nil {
		return exit.Hint(fmt.Errorf("wait for %s: %w", p.Name, err), "the capture goes on by itself: `points` shows it; `status` says whether the agent is there")
	}
	got := view.OfObject(p)
	if p.Status.Phase != v1alpha1.PointAvailable {
		return exit.Hint(fmt.Errorf("capture %s: %s: %s", p.Name, p.Status.Phase, got.Message), "`logs backup "+p.Name+"` tells more")
	}
	text := fmt.Sprintf("%s is in the vault: %s, %s, %s, consistency %s.", p.Name, output.Plural(got.Objects, "object"),
		output.Plural(got.Volumes, "volume"), output.Bytes(got.Bytes), got.Consistency)
	if err := e.print(view.Sentence{Value: got, Line: text}); err != nil {
		return err
	}
	if got.Warnings > 0 {
		e.progress.Note("%s: see `%s logs backup %s`", output.Plural(got.Warnings, "warning"), e.program, p.Name)
		return exit.Quietly(exit.Warnings)
	}
	return nil
}
