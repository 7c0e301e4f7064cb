// Package project makes and removes projects of a console that is served, for its
// administrators. Each is a decision of the console's journal: what is planned is written
// down first, each step can be done again, and the last one counts. A console that takes
// over in between finds the plan; whoever wanted the project asks for the same again, and
// it goes on, or removes it.
package project

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/journal"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault"
)

// Way is what the console notes of a project that it makes, sealed by its key.
type Way struct {
	// Identity is the console's own key to the project, until that is made.
	Identity string `json:"identity,omitempty"`
	// Recovery is the public half of the key that people keep, and Admin the id of its first
	// admin: who asks for the same again, because the answer was lost, is told Made.
	Recovery string `json:"recovery,omitempty"`
	Admin    string `json:"admin,omitempty"`
	Made     *Made  `json:"made,omitempty"`
	// Binding is the way into its vault, once it is made.
	Binding *fleet.Binding `json:"binding,omitempty"`
	// Gone is what was said when it was removed, for who asks for that again.
	Gone *Gone `json:"gone,omitempty"`
}

// Bound is the way into the vault of a project that was made here, as it was then.
func Bound(ctx context.Context, c *store.Console, l store.Listing) (backup.Bound, error) {
	var w Way
	err := c.Way(ctx, l.ID, &w)
	if err == nil && w.Binding == nil {
		err = fmt.Errorf("find the way into the vault of %s: %w", l.Name, store.ErrNotFound)
	}
	if err != nil {
		return backup.Bound{}, err
	}
	return backup.Bound{ID: l.ID, Name: l.Name, Created: l.Created, Binding: *w.Binding}, nil
}

// Home is the project in whose vault the console's own database is kept: the one that it
// had first.
func Home(ctx context.Context, c *store.Console) (store.Listing, error) {
	all, err := c.Projects(ctx)
	if err != nil {
		return store.Listing{}, err
	}
	if len(all) == 0 {
		return store.Listing{}, errors.New("there is no project yet: `console init` adds one")
	}
	first := all[0]
	for _, l := range all[1:] {
		if l.Created.Before(first.Created) {
			first = l
		}
	}
	return first, nil
}

// Desk makes and removes projects, one at a time.
type Desk struct {
	Console *store.Console
	Store   fleet.OpenStore
	// Fleet is what is known of a project, and Backups of the console's own backups.
	Fleet   func(p *store.Project) fleet.Known
	Backups func() []backup.State
	// Confirm says that this is still the active console; nil: nobody follows it.
	Confirm func(ctx context.Context) error
	// Leave has what serves the project let go of it.
	Leave func(id string)
	// Bring puts what the project's vault has in the place of its database, and Book is its journal.
	Bring func(ctx context.Context, l store.Listing) error
	Book  func(ctx context.Context, p *store.Project) (journal.Book, error)
	Now   func() time.Time

	mu sync.Mutex
}

// New asks for a project.
type New struct {
	Name string `json:"name"`
	// Recovery is the public half (age1…) of the recovery key, which is kept outside of
	// all sites and never sent to the console.
	Recovery string `json:"recoveryKey"`
	// Admin is the user who is its first admin; empty: whoever asks.
	Admin string `json:"admin,omitempty"`
}

// Made is a project that was made.
type Made struct {
	Name      string `json:"name"`
	Admin     string `json:"admin"`
	Vault     string `json:"vault"`
	Authority int64  `json:"authority"`
}

// makeLimit is how long the vault may take to have a project made. What is not done then
// is gone on with when the same is asked again.
const makeLimit = time.Minute

// UnusedError is why a project was not made, and that nothing was made, nor will be, with the
// recovery key that was named for it: whoever made that for this may throw it away.
type UnusedError struct{ Err error }

// Error implements error.
func (e *UnusedError) Error() string { return e.Err.Error() }

// Unwrap returns why.
func (e *UnusedError) Unwrap() error { return e.Err }

// Make makes a project in the vault of the console's home, or goes on with one whose making
// broke off. One that was made by the same name, recovery key and admin, and is one of the
// console's, is answered as it was then: that answer may have been lost. store.ErrExists says
// that the name is taken, store.ErrConflict that one of it is being made otherwise.
func (d *Desk) Make(ctx context.Context, act audit.Act, in New) (Made, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, makeLimit)
	defer cancel()
	m, err := d.make(ctx, act, in)
	refused := errors.Is(err, store.ErrRefused) || errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrConflict)
	if refused && !errors.Is(err, store.ErrUnconfirmed) && d.unused(ctx, in.Recovery) {
		err = &UnusedError{err}
	}
	return m, err
}

// unused tells whether no project of the console was made, or begun, with a recovery key.
func (d *Desk) unused(ctx context.Context, recovery string) bool {
	all, err := d.Console.EveryProject(ctx)
	for _, l := range all {
		var w Way
		if err := d.Console.Way(ctx, l.ID, &w); err != nil && !errors.Is(err, store.ErrNotFound) || w.Recovery == recovery {
			return false
		}
	}
	return err == nil
}

func (d *Desk) make(ctx context.Context, act audit.Act, in New) (Made, error) {
	if _, err := vault.ParseRecipient(in.Recovery); err != nil {
		return Made{}, fmt.Errorf("create project: %w: the recovery key's public half: %w", store.ErrRefused, err)
	}
	if err := vault.CheckName(in.Name); err != nil {
		return Made{}, fmt.Errorf("create project: %w: %w", store.ErrRefused, err)
	}
	admin, err := d.Console.UserNamed(ctx, in.Admin)
	if errors.Is(err, store.ErrNotFound) {
		err = fmt.Errorf("create project: %w: the console has no user %s: `davit users` lists them", store.ErrRefused, in.Admin)
	}
	if err != nil {
		return Made{}, err
	}
	switch m, err := d.made(ctx, in, admin); {
	case err != nil:
		return Made{}, err
	case m != nil:
		return *m, nil
	}
	if admin.Disabled {
		return Made{}, fmt.Errorf("create project %s: %w: user %s is shut out, and nobody could do anything in it: let him in again (`davit users enable %s`), or name another", in.Name, store.ErrRefused, admin.Name, admin.Name)
	}
	home, s, err := d.vault(ctx)
	if err != nil {
		return Made{}, fmt.Errorf("create project %s: %w", in.Name, err)
	}
	l, w, err := d.plan(ctx, act, in, admin, s, home)
	if err != nil {
		return Made{}, err
	}
	m, err := d.carry(ctx, act, l, w, admin, s, home)
	if errors.Is(err, vault.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: its vault does not answer; ask for the same again, and it goes on: %w", store.ErrUnconfirmed, err)
	}
	if err != nil {
		return Made{}, fmt.Errorf("create project %s: %w", in.Name, err)
	}
	_ = d.open(ctx, l) // it is made, though nothing can be changed in it yet
	return m, nil
}

// made is what was said when the same was made; nil: it was not.
func (d *Desk) made(ctx context.Context, in New, admin store.User) (*Made, error) {
	l, found, err := d.listed(ctx, in.Name)
	if err != nil || !found || l.Standing != store.Served {
		return nil, err
	}
	var w Way
	if err := d.Console.Way(ctx, l.ID, &w); err != nil || w.Recovery != in.Recovery || w.Admin != admin.ID {
		return nil, nil //nolint:nilerr,nilnil // the name is taken, and that is said
	}
	return w.Made, d.Console.Settle(ctx) // it may be of a change that the vault has not taken
}

// vault is that of the console's home.
func (d *Desk) vault(ctx context.Context) (fleet.Binding, vault.Store, error) {
	var b fleet.Binding
	home, err := Home(ctx, d.Console)
	if err != nil {
		return b, nil, err
	}
	p, err := d.Console.Project(ctx, home.Name)
	if err != nil {
		return b, nil, err
	}
	if err := p.Secret(ctx, fleet.BindingSecret, &b); err != nil {
		return b, nil, fmt.Errorf("find the way into the vault of %s: %w", home.Name, err)
	}
	s, err := d.Store(ctx, b.Config())
	return b, s, err
}

// plan writes down what is to be made, or finds what was.
func (d *Desk) plan(ctx context.Context, act audit.Act, in New, admin store.User, s vault.Store, home fleet.Binding) (store.Listing, Way, error) {
	w := Way{Recovery: in.Recovery, Admin: admin.ID}
	l, found, err := d.listed(ctx, in.Name)
	switch {
	case err != nil:
		return l, w, err
	case found && l.Standing == store.Removed:
		return l, w, fmt.Errorf("create project %s: %w: one of that name was removed, and what the vault has under it is that one's: choose another name, or bring that one back (`davit projects restore %s`)", in.Name, store.ErrExists, in.Name)
	case found && l.Standing == store.Served:
		return l, w, fmt.Errorf("create project %s: %w", in.Name, store.ErrExists)
	case found:
		var is Way
		if err := d.Console.Way(ctx, l.ID, &is); err != nil {
			return l, w, err
		}
		if is.Recovery != w.Recovery || is.Admin != w.Admin {
			return l, w, fmt.Errorf("create project %s: %w: it is being made with another recovery key or admin: give those (the audit log has them), or remove it, and its name with it", in.Name, store.ErrConflict)
		}
		// What opens the project is in the vault before anything is made by it: the attempt
		// that wrote it down may not have waited for that.
		return l, is, d.Console.Settle(ctx)
	}
	identity, err := vault.NewIdentity()
	if err != nil {
		return l, w, err
	}
	w.Identity = identity.Secret()
	// What the vault has already is not this console's to take.
	if _, err := vault.OpenProject(ctx, s, in.Name, identity); !errors.Is(err, vault.ErrNotFound) {
		if err == nil || errors.Is(err, vault.ErrKey) {
			err = fmt.Errorf("%w in the vault, and not at this console: `davit console init --join` takes it up, with its recovery key", store.ErrExists)
		}
		return l, w, fmt.Errorf("create project %s: %w", in.Name, err)
	}
	l, err = d.Console.PlanProject(ctx, act, in.Name, fmt.Sprintf("in %s, admin %s, recovery key %s", home.URL, admin.Name, in.Recovery), w)
	return l, w, err
}

func (d *Desk) listed(ctx context.Context, name string) (l store.Listing, found bool, err error) {
	all, err := d.Console.EveryProject(ctx)
	for _, one := range all {
		if one.Name == name {
			l, found = one, true
		}
	}
	return l, found, err
}

// carry makes what was planned: keys and authority in the vault, the database, and its
// first backup. Then the project is one of the console's.
func (d *Desk) carry(ctx context.Context, act audit.Act, l store.Listing, w Way, admin store.User, s vault.Store, home fleet.Binding) (m Made, err error) {
	p, a, err := d.found(ctx, l.Name, w, s)
	if err != nil {
		return m, err
	}
	marker, _, err := vault.Identify(ctx, s)
	if err != nil {
		return m, err
	}
	identity, err := vault.ParseIdentity(w.Identity)
	if err != nil {
		return m, err
	}
	home.Keyring = vault.Keyring{VaultID: marker.ID, Project: l.Name, KeyID: p.NewestKey().KeyID, Identity: identity}.Secret()
	err = d.Console.FillProject(ctx, l, func(db *store.Project) error {
		err := db.SetMember(ctx, act, store.Member{User: admin.ID, Name: admin.Name, Role: account.Admin})
		if err == nil {
			err = db.KeepSecret(ctx, act, authority.Secret, a)
		}
		if err == nil {
			err = db.KeepSecret(ctx, act, fleet.BindingSecret, home)
		}
		if err != nil {
			return err
		}
		shelf := backup.Shelf{Project: p, Authority: a, Console: d.Console.ID()}
		return shelf.Begin(ctx, d.Console.Dir(), l, db, d.Now(), d.Confirm)
	})
	if err != nil {
		return m, err
	}
	m = Made{Name: l.Name, Admin: admin.Name, Vault: s.String(), Authority: a.Number}
	is := Way{Recovery: w.Recovery, Admin: w.Admin, Binding: &home, Made: &m}
	return m, d.Console.Stand(ctx, act, l, audit.Record{Action: "project.ready", Object: l.Name}, store.Served, is, store.Making)
}

// found makes keys and authority of a project in the vault, as far as an attempt before
// did not: the plan has the key that opens it.
func (d *Desk) found(ctx context.Context, name string, w Way, s vault.Store) (*vault.Project, *authority.Authority, error) {
	identity, err := vault.ParseIdentity(w.Identity)
	if err != nil {
		return nil, nil, err
	}
	recovery, err := vault.ParseRecipient(w.Recovery)
	if err != nil {
		return nil, nil, err
	}
	if _, err := vault.CreateProject(ctx, s, name, recovery, identity.Recipient()); err != nil && !errors.Is(err, vault.ErrExists) {
		return nil, nil, err
	}
	p, err := vault.OpenProject(ctx, s, name, identity)
	if errors.Is(err, vault.ErrKey) {
		return nil, nil, fmt.Errorf("%w in the vault: another made it meanwhile: %w", store.ErrExists, err)
	}
	if err != nil {
		return nil, nil, err
	}
	machine, err := os.Hostname()
	if err != nil {
		machine = "console"
	}
	if err := authority.Enroll(ctx, p, authority.Console{Name: machine, Recipient: identity.Recipient().String(), Created: d.Now().UTC().Truncate(time.Second)}); err != nil {
		return nil, nil, err
	}
	a, err := authority.Ensure(ctx, p, identity, d.Now())
	if err != nil {
		return nil, nil, err
	}
	return p, a, a.Admit(ctx, p, recovery)
}

// openLimit is how long it is waited for something to be changeable in a new project.
const openLimit = 5 * time.Second

// open has the new project be served, and waits until something can be changed in it.
func (d *Desk) open(ctx context.Context, l store.Listing) error {
	ctx, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	p, err := d.Console.Project(ctx, l.Name)
	if err != nil {
		return err
	}
	return p.Settle(ctx)
}
