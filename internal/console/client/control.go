package client

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
	"time"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/placement"
	"davit.dev/davit/internal/console/project"
)

// tell sends a body as JSON and reads the answer into out.
func (c *Client) tell(ctx context.Context, method string, path []string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return c.ask(ctx, request{method: method, path: path, body: body}, out)
}

func (c *Client) read(ctx context.Context, out any, path ...string) error {
	return c.ask(ctx, request{method: "GET", path: path}, out)
}

func (c *Client) drop(ctx context.Context, path ...string) error {
	return c.ask(ctx, request{method: "DELETE", path: path}, &struct{}{})
}

// Members are who has which role in a project.
func (c *Client) Members(ctx context.Context, project string) ([]api.Member, error) {
	var all api.Members
	return all.Items, c.read(ctx, &all, "projects", project, "members")
}

// SetMember gives a user a role.
func (c *Client) SetMember(ctx context.Context, project, name, role string) error {
	return c.tell(ctx, "PUT", []string{"projects", project, "members", name}, api.Member{Role: role}, &struct{}{})
}

// RemoveMember takes a user's role away.
func (c *Client) RemoveMember(ctx context.Context, project, name string) error {
	return c.drop(ctx, "projects", project, "members", name)
}

// Tokens are a project's robots' tokens, without their secrets.
func (c *Client) Tokens(ctx context.Context, project string) ([]api.Token, error) {
	var all api.Tokens
	return all.Items, c.read(ctx, &all, "projects", project, "tokens")
}

// CreateToken makes a robot's token: the answer alone holds its secret.
func (c *Client) CreateToken(ctx context.Context, project string, in api.NewToken) (t api.Token, err error) {
	return t, c.tell(ctx, "POST", []string{"projects", project, "tokens"}, in, &t)
}

// RevokeToken ends a robot's token.
func (c *Client) RevokeToken(ctx context.Context, project, id string) error {
	return c.drop(ctx, "projects", project, "tokens", id)
}

// Users are those of the console.
func (c *Client) Users(ctx context.Context) ([]api.User, error) {
	var all api.Users
	return all.Items, c.read(ctx, &all, "users")
}

// CreateUser makes a user.
func (c *Client) CreateUser(ctx context.Context, in api.NewUser) (u api.User, err error) {
	return u, c.tell(ctx, "POST", []string{"users"}, in, &u)
}

// ChangeUser changes what a user may.
func (c *Client) ChangeUser(ctx context.Context, name string, in api.UserChange) (u api.User, err error) {
	return u, c.tell(ctx, "PATCH", []string{"users", name}, in, &u)
}

// ChangePassword changes the password of the person that speaks, whose sessions end.
func (c *Client) ChangePassword(ctx context.Context, in api.NewPassword) error {
	return c.tell(ctx, "PUT", []string{"account", "password"}, in, &struct{}{})
}

// Audit reads a part of a project's audit log, or, of no project, of the console's.
// The query is as the API's description has it.
func (c *Client) Audit(ctx context.Context, project string, query url.Values) (a api.Audit, err error) {
	path := []string{"audit"}
	if project != "" {
		path = []string{"projects", project, "audit"}
	}
	return a, c.ask(ctx, request{method: "GET", path: path, query: query}, &a)
}

// Agents are those of a project's sites.
func (c *Client) Agents(ctx context.Context, project string) (all api.AgentList, err error) {
	return all, c.read(ctx, &all, "projects", project, "agents")
}

// Enrol makes a token that lets the agent of a site in, once.
func (c *Client) Enrol(ctx context.Context, project, site string, life time.Duration) (e api.Enrolment, err error) {
	in := api.NewEnrolment{Site: site, Minutes: int(life / time.Minute)}
	return e, c.tell(ctx, "POST", []string{"projects", project, "enrolments"}, in, &e)
}

// RemoveAgent shuts a site's agent out.
func (c *Client) RemoveAgent(ctx context.Context, project, site string) error {
	return c.drop(ctx, "projects", project, "agents", site)
}

// Events are what agents told of after a number, oldest first; with -1 the newest.
// No site is all.
func (c *Client) Events(ctx context.Context, project, site string, after int64, limit int) (e api.Events, err error) {
	query := url.Values{"limit": {strconv.Itoa(limit)}}
	if site != "" {
		query.Set("site", site)
	}
	if after >= 0 {
		query.Set("after", strconv.FormatInt(after, 10))
	}
	return e, c.ask(ctx, request{method: "GET", path: []string{"projects", project, "events"}, query: query}, &e)
}

// Placements say how a project's documents stand at the sites that they are for.
func (c *Client) Placements(ctx context.Context, project string) ([]placement.Standing, error) {
	var all api.Placements
	return all.Items, c.read(ctx, &all, "projects", project, "placements")
}

// Fleet is what is known of a project's fleet.
func (c *Client) Fleet(ctx context.Context, project string) (f api.Fleet, err error) {
	return f, c.read(ctx, &f, "projects", project, "fleet")
}

// Backups are the console's own.
func (c *Client) Backups(ctx context.Context) (b api.Backups, err error) {
	return b, c.read(ctx, &b, "backups")
}

// TakeBackups has them taken and brought back now.
func (c *Client) TakeBackups(ctx context.Context) (b api.Backups, err error) {
	return b, c.ask(ctx, request{method: "POST", path: []string{"backups"}}, &b)
}

// Status is what the process of a console at this address is.
func (c *Client) Status(ctx context.Context) (s api.Status, err error) {
	return s, c.read(ctx, &s, "status")
}

// Quota is what a project may have at most, and what it has.
func (c *Client) Quota(ctx context.Context, project string) (q api.Quota, err error) {
	return q, c.read(ctx, &q, "projects", project, "quota")
}

// SetQuota sets what a project may have at most.
func (c *Client) SetQuota(ctx context.Context, project string, in api.NewQuota) (q api.Quota, err error) {
	return q, c.tell(ctx, "PUT", []string{"projects", project, "quota"}, in, &q)
}

// EveryProject are all projects of the console, in numbers.
func (c *Client) EveryProject(ctx context.Context) ([]project.State, error) {
	var all api.ProjectStates
	return all.Items, c.read(ctx, &all, "console", "projects")
}

// MakeProject makes a project, or goes on with one.
func (c *Client) MakeProject(ctx context.Context, in project.New) (m project.Made, err error) {
	return m, c.tell(ctx, "POST", []string{"console", "projects"}, in, &m)
}

// RemoveProject removes one.
func (c *Client) RemoveProject(ctx context.Context, name string) (g project.Gone, err error) {
	return g, c.ask(ctx, request{method: "DELETE", path: []string{"console", "projects", name}, query: url.Values{"confirm": {name}}}, &g)
}

// RestoreProject restores one while all others are served.
func (c *Client) RestoreProject(ctx context.Context, name string, in project.Ask) (r project.Restored, err error) {
	return r, c.tell(ctx, "POST", []string{"console", "projects", name, "restore"}, in, &r)
}

// WantCodes makes a secret for the one-time codes of the person that speaks.
func (c *Client) WantCodes(ctx context.Context, password string) (k api.Codes, err error) {
	return k, c.tell(ctx, "POST", []string{"account", "codes"}, api.WantedCodes{Password: password}, &k)
}

// StartCodes has him be asked for codes from now on, by the first of them.
func (c *Client) StartCodes(ctx context.Context, code string) error {
	return c.tell(ctx, "PUT", []string{"account", "codes"}, api.FirstCode{Code: code}, &struct{}{})
}
