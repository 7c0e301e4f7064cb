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
	// Roles are what he has from now on in these projects; "" is none.
	Roles map[string]account.Role
	// Life is how long his session lives at the most.
	Life time.Duration
}

var errNoRole = fmt.Errorf("%w: none of your groups has a role in a project of this console: ask whoever keeps its configuration", ErrForbidden)

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
	if !d.address.Allow(place(Address(r)), d.Now()) {
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

// grant gives the roles, and takes away those that are none any more. A project
// that is not there, or cannot be read, lets nobody in.
func (d *Door) grant(ctx context.Context, act audit.Act, u store.User, roles map[string]account.Role) error {
	for name, role := range roles {
		p, err := d.Console.Project(ctx, name)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			d.Log.Warn("a project of the login provider's roles cannot be opened", "project", name, "err", err)
			continue
		}
		has, err := p.Role(ctx, u.ID)
		switch {
		case err != nil && !errors.Is(err, store.ErrNotFound):
			return err
		case has == role:
			continue
		case role == "":
			err = p.RemoveMember(ctx, act, u.Name)
		default:
			err = p.SetMember(ctx, act, store.Member{User: u.ID, Name: u.Name, Role: role})
		}
		if err != nil {
			return fmt.Errorf("give the role that the provider says: %w", err)
		}
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
