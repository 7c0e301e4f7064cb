// Package entry decides who may come into the console and what he may do there.
// Whoever may not see a project is told what he would be told if there were none.
package entry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/failover/name"
)

// Errors, wrapped, by which callers decide.
var (
	// ErrWrong says that name, password or code is wrong, and not which.
	ErrWrong = errors.New("name, password or code is wrong")
	// ErrTooMany says that there were too many tries.
	ErrTooMany = errors.New("too many tries: wait a minute")
	// ErrStranger says that nobody, or nobody known, asks.
	ErrStranger = errors.New("log in first")
	// ErrForbidden says that who asks is known and may not.
	ErrForbidden = errors.New("not permitted")
)

// ValidID tells whether an asker's own name for a request has least to 64 letters,
// digits, dashes and underscores. By it the same again is known.
func ValidID(id string, least int) bool {
	return len(id) >= least && len(id) <= 64 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// Sources of sessions.
const (
	Browser = "browser"
	Command = "command line"
)

// Door is the way into a console.
type Door struct {
	Console *store.Console
	Cost    account.Cost
	Now     func() time.Time
	Log     *slog.Logger

	refusals            *refusals // of logins
	turned              *refusals // of what those ask for who are in
	pair, name, address *account.Limit
	hashing             chan struct{}
	ease                *ease
	streams             streams
}

// NewDoor returns the door of a console.
func NewDoor(c *store.Console, cost account.Cost, now func() time.Time, log *slog.Logger) *Door {
	const most = 10_000
	return &Door{
		Console: c, Cost: cost, Now: now, Log: log, refusals: newRefusals(), turned: newRefusals(),
		// Few tries from one place; more in all, so that nobody shuts a person
		// out from elsewhere without much work.
		pair:    account.NewLimit(5, 30*time.Second, most),
		name:    account.NewLimit(50, 10*time.Second, most),
		address: account.NewLimit(20, 3*time.Second, most),
		hashing: make(chan struct{}, 2),
		ease:    newEase(easeAfter, debug.FreeOSMemory),
	}
}

// Who is someone that was let in.
type Who struct {
	// Name is "user/anna" or "robot/ci".
	Name    string
	Session *store.Session // of a person
	Token   *store.Token   // of a robot
	project string         // id of the only project that a robot may see
}

// InRuns is what he is called in the runs of a project: a robot by who made its token too.
func (w Who) InRuns(project string) string {
	if w.Token != nil {
		return name.AtConsole(strings.TrimPrefix(w.Token.By, "user/"), w.Token.Name, project)
	}
	return name.AtConsole(strings.TrimPrefix(w.Name, "user/"), "", project)
}

// Act is an act of his now.
func (d *Door) Act(who Who, r *http.Request) audit.Act {
	return audit.Act{By: who.Name, From: Address(r), At: d.Now()}
}

// Address is where a request comes from. What a proxy says of that is not believed.
func Address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// Place is what tries from where a request comes from are counted for.
func Place(r *http.Request) string { return place(Address(r)) }

// place is what tries are counted for: an address, or of version 6 the 64 bits
// that a network has of it, for whoever has one such address has all of them.
func place(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	return netip.PrefixFrom(a, 64).Masked().String()
}

// Login lets a person in and returns the session's secret.
func (d *Door) Login(ctx context.Context, r *http.Request, name, password, code, source string) (string, error) {
	now, from := d.Now(), place(Address(r))
	if !d.address.Allow(from, now) || !d.pair.Allow(name+"\x00"+from, now) || !d.name.Allow(name, now) {
		d.refusals.count(name)
		return "", ErrTooMany
	}
	act := audit.Act{By: "stranger", From: Address(r), At: now}
	u, err := d.check(ctx, name, password, code)
	if errors.Is(err, ErrWrong) {
		return "", errors.Join(err, d.refuse(ctx, act, u, name))
	}
	if err != nil {
		return "", err
	}
	token, err := d.admit(ctx, act, u, source, 0)
	if errors.Is(err, store.ErrConflict) { // while it was checked, another password was set
		return "", errors.Join(ErrWrong, d.refuse(ctx, act, u, name))
	}
	if err == nil {
		d.pair.Forget(name + "\x00" + from)
	}
	return token, err
}

// admit makes the session of a person who has shown who he is. It lives as all do
// with a life of 0.
func (d *Door) admit(ctx context.Context, act audit.Act, u store.User, source string, life time.Duration) (string, error) {
	token, hash, err := account.NewSession()
	if err != nil {
		return "", err
	}
	form, err := account.NewID()
	if err != nil {
		return "", err
	}
	act.By = "user/" + u.Name
	s := store.Session{Hash: hash, User: u, Form: form, Source: source}
	if life > 0 {
		s.Ends = act.At.Add(life)
	}
	if err := d.Console.CreateSession(ctx, act, s); err != nil {
		return "", err
	}
	return token, nil
}

// check returns the user if all is right, else ErrWrong. It takes as long for a
// name that nobody has.
func (d *Door) check(ctx context.Context, name, password, code string) (store.User, error) {
	u, err := d.Console.UserNamed(ctx, name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return u, err
	}
	known := err == nil && !u.Disabled
	if len(password) > account.MaxPassword {
		return u, ErrWrong
	}
	if !d.matches(ctx, u.Password, password) || !known {
		return u, ErrWrong
	}
	if u.Codes {
		if err := d.useCode(ctx, u, code); err != nil {
			return u, err
		}
	}
	if d.Cost.Outdated(u.Password) {
		hashed, err := d.Hash(ctx, password)
		if err != nil {
			return u, err
		}
		if err := d.Console.Rehash(ctx, u, hashed); err != nil {
			return u, err
		}
		u.Password = hashed
	}
	return u, nil
}

// matches tries a password; a few at a time, for each takes much memory.
func (d *Door) matches(ctx context.Context, hashed, password string) bool {
	select {
	case d.hashing <- struct{}{}:
		defer d.hashed()
		return d.Cost.Matches(hashed, password)
	case <-ctx.Done():
		return false
	}
}

// Hash makes what is kept of a new password, a few at a time too.
func (d *Door) Hash(ctx context.Context, password string) (string, error) {
	select {
	case d.hashing <- struct{}{}:
		defer d.hashed()
		return d.Cost.Hash(password)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (d *Door) hashed() {
	<-d.hashing
	d.ease.later()
}

func (d *Door) useCode(ctx context.Context, u store.User, code string) error {
	secret, err := d.Console.CodeSecret(ctx, u)
	if err != nil {
		return err
	}
	last, err := d.Console.LastCode(ctx, u)
	if err != nil {
		return err
	}
	step, ok := account.CheckCode(secret, strings.ReplaceAll(code, " ", ""), d.Now(), last)
	if !ok {
		return ErrWrong
	}
	if err := d.Console.UseCode(ctx, u, step); errors.Is(err, store.ErrConflict) {
		return ErrWrong
	} else if err != nil {
		return err
	}
	return nil
}

// Confirm has a person who is in give his password once more.
func (d *Door) Confirm(ctx context.Context, who Who, password string) error {
	now := d.Now()
	if who.Session == nil || len(password) > account.MaxPassword {
		return ErrWrong
	}
	if !d.pair.Allow("confirm\x00"+who.Name, now) {
		return ErrTooMany
	}
	if !d.matches(ctx, who.Session.User.Password, password) {
		return ErrWrong
	}
	return nil
}

// ConfirmAll is Confirm with a one-time code too, of whoever is asked for codes.
func (d *Door) ConfirmAll(ctx context.Context, who Who, password, code string) error {
	if err := d.Confirm(ctx, who, password); err != nil {
		return err
	}
	if u := who.Session.User; u.Codes {
		return d.useCode(ctx, u, code)
	}
	return nil
}

// Session lets a person in by a session's secret.
func (d *Door) Session(ctx context.Context, token string) (Who, error) {
	if !account.IsSession(token) {
		return Who{}, ErrStranger
	}
	s, err := d.Console.Session(ctx, account.HashToken(token), d.Now())
	if errors.Is(err, store.ErrNotFound) {
		return Who{}, ErrStranger
	}
	if err != nil {
		return Who{}, err
	}
	return Who{Name: "user/" + s.User.Name, Session: &s}, nil
}

// Robot lets a robot into a project by its token.
func (d *Door) Robot(ctx context.Context, p *store.Project, token string) (Who, error) {
	id, ok := account.RobotID(token)
	if !ok {
		return Who{}, ErrStranger
	}
	t, err := p.Token(ctx, id, account.HashToken(token), d.Now())
	if errors.Is(err, store.ErrNotFound) {
		return Who{}, ErrStranger
	}
	if err != nil {
		return Who{}, d.hide(ctx, err, p.Name, ErrStranger)
	}
	return Who{Name: "robot/" + t.Name, Token: &t, project: p.ID}, nil
}

// RobotProject opens a project for a robot, who is a stranger if there is none.
func (d *Door) RobotProject(ctx context.Context, name string) (*store.Project, error) {
	p, err := d.Console.Project(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, ErrStranger
	}
	if err != nil {
		return nil, d.hide(ctx, err, name, ErrStranger)
	}
	return p, nil
}

// hide turns what is wrong with a project's file into the answer of one who may
// not know that the project exists: who may, the file would have to say.
func (d *Door) hide(ctx context.Context, err error, project string, as error) error {
	if ctx.Err() != nil {
		return err
	}
	d.Log.Error("a project cannot be read", "project", project, "err", err)
	return as
}

func administers(who Who) bool { return who.Session != nil && who.Session.User.Administrator }

// unreadable is the answer of a project that cannot be read.
func (d *Door) unreadable(ctx context.Context, who Who, project string, err error) error {
	if administers(who) {
		return err
	}
	return d.hide(ctx, err, project, fmt.Errorf("find project %s: %w", project, store.ErrNotFound))
}

// Role is a person's role in a project; store.ErrNotFound says that he has none.
func (d *Door) Role(ctx context.Context, who Who, p *store.Project) (account.Role, error) {
	if who.Session == nil {
		return "", store.ErrNotFound
	}
	return p.Role(ctx, who.Session.User.ID)
}

// May says whether he may do something in a project: store.ErrNotFound where
// he may not know of it, ErrForbidden where he may not do that. To need nothing
// takes only that he may know of it.
func (d *Door) May(ctx context.Context, who Who, p *store.Project, need account.Permission) error {
	if who.Token != nil {
		if who.project != p.ID {
			return store.ErrNotFound
		}
		if need != "" && !slices.Contains(who.Token.Scopes, need) {
			return fmt.Errorf("%w: the token has not the scope %s", ErrForbidden, need)
		}
		return nil
	}
	role, err := d.Role(ctx, who, p)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("find project %s: %w", p.Name, store.ErrNotFound)
	}
	if err != nil {
		return d.unreadable(ctx, who, p.Name, err)
	}
	if need != "" && !role.May(need) {
		return fmt.Errorf("%w: it takes the permission %s, which the role %s has not", ErrForbidden, need, role)
	}
	return nil
}

// Projects are the projects that a person has a role in. One that cannot be
// opened is left out of it, and said in faults.
func (d *Door) Projects(ctx context.Context, who Who) (all []*store.Project, faults map[string]error, err error) {
	listed, err := d.Console.Projects(ctx)
	if err != nil {
		return nil, nil, err
	}
	faults = map[string]error{}
	for _, l := range listed {
		p, err := d.Console.Project(ctx, l.Name)
		if err == nil {
			_, err = d.Role(ctx, who, p)
		}
		switch {
		case err == nil:
			all = append(all, p)
		case ctx.Err() != nil:
			return nil, nil, err
		case !errors.Is(err, store.ErrNotFound) && administers(who):
			faults[l.Name] = err
		}
	}
	return all, faults, nil
}

// Project opens a project for someone who may do something in it.
func (d *Door) Project(ctx context.Context, who Who, name string, need account.Permission) (*store.Project, error) {
	p, err := d.Console.Project(ctx, name)
	switch {
	case err == nil:
		return p, d.May(ctx, who, p, need)
	case errors.Is(err, store.ErrNotFound):
		return nil, err
	}
	return nil, d.unreadable(ctx, who, name, err)
}
