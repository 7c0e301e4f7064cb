package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/internal/cli/admission"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/console"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
)

// installedName is what the key of an installed console is called in its vault.
const installedName = "console in Kubernetes"

type installation struct {
	setup
	install.ConsoleOptions
	console      string
	dryRun, wait bool
}

// Install makes `install console`.
func Install(h Host) *cobra.Command {
	var o installation
	cmd := &cobra.Command{
		Use:   "console",
		Short: "Put a console into a cluster, or upgrade it",
		Long: `Puts a console into the cluster, in namespace davit-console: a Deployment of two, of which one is active, a Service that leads to that
one, a NetworkPolicy, and a Secret with the way to the console's vault. Its pods keep nothing: each begins by joining the console that
the vault has, and needs no right in the cluster. Whatever is lost of them comes back from the vault by itself.

If the vault has a console, that is installed, beside where it is served already; --console chooses among several. If it has none, one
is made, as "davit console init" does, with --admin and --password-file; the password does not get into the cluster, nor does
the recovery key: the pods get a key of their own, which "davit vault keys remove" shuts out.

Given again, it upgrades. Without --vault-url what the cluster has of the vault stays as it is, and without --service the Service's type.`,
		Example: `  davit install console --vault-url s3://backups/davit --endpoint https://s3.example.com --join --recovery-key-file ./davit-recovery.key \
    --admin anna --password-file ./first-password --service LoadBalancer --url https://console.example.com:8443
  davit install console --image registry.example.com/davit:v2 --service LoadBalancer --url https://console.example.com:8443   # upgrades`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return h.install(cmd, &o) },
	}
	flags := cmd.Flags()
	o.BreakGlass(flags)
	flags.Lookup("vault-url").Usage = "address of the console's vault; needs --recovery-key-file"
	flags.StringVar(&o.admin, "admin", "", "name of the administrator, where the vault has no console yet")
	flags.StringVar(&o.passwordFile, "password-file", "", "file with his password, at least 12 characters; - is standard input")
	flags.BoolVar(&o.join, "join", false, "the project exists in the vault: open it with the recovery key")
	flags.StringVar(&o.console, "console", "", "id of the console, where the vault keeps several")
	flags.StringVar(&o.Image, "image", "", "container image of Davit (default: "+install.DefaultImage+")")
	flags.StringVar(&o.Registry, "registry", "", "take the image from this registry instead")
	flags.StringVar(&o.ImagePullPolicy, "image-pull-policy", "", "Always, IfNotPresent or Never")
	flags.StringSliceVar(&o.ImagePullSecrets, "image-pull-secret", nil, "name of a Secret in davit-console for the registry")
	flags.Int32Var(&o.Replicas, "replicas", 2, "consoles, of which one is active")
	flags.StringVar(&o.ServiceType, "service", "", "type of the Service: ClusterIP, NodePort or LoadBalancer (default: that of the Service there, else ClusterIP)")
	flags.StringVar(&o.URL, "url", "", "where people and agents find the console, https://NAME:PORT; for NodePort with the nodes' port")
	flags.StringSliceVar(&o.Names, "name", nil, "more names and addresses for the console's own certificate")
	flags.StringVar(&o.TLSSecret, "tls-secret", "", "Secret in davit-console with a certificate to use instead (tls.crt, tls.key)")
	flags.StringVar(&o.OIDCSecret, "oidc-secret", "", "Secret in davit-console with oidc.yaml and what that names, found in /etc/davit/oidc")
	flags.Int32SliceVar(&o.EgressPorts, "egress-port", nil, "TCP port to which the console may go, besides its vault's and 443")
	flags.BoolVar(&o.wait, "wait", true, "wait until one of the consoles is active")
	flags.BoolVar(&o.dryRun, "dry-run", false, "print what would be applied, without the Secret; with -o yaml for kubectl or git")
	return cmd
}

func (h Host) install(cmd *cobra.Command, o *installation) error {
	o.NoWait, o.Timeout = !o.wait, h.Timeout()
	if o.setup.URL != "" {
		cfg, err := h.Opener().Config(&o.setup.Address, cmd.Flags())
		if err != nil {
			return err
		}
		if strings.HasPrefix(cfg.URL, "file:") {
			return exit.Usage("write s3://BUCKET/PREFIX", "the console's pods cannot see a vault in a directory")
		}
		o.VaultURL = cfg.URL
	}
	objects, err := install.RenderConsole(o.ConsoleOptions)
	if err != nil {
		return exit.AsUsage(err)
	}
	if o.dryRun {
		h.Progress().Note("The Secret %s and the ConfigMap %s are not shown: installing makes them.", install.ConsoleSecret, install.ConsoleAuthority)
		return h.Print(view.Rendered(objects))
	}
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	c, err := h.Cluster()
	if err != nil {
		return err
	}
	if err := keepService(ctx, c, &o.ConsoleOptions); err != nil {
		return err
	}
	if err := h.way(ctx, cmd, c, o); err != nil {
		return err
	}
	if err := c.InstallConsole(ctx, o.ConsoleOptions, func(step string) { h.Progress().Step("%s", step) }); err != nil {
		return exit.Hint(err, "give the same command again, with --join if it made the project: it goes on from here")
	}
	return h.Print(Put{Namespace: install.ConsoleNamespace, URL: o.ConsoleOptions.Address(), Consoles: o.Replicas, Active: o.wait, KeyFile: o.made()})
}

// keepService leaves the type of an installed Service as it is where none is asked for:
// an upgrade that says nothing of it would end the way in from outside.
func keepService(ctx context.Context, c client.Reader, o *install.ConsoleOptions) error {
	if o.ServiceType != "" {
		return nil
	}
	var there corev1.Service
	err := c.Get(ctx, client.ObjectKey{Namespace: install.ConsoleNamespace, Name: install.ConsoleName}, &there)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the console's Service: %w", err)
	}
	o.ServiceType = string(there.Spec.Type)
	_, err = install.RenderConsole(*o)
	return exit.AsUsage(err) // it may need --url
}

// made names the recovery key's file if it was made here.
func (o *installation) made() string {
	if o.Way == nil {
		return ""
	}
	return keyFile(&o.setup)
}

// way finds what the pods need to come by the console's state: in the cluster, or
// by the vault and the recovery key.
func (h Host) way(ctx context.Context, cmd *cobra.Command, c wiring.Cluster, o *installation) error {
	var there corev1.Secret
	err := c.Get(ctx, client.ObjectKey{Namespace: install.ConsoleNamespace, Name: install.ConsoleSecret}, &there)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("look for an earlier install: %w", err)
	}
	switch {
	case o.setup.URL == "" && err != nil:
		return exit.Usage("give --vault-url and --recovery-key-file; with --admin and --password-file where the vault has no console", "this cluster has no console yet, and --vault-url is missing")
	case o.setup.URL == "":
		o.VaultURL = string(there.Data[install.ConsoleURLKey])
		return nil
	case o.RecoveryKey == "":
		return exit.Usage("it was written when the project was made; without --join it is written now", "--recovery-key-file is missing")
	}
	cfg, err := h.Opener().Config(&o.setup.Address, cmd.Flags())
	if err != nil {
		return err
	}
	home, key, p, err := h.home(ctx, o, cfg)
	if err != nil {
		return err
	}
	a, err := authority.Read(ctx, p, key)
	if err != nil {
		return err
	}
	o.Way = &install.ConsoleWay{Authority: a.Roots(), Secret: map[string][]byte{
		install.ConsoleURLKey: []byte(cfg.URL), install.ConsoleIDKey: []byte(home), install.ConsoleVaultCAKey: cfg.CA,
		install.ConsoleAccessKey: []byte(cfg.AccessKey), install.ConsoleSecretKey: []byte(cfg.SecretKey), install.ConsoleSessionKey: []byte(cfg.SessionToken),
	}}
	id := there.Data[install.ConsoleIdentityKey]
	opens, err := admitted(ctx, p, string(id))
	if err != nil {
		return err
	}
	if opens {
		o.Way.Secret[install.ConsoleIdentityKey] = id
		return nil
	}
	h.Progress().Step("letting the pods in")
	heir, err := console.Heir(ctx, p, a, installedName, h.Now())
	if err != nil {
		return err
	}
	o.Way.Secret[install.ConsoleIdentityKey] = []byte(heir.Secret() + "\n")
	return nil
}

// admitted tells whether a key opens what the pods need of a project. One that was shut
// out does not, nor does one of another vault.
func admitted(ctx context.Context, p *vault.Project, text string) (bool, error) {
	key, err := vault.ParseIdentity(text)
	if err != nil {
		return false, nil // there is none
	}
	p, err = vault.OpenProject(ctx, p.Store(), p.Name(), key)
	if err == nil {
		_, err = authority.Read(ctx, p, key)
	}
	if errors.Is(err, vault.ErrKey) {
		return false, nil
	}
	return err == nil, err
}

// home finds the console in the vault, or makes it there.
func (h Host) home(ctx context.Context, o *installation, cfg backend.Config) (id string, key vault.Identity, p *vault.Project, err error) {
	request := &admission.Request{Project: o.Project, RecoveryKey: o.RecoveryKey, Join: o.join}
	if key, err = request.PrepareKey(); err != nil {
		return "", key, nil, err
	}
	s, err := h.Opener().Store(ctx, cfg)
	if err != nil {
		return "", key, nil, err
	}
	h.Progress().Step("looking for a console in the vault")
	all, err := backup.Homes(ctx, s)
	if err != nil {
		return "", key, nil, err
	}
	var fit []backup.Home
	for _, one := range all {
		if o.join && (o.console == "" || one.Console == o.console) {
			fit = append(fit, one)
		}
	}
	switch {
	case len(fit) > 1:
		text := ""
		for _, one := range fit {
			text += fmt.Sprintf(" %s (project %s)", one.Console, one.Project)
		}
		return "", key, nil, exit.Refuse("name one with --console ID", "the vault keeps several consoles:%s", text)
	case len(fit) == 0 && o.console != "":
		return "", key, nil, exit.Refuse("leave --console out to have one made", "the vault has no console %s", o.console)
	case len(fit) == 0:
		id, p, err = h.seed(ctx, o, cfg, s, key)
		return id, key, p, err
	}
	p, err = vault.OpenProject(ctx, s, fit[0].Project, key)
	if errors.Is(err, vault.ErrKey) {
		err = exit.Refuse("give the recovery key of that project", "the vault's console is at home in project %s: %v", fit[0].Project, err)
	}
	return fit[0].Console, key, p, err
}

// seed makes a console here, for as long as it takes to be in the vault.
func (h Host) seed(ctx context.Context, o *installation, cfg backend.Config, s vault.Store, key vault.Identity) (id string, p *vault.Project, err error) {
	if err := store.CheckUserName(o.admin); err != nil || o.passwordFile == "" {
		return "", nil, exit.Usage("give --admin and --password-file", "the vault has no console that could be installed, and for a new one the administrator is missing")
	}
	password, err := h.password(o.admin, o.passwordFile)
	if err != nil {
		return "", nil, err
	}
	if o.dir, err = os.MkdirTemp("", "davit-console-"); err != nil {
		return "", nil, fmt.Errorf("make console: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	c, admin, err := h.ready(ctx, &o.setup, password)
	if err != nil {
		return "", nil, err
	}
	h.Progress().Step("making a console in project %s", o.Project)
	a, p, err := h.sown(ctx, o, c, console.Bind{Config: cfg, Store: s, Recovery: key, Admin: admin, Machine: installedName, Act: h.act()})
	id = c.ID()
	if err = errors.Join(err, c.Close()); err != nil {
		return "", nil, err
	}
	h.Progress().Step("putting it into the vault")
	err = console.Seed(ctx, console.Options{
		Dir: o.dir, Listen: "127.0.0.1:0", URL: o.ConsoleOptions.Address(), Every: time.Minute, Backup: time.Hour, Store: h.Opener().Store, Cost: h.cost(), Now: h.Now,
		Log: slog.New(slog.DiscardHandler), Ready: func(string) {},
	}, p, a, id)
	return id, p, exit.Hint(err, "give the same command again, with --join: the project is in the vault")
}

func (h Host) sown(ctx context.Context, o *installation, c *store.Console, b console.Bind) (*authority.Authority, *vault.Project, error) {
	p, err := h.project(ctx, &o.setup, b.Store, b.Recovery)
	if err != nil {
		return nil, nil, err
	}
	b.Project = p
	a, err := console.AddProject(ctx, c, b)
	return a, p, err
}

// Put is what `install console` did.
type Put struct {
	Namespace string `json:"namespace"`
	URL       string `json:"url"`
	Consoles  int32  `json:"consoles"`
	Active    bool   `json:"active"`
	KeyFile   string `json:"recoveryKeyFile,omitempty"`
}

// Document implements output.Result.
func (p Put) Document() any { return p }

// Text implements output.Result.
func (p Put) Text(t *output.Text) {
	state := "applied"
	if p.Active {
		state = "active"
	}
	t.Line("The console is %s in namespace %s, at %s.", state, p.Namespace, p.URL)
	if p.KeyFile != "" {
		t.Line("The recovery key of the project is in %s and nowhere else: keep it outside of all sites, and not in the vault.", p.KeyFile)
	}
	t.Line("What vouches for it: kubectl -n %s get configmap %s -o jsonpath='{.data.ca\\.pem}' > ca.pem", p.Namespace, install.ConsoleAuthority)
	t.Line("Next: davit login --console %s --ca-file ca.pem --user NAME", p.URL)
}

// Uninstall makes `uninstall console`.
func Uninstall(h Host) *cobra.Command {
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "console",
		Short: "Take a console out of a cluster; what the vault has of it stays",
		Long: `Removes the namespace davit-console. The console itself is in its vault: "davit install console" or "davit console join" goes on with it,
also elsewhere. Sites protect and recover meanwhile as before. The key of its pods stays in the vault until "davit vault keys remove" shuts it out.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return h.uninstall(cmd, yes, dryRun) },
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be removed")
	return cmd
}

func (h Host) uninstall(cmd *cobra.Command, yes, dryRun bool) error {
	if dryRun {
		objects, err := install.ConsoleObjects()
		if err != nil {
			return err
		}
		return h.Print(view.Rendered(objects))
	}
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	c, err := h.Cluster()
	if err != nil {
		return err
	}
	var there corev1.Secret
	err = c.Get(ctx, client.ObjectKey{Namespace: install.ConsoleNamespace, Name: install.ConsoleSecret}, &there)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("look for the console: %w", err)
	}
	if !yes {
		h.Progress().Note("This ends the console in this cluster. What its vault has of it stays.")
		if err := h.Ask(install.ConsoleNamespace, "the console's namespace"); err != nil {
			return err
		}
	}
	if err := c.UninstallConsole(ctx, install.ConsoleOptions{Timeout: h.Timeout()}, func(step string) { h.Progress().Step("%s", step) }); err != nil {
		return err
	}
	text := "The console is removed from this cluster. What its vault has of it stays there."
	if key, err := vault.ParseIdentity(string(there.Data[install.ConsoleIdentityKey])); err == nil {
		text += " The key of its pods still opens the vault: `davit vault keys remove " + key.Recipient().String() + "` shuts it out."
	}
	return h.Print(view.Done(text))
}
