package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/admission"
	"davit.dev/davit/internal/cli/equipping"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/keys"
	"davit.dev/davit/internal/cli/objects"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/past"
	"davit.dev/davit/internal/cli/promoting"
	"davit.dev/davit/internal/cli/selftest"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/vault/lock"
)

func (e *env) vaultCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "vault", Short: "Add, check and list vaults, and keep their keys", Args: args(cobra.NoArgs, "one of: add, check, keys, ls, promote, reclaim, revert"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	promote := promoting.Host{Host: e.keys(), Cluster: func() (client.Client, error) { return e.cluster() }}
	promote.Store = func(ctx context.Context, cfg backend.Config) (vault.Store, error) { return e.backend.Store(ctx, cfg) }
	cmd.AddCommand(promoting.Command(promote), e.vaultAddCommand(), e.vaultCheckCommand(), keys.Command(e.keys()), e.vaultListCommand(), past.Revert(e.past()), past.Reclaim(e.past()))
	return cmd
}

// vaultAdd is what `vault add` was asked.
type vaultAdd struct {
	access.Address
	name    string
	domain  string
	copyOf  string
	width   string // bandwidth
	delay   time.Duration
	lock    string
	days    int32
	kept    bool
	join    bool
	replace bool
	lost    bool
	yes     bool
	dryRun  bool
}

func (e *env) vaultAddCommand() *cobra.Command {
	var o vaultAdd
	cmd := &cobra.Command{
		Use:   "add NAME URL",
		Short: "Give this site a way into a vault",
		Long: `Tests a vault, and gives this site a way into one project of it.

At the first site the project is made, and with it a recovery key, which is written to --recovery-key-file and nowhere else:
keep it outside all sites, and not in the vault. At every further site give --join, and the key is read from that file.

A vault knows each site by its name and its cluster. A cluster under a name that another one bears is refused. When that one is
lost and this one replaces it, --replace-lost-site gives it the name; what the lost cluster ran is then taken over with
"restore --take-over", and the lost cluster, should it come back, captures nothing any more.

With --copy-of, the vault becomes a second copy of one that this site has: the agent copies every recovery point into it and
reads back what arrived. It takes an empty bucket or prefix, in another failure domain; no recovery key is needed, for the first
vault's opens it too. Nothing is captured into a copy or taken over from it; clones are restored from it with --vault NAME. With
--copy-of, --join and --recovery-key-file, a site that does not have the first vault, for that is lost, reads a copy that is there.

URL is s3://BUCKET/PREFIX. Secrets come from files and the environment, never from arguments. file:///DIRECTORY is for a file system
that this machine, the agent and the node processes all mount at that path, each as a volume that you add to them; any other
directory is refused, for the cluster would not see it.`,
		Example: `  davit vault add main s3://backups/davit --endpoint https://s3.example.com --recovery-key-file ./davit-recovery.key
  davit vault add main s3://backups/davit --endpoint https://s3.example.com --recovery-key-file ./davit-recovery.key --join
  davit vault add second s3://elsewhere/davit --endpoint https://s3.example.org --copy-of main --bandwidth 20Mi`,
		Args: args(cobra.ExactArgs(2), "NAME and URL"),
		RunE: func(cmd *cobra.Command, given []string) error {
			o.name, o.URL = given[0], given[1]
			return e.runVaultAdd(cmd, &o)
		},
	}
	flags := cmd.Flags()
	o.Flags(flags)
	flags.StringVar(&o.domain, "failure-domain", "", "what the vault shares its fate with; the site's own is refused")
	flags.StringVar(&o.copyOf, "copy-of", "", "make it a second copy of this vault")
	flags.StringVar(&o.width, "bandwidth", "", "bound on the bytes per second that each process sends to the vault or reads from it, such as 20Mi; at least 64Ki")
	flags.DurationVar(&o.delay, "deletion-delay", 0, "how long deleted points stay in the vault and can be undeleted, such as 168h")
	flags.StringVar(&o.lock, "lock", "", "lock what is written with the store's object lock: governance, or compliance, which nobody can lift")
	flags.Int32Var(&o.days, "lock-days", 0, "with --lock: for how many days, at the least")
	flags.BoolVar(&o.kept, "no-overwrite", false, "refuse a store in which this site's credentials can destroy what was written; the bucket keeps versions")
	flags.BoolVar(&o.join, "join", false, "the project exists: admit this site with the recovery key")
	flags.BoolVar(&o.replace, "replace", false, "this site has the vault already: replace its address and credentials")
	flags.BoolVar(&o.lost, "replace-lost-site", false, "with --join: the cluster that bore this site's name is lost, and this one replaces it")
	flags.BoolVar(&o.yes, "yes", false, "with --replace-lost-site: do not ask")
	flags.BoolVar(&o.dryRun, "dry-run", false, "test the vault and print the Vault object, but keep nothing")
	return cmd
}

func (e *env) runVaultAdd(cmd *cobra.Command, o *vaultAdd) error {
	ctx, cancel := e.working(cmd)
	defer cancel()
	if o.lost && !o.join {
		return exit.Usage("a new project knows no site yet", "--replace-lost-site goes with --join")
	}
	cfg, err := e.opener().Config(&o.Address, cmd.Flags())
	if err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	cfg.Lock = o.locks()
	if o.copyOf != "" {
		return e.addCopy(ctx, o, cfg)
	}
	request := &admission.Request{Project: o.Project, RecoveryKey: o.RecoveryKey, Join: o.join, ReplaceLost: o.lost, Confirm: equipping.Lost(e.Err, e.progress.Done, e.askFor, o.yes)}
	key, err := request.PrepareKey()
	if err != nil {
		return err
	}
	c, err := e.cluster()
	if err != nil {
		return err
	}
	if request.Sign, err = e.admissible(ctx, c, o); err != nil {
		return err
	}
	store, err := e.backend.Store(ctx, cfg)
	if err == nil {
		err = o.fits(ctx, store)
	}
	if err != nil {
		return err
	}
	e.progress.Step("testing %s", store)
	if report := o.test(ctx, store, e.now); report.Err() != nil {
		return e.failedTest(report)
	}
	object := o.object(cfg)
	if o.dryRun {
		return e.print(view.VaultAdded{Vault: object, DryRun: true})
	}
	e.progress.Step("opening project %s", o.Project)
	keyring, err := request.Enter(ctx, store, key)
	if err != nil {
		return err
	}
	e.progress.Step("writing the vault into the cluster")
	if err := admission.Save(ctx, c, object, cfg, keyring); err != nil {
		return exit.Hint(fmt.Errorf("%w; the project in the vault is ready", err), "mend the cause and run the same command with --join")
	}
	return e.print(view.VaultAdded{Vault: object, Site: request.Sign.Site, KeyFile: o.RecoveryKey, Joined: o.join})
}

// check says what about the flags cannot be.
func (o *vaultAdd) check() error {
	if o.width != "" {
		if q, err := resource.ParseQuantity(o.width); err != nil || q.Value() < vaults.MinBandwidth {
			return exit.Usage("write bytes per second, such as 20Mi: at least 64Ki", "--bandwidth %s is not possible", o.width)
		}
	}
	if (o.lock == "") != (o.days == 0) || o.days < 0 || o.days > 3650 || o.lock != "" && lockModes[o.lock] == "" {
		return exit.Usage("write --lock governance --lock-days 30, or compliance; 1 to 3650 days", "--lock %q with --lock-days %d is not possible", o.lock, o.days)
	}
	if o.delay < 0 || o.delay > 0 && o.copyOf != "" {
		return exit.Usage("it is the first vault's: a copy keeps what waits there", "--deletion-delay %s is not possible", o.delay)
	}
	if o.copyOf != "" && (o.lost || o.join != (o.RecoveryKey != "")) {
		return exit.Usage("with both, a site that does not have the first vault reads its copy; a new copy takes neither", "--copy-of goes with both of --join and --recovery-key-file or with neither, and never with --replace-lost-site")
	}
	return nil
}

var lockModes = map[string]lock.Mode{"governance": lock.Governance, "compliance": lock.Compliance}

func (o *vaultAdd) locks() lock.Policy {
	return lock.Policy{Mode: lockModes[o.lock], Days: int(o.days)}
}

// test asks the store for all that is wanted of it.
func (o *vaultAdd) test(ctx context.Context, store vault.Store, now func() time.Time) selftest.Report {
	report := selftest.Run(ctx, store, now)
	if o.kept && report.Err() == nil {
		report.NoOverwrite(ctx, store)
	}
	return report
}

// fits refuses a store that cannot do what it is to do besides what every
// vault's must.
func (o *vaultAdd) fits(ctx context.Context, store vault.Store) error {
	if o.lock != "" {
		return admission.CanLock(ctx, store)
	}
	return nil
}

func (e *env) failedTest(report selftest.Report) error {
	e.progress.Done()
	t := &output.Text{}
	report.Text(t)
	fmt.Fprint(e.Err, t.String())
	return exit.OfVault(fmt.Errorf("test vault: %w", report.Err()))
}

// admissible says whether the cluster may have this vault, and returns who
// the site is.
func (e *env) admissible(ctx context.Context, c wiring.Cluster, o *vaultAdd) (vault.SiteStatus, error) {
	first := o.copyOf == "" || o.join // else it is of a project that is here
	sign, err := equipping.Door{Name: o.name, Address: &o.Address, Domain: o.domain, First: first, Replace: o.replace}.Admissible(ctx, c)
	sign.Time = e.now().UTC()
	return sign, err
}

func (o *vaultAdd) object(cfg backend.Config) *v1alpha1.Vault {
	v := &v1alpha1.Vault{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Vault"},
		ObjectMeta: metav1.ObjectMeta{Name: o.name},
		Spec: v1alpha1.VaultSpec{
			URL: cfg.URL, Project: o.Project, SecretName: "vault-" + o.name, CABundle: string(cfg.CA), FailureDomain: o.domain, CopyOf: o.copyOf,
		},
	}
	if p := o.locks(); p.On() {
		v.Spec.Immutability = &v1alpha1.Immutability{Mode: v1alpha1.LockMode(p.Mode), Days: o.days}
	}
	v.Spec.NoOverwrite = o.kept
	v.Spec.DeletionDelay = objects.Duration(o.delay)
	if o.width != "" { // check has parsed it
		v.Spec.Bandwidth = ptr.To(resource.MustParse(o.width))
	}
	return v
}
