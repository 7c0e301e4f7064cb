package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/hook"
	"davit.dev/davit/internal/cli/keeping"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/vault"
)

// protect is what `protect` was asked.
type protect struct {
	name          string
	namespaces    []string
	selector      string
	every         time.Duration
	cron          string
	rpo, rto      time.Duration
	keepLast      int32
	maxAge        time.Duration
	include       []string
	exclude       []string
	volumes       string
	snapshotClass string
	freeze        string
	freezeWindow  time.Duration
	hooks         []string
	file          string
	keeping       keeping.Flags
	dryRun        bool
	wait          bool
}

func (e *env) protectCommand() *cobra.Command {
	var o protect
	cmd := &cobra.Command{
		Use:   "protect APP",
		Short: "Protect an application: capture it on a schedule",
		Long: `Makes an Application and a ProtectionPolicy of that name in davit-system. Given again, it changes them. Without --every or
--cron the application is captured only by "backup".

A hook runs in containers of matching pods around the instant at which the volumes are cut:
  --hook 'name=quiesce; pods=app=db; container=pg; before=psql -c CHECKPOINT; timeout=30s; on-error=Continue'
Commands run by "sh -c". -f reads hooks from a YAML file instead: a list under "hooks", written as in the Application kind.`,
		Example: `  davit protect shop --namespace shop --every 30s --rpo 1m --wait
  davit protect erp --namespace erp-db,erp-web --cron '*/15 * * * *' --keep-last 96 --max-age 720h`,
		Args: args(cobra.ExactArgs(1), "the APP's name"),
		RunE: func(cmd *cobra.Command, given []string) error {
			o.name = given[0]
			return e.runProtect(cmd, &o)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVarP(&o.namespaces, "namespace", "n", nil, "namespace to capture; may be repeated (default: the one called APP)")
	flags.StringVarP(&o.selector, "selector", "l", "", "capture only objects with these labels, and what they need")
	flags.DurationVar(&o.every, "every", 0, "interval between captures, 10s or more")
	flags.StringVar(&o.cron, "cron", "", "five-field cron expression in UTC, instead of --every")
	flags.DurationVar(&o.rpo, "rpo", 0, "how much time of work may be lost")
	flags.DurationVar(&o.rto, "rto", 0, "how long recovery may take")
	flags.Int32Var(&o.keepLast, "keep-last", 0, "keep the newest so many points (default: 48, without --max-age)")
	flags.DurationVar(&o.maxAge, "max-age", 0, "keep points younger than this")
	flags.StringSliceVar(&o.include, "include-kinds", nil, `capture only these kinds: resource.group, "*" allowed`)
	flags.StringSliceVar(&o.exclude, "exclude-kinds", nil, "leave these kinds out")
	flags.StringVar(&o.volumes, "volumes", "snapshot", "snapshot, snapshot-or-live (points become fuzzy) or none")
	flags.StringVar(&o.snapshotClass, "snapshot-class", "", "VolumeSnapshotClass to use (default: the driver's)")
	flags.StringVar(&o.freeze, "freeze", "auto", "hold all volumes still together while they are cut: auto, required (else no point) or never")
	flags.DurationVar(&o.freezeWindow, "freeze-window", 0, "hold them still for at most this long, 1s to 60s (default: 10s)")
	flags.StringArrayVar(&o.hooks, "hook", nil, "command around the cut, see above; may be repeated")
	flags.StringVarP(&o.file, "file", "f", "", "YAML file with hooks")
	o.keeping.Register(flags)
	flags.BoolVar(&o.dryRun, "dry-run", false, "print what would be made; with -o yaml for kubectl or git")
	flags.BoolVar(&o.wait, "wait", false, "wait for the first recovery point")
	return cmd
}

func (e *env) runProtect(cmd *cobra.Command, o *protect) error {
	app, policy, err := o.objects()
	if err != nil {
		return err
	}
	ctx, cancel := e.working(cmd)
	defer cancel()
	c, err := e.cluster()
	if err != nil {
		return err
	}
	v, err := access.ChooseVault(ctx, c, e.global.vault)
	if err != nil {
		return err
	}
	app.Spec.Vault = v.Name
	if err := checkNamespacesExist(ctx, c, app.Spec.Namespaces); err != nil {
		return err
	}
	e.progress.Step("looking at the volumes of %s", app.VaultName())
	if err := c.CheckVolumes(ctx, app); err != nil {
		return err
	}
	if o.dryRun {
		return e.print(view.Protected{Application: app, Policy: policy, DryRun: true})
	}
	epoch, err := e.claimFirst(ctx, c, app)
	if err != nil {
		return err
	}
	if err := saveProtection(ctx, c, app, policy); err != nil {
		return err
	}
	result := view.Protected{Application: app, Policy: policy, Epoch: epoch}
	if o.wait {
		if result.First, err = e.awaitFirstPoint(ctx, c, app); err != nil {
			return err
		}
	}
	return e.print(result)
}

// objects turns the flags into the two objects, and finds every fault that
// needs no cluster.
func (o *protect) objects() (*v1alpha1.Application, *v1alpha1.ProtectionPolicy, error) {
	if err := vault.CheckName(o.name); err != nil || len(o.name) > 63 {
		return nil, nil, exit.Usage("want at most 63 lower-case letters, digits, '-' and '.'", "application name %q is not valid", o.name)
	}
	if err := o.check(); err != nil {
		return nil, nil, err
	}
	mode, err := volumeMode(o.volumes)
	if err != nil {
		return nil, nil, err
	}
	freeze, err := freezeMode(o.freeze)
	if err != nil {
		return nil, nil, err
	}
	hooks, err := hook.All(o.hooks, o.file)
	if err != nil {
		return nil, nil, err
	}
	var selector *metav1.LabelSelector
	if o.selector != "" {
		if selector, err = metav1.ParseToLabelSelector(o.selector); err != nil {
			return nil, nil, exit.Usage("write key=value,key2 in (a,b)", "selector: %v", err)
		}
	}
	if len(o.namespaces) == 0 {
		o.namespaces = []string{o.name}
	}
	objectMeta := metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: o.name}
	app := &v1alpha1.Application{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Application"}, ObjectMeta: objectMeta,
		Spec: v1alpha1.ApplicationSpec{
			Policy: o.name, Namespaces: o.namespaces, Selector: selector, IncludeKinds: o.include, ExcludeKinds: o.exclude,
			Volumes: v1alpha1.VolumeCapture{Mode: mode, SnapshotClass: o.snapshotClass, Freeze: freeze, FreezeWindow: duration(o.freezeWindow)},
			Hooks:   hooks,
		},
	}
	policy := &v1alpha1.ProtectionPolicy{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ProtectionPolicy"}, ObjectMeta: objectMeta,
		Spec: v1alpha1.ProtectionPolicySpec{
			Schedule:   v1alpha1.Schedule{Every: duration(o.every), Cron: o.cron},
			Retention:  v1alpha1.Retention{MaxAge: duration(o.maxAge)},
			Objectives: v1alpha1.Objectives{RPO: duration(o.rpo), RTO: duration(o.rto)},
		},
	}
	if o.keepLast > 0 {
		policy.Spec.Retention.Last = ptr.To(o.keepLast)
	}
	return app, policy, o.keeping.Apply(&policy.Spec)
}

func (o *protect) check() error {
	switch {
	case o.every != 0 && o.cron != "":
		return exit.Usage("", "give --every or --cron, not both")
	case o.every != 0 && o.every < 10*time.Second:
		return exit.Usage("", "--every %s is less than 10s", o.every)
	case o.wait && o.every == 0 && o.cron == "":
		return exit.Usage("give --every or --cron, or capture it with `backup "+o.name+" --wait` afterwards", "--wait waits for ever: nothing is captured without a schedule")
	case o.rpo < 0 || o.rto < 0 || o.maxAge < 0 || o.keepLast < 0:
		return exit.Usage("", "--rpo, --rto, --max-age and --keep-last cannot be negative")
	case o.freezeWindow != 0 && (o.freezeWindow < time.Second || o.freezeWindow > time.Minute):
		return exit.Usage("", "--freeze-window %s is not between 1s and 60s", o.freezeWindow)
	case o.rpo > 0 && o.every > o.rpo:
		return exit.Usage("capture more often, or allow more to be lost", "--every %s can never keep --rpo %s", o.every, o.rpo)
	}
	for _, namespace := range o.namespaces {
		if namespace == v1alpha1.SystemNamespace {
			return exit.Usage("", "%s is Davit's own namespace: it comes back by install and vault add --join", namespace)
		}
	}
	if o.cron != "" {
		if _, err := cron.ParseStandard(o.cron); err != nil {
			return exit.Usage("five fields: minute, hour, day of month, month, day of week", "--cron %q: %v", o.cron, err)
		}
	}
	return nil
}

func volumeMode(s string) (v1alpha1.VolumeMode, error) {
	for mode, name := range map[v1alpha1.VolumeMode]string{
		v1alpha1.VolumeSnapshot: "snapshot", v1alpha1.VolumeSnapshotOrLive: "snapshot-or-live", v1alpha1.VolumeNone: "none",
	} {
		if s == name {
			return mode, nil
		}
	}
	return "", exit.Usage("", "--volumes %q is not snapshot, snapshot-or-live or none", s)
}

func freezeMode(s string) (v1alpha1.FreezeMode, error) {
	for _, mode := range []v1alpha1.FreezeMode{v1alpha1.FreezeAuto, v1alpha1.FreezeRequired, v1alpha1.FreezeNever} {
		if strings.EqualFold(s, string(mode)) {
			return mode, nil
		}
	}
	return "", exit.Usage("", "--freeze %q is not auto, required or never", s)
}

func duration(d time.Duration) *metav1.Duration {
	if d == 0 {
		return nil
	}
	return &metav1.Duration{Duration: d}
}

func checkNamespacesExist(ctx context.Context, c client.Client, namespaces []string) error {
	for _, name := range namespaces {
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

// claimFirst makes this site the application's writer if nobody is, and
// refuses when another site is.
func (e *env) claimFirst(ctx context.Context, c Cluster, app *v1alpha1.Application) (int64, error) {
	o, err := e.opener().OpenHere(ctx, c, app.Spec.Vault)
	if err != nil {
		return 0, err
	}
	if o.Site == "" {
		_, err := access.LocalSite(ctx, c)
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
			"application %q belongs to site %s, which holds epoch %d", app.VaultName(), standing.Current.Claim.Site, standing.Current.Number)
	}
	return standing.Current.Number, nil
}

func saveProtection(ctx context.Context, c client.Client, app *v1alpha1.Application, policy *v1alpha1.ProtectionPolicy) error {
	policySpec, appSpec := policy.Spec, app.Spec
	err := put(ctx, c, policy, &v1alpha1.ProtectionPolicy{}, func(old *v1alpha1.ProtectionPolicy) {
		suspended := old.Spec.Suspend // resume lifts it, nothing else
		old.Spec = policySpec
		old.Spec.Suspend = suspended
	})
	if err != nil {
		return fmt.Errorf("write policy %s: %w", policy.Name, err)
	}
	if err := put(ctx, c, app, &v1alpha1.Application{}, func(old *v1alpha1.Application) { old.Spec = appSpec }); err != nil {
		return fmt.Errorf("write application %s: %w", app.Name, err)
	}
	return nil
}

// awaitFirstPoint waits until the application has a recovery point, and says
// what keeps it.
func (e *env) awaitFirstPoint(ctx context.Context, c client.Client, app *v1alpha1.Application) (string, error) {
	e.progress.Step("waiting for the first recovery point of %s", app.VaultName())
	var first string
	err := e.poll(ctx, func(ctx context.Context) (bool, error) {
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

// poll asks until the answer is yes.
func (e *env) poll(ctx context.Context, ask func(ctx context.Context) (bool, error)) error {
	const every = 500 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		yes, err := ask(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || yes {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
