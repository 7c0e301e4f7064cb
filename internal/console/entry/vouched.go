package entry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
)

// Vouched is a person for whom a login provider vouches. He is known by issuer and
// subject alone: names and mail addresses change hands.
type Vouched struct {
	Issuer, Subject string
	Name            string
	// Roles are what he has from now on in these projects; "" is none. In others
	// he keeps only what no provider gave.
	Roles map[string]account.Role
	// Life is how long his session lives at the most.
	Life time.Duration
}

var errNoRole = fmt.Errorf("%w: none of your groups has a role in a project of this console: ask whoever keeps its configuration", ErrForbidden)

// errUnsettled says that a role could stay that is none any more.
var errUnsettled = fmt.Errorf("%w: a project of this console cannot be read, and what you may do there cannot be set: the console's log says which; log in with a local account", ErrForbidden)

// LoginVouched lets a person in for whom a provider vouches, with the roles that
// he has there now, and returns the session's secret.
func (d *Door) LoginVouched(ctx context.Context, r *http.Request, v Vouched, source string) (string, error) {
	act := audit.Act{By: "provider", From: Address(r), At: d.Now()}
	u, err := d.Console.UserVouched(ctx, v.Issuer, v.Subject)
	if errors.Is(err, store.ErrNotFound) {
		if !d.welcome(ctx, v.Roles) {
			return "", errNoRole
		}
		u, err = d.Console.CreateVouched(ctx, act, v.Issuer, v.Subject, bareName(v.Name))
	}
	if err != nil {
		return "", err
	}
	if err := d.grant(ctx, act, u, v.Roles); err != nil {
		return "", errors.Join(err, d.Console.EndSessions(ctx, act, u))
	}
	if u.Disabled {
		return "", fmt.Errorf("%w: an administrator of the console shut %s out", ErrForbidden, u.Name)
	}
	all, _, err := d.Projects(ctx, Who{Session: &store.Session{User: u}})
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", errors.Join(errNoRole, d.Console.EndSessions(ctx, act, u))
	}
	return d.admit(ctx, act, u, source, v.Life)
}

// Pace bounds how often one address may begin a login that a provider decides.
func (d *Door) Pace(r *http.Request) error {
	if !d.address.Allow(Place(r), d.Now()) {
		return ErrTooMany
	}
	return nil
}

// welcome tells whether the roles let anybody in anywhere.
func (d *Door) welcome(ctx context.Context, roles map[string]account.Role) bool {
	for name, role := range roles {
		if role == "" {
			continue
		}
		if _, err := d.Console.Project(ctx, name); err == nil {
			return true
		}
	}
	return false
}

// grant gives the roles, and takes away those that are none any more: also in
// projects that the roles do not speak of, what a provider gave there once.
func (d *Door) grant(ctx context.Context, act audit.Act, u store.User, roles map[string]account.Role) error {
	listed, err := d.Console.Projects(ctx)
	if err != nil {
		return err
	}
	var errs []error // of one project: what is to go in the others goes
	there := map[string]bool{}
	for _, l := range listed {
		there[l.Name] = true
		role, says := roles[l.Name]
		errs = append(errs, d.settle(ctx, act, l.Name, u, role, says))
	}
	for name := range roles {
		if !there[name] {
			d.Log.Warn("the login provider's roles speak of a project that is not there", "project", name)
		}
	}
	return errors.Join(errs...)
}

// settle makes a user's role in one project what the provider says. Where it
// says nothing, only what it gave is taken away. A project that cannot be read
// could hold a role that is none any more.
func (d *Door) settle(ctx context.Context, act audit.Act, project string, u store.User, role account.Role, says bool) error {
	p, err := d.Console.Project(ctx, project)
	if err != nil {
		return d.hide(ctx, err, project, errUnsettled)
	}
	has, err := p.Member(ctx, u.ID)
	none := errors.Is(err, store.ErrNotFound)
	switch {
	case err != nil && !none:
		return d.hide(ctx, err, project, errUnsettled)
	case !says && !has.Vouched, role == "" && none, has.Role == role && has.Vouched:
		return nil
	case role == "":
		err = p.RemoveMember(ctx, act, u.Name)
	default:
		err = p.SetMember(ctx, act, store.Member{User: u.ID, Name: u.Name, Role: role, Vouched: true})
	}
	if err != nil {
		return fmt.Errorf("give the role that the provider says: %w", err)
	}
	return nil
}

// bareName makes a name that a user may have of what a provider says.
func bareName(text string) string {
	text, _, _ = strings.Cut(strings.ToLower(text), "@")
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return -1
	}, text)
	name = strings.TrimLeft(name, "._-")
	if name == "" {
		return "person"
	}
	return name[:min(len(name), 40)]
}
