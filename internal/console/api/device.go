package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/sso"
	"davit.dev/davit/internal/console/store"
)

func deviceRoutes() []route {
	return []route{
		{method: "POST", path: "/login/device", summary: "Begin a login by the login provider at a command line", open: true, out: DeviceLogin{}, serve: beginDevice},
		{method: "POST", path: "/login/device/finish", summary: "Wait for the person's answer at the login provider, up to 20 s at a time", open: true, in: DeviceHandle{}, out: DeviceAnswer{}, serve: finishDevice},
	}
}

// DeviceLogin is what a person is told to do.
type DeviceLogin struct {
	// Handle is secret: whoever has it gets the session.
	Handle  string    `json:"handle"`
	URL     string    `json:"url"`
	Code    string    `json:"code"`
	Expires time.Time `json:"expires"`
}

// DeviceHandle names a login that was begun.
type DeviceHandle struct {
	Handle string `json:"handle"`
}

// DeviceAnswer is the session, or that there is no answer yet.
type DeviceAnswer struct {
	Pending bool      `json:"pending,omitempty"`
	Token   string    `json:"token,omitempty"`
	Expires time.Time `json:"expires,omitzero"` // at the latest
}

// errNoProvider says that the console has no login provider.
var errNoProvider = fmt.Errorf("log in by a provider: %w: this console has none", store.ErrNotFound)

// patient is how long one request waits for a person.
const patient = 20 * time.Second

func beginDevice(c *call) (any, error) {
	if c.SSO == nil {
		return nil, errNoProvider
	}
	if err := c.Door.Pace(c.r); err != nil {
		return nil, err
	}
	p, err := c.SSO.BeginDevice(c.ctx(), entry.Place(c.r))
	return DeviceLogin{Handle: p.Handle, URL: p.URL, Code: p.Code, Expires: p.Ends.UTC()}, err
}

func finishDevice(c *call) (any, error) {
	var in DeviceHandle
	if err := c.decode(&in); err != nil {
		return nil, errBad // its text could hold the handle
	}
	if c.SSO == nil {
		return nil, errNoProvider
	}
	ctx, cancel := context.WithTimeout(c.ctx(), patient)
	defer cancel()
	id, err := c.SSO.FinishDevice(ctx, in.Handle)
	if errors.Is(err, sso.ErrPending) {
		return created{DeviceAnswer{Pending: true}}, nil
	}
	if err != nil {
		return nil, err
	}
	token, err := c.Door.LoginVouched(c.ctx(), c.r, id, entry.Command)
	if err != nil {
		return nil, err
	}
	return created{DeviceAnswer{Token: token, Expires: c.Door.Now().Add(id.Life).UTC()}}, nil
}
