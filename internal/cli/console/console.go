// Package console is the command line's `console`: it makes a console, serves
// it, and lets its people in again. It works on the console's own directory.
package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/admission"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/console"
	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/sso"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/console/store/directory"
	"davit.dev/davit/internal/vault"
)

// Host is what the command line gives its commands.
type Host struct {
	In      io.Reader
	Err     io.Writer
	Print   func(output.Result) error
	Now     func() time.Time
	Bounded func(*cobra.Command) (context.Context, context.CancelFunc)
	Opener  func() *access.Opener
	// Progress is where what is being done is said.
	Progress func() *output.Progress
	// Cluster is where consoles are installed, Ask has a person type a word, and
	// Timeout is what the command was given: of `install console` and its counterpart.
	Cluster func() (wiring.Cluster, error)
	Ask     func(word, what string) error
	Timeout func() time.Duration
	// Cost is what it costs to try a password; zero is account.Usual.
	Cost account.Cost
}

func (h Host) cost() account.Cost {
	if h.Cost == (account.Cost{}) {
		return account.Usual
	}
	return h.Cost
}

// act is an act of whoever has the console's files.
func (h Host) act() audit.Act {
	user := os.Getenv("USER")
	if user == "" {
		user = fmt.Sprintf("uid-%d", os.Getuid())
	}
	return audit.Act{By: "machine/" + user, At: h.Now()}
}

// Command makes `console`.
func Command(h Host) *cobra.Command {
	o := console.Options{}
	provider := ""
	cmd := &cobra.Command{
		Use:   "console",
		Short: "Serve the console: the fleet in a browser, as the vaults have it",
		Long: `Serves the console in a directory that "davit console init" made: web pages and an API, over TLS, until it is stopped. It needs
no cluster, and nothing needs it: sites protect and recover without it. What it shows is read from the vaults alone.

Several may serve one console, each in a directory of its own: "davit console join" makes the next. One is active; the others follow it and
send people there, and one takes over when it is silent for 9s. What is changed is answered once it is in the vault. --url is where people find
this one; /healthz/active answers 200 on the active one alone.

Its certificate comes from the first project's authority, which DIR/ca.pem vouches for, unless --tls-cert and --tls-key name
another. --name says by which names and addresses people call it.`,
		Example: `  davit console init --data /var/lib/davit-console --vault-url s3://backups/davit --endpoint https://s3.example.com \
    --recovery-key-file ./davit-recovery.key --join --admin anna --password-file ./first-password
  davit console --data /var/lib/davit-console --listen :8443 --name console.example.com`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if provider != "" {
				if o.SSO, err = sso.Load(provider); err != nil {
					return exit.AsUsage(err)
				}
			}
			return h.serve(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&provider, "oidc-config", "", "YAML file that says how people log in by an OpenID Connect provider")
	flags.StringVar(&o.Dir, "data", "", "the console's directory")
	flags.StringVar(&o.Listen, "listen", "127.0.0.1:8443", "address to serve on")
	flags.StringSliceVar(&o.Names, "name", nil, "names and addresses for the console's own certificate (default: this machine's)")
	flags.StringVar(&o.URL, "url", "", "where people find this console who come to one that is passive, and agents that read in the vault which is active (default: its first name and port)")
	flags.StringVar(&o.Certificate, "tls-cert", "", "PEM file with a certificate to use instead")
	flags.StringVar(&o.Key, "tls-key", "", "PEM file with its key")
	flags.DurationVar(&o.Every, "refresh", 15*time.Second, "how long to wait between two looks at a vault, at least 1s")
	flags.DurationVar(&o.Backup, "backup-every", time.Hour, "how often each of the console's databases is kept in its vault, at least 1m; 0 is never")
	cmd.AddCommand(initCommand(h), passwordCommand(h), restoreCommand(h), joinCommand(h), enrolCommand(h), authorityCommand(h))
	return cmd
}

// exactly checks how many arguments there are.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) != n {
			return exit.Usage("`"+strings.TrimPrefix(cmd.CommandPath(), "davit ")+" --help` shows how", "%s takes %d arguments, but was given %q", cmd.Name(), n, given)
		}
		return nil
	}
}

func (h Host) serve(ctx context.Context, o console.Options) (err error) {
	switch {
	case o.Dir == "":
		return exit.Usage("name the directory that `console init` made", "--data is missing")
	case (o.Certificate == "") != (o.Key == ""):
		return exit.Usage("", "--tls-cert and --tls-key go together")
	case o.Backup != 0 && o.Backup < time.Minute:
		return exit.Usage("", "--backup-every %s is not possible: at least 1m, or 0 for never", o.Backup)
	case o.Every < time.Second:
		return exit.Usage("", "--refresh %s is not possible: at least 1s", o.Every)
	}
	log := slog.New(slog.NewTextHandler(h.Err, nil))
	if o.URL, err = console.URL(o.URL, o.Listen, o.Names); err != nil {
		return exit.Usage("write https://NAME:PORT", "--url: %v", err)
	}
	o.Names = console.Names(o.Listen, o.Names)
	o.Store, o.Cost, o.Now, o.Log = h.Opener().Store, h.cost(), h.Now, log
	o.Ready = func(address string) { log.Info("the console is served", "url", "https://"+address) }
	err = explain(console.Serve(ctx, o), o.Dir)
	if ctx.Err() != nil && err == nil {
		return exit.Quietly(exit.OK) // a signal ends it as it should
	}
	return err
}

// explain adds what to do.
func explain(err error, dir string) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return exit.Refuse("`console init --data "+dir+"` makes one", "%v", err)
	case errors.Is(err, store.ErrDamaged):
		return exit.Refuse("stop the console; `console restore --data "+dir+" --project NAME --replace`, with that project's vault and recovery key, brings one project back, without --project all", "%v", err)
	case errors.Is(err, console.ErrBusy), errors.Is(err, store.ErrRefused), errors.Is(err, store.ErrNewer), errors.Is(err, account.ErrPassword):
		return exit.Refuse("", "%v", err)
	}
	return err
}

type setup struct {
	access.Address
	dir, admin, passwordFile string
	join                     bool
}

func initCommand(h Host) *cobra.Command {
	var o setup
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a console, or give one another project",
		Long: `Makes a console in a directory, with a project of a vault and an administrator, who is admin of the project. The console gets a
key of its own to the project, and the project a certificate authority in the vault, unless it has one; the recovery key is not kept.
Given again for a directory that holds a console, it adds another project; --admin may then be a user there is.

Without --join the project is made anew in the vault, with a new recovery key that is written to --recovery-key-file.
Sites join such a project with "davit vault add --join".`,
		Example: `  davit console init --data /var/lib/davit-console --vault-url s3://backups/davit --endpoint https://s3.example.com \
    --recovery-key-file ./davit-recovery.key --join --admin anna --password-file ./first-password`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return h.init(cmd, &o) },
	}
	flags := cmd.Flags()
	o.BreakGlass(flags)
	flags.StringVar(&o.dir, "data", "", "the console's directory; made if it is not there")
	flags.StringVar(&o.admin, "admin", "", "name of the administrator")
	flags.StringVar(&o.passwordFile, "password-file", "", "file with a new user's password, at least 12 characters; - is standard input")
	flags.BoolVar(&o.join, "join", false, "the project exists in the vault: open it with the recovery key")
	return cmd
}

func (o *setup) check() error {
	switch {
	case o.dir == "":
		return exit.Usage("", "--data is missing")
	case o.URL == "":
		return exit.Usage("write s3://BUCKET/PREFIX or file:///DIRECTORY", "--vault-url is missing")
	case store.CheckUserName(o.admin) != nil:
		return exit.Usage("", "--admin: %v", store.CheckUserName(o.admin))
	}
	return nil
}

func (h Host) init(cmd *cobra.Command, o *setup) (err error) {
	ctx, cancel := h.Bounded(cmd)
	defer cancel()
	if err := errors.Join(o.check(), active(o.dir)); err != nil {
		return err
	}
	opener := h.Opener()
	cfg, err := opener.Config(&o.Address, cmd.Flags())
	if err != nil {
		return err
	}
	request := &admission.Request{Project: o.Project, RecoveryKey: o.RecoveryKey, Join: o.join}
	key, err := request.PrepareKey()
	if err != nil {
		return err
	}
	password := ""
	if o.passwordFile != "" {
		if password, err = h.password(o.admin, o.passwordFile); err != nil {
			return err
		}
	}
	vaultStore, err := opener.Store(ctx, cfg)
	if err != nil {
		return err
	}
	c, admin, err := h.ready(ctx, o, password)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	h.Progress().Step("opening project %s", o.Project)
	project, err := h.project(ctx, o, vaultStore, key)
	if err != nil && o.join && !exit.IsRefusal(err) {
		return exit.Hint(err, "give the same command again when that is mended: it goes on with what there is in "+o.dir)
	}
	if err != nil {
		return err
	}
	return h.add(ctx, c, o, console.Bind{Config: cfg, Store: vaultStore, Project: project, Recovery: key, Admin: admin})
}

// ready opens the console, or makes it, and the administrator's account.
func (h Host) ready(ctx context.Context, o *setup, password string) (*store.Console, store.User, error) {
	held, err := directory.Holds(o.dir)
	if err != nil {
		return nil, store.User{}, explain(err, o.dir)
	}
	if !held && password == "" {
		return nil, store.User{}, exit.Usage("", "--password-file is missing: the first administrator needs a password")
	}
	var c *store.Console
	if held {
		c, err = h.open(ctx, o.dir)
	} else {
		c, err = store.Create(ctx, o.dir)
	}
	if err != nil {
		return nil, store.User{}, explain(err, o.dir)
	}
	u, err := h.administrator(ctx, c, o, password)
	if err != nil {
		return nil, u, errors.Join(err, c.Close())
	}
	return c, u, nil
}

// administrator finds the project's admin among the users, or makes him. A console
// without projects is what a first attempt left that broke off: he is made again.
func (h Host) administrator(ctx context.Context, c *store.Console, o *setup, password string) (store.User, error) {
	all, err := c.Projects(ctx)
	if err != nil {
		return store.User{}, err
	}
	u, err := c.UserNamed(ctx, o.admin)
	switch {
	case err == nil && password != "" && len(all) == 0:
		err = console.ResetPassword(ctx, c, h.cost(), h.act(), o.admin, password)
	case err == nil && password != "":
		err = exit.Refuse("leave --password-file out; `console password` changes it", "the console has a user %s already", o.admin)
	case errors.Is(err, store.ErrNotFound) && password == "":
		err = exit.Usage("", "--password-file is missing: the console has no user %s", o.admin)
	case errors.Is(err, store.ErrNotFound):
		u, err = console.AddUser(ctx, c, h.cost(), h.act(), o.admin, password, true)
	}
	return u, err
}

// project opens the project, or makes it. A new recovery key is on disk before
// anything is sealed with it.
func (h Host) project(ctx context.Context, o *setup, s vault.Store, key vault.Identity) (*vault.Project, error) {
	if !o.join {
		if err := admission.WriteKey(o.RecoveryKey, o.Project, s.String(), key); err != nil {
			return nil, err
		}
		if _, err := vault.Init(ctx, s); err != nil {
			return nil, errors.Join(err, os.Remove(o.RecoveryKey))
		}
		p, err := vault.CreateProject(ctx, s, o.Project, key.Recipient())
		if errors.Is(err, vault.ErrExists) {
			return nil, errors.Join(os.Remove(o.RecoveryKey), exit.Refuse("give --join and the recovery key that was made with it", "the vault has a project %q already", o.Project))
		}
		return p, exit.Hint(err, "keep "+o.RecoveryKey+"; run the same command with --join to see whether the project came to be")
	}
	p, err := vault.OpenProject(ctx, s, o.Project, key)
	if errors.Is(err, vault.ErrNotFound) {
		return nil, exit.Refuse("check bucket, prefix and --project; without --join a new project is made", "open: %v", err)
	}
	if err == nil && p.IsCopy() {
		return nil, exit.Refuse("give the address of the first vault", "%s is a second copy of a vault", s)
	}
	return p, err
}

func (h Host) add(ctx context.Context, c *store.Console, o *setup, b console.Bind) error {
	machine, err := os.Hostname()
	if err != nil {
		machine = "unknown"
	}
	b.Machine, b.Act = machine, h.act()
	h.Progress().Step("letting the console in")
	a, err := console.AddProject(ctx, c, b)
	if errors.Is(err, store.ErrExists) {
		return exit.Refuse("", "the console in %s has project %s already", o.dir, o.Project)
	}
	if err != nil {
		return exit.Hint(err, "the same command with --join, and without --password-file, goes on from here")
	}
	m := Made{Dir: o.dir, Project: o.Project, Admin: o.admin, CAFile: console.CAFile(o.dir), Authority: a.Number, KeyFile: keyFile(o)}
	all, err := c.Projects(ctx)
	if err != nil {
		return err
	}
	// A console is not served before its first project. What was added later is in
	// the vault with its first backup.
	if len(all) > 1 && console.Sent(ctx, c) {
		h.Progress().Step("waiting for its first backup")
		m.InVault = console.Kept(ctx, c, b.Project, a)
	}
	return h.Print(m)
}

func keyFile(o *setup) string {
	if o.join {
		return ""
	}
	return o.RecoveryKey
}

// maxPassword bounds what is read for a password.
const maxPassword = 4096

func (h Host) password(name, file string) (string, error) {
	in := h.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", exit.AsUsage(fmt.Errorf("read password: %w", err))
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxPassword))
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	password := strings.TrimRight(string(text), "\r\n")
	if err := account.CheckPassword(name, password); err != nil {
		return "", exit.AsUsage(err)
	}
	return password, nil
}

func passwordCommand(h Host) *cobra.Command {
	var dir, file string
	cmd := &cobra.Command{
		Use:   "password USER",
		Short: "Give a user of the console a new password",
		Long: `Gives a user a new password, ends his sessions and asks him for one-time codes no more: the way back in for whoever has the
console's directory. It works while the console is served, and is in its audit log.`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, given []string) (err error) {
			ctx, cancel := h.Bounded(cmd)
			defer cancel()
			if dir == "" || file == "" {
				return exit.Usage("", "--data and --password-file are needed")
			}
			password, err := h.password(given[0], file)
			if err != nil {
				return err
			}
			c, err := h.open(ctx, dir)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.Close()) }()
			err = console.ResetPassword(ctx, c, h.cost(), h.act(), given[0], password)
			if errors.Is(err, store.ErrNotFound) {
				return exit.Refuse("", "the console has no user %s", given[0])
			}
			if err != nil {
				return err
			}
			return h.Print(Reset{User: given[0], InVault: console.Sent(ctx, c)})
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "the console's directory")
	cmd.Flags().StringVar(&file, "password-file", "", "file with the new password, at least 12 characters; - is standard input")
	return cmd
}

// Made is what `console init` did.
type Made struct {
	Dir       string `json:"data"`
	Project   string `json:"project"`
	Admin     string `json:"admin"`
	CAFile    string `json:"caFile"`
	Authority int64  `json:"authority"`
	KeyFile   string `json:"recoveryKeyFile,omitempty"`
	// InVault tells that the project has a backup: without one, what the console
	// holds of it is lost with the directory.
	InVault bool `json:"inVault"`
}

// Document implements output.Result.
func (m Made) Document() any { return m }

// Text implements output.Result.
func (m Made) Text(t *output.Text) {
	t.Line("The console in %s has project %s; its admin is %s.", m.Dir, m.Project, m.Admin)
	if m.KeyFile != "" {
		t.Line("The recovery key of the project is in %s and nowhere else: keep it outside of all sites, and not in the vault.", m.KeyFile)
	}
	if !m.InVault {
		t.Line("It is NOT YET IN THE VAULT: its first backup is made within seconds when the console is served. Until then it is lost with this directory.")
	}
	t.Line("Serve it with: davit console --data %s --listen :8443 --name NAME", m.Dir)
}

// Reset is what `console password` did.
type Reset struct {
	User    string `json:"user"`
	InVault bool   `json:"inVault"`
}

// Document implements output.Result.
func (r Reset) Document() any { return r }

// Text implements output.Result.
func (r Reset) Text(t *output.Text) {
	t.Line("%s has a new password; his sessions have ended, and no one-time code is asked for.", r.User)
	notYet(t, r.InVault)
}
