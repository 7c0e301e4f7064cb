// Package access is the way into a vault: by what the cluster's Vault object
// and its Secret say, or by an address and the recovery key alone. Secrets come
// from files, the environment and Secrets, never from arguments.
package access

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
)

// Keys of a vault's Secret beside those of vault.Keyring.
const (
	AccessKey    = "accessKey"
	SecretKey    = "secretKey"
	SessionToken = "sessionToken"
)

// Address is how a vault is named on the command line. Secrets come from files
// and the environment, never from arguments, which everyone on a machine sees.
type Address struct {
	URL           string
	Project       string
	Endpoint      string
	region        string
	pathStyle     bool
	accessKey     string
	secretKeyFile string
	caFile        string
	RecoveryKey   string // file

	pathStyleSet bool
}

// Flags adds the flags of an address given as an argument.
func (a *Address) Flags(flags *pflag.FlagSet) {
	flags.StringVar(&a.Project, "project", "default", "project within the vault")
	flags.StringVar(&a.Endpoint, "endpoint", "", "S3 endpoint, such as https://s3.example.com:9000")
	flags.StringVar(&a.region, "region", "", "S3 region")
	flags.BoolVar(&a.pathStyle, "path-style", false, "address the bucket in the path, not the host name (default: true with an endpoint)")
	flags.StringVar(&a.accessKey, "access-key", "", "access key id (default: $DAVIT_ACCESS_KEY, then $AWS_ACCESS_KEY_ID)")
	flags.StringVar(&a.secretKeyFile, "secret-key-file", "", "file with the secret access key (default: $DAVIT_SECRET_KEY, then $AWS_SECRET_ACCESS_KEY)")
	flags.StringVar(&a.caFile, "ca-file", "", "PEM file with the certificates that vouch for the endpoint")
	flags.StringVar(&a.RecoveryKey, "recovery-key-file", "", "file with the project's recovery key")
}

// BreakGlass adds the flags of commands that can do without a Vault object.
func (a *Address) BreakGlass(flags *pflag.FlagSet) {
	flags.StringVar(&a.URL, "vault-url", "", "open the vault by address, without asking the cluster; needs --recovery-key-file")
	a.Flags(flags)
}

// Config merges address, flags, files and environment.
func (e *Opener) Config(a *Address, flags *pflag.FlagSet) (backend.Config, error) {
	a.pathStyleSet = flags.Changed("path-style")
	full, err := a.fullURL()
	if err != nil {
		return backend.Config{}, err
	}
	cfg := backend.Config{URL: full, AccessKey: a.accessKey}
	if cfg.AccessKey == "" {
		cfg.AccessKey = e.firstEnv("DAVIT_ACCESS_KEY", "AWS_ACCESS_KEY_ID")
	}
	cfg.SecretKey = e.firstEnv("DAVIT_SECRET_KEY", "AWS_SECRET_ACCESS_KEY")
	cfg.SessionToken = e.firstEnv("DAVIT_SESSION_TOKEN", "AWS_SESSION_TOKEN")
	if a.secretKeyFile != "" {
		text, err := os.ReadFile(a.secretKeyFile)
		if err != nil {
			return cfg, exit.AsUsage(fmt.Errorf("read secret key: %w", err))
		}
		cfg.SecretKey, cfg.SessionToken = strings.TrimSpace(string(text)), ""
	}
	if a.caFile != "" {
		if cfg.CA, err = os.ReadFile(a.caFile); err != nil {
			return cfg, exit.AsUsage(fmt.Errorf("read CA certificates: %w", err))
		}
	}
	if strings.HasPrefix(full, "s3:") && (cfg.AccessKey == "" || cfg.SecretKey == "") {
		return cfg, exit.Usage("set DAVIT_ACCESS_KEY and DAVIT_SECRET_KEY, or give --access-key and --secret-key-file", "the vault's credentials are missing")
	}
	return cfg, nil
}

func (e *Opener) firstEnv(names ...string) string {
	for _, name := range names {
		if value := e.Getenv(name); value != "" {
			return value
		}
	}
	return ""
}

// fullURL puts the flags into the address.
func (a *Address) fullURL() (string, error) {
	u, err := url.Parse(a.URL)
	if err != nil || u.Scheme != "s3" && u.Scheme != "file" || u.Scheme == "s3" && u.Host == "" || u.Scheme == "file" && !strings.HasPrefix(a.URL, "file:///") {
		return "", exit.Usage("write s3://BUCKET/PREFIX, with --endpoint and --region as needed, or file:///DIRECTORY", "vault address is not valid")
	}
	if u.User != nil {
		return "", exit.Usage("set DAVIT_ACCESS_KEY and DAVIT_SECRET_KEY instead", "credentials do not belong into the vault's address")
	}
	query := u.Query()
	for name, value := range map[string]string{"endpoint": a.Endpoint, "region": a.region} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if a.pathStyleSet {
		query.Set("pathStyle", fmt.Sprint(a.pathStyle))
	}
	if u.Scheme == "file" && len(query) > 0 {
		return "", exit.Usage("", "a directory has no endpoint, region or path style")
	}
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// Opener opens vaults.
type Opener struct {
	// Cluster opens the cluster whose Vault objects are read.
	Cluster func() (client.Client, error)
	// Store opens a vault's store.
	Store  func(ctx context.Context, cfg backend.Config) (vault.Store, error)
	Getenv func(name string) string
	// Vault is the name of the Vault object; empty means the only one.
	Vault string
}

// Opened is a project of a vault, and this site.
type Opened struct {
	Project    *vault.Project
	VaultName  string // "" when opened by address
	Domain     string // the vault's failure domain
	Site       string // "" when the cluster is not asked or does not know
	ClusterID  string // the cluster that bears the site's name; "" likewise
	SiteDomain string // the site's failure domain
	// Delay is how long deleted points stay; zero when opened by address.
	Delay time.Duration
}

// Protector is the use case of single points at this site.
func (o *Opened) Protector(now func() time.Time) *protection.Protector {
	site := o.Site
	if site == "" {
		site = "cli"
	}
	return protection.New(protection.Options{
		Project: o.Project, Site: site, ClusterID: o.ClusterID, VaultDomain: o.Domain, SiteDomain: o.SiteDomain, DeletionDelay: o.Delay, Now: now,
	})
}

// Open opens the project by address if one is given, else as the cluster's
// Vault object says. c may be nil with an address.
func (e *Opener) Open(ctx context.Context, c client.Client, a *Address, flags *pflag.FlagSet) (*Opened, error) {
	if a != nil && a.URL != "" {
		return e.OpenByAddress(ctx, a, flags)
	}
	if c == nil {
		var err error
		if c, err = e.Cluster(); err != nil {
			return nil, err
		}
	}
	return e.OpenHere(ctx, c, e.Vault)
}

// OpenByAddress opens the project with the recovery key.
func (e *Opener) OpenByAddress(ctx context.Context, a *Address, flags *pflag.FlagSet) (*Opened, error) {
	if a.RecoveryKey == "" {
		return nil, exit.Usage("give --recovery-key-file", "--vault-url needs the recovery key")
	}
	cfg, err := e.Config(a, flags)
	if err != nil {
		return nil, err
	}
	identity, err := ReadIdentity(a.RecoveryKey)
	if err != nil {
		return nil, err
	}
	store, err := e.Store(ctx, cfg)
	if err != nil {
		return nil, err
	}
	project, err := vault.OpenProject(ctx, store, a.Project, identity)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, exit.Refuse("check bucket, prefix and --project", "%v", err)
	}
	if err != nil {
		return nil, err
	}
	return &Opened{Project: project}, nil
}

// OpenHere opens the project as this site does.
func (e *Opener) OpenHere(ctx context.Context, c client.Client, name string) (*Opened, error) {
	v, err := ChooseVault(ctx, c, name)
	if err != nil {
		return nil, err
	}
	cfg, data, err := StoreConfig(ctx, c, v)
	if err != nil {
		return nil, err
	}
	keyring, err := vault.ParseKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", v.Name, err)
	}
	store, err := e.Store(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", v.Name, err)
	}
	project, err := keyring.Open(ctx, store)
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", v.Name, err)
	}
	o := &Opened{Project: project, VaultName: v.Name, Domain: v.Spec.FailureDomain, Delay: vaults.DeletionDelay(v)}
	if site, err := LocalSite(ctx, c); err == nil {
		o.Site, o.SiteDomain = site.Name, site.Spec.FailureDomain
	}
	if id, err := ClusterID(ctx, c); err == nil { // what needs it asks again, and says why it cannot be had
		o.ClusterID = id
	}
	return o, nil
}

// ClusterID returns which cluster this is; see lease.Identity. Whoever may not
// look at kube-system is told by the agent, through the Site object.
func ClusterID(ctx context.Context, c client.Client) (string, error) {
	var ns corev1.Namespace
	err := c.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &ns)
	if err == nil {
		return string(ns.UID), nil
	}
	if apierrors.IsForbidden(err) {
		if site, siteErr := LocalSite(ctx, c); siteErr == nil && site.Status.ClusterID != "" {
			return site.Status.ClusterID, nil
		}
	}
	return "", exit.Hint(fmt.Errorf("read which cluster this is: %w", err), "it takes the right to get the namespace kube-system, or an agent that runs")
}

// StoreConfig reads a Vault's way in from its Secret.
func StoreConfig(ctx context.Context, c client.Client, v *v1alpha1.Vault) (backend.Config, map[string][]byte, error) {
	var secret corev1.Secret
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: v.Spec.SecretName}
	if err := c.Get(ctx, key, &secret); err != nil {
		return backend.Config{}, nil, exit.Hint(fmt.Errorf("read the credentials of vault %s: %w", v.Name, err),
			"without rights to them, give --vault-url and --recovery-key-file; without them, `vault add --join --replace`")
	}
	return vaults.Config(v, secret.Data), secret.Data, nil
}

// ReadIdentity reads a recovery key from its file.
func ReadIdentity(path string) (vault.Identity, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return vault.Identity{}, exit.AsUsage(fmt.Errorf("read recovery key: %w", err))
	}
	identity, err := vault.ParseIdentity(string(text))
	if err != nil {
		return vault.Identity{}, exit.Refuse("use the file that `vault add` wrote at the first site", "read %s: %v", path, err)
	}
	return identity, nil
}

// ChooseVault returns the Vault that --vault or the caller names, or the only
// one there is beside second copies.
func ChooseVault(ctx context.Context, c client.Client, name string) (*v1alpha1.Vault, error) {
	var all v1alpha1.VaultList
	if err := c.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list vaults: %w", err)
	}
	var names []string
	var own []*v1alpha1.Vault
	for i := range all.Items {
		if all.Items[i].Name == name {
			return &all.Items[i], nil
		}
		if all.Items[i].Spec.CopyOf == "" {
			own = append(own, &all.Items[i])
		}
		names = append(names, all.Items[i].Name)
	}
	switch {
	case name == "" && len(own) == 1:
		return own[0], nil
	case len(names) == 0:
		return nil, exit.Refuse("`vault add NAME URL` adds one", "this site has no vault")
	case name == "":
		return nil, exit.Usage("choose one with --vault", "this site has several vaults: %s", strings.Join(names, ", "))
	default:
		return nil, exit.Refuse("`vault add` adds one", "there is no vault %q here; known: %s", name, strings.Join(names, ", "))
	}
}

// LocalSite returns the Site object of the cluster itself.
func LocalSite(ctx context.Context, c client.Client) (*v1alpha1.Site, error) {
	var all v1alpha1.SiteList
	if err := c.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list sites: %w", err)
	}
	for i := range all.Items {
		if all.Items[i].Labels[install.LocalLabel] == "true" || all.Items[i].Status.Local {
			return &all.Items[i], nil
		}
	}
	return nil, exit.Refuse("`install --site NAME` first", "this cluster does not know which site it is")
}
