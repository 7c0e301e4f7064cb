package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
)

// Keys of a vault's Secret beside those of vault.Keyring.
const (
	secretAccessKey    = "accessKey"
	secretSecretKey    = "secretKey"
	secretSessionToken = "sessionToken"
)

// address is how a vault is named on the command line. Secrets come from files
// and the environment, never from arguments, which everyone on a machine sees.
type address struct {
	url           string
	project       string
	endpoint      string
	region        string
	pathStyle     bool
	accessKey     string
	secretKeyFile string
	caFile        string
	recoveryKey   string // file

	pathStyleSet bool
}

func (a *address) flags(flags *pflag.FlagSet) {
	flags.StringVar(&a.project, "project", "default", "project within the vault")
	flags.StringVar(&a.endpoint, "endpoint", "", "S3 endpoint, such as https://s3.example.com:9000")
	flags.StringVar(&a.region, "region", "", "S3 region")
	flags.BoolVar(&a.pathStyle, "path-style", false, "address the bucket in the path, not the host name (default: true with an endpoint)")
	flags.StringVar(&a.accessKey, "access-key", "", "access key id (default: $DAVIT_ACCESS_KEY, then $AWS_ACCESS_KEY_ID)")
	flags.StringVar(&a.secretKeyFile, "secret-key-file", "", "file with the secret access key (default: $DAVIT_SECRET_KEY, then $AWS_SECRET_ACCESS_KEY)")
	flags.StringVar(&a.caFile, "ca-file", "", "PEM file with the certificates that vouch for the endpoint")
	flags.StringVar(&a.recoveryKey, "recovery-key-file", "", "file with the project's recovery key")
}

// breakGlass adds the flags of commands that can do without a Vault object.
func (a *address) breakGlass(flags *pflag.FlagSet) {
	flags.StringVar(&a.url, "vault-url", "", "open the vault by address, without asking the cluster; needs --recovery-key-file")
	a.flags(flags)
}

// config merges address, flags, files and environment.
func (e *env) config(a *address, flags *pflag.FlagSet) (backend.Config, error) {
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
			return cfg, asUsage(fmt.Errorf("read secret key: %w", err))
		}
		cfg.SecretKey, cfg.SessionToken = strings.TrimSpace(string(text)), ""
	}
	if a.caFile != "" {
		if cfg.CA, err = os.ReadFile(a.caFile); err != nil {
			return cfg, asUsage(fmt.Errorf("read CA certificates: %w", err))
		}
	}
	if strings.HasPrefix(full, "s3:") && (cfg.AccessKey == "" || cfg.SecretKey == "") {
		return cfg, usageError("set DAVIT_ACCESS_KEY and DAVIT_SECRET_KEY, or give --access-key and --secret-key-file", "the vault's credentials are missing")
	}
	return cfg, nil
}

func (e *env) firstEnv(names ...string) string {
	for _, name := range names {
		if value := e.getenv(name); value != "" {
			return value
		}
	}
	return ""
}

// fullURL puts the flags into the address.
func (a *address) fullURL() (string, error) {
	u, err := url.Parse(a.url)
	if err != nil || u.Scheme != "s3" && u.Scheme != "file" || u.Scheme == "s3" && u.Host == "" || u.Scheme == "file" && !strings.HasPrefix(a.url, "file:///") {
		return "", usageError("write s3://BUCKET/PREFIX, with --endpoint and --region as needed, or file:///DIRECTORY", "vault address is not valid")
	}
	if u.User != nil {
		return "", usageError("set DAVIT_ACCESS_KEY and DAVIT_SECRET_KEY instead", "credentials do not belong into the vault's address")
	}
	query := u.Query()
	for name, value := range map[string]string{"endpoint": a.endpoint, "region": a.region} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if a.pathStyleSet {
		query.Set("pathStyle", fmt.Sprint(a.pathStyle))
	}
	if u.Scheme == "file" && len(query) > 0 {
		return "", usageError("", "a directory has no endpoint, region or path style")
	}
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// opened is a project of a vault, and this site.
type opened struct {
	project   *vault.Project
	vaultName string // "" when opened by address
	domain    string // the vault's failure domain
	site      string // "" when the cluster is not asked or does not know
	siteFate  string // the site's failure domain
}

// protector is the use case of single points at this site.
func (o *opened) protector(e *env) *protection.Protector {
	site := o.site
	if site == "" {
		site = "cli"
	}
	return protection.New(protection.Options{
		Project: o.project, Site: site, VaultDomain: o.domain, SiteDomain: o.siteFate, Now: e.now, Logger: silent(),
	})
}

// open opens the project by address if one is given, else as the cluster's
// Vault object says. c may be nil with an address.
func (e *env) open(ctx context.Context, c Cluster, a *address, flags *pflag.FlagSet) (*opened, error) {
	if a != nil && a.url != "" {
		return e.openByAddress(ctx, a, flags)
	}
	if c == nil {
		var err error
		if c, err = e.cluster(); err != nil {
			return nil, err
		}
	}
	return e.openHere(ctx, c, e.global.vault)
}

func (e *env) openByAddress(ctx context.Context, a *address, flags *pflag.FlagSet) (*opened, error) {
	if a.recoveryKey == "" {
		return nil, usageError("give --recovery-key-file", "--vault-url needs the recovery key")
	}
	cfg, err := e.config(a, flags)
	if err != nil {
		return nil, err
	}
	identity, err := readIdentity(a.recoveryKey)
	if err != nil {
		return nil, err
	}
	store, err := e.backend.Store(ctx, cfg)
	if err != nil {
		return nil, err
	}
	project, err := vault.OpenProject(ctx, store, a.project, identity)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, refuse("check bucket, prefix and --project", "%v", err)
	}
	if err != nil {
		return nil, err
	}
	return &opened{project: project}, nil
}

// openHere opens the project as this site does.
func (e *env) openHere(ctx context.Context, c client.Client, name string) (*opened, error) {
	v, err := e.chooseVault(ctx, c, name)
	if err != nil {
		return nil, err
	}
	cfg, data, err := storeConfig(ctx, c, v)
	if err != nil {
		return nil, err
	}
	keyring, err := vault.ParseKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", v.Name, err)
	}
	store, err := e.backend.Store(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", v.Name, err)
	}
	project, err := keyring.Open(ctx, store)
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", v.Name, err)
	}
	o := &opened{project: project, vaultName: v.Name, domain: v.Spec.FailureDomain}
	if site, err := localSite(ctx, c); err == nil {
		o.site, o.siteFate = site.Name, site.Spec.FailureDomain
	}
	return o, nil
}

// storeConfig reads a Vault's way in from its Secret.
func storeConfig(ctx context.Context, c client.Client, v *v1alpha1.Vault) (backend.Config, map[string][]byte, error) {
	var secret corev1.Secret
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: v.Spec.SecretName}
	if err := c.Get(ctx, key, &secret); err != nil {
		return backend.Config{}, nil, hinted(fmt.Errorf("read the credentials of vault %s: %w", v.Name, err),
			"without rights to them, give --vault-url and --recovery-key-file; without them, `vault add --join --replace`")
	}
	return backend.Config{
		URL: v.Spec.URL, CA: []byte(v.Spec.CABundle),
		AccessKey:    string(secret.Data[secretAccessKey]),
		SecretKey:    string(secret.Data[secretSecretKey]),
		SessionToken: string(secret.Data[secretSessionToken]),
	}, secret.Data, nil
}

func readIdentity(path string) (vault.Identity, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return vault.Identity{}, asUsage(fmt.Errorf("read recovery key: %w", err))
	}
	identity, err := vault.ParseIdentity(string(text))
	if err != nil {
		return vault.Identity{}, refuse("use the file that `vault add` wrote at the first site", "read %s: %v", path, err)
	}
	return identity, nil
}
