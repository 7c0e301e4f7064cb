package client

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/restoration"
	"davit.dev/davit/internal/console/steer"
	"davit.dev/davit/internal/evidence"
	"davit.dev/davit/internal/journal"
)

// Restore asks a site's agent for a restore of an application, or for what that would
// do. The id in it makes the same again be the same request.
func (c *Client) Restore(ctx context.Context, project, app string, in api.NewRestore) (s restoration.Shown, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return s, err
	}
	return s, c.ask(ctx, request{method: "POST", path: []string{"projects", project, "applications", app, "restores"}, body: body}, &s)
}

// Restoration says how a restore stands that was asked for.
func (c *Client) Restoration(ctx context.Context, project, id string) (s restoration.Shown, err error) {
	return s, c.ask(ctx, request{method: "GET", path: []string{"projects", project, "restores", id}}, &s)
}

// Run is a run as its journal has it, and what may be wanted of it.
func (c *Client) Run(ctx context.Context, project, run string) (s api.RunStanding, err error) {
	return s, c.ask(ctx, request{method: "GET", path: []string{"projects", project, "runs", run}}, &s)
}

// Report is a run's newest signed report.
func (c *Client) Report(ctx context.Context, project, run string) (d *evidence.Document, err error) {
	return d, c.ask(ctx, request{method: "GET", path: []string{"projects", project, "runs", run, "report"}}, &d)
}

// Said is what the programs of a run's steps said; of one, or, with "", of all.
func (c *Client) Said(ctx context.Context, project, run, step string) ([]journal.Words, error) {
	var s api.RunSaid
	err := c.ask(ctx, request{method: "GET", path: []string{"projects", project, "runs", run, "logs"}, query: url.Values{"step": {step}}}, &s)
	return s.Said, err
}

// Want wants something of a run. The id in it makes the same again be the same.
func (c *Client) Want(ctx context.Context, project, run string, w steer.Want) (a steer.Asked, err error) {
	body, err := json.Marshal(w)
	if err != nil {
		return a, err
	}
	return a, c.ask(ctx, request{method: "POST", path: []string{"projects", project, "runs", run, "requests"}, body: body}, &a)
}

// Wanted says what became of something that was wanted.
func (c *Client) Wanted(ctx context.Context, project, run string, number int64) (a steer.Asked, err error) {
	return a, c.ask(ctx, request{method: "GET", path: []string{"projects", project, "runs", run, "requests", strconv.FormatInt(number, 10)}}, &a)
}

// Restorations are the restores that sites were asked for, of an application or, with
// "", of all, the newest first.
func (c *Client) Restorations(ctx context.Context, project, app string) ([]restoration.Shown, error) {
	var all api.Restorations
	return all.Items, c.ask(ctx, request{method: "GET", path: []string{"projects", project, "restores"}, query: url.Values{"application": {app}}}, &all)
}

// CancelRestore takes a restore back that has not begun at its site.
func (c *Client) CancelRestore(ctx context.Context, project, id string) (s restoration.Shown, err error) {
	return s, c.ask(ctx, request{method: "POST", path: []string{"projects", project, "restores", id, "cancel"}}, &s)
}
