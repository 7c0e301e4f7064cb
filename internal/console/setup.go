package console

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
)

// ErrBusy says that another process serves the console.
var ErrBusy = errors.New("another process serves this console")

// lock makes this the only process that serves the console. It is let go with
// the process, however that ends.
func lock(dir string) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open console in %s: %w", dir, store.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("lock console: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock console: %w", ErrBusy), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// Bind is what makes a vault's project one of the console.
type Bind struct {
	Config   backend.Config
	Store    vault.Store
	Project  *vault.Project // opened with Recovery
	Recovery vault.Identity
	Machine  string // for people who look at the vault's keys
	Admin    store.User
	Act      audit.Act
}

// AddProject makes a vault's project one of the console's: the console gets a
// key of its own, the project's authority is made or let in, and the admin his
// role. Given again after it broke off, it begins anew; what the first attempt
// left in the vault is a key that nobody has.
func AddProject(ctx context.Context, c *store.Console, b Bind) (*authority.Authority, error) {
	a, err := authority.Ensure(ctx, b.Project, b.Recovery, b.Act.At)
	if err != nil {
		return nil, err
	}
	binding, err := admit(ctx, a, b)
	if err != nil {
		return nil, err
	}
	p, err := c.CreateProject(ctx, b.Act, b.Project.Name())
	if errors.Is(err, store.ErrExists) { // it may have broken off
		p, err = resume(ctx, c, b)
	}
	if err != nil {
		return nil, err
	}
	if err := p.SetMember(ctx, b.Act, store.Member{User: b.Admin.ID, Name: b.Admin.Name, Role: account.Admin}); err != nil {
		return nil, err
	}
	if err := p.KeepSecret(ctx, b.Act, authority.Secret, a); err != nil {
		return nil, err
	}
	return a, p.KeepSecret(ctx, b.Act, fleet.BindingSecret, binding) // last: from here on it is the console's
}

// resume takes up a project whose adding broke off.
func resume(ctx context.Context, c *store.Console, b Bind) (*store.Project, error) {
	p, err := c.Project(ctx, b.Project.Name())
	if err != nil {
		return nil, err
	}
	var there fleet.Binding
	if err := p.Secret(ctx, fleet.BindingSecret, &there); !errors.Is(err, store.ErrNotFound) {
		return nil, errors.Join(fmt.Errorf("add project %s: %w", b.Project.Name(), store.ErrExists), err)
	}
	return p, nil
}

// admit makes the console's own key and lets it into project and authority.
func admit(ctx context.Context, a *authority.Authority, b Bind) (fleet.Binding, error) {
	none := fleet.Binding{}
	marker, _, err := vault.Identify(ctx, b.Store)
	if err != nil {
		return none, err
	}
	identity, err := Heir(ctx, b.Project, a, b.Machine, b.Act.At)
	if err != nil {
		return none, err
	}
	ring := vault.Keyring{VaultID: marker.ID, Project: b.Project.Name(), KeyID: b.Project.NewestKey().KeyID, Identity: identity}
	return fleet.Binding{
		URL: b.Config.URL, AccessKey: b.Config.AccessKey, SecretKey: b.Config.SecretKey, SessionToken: b.Config.SessionToken, CA: b.Config.CA,
		Keyring: ring.Secret(),
	}, nil
}

// Heir makes a key with which a console that is lost comes back without the
// recovery key. It can be shut out like any other.
func Heir(ctx context.Context, p *vault.Project, a *authority.Authority, name string, now time.Time) (vault.Identity, error) {
	identity, err := vault.NewIdentity()
	if err != nil {
		return identity, err
	}
	r := identity.Recipient()
	if err := authority.Enroll(ctx, p, authority.Console{Name: name, Recipient: r.String(), Created: now.UTC().Truncate(time.Second)}); err != nil {
		return identity, err
	}
	if err := errors.Join(a.Admit(ctx, p, r), p.AddRecipient(ctx, r)); err != nil {
		return identity, fmt.Errorf("admit the console: %w", err)
	}
	return identity, nil
}

// Seed serves a console, to nobody, until the vault of its one project has what
// another needs to join it.
func Seed(ctx context.Context, opts Options, p *vault.Project, a *authority.Authority, id string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		defer cancel() // one that cannot be served has nothing to wait for
		ended <- Serve(ctx, opts)
	}()
	s := backup.Shelf{Project: p, Authority: a, Console: id}
	kept := wait(ctx, seedLimit, func(ctx context.Context) (bool, error) {
		for _, database := range []string{backup.ProjectDatabase, backup.ConsoleDatabase} {
			if all, err := s.List(ctx, database); err != nil || len(all) == 0 {
				return false, err
			}
		}
		homes, err := backup.Homes(ctx, p.Store())
		return slices.ContainsFunc(homes, func(h backup.Home) bool { return h.Console == id }), err
	})
	cancel()
	if err := <-ended; err != nil {
		return fmt.Errorf("put the console into its vault: %w", err)
	}
	if !kept {
		return fmt.Errorf("put the console into its vault: %w: it has no backup after %s", vault.ErrUnavailable, seedLimit)
	}
	return nil
}

// seedLimit is how long the first backups of a console may take.
const seedLimit = 2 * time.Minute

// AddUser makes an account.
func AddUser(ctx context.Context, c *store.Console, cost account.Cost, act audit.Act, name, password string, administrator bool) (store.User, error) {
	if err := store.CheckUserName(name); err != nil {
		return store.User{}, err
	}
	if err := account.CheckPassword(name, password); err != nil {
		return store.User{}, err
	}
	hashed, err := cost.Hash(password)
	if err != nil {
		return store.User{}, err
	}
	return c.CreateUser(ctx, act, store.User{Name: name, Password: hashed, Administrator: administrator})
}

// ResetPassword gives a user a new password and stops his one-time codes: the
// way back in for whoever has the console's files.
func ResetPassword(ctx context.Context, c *store.Console, cost account.Cost, act audit.Act, name, password string) error {
	u, err := c.UserNamed(ctx, name)
	if err != nil {
		return err
	}
	if err := account.CheckPassword(name, password); err != nil {
		return err
	}
	hashed, err := cost.Hash(password)
	if err != nil {
		return err
	}
	if err := c.SetPassword(ctx, act, u, hashed); err != nil {
		return err
	}
	return c.StopCodes(ctx, act, u)
}
