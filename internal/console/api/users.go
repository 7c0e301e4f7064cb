package api

import (
	"context"
	"fmt"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/store"
)

func userRoutes() []route {
	return []route{
		{method: "GET", path: "/users", summary: "The users of the console, for administrators", out: Users{}, serve: users},
		{method: "POST", path: "/users", summary: "Make a user, for administrators", in: NewUser{}, out: User{}, serve: createUser},
		{method: "PATCH", path: "/users/{name}", summary: "Shut a user out or let him in again, or ask him for no one-time codes any more, which takes one's own password and code; for administrators", in: UserChange{}, out: User{}, serve: changeUser},
		{method: "PUT", path: "/account/password", summary: "Change one's own password; all of one's sessions end", in: NewPassword{}, out: ok{}, serve: changePassword},
	}
}

// administers refuses all but the console's administrators.
func (c *call) administers() error {
	if c.who.Session == nil || !c.who.Session.User.Administrator {
		return fmt.Errorf("%w: an administrator of the console may", entry.ErrForbidden)
	}
	return nil
}

// Users are the people of the console.
type Users struct {
	Items []User `json:"items"`
}

// User is one of them.
type User struct {
	Name          string    `json:"name"`
	Administrator bool      `json:"administrator"`
	Disabled      bool      `json:"disabled"` // he is shut out
	Codes         bool      `json:"codes"`    // he is asked for one-time codes
	Created       time.Time `json:"created,omitzero"`
}

func user(u store.User) User {
	return User{Name: u.Name, Administrator: u.Administrator, Disabled: u.Disabled, Codes: u.Codes, Created: u.Created}
}

func users(c *call) (any, error) {
	if err := c.administers(); err != nil {
		return nil, err
	}
	all, err := c.Door.Console.Users(c.ctx())
	out := Users{Items: []User{}}
	for _, u := range all {
		out.Items = append(out.Items, user(u))
	}
	return out, err
}

// NewUser asks for an account.
type NewUser struct {
	Name          string `json:"name"`
	Password      string `json:"password"`
	Administrator bool   `json:"administrator,omitempty"`
}

func createUser(c *call) (any, error) {
	if err := c.administers(); err != nil {
		return nil, err
	}
	var in NewUser
	if err := c.decode(&in); err != nil {
		return nil, errBad // its text could hold the password
	}
	u, err := MakeUser(c.ctx(), c.Door, c.Door.Act(c.who, c.r), in)
	if err != nil {
		return nil, err
	}
	return created{user(u)}, nil
}

// MakeUser makes an account, for an administrator.
func MakeUser(ctx context.Context, door *entry.Door, act audit.Act, in NewUser) (store.User, error) {
	if err := account.CheckPassword(in.Name, in.Password); err != nil {
		return store.User{}, err
	}
	hashed, err := door.Hash(ctx, in.Password)
	if err != nil {
		return store.User{}, err
	}
	return door.Console.CreateUser(ctx, act, store.User{Name: in.Name, Password: hashed, Administrator: in.Administrator})
}

// UserChange is what becomes of a user.
type UserChange struct {
	Disabled *bool `json:"disabled,omitempty"`
	// Codes can only be false: whoever uses them sets them up.
	Codes *bool `json:"codes,omitempty"`
	// Password is the administrator's own, which it takes to stop codes: a session that
	// was stolen opens no account to a password that was, too.
	Password string `json:"password,omitempty"`
	// Code is a one-time code of the administrator's own, where he is asked for codes.
	Code string `json:"code,omitempty"`
}

func changeUser(c *call) (any, error) {
	if err := c.administers(); err != nil {
		return nil, err
	}
	var in UserChange
	if err := c.decode(&in); err != nil {
		return nil, errBad // its text could hold the password
	}
	u, err := c.Door.Console.UserNamed(c.ctx(), c.r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	act := c.Door.Act(c.who, c.r)
	switch {
	case in.Disabled != nil && in.Codes != nil: // else the first could be done and the second not
		return nil, fmt.Errorf("%w: change one thing at a time: disabled or codes", store.ErrRefused)
	case in.Codes != nil && *in.Codes:
		return nil, fmt.Errorf("%w: one-time codes are set up by whoever is to use them, on the page of his account or by `davit users codes`", store.ErrRefused)
	case in.Disabled != nil:
		err = c.Door.Console.SetDisabled(c.ctx(), act, u, *in.Disabled)
	case in.Codes != nil:
		err = StopCodes(c.ctx(), c.Door, c.who, act, u, in.Password, in.Code)
	}
	if err != nil {
		return nil, err
	}
	u, err = c.Door.Console.UserNamed(c.ctx(), u.Name)
	return user(u), err
}

// StopCodes asks a user for no one-time codes any more, for an administrator, who has
// to have all that he logs in with himself: a password that was stolen with a session
// takes no codes away.
func StopCodes(ctx context.Context, door *entry.Door, who entry.Who, act audit.Act, u store.User, password, code string) error {
	if err := door.ConfirmAll(ctx, who, password, code); err != nil {
		return err
	}
	return door.Console.StopCodes(ctx, act, u)
}

// NewPassword is a person's own next one.
type NewPassword struct {
	Old string `json:"old"`
	New string `json:"new"`
	// Code is a one-time code, of whoever is asked for codes.
	Code string `json:"code,omitempty"`
}

func changePassword(c *call) (any, error) {
	var in NewPassword
	if err := c.decode(&in); err != nil {
		return nil, errBad // its text could hold a password
	}
	return ok{true}, SetPassword(c.ctx(), c.Door, c.who, c.Door.Act(c.who, c.r), in)
}

// SetPassword changes a person's own password, which takes what he logs in with: who has
// his session and password alone would shut him out.
func SetPassword(ctx context.Context, door *entry.Door, who entry.Who, act audit.Act, in NewPassword) error {
	if who.Session == nil {
		return entry.ErrWrong
	}
	u := who.Session.User
	if err := account.CheckPassword(u.Name, in.New); err != nil { // before a code is used up
		return err
	}
	if err := door.ConfirmAll(ctx, who, in.Old, in.Code); err != nil {
		return err
	}
	hashed, err := door.Hash(ctx, in.New)
	if err != nil {
		return err
	}
	return door.Console.SetPassword(ctx, act, u, hashed)
}
