package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/protect"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/cli/waiting"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/coverage"
	"davit.dev/davit/internal/selection"
)

func (e *env) protectCommand() *cobra.Command {
	var o protect.Flags
	cmd := &cobra.Command{
		Use:   "protect APP",
		Short: "Protect an application: capture it on a schedule",
		Long: `Makes an Application and a ProtectionPolicy of that name in davit-system. Without --every or --cron the application is captured
only by "backup".

Given again, it changes what the flags say and keeps the rest. A flag that may be repeated replaces its whole list; --hook and -f
replace all hooks; --every replaces --cron, and the other way round. --unset takes back what a flag said: --unset hook,rpo.
--dry-run -o yaml shows both documents as they would be.

Without more, everything in the namespaces is captured. --selector, --workload and --pods narrow that to what any of them covers,
and what that needs: configuration, secrets, accounts, claims with their data, Services that select the pods. "*" stands for every
namespace but the cluster's own.

The data of volumes is chosen by claims=, class= and labels=; a name alone is one of claims. All that a rule says must fit, and claims left out come back
empty:
  --exclude-volumes 'cache-*' --exclude-volumes 'claims=data-*; class=scratch' --include-volumes 'labels=tier=db'

A hook runs in containers of matching pods around the instant at which the volumes are cut:
  --hook 'name=quiesce; pods=app=db; container=pg; before=psql -c CHECKPOINT; timeout=30s; on-error=Continue'
Commands run by "sh -c". -f reads hooks from a YAML file instead: a list under "hooks", written as in the Application kind.`,
		Example: `  davit protect shop --namespace shop --every 30s --rpo 1m --wait
  davit protect erp --namespace erp-db,erp-web --cron '*/15 * * * *' --keep-last 96 --keep-daily 30 --keep-monthly 12
  davit protect orders-db --namespace dbs --workload statefulset/orders --cron '30 2 * * *' --time-zone Europe/Lisbon
  davit protect everything --namespace '*' --exclude-namespaces 'test-*' --every 1h
  davit protect shop --keep-daily 14 --unset keep-last --dry-run -o yaml`,
		Args: args(cobra.ExactArgs(1), "the APP's name"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return e.runProtect(cmd, given[0], &o)
		},
	}
	o.Bind(cmd.Flags())
	return cmd
}

func (e *env) runProtect(cmd *cobra.Command, name string, o *protect.Flags) error {
	app, policy, err := protect.New(name)
	if err != nil {
		return err
	}
	if err := o.Apply(app, policy); err != nil { // says what is wrong before any cluster is asked
		return err
	}
	ctx, cancel := e.working(cmd)
	defer cancel()
	c, err := e.cluster()
	if err != nil {
		return err
	}
	p, err := e.protectionOf(ctx, c, name, o)
	if err != nil {
		return err
	}
	if err := checkNamespacesExist(ctx, c, p.app.Spec.Namespaces); err != nil {
		return err
	}
	if err := e.checkSelection(ctx, c, p.app); err != nil {
		return err
	}
	if o.DryRun {
		return e.print(p.dryRun())
	}
	epoch, err := e.claimFirst(ctx, c, p.app)
	if err != nil {
		return err
	}
	if err := p.save(ctx, c); err != nil {
		return err
	}
	result := view.Protected{Application: p.app, Policy: p.policy, Epoch: epoch}
	if o.Wait {
		if result.First, err = e.awaitFirstPoint(ctx, c, p.app); err != nil {
			return err
		}
	}
	return e.print(result)
}

func checkNamespacesExist(ctx context.Context, c client.Client, namespaces []string) error {
	for _, name := range namespaces {
		if selection.IsGlob(name) {
			continue
		}
		err := c.Get(ctx, client.ObjectKey{Name: name}, &corev1.Namespace{})
		if apierrors.IsNotFound(err) {
			return exit.Refuse("name what to capture with --namespace", "there is no namespace %q here", name)
		}
		if err != nil {
			return fmt.Errorf("look for namespace %s: %w", name, err)
		}
	}
	return nil
}

// checkSelection refuses an application that no capture could be made of. What
// the caller may not see is left to the agent.
func (e *env) checkSelection(ctx context.Context, c wiring.Cluster, app *v1alpha1.Application) error {
	e.progress.Step("looking at what %s covers", app.VaultName())
	held, err := c.Look(ctx, app, false)
	switch {
	case apierrors.IsForbidden(err):
		return nil
	case err != nil:
		return exit.Refuse("name what is there", "%v", err)
	}
	for _, w := range held.Warnings {
		e.progress.Note("%s %s", w.Object, w.Message)
	}
	for _, idle := range protect.Idle(ctx, c, app) {
		e.progress.Note("%s", idle)
	}
	var others v1alpha1.ApplicationList
	if c.List(ctx, &others) == nil { // who sees few applications is told of those
		for _, o := range coverage.Overlaps(ctx, c.Look, app, held, others.Items) {
			e.progress.Note("%s", o)
		}
	}
	return c.CheckVolumes(ctx, app, held.Volumes)
}

// claimFirst makes this site the application's writer if nobody is, and
// refuses when another site is.
func (e *env) claimFirst(ctx context.Context, c wiring.Cluster, app *v1alpha1.Application) (int64, error) {
	o, err := e.opener().OpenHere(ctx, c, app.Spec.Vault)
	if err != nil {
		return 0, err
	}
	if o.Site == "" {
		_, err := access.LocalSite(ctx, c)
		return 0, err
	}
	if o.ClusterID == "" {
		_, err := access.ClusterID(ctx, c)
		return 0, err
	}
	p := o.Protector(e.now)
	if err := p.Preflight(app); err != nil {
		return 0, err
	}
	e.progress.Step("looking at the epochs of %s", app.VaultName())
	standing, err := p.ClaimFirst(ctx, app.VaultName(), c.User(ctx))
	if err != nil {
		return 0, err
	}
	if standing.Role != v1alpha1.RoleActive {
		return 0, exit.Refuse(fmt.Sprintf("move it here with `restore %s --take-over`, or protect this one under another name", app.VaultName()),
			"application %q belongs to %s, which holds epoch %d", app.VaultName(), p.Holder(standing), standing.Current.Number)
	}
	return standing.Current.Number, nil
}

// awaitFirstPoint waits until the application has a recovery point, and says
// what keeps it.
func (e *env) awaitFirstPoint(ctx context.Context, c client.WithWatch, app *v1alpha1.Application) (string, error) {
	e.progress.Step("waiting for the first recovery point of %s", app.VaultName())
	var first string
	err := waiting.For(ctx, c, app.DeepCopy(), func(ctx context.Context) (bool, error) {
		var now v1alpha1.Application
		if err := c.Get(ctx, client.ObjectKeyFromObject(app), &now); err != nil {
			return false, fmt.Errorf("look at application %s: %w", app.Name, err)
		}
		first = now.Status.NewestPoint
		if ready := meta.FindStatusCondition(now.Status.Conditions, v1alpha1.ConditionReady); ready != nil && ready.Status == metav1.ConditionFalse {
			e.progress.Detail("%s: %s", ready.Reason, ready.Message)
			if ready.Reason == v1alpha1.ReasonInvalid || ready.Reason == v1alpha1.ReasonSuperseded {
				return false, exit.Refuse("", "%s: %s", ready.Reason, ready.Message)
			}
		}
		return first != "", nil
	})
	if errors.Is(err, exit.ErrTimeout) {
		return "", exit.Hint(fmt.Errorf("wait for the first recovery point: %w", err), "`describe "+app.VaultName()+"` says what keeps it")
	}
	return first, err
}
