package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/selftest"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
)

func (e *env) vaultCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "vault", Short: "Add, check and list vaults", Args: args(cobra.NoArgs, "one of: add, check, ls"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.vaultAddCommand(), e.vaultCheckCommand(), e.vaultListCommand())
	return cmd
}

// vaultAdd is what `vault add` was asked.
type vaultAdd struct {
	access.Address
	name    string
	domain  string
	join    bool
	replace bool
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

URL is s3://BUCKET/PREFIX or file:///DIRECTORY. Secrets come from files and the environment, never from arguments.`,
		Example: `  davit vault add main s3://backups/davit --endpoint https://s3.example.com --recovery-key-file ./davit-recovery.key
  davit vault add main s3://backups/davit --endpoint https://s3.example.com --recovery-key-file ./davit-recovery.key --join`,
		Args: args(cobra.ExactArgs(2), "NAME and URL"),
		RunE: func(cmd *cobra.Command, given []string) error {
			o.name, o.URL = given[0], given[1]
			return e.runVaultAdd(cmd, &o)
		},
	}
	flags := cmd.Flags()
	o.Flags(flags)
	flags.StringVar(&o.domain, "failure-domain", "", "what the vault shares its fate with; the site's own is refused")
	flags.BoolVar(&o.join, "join", false, "the project exists: admit this site with the recovery key")
	flags.BoolVar(&o.replace, "replace", false, "this site has the vault already: replace its address and credentials")
	flags.BoolVar(&o.dryRun, "dry-run", false, "test the vault and print the Vault object, but keep nothing")
	return cmd
}

func (e *env) runVaultAdd(cmd *cobra.Command, o *vaultAdd) error {
	ctx, cancel := e.working(cmd)
	defer cancel()
	cfg, err := e.opener().Config(&o.Address, cmd.Flags())
	if err != nil {
		return err
	}
	key, err := o.prepareKey()
	if err != nil {
		return err
	}
	c, err := e.cluster()
	if err != nil {
		return err
	}
	site, err := e.admissible(ctx, c, o)
	if err != nil {
		return err
	}
	store, err := e.backend.Store(ctx, cfg)
	if err != nil {
		return err
	}
	e.progress.Step("testing %s", store)
	if report := selftest.Run(ctx, store, e.now); report.Err() != nil {
		return e.failedTest(report)
	}
	object := o.object(cfg)
	if o.dryRun {
		return e.print(view.VaultAdded{Vault: object, DryRun: true})
	}
	e.progress.Step("opening project %s", o.Project)
	keyring, err := o.enter(ctx, store, key)
	if err != nil {
		return err
	}
	e.progress.Step("writing the vault into the cluster")
	if err := o.save(ctx, c, object, cfg, keyring); err != nil {
		return exit.Hint(fmt.Errorf("%w; the project in the vault is ready", err), "mend the cause and run the same command with --join")
	}
	return e.print(view.VaultAdded{Vault: object, Site: site, KeyFile: o.RecoveryKey, Joined: o.join})
}

func (e *env) failedTest(report selftest.Report) error {
	e.progress.Done()
	t := &output.Text{}
	report.Text(t)
	fmt.Fprint(e.Err, t.String())
	return exit.OfVault(fmt.Errorf("test vault: %w", report.Err()))
}

// prepareKey reads the recovery key to join with, or makes a new one. It
// checks the file before anything is changed.
func (o *vaultAdd) prepareKey() (vault.Identity, error) {
	if o.RecoveryKey == "" {
		return vault.Identity{}, exit.Usage("the key it holds opens the vault when all sites are lost; keep it outside all of them", "--recovery-key-file is missing")
	}
	if o.join {
		return access.ReadIdentity(o.RecoveryKey)
	}
	if _, err := os.Lstat(o.RecoveryKey); !errors.Is(err, os.ErrNotExist) {
		return vault.Identity{}, exit.Refuse("to admit this site with the key in it, give --join; for a new project, name a new file",
			"%s exists and is not overwritten", o.RecoveryKey)
	}
	if info, err := os.Stat(filepath.Dir(o.RecoveryKey)); err != nil || !info.IsDir() {
		return vault.Identity{}, exit.Usage("", "%s is no directory to keep the recovery key in", filepath.Dir(o.RecoveryKey))
	}
	return vault.NewRecoveryKey()
}

// admissible says whether the cluster may have this vault, and returns the
// site's name.
func (e *env) admissible(ctx context.Context, c Cluster, o *vaultAdd) (string, error) {
	if err := vault.CheckName(o.name); err != nil {
		return "", exit.AsUsage(err)
	}
	site, err := access.LocalSite(ctx, c)
	if err != nil {
		return "", err
	}
	if o.domain != "" && o.domain == site.Spec.FailureDomain {
		return "", exit.Refuse("use a vault that survives what destroys this site, or correct --failure-domain",
			"site %s and the vault are both in failure domain %q: they would be lost together", site.Name, o.domain)
	}
	if inside := insideCluster(o.URL, o.Endpoint); inside != "" {
		return "", exit.Refuse("use a vault outside of all sites", "%s is a name inside the cluster: the vault would be lost with its site", inside)
	}
	err = c.Get(ctx, client.ObjectKey{Name: o.name}, &v1alpha1.Vault{})
	switch {
	case err == nil && !o.replace:
		return "", exit.Refuse("--replace --join gives it a new address and new credentials", "site %s has a vault %q already", site.Name, o.name)
	case err != nil && !apierrors.IsNotFound(err):
		return "", fmt.Errorf("look for vault %s: %w", o.name, err)
	}
	return site.Name, nil
}

// insideCluster returns the endpoint's host if it is one of the cluster's own
// names.
func insideCluster(address, endpoint string) string {
	if endpoint == "" {
		if u, err := url.Parse(address); err == nil {
			endpoint = u.Query().Get("endpoint")
		}
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	host := strings.TrimSuffix(u.Hostname(), ".")
	if strings.HasSuffix(host, ".svc") || strings.HasSuffix(host, ".cluster.local") {
		return host
	}
	return ""
}

// enter makes the project or joins it, and returns this site's own keyring.
// A new recovery key is on disk before anything is sealed with it.
func (o *vaultAdd) enter(ctx context.Context, store vault.Store, key vault.Identity) (vault.Keyring, error) {
	if o.join {
		return o.joinProject(ctx, store, key)
	}
	if err := writeKey(o.RecoveryKey, o.Project, store.String(), key); err != nil {
		return vault.Keyring{}, err
	}
	if _, err := vault.Init(ctx, store); err != nil {
		return vault.Keyring{}, errors.Join(err, os.Remove(o.RecoveryKey))
	}
	project, err := vault.CreateProject(ctx, store, o.Project, key.Recipient())
	if errors.Is(err, vault.ErrExists) {
		return vault.Keyring{}, errors.Join(os.Remove(o.RecoveryKey), exit.Refuse(
			"give --join and the recovery key that was made with it, or choose another --project", "the vault has a project %q already", o.Project))
	}
	if err != nil { // it may have come to be: the key file stays
		return vault.Keyring{}, exit.Hint(err, "keep "+o.RecoveryKey+"; run the same command with --join to see whether the project came to be")
	}
	return vault.Admit(ctx, project)
}

func (o *vaultAdd) joinProject(ctx context.Context, store vault.Store, key vault.Identity) (vault.Keyring, error) {
	project, err := vault.OpenProject(ctx, store, o.Project, key)
	if errors.Is(err, vault.ErrNotFound) {
		return vault.Keyring{}, exit.Refuse("check bucket, prefix and --project; without --join a new project is made", "join: %v", err)
	}
	if err != nil {
		return vault.Keyring{}, err
	}
	return vault.Admit(ctx, project)
}

// writeKey writes the recovery key for its owner's eyes only, and never over
// another file.
func writeKey(path, project, store string, key vault.Identity) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write recovery key: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = fmt.Fprintf(f, "# Davit recovery key of project %s in %s\n# public key: %s\n# Whoever has this file and the vault can read everything in it. Without it, a vault whose sites are all lost is lost.\n%s\n",
		project, store, key.Recipient(), key.Secret())
	if err != nil {
		return fmt.Errorf("write recovery key: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write recovery key: %w", err)
	}
	return nil
}

func (o *vaultAdd) object(cfg backend.Config) *v1alpha1.Vault {
	return &v1alpha1.Vault{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Vault"},
		ObjectMeta: metav1.ObjectMeta{Name: o.name},
		Spec: v1alpha1.VaultSpec{
			URL: cfg.URL, Project: o.Project, SecretName: "vault-" + o.name, CABundle: string(cfg.CA), FailureDomain: o.domain,
		},
	}
}

// save writes the Secret, then the Vault that names it.
func (o *vaultAdd) save(ctx context.Context, c client.Client, object *v1alpha1.Vault, cfg backend.Config, keyring vault.Keyring) error {
	data := keyring.Secret()
	for name, value := range map[string]string{access.AccessKey: cfg.AccessKey, access.SecretKey: cfg.SecretKey, access.SessionToken: cfg.SessionToken} {
		if value != "" {
			data[name] = []byte(value)
		}
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.SystemNamespace, Name: object.Spec.SecretName,
			Labels: map[string]string{"app.kubernetes.io/part-of": "davit"},
		},
		Type: corev1.SecretTypeOpaque, Data: data,
	}
	err := put(ctx, c, secret, &corev1.Secret{}, func(old *corev1.Secret) { old.Data = data })
	if err != nil {
		return fmt.Errorf("write Secret %s: %w", secret.Name, err)
	}
	spec := object.Spec
	if err := put(ctx, c, object, &v1alpha1.Vault{}, func(old *v1alpha1.Vault) { old.Spec = spec }); err != nil {
		return fmt.Errorf("write Vault %s: %w", object.Name, err)
	}
	return nil
}

// put creates an object, or changes the one that is there.
func put[T client.Object](ctx context.Context, c client.Client, object, old T, change func(old T)) error {
	err := c.Create(ctx, object)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	if err := c.Get(ctx, client.ObjectKeyFromObject(object), old); err != nil {
		return err
	}
	change(old)
	return c.Update(ctx, old)
}
