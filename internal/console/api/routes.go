package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/document"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/quota"
	"davit.dev/davit/internal/console/store"
)

const inProject = "/projects/{project}"

var (
	namespaceQuery = parameter{"namespace", "the documents' namespace; none, or all of a list, without it"}
	revisionQuery  = parameter{"resourceVersion", "only if the document is still at this one; of a watch: only what came after it"}
)

// routes are all there are.
func routes() []route {
	return append(slices.Concat(agentRoutes(), deviceRoutes(), beginRoutes(), restoreRoutes(), steerRoutes(), userRoutes(), quotaRoutes(), projectRoutes(), codeRoutes(), reportRoutes(), auditRoutes(), consoleRoutes()), []route{
		{method: "GET", path: "/openapi.json", summary: "This description", open: true, out: map[string]any{}, serve: func(*call) (any, error) { return Describe() }},
		{method: "POST", path: "/login", summary: "Log in", open: true, in: Login{}, out: LoggedIn{}, serve: login},
		{method: "POST", path: "/logout", summary: "Log out", out: ok{}, serve: logout},
		{method: "GET", path: "/whoami", summary: "Who asks", out: Whoami{}, serve: whoami},
		{method: "GET", path: "/projects", summary: "The projects in which one has a role", out: Projects{}, serve: projects},
		{method: "GET", path: inProject + "/whoami", summary: "Who asks, and what he may do in the project", out: Standing{}, serve: standing},
		{method: "GET", path: inProject + "/fleet", summary: "Sites, applications, recovery points and runs, as the vault has them", need: account.Read, out: Fleet{}, serve: fleetOf},
		{
			method: "GET", path: inProject + "/documents/{kind}", summary: "List a kind of documents, or watch it as server-sent events", need: account.Read,
			query: []parameter{namespaceQuery, siteQuery, {"watch", "true: send changes as they come"}, revisionQuery}, out: List{}, serve: list,
		},
		{method: "GET", path: inProject + "/documents/{kind}/{name}", summary: "Get a document", need: account.Read, query: []parameter{namespaceQuery, siteQuery}, out: Object{}, serve: get},
		{
			method: "PUT", path: inProject + "/documents/{kind}/{name}", summary: "Make or change a document", need: account.Read,
			query: []parameter{namespaceQuery, {"dryRun", "true: check it only"}, {"create", "true: only if it is not there"}}, in: Object{}, out: Object{}, serve: apply,
		},
		{
			method: "DELETE", path: inProject + "/documents/{kind}/{name}", summary: "Delete a document", need: account.Read,
			query: []parameter{namespaceQuery, revisionQuery}, out: Object{}, serve: remove,
		},
		{method: "GET", path: inProject + "/members", summary: "Who has which role", need: account.Read, out: Members{}, serve: members},
		{method: "PUT", path: inProject + "/members/{name}", summary: "Give a user a role", need: account.Manage, in: Member{}, out: Member{}, serve: setMember},
		{method: "DELETE", path: inProject + "/members/{name}", summary: "Take a user's role away", need: account.Manage, out: ok{}, serve: removeMember},
		{method: "GET", path: inProject + "/tokens", summary: "The robots' tokens, without their secrets", need: account.Manage, out: Tokens{}, serve: tokens},
		{method: "POST", path: inProject + "/tokens", summary: "Make a robot's token; its secret is shown this once", need: account.Manage, in: NewToken{}, out: Token{}, serve: createToken},
		{method: "DELETE", path: inProject + "/tokens/{id}", summary: "Revoke a token", need: account.Manage, out: ok{}, serve: revokeToken},
	}...)
}

// ok says that it was done.
type ok struct {
	Done bool `json:"done"`
}

// Login is what a person logs in with.
type Login struct {
	Name     string `json:"name"`
	Password string `json:"password"`
	Code     string `json:"code,omitempty"`
}

// LoggedIn holds a session's secret.
type LoggedIn struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"` // at the latest
}

func login(c *call) (any, error) {
	var in Login
	if err := c.decode(&in); err != nil {
		return nil, errBad // its text could hold the password
	}
	token, err := c.Door.Login(c.ctx(), c.r, in.Name, in.Password, in.Code, entry.Command)
	if err != nil {
		return nil, err
	}
	return created{LoggedIn{Token: token, Expires: c.Door.Now().Add(store.SessionLife).UTC()}}, nil
}

func logout(c *call) (any, error) {
	return ok{true}, c.Door.Console.EndSession(c.ctx(), c.Door.Act(c.who, c.r), *c.who.Session)
}

// Whoami is who asks.
type Whoami struct {
	Name          string `json:"name"`
	Administrator bool   `json:"administrator"`
	Codes         bool   `json:"codes"` // he is asked for one-time codes
}

func whoami(c *call) (any, error) {
	u := c.who.Session.User
	return Whoami{Name: u.Name, Administrator: u.Administrator, Codes: u.Codes}, nil
}

// Standing is what whoever asks is in a project.
type Standing struct {
	Project     string               `json:"project"`
	Name        string               `json:"name"`           // user/NAME or robot/NAME
	Role        string               `json:"role,omitempty"` // of a person
	Permissions []account.Permission `json:"permissions"`
	Expires     time.Time            `json:"expires,omitzero"` // a robot's token
}

func standing(c *call) (any, error) {
	s := Standing{Project: c.project.Name, Name: c.who.Name}
	if t := c.who.Token; t != nil {
		s.Permissions, s.Expires = t.Scopes, t.Expires
		return s, nil
	}
	role, err := c.Door.Role(c.ctx(), c.who, c.project)
	s.Role, s.Permissions = string(role), role.Permissions()
	return s, err
}

// Projects are those in which one has a role.
type Projects struct {
	Items []ProjectItem `json:"items"`
}

// ProjectItem is one of them.
type ProjectItem struct {
	Name string `json:"name"`
	Role string `json:"role"`
}

func projects(c *call) (any, error) {
	all, _, err := c.Door.Projects(c.ctx(), c.who)
	if err != nil {
		return nil, err
	}
	out := Projects{Items: []ProjectItem{}}
	for _, p := range all {
		role, err := c.Door.Role(c.ctx(), c.who, p)
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, ProjectItem{p.Name, string(role)})
	}
	return out, nil
}

// Fleet is what is known of a project's fleet.
type Fleet struct {
	// Silent is why the vault cannot be read; empty: it answers.
	Silent string `json:"silent,omitempty"`
	// Old is why what is known may be old though the vault answers.
	Old   string          `json:"old,omitempty"`
	Tried time.Time       `json:"tried,omitzero"`
	Known *fleet.Snapshot `json:"known,omitempty"`
	// Agents are those of the sites that were enrolled.
	Agents []fleet.Agent `json:"agents,omitempty"`
}

func fleetOf(c *call) (any, error) {
	k := c.Fleet(c.project)
	return Fleet{Silent: k.Fault, Old: k.Old(), Tried: k.Tried, Known: k.Snapshot, Agents: k.Agents}, nil
}

// Object is a document, as clusters have them.
type Object struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Metadata   Metadata        `json:"metadata"`
	Spec       json.RawMessage `json:"spec"`
}

// Metadata is an object's.
type Metadata struct {
	Name              string            `json:"name,omitempty"`
	Namespace         string            `json:"namespace,omitempty"`
	UID               string            `json:"uid,omitempty"`
	ResourceVersion   string            `json:"resourceVersion,omitempty"`
	Generation        int64             `json:"generation,omitempty"`
	CreationTimestamp time.Time         `json:"creationTimestamp,omitzero"`
	Labels            map[string]string `json:"labels,omitempty"`
	Annotations       map[string]string `json:"annotations,omitempty"`
}

// List is a list of documents.
type List struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	Items      []Object `json:"items"`
}

func object(d store.Document) (Object, error) {
	o := Object{APIVersion: v1alpha1.GroupVersion.String(), Kind: d.Kind}
	if err := json.Unmarshal(d.Body, &o); err != nil {
		return o, fmt.Errorf("read %s: %w", d.Key, err)
	}
	m := &o.Metadata
	m.Name, m.Namespace, m.UID, m.Generation, m.CreationTimestamp = d.Name, d.Namespace, d.UID, d.Generation, d.Created.UTC().Truncate(time.Second)
	m.ResourceVersion = strconv.FormatInt(d.Revision, 10)
	return o, nil
}

func (c *call) kind() (*document.Kind, error) {
	k, ok := document.Find(c.r.PathValue("kind"))
	if !ok {
		return nil, fmt.Errorf("%w: a console keeps no %q", store.ErrNotFound, c.r.PathValue("kind"))
	}
	return k, nil
}

func (c *call) key() (*document.Kind, store.Key, error) {
	k, err := c.kind()
	if err != nil {
		return nil, store.Key{}, err
	}
	key := store.Key{Kind: k.Name, Namespace: c.query("namespace"), Name: c.r.PathValue("name")}
	if k.Namespaced && key.Namespace == "" {
		key.Namespace = v1alpha1.SystemNamespace
	}
	return k, key, nil
}

// revision reads a resourceVersion; "" is 0, and expects nothing.
func revision(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: resourceVersion %q is none of this console", errBad, text)
	}
	return n, nil
}

func list(c *call) (any, error) {
	k, err := c.kind()
	if err != nil {
		return nil, err
	}
	if c.query("watch") == "true" {
		return nil, c.watch(k)
	}
	all, at, err := c.project.Documents(c.ctx(), k.Name, c.query("namespace"))
	if err != nil {
		return nil, err
	}
	site := c.query("site")
	if site != "" {
		all = nil
	}
	out := List{APIVersion: v1alpha1.GroupVersion.String(), Kind: k.Name + "List", Metadata: Metadata{ResourceVersion: strconv.FormatInt(at, 10)}, Items: []Object{}}
	for _, d := range all {
		o, err := object(d)
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, o)
	}
	if site != "" {
		for _, m := range c.mirrored(k, c.query("namespace"), site) {
			out.Items = append(out.Items, mirror(m))
		}
	}
	return out, nil
}

func get(c *call) (any, error) {
	k, key, err := c.key()
	if err != nil {
		return nil, err
	}
	if site := c.query("site"); site != "" {
		return c.atSites(k, key, site)
	}
	d, err := c.project.Document(c.ctx(), key)
	if err != nil {
		return nil, err
	}
	return object(d)
}

func apply(c *call) (any, error) {
	k, key, err := c.key()
	if err != nil {
		return nil, err
	}
	if err := c.Door.May(c.ctx(), c.who, c.project, k.Write); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(c.r.Body)
	if err != nil {
		return nil, err
	}
	d, err := document.Parse(c.ctx(), data)
	if err != nil {
		return nil, err
	}
	if got := (store.Key{Kind: d.Kind.Name, Namespace: d.Namespace, Name: d.Name}); got != key {
		return nil, fmt.Errorf("%w: the address names %s, the document is %s", errBad, key, got)
	}
	expect := store.Expect{Absent: c.query("create") == "true"}
	if expect.Revision, err = revision(d.Revision); err != nil {
		return nil, err
	}
	if err := c.taken(k, key, d.Body); err != nil {
		return nil, err
	}
	if c.query("dryRun") == "true" {
		return object(store.Document{Key: key, Body: d.Body, Revision: expect.Revision})
	}
	kept, err := c.keep(key, d.Body, expect)
	if err != nil {
		return nil, err
	}
	return object(kept)
}

// keep keeps a document; of a new one the project's quota is asked.
func (c *call) keep(key store.Key, body json.RawMessage, expect store.Expect) (kept store.Document, err error) {
	put := func() error {
		kept, err = c.project.Apply(c.ctx(), c.Door.Act(c.who, c.r), key, body, expect)
		return err
	}
	switch _, err := c.project.Document(c.ctx(), key); {
	case err == nil:
		err = put()
		return kept, err
	case !errors.Is(err, store.ErrNotFound):
		return kept, err
	}
	if key.Kind == "Application" {
		if err := quota.Room(c.ctx(), c.project, c.Fleet(c.project).Snapshot, c.Door.Now()); err != nil {
			return kept, err
		}
	}
	err = quota.Take(c.ctx(), c.project, quota.Documents, c.Door.Now(), put)
	return kept, err
}

func remove(c *call) (any, error) {
	k, key, err := c.key()
	if err != nil {
		return nil, err
	}
	if err := c.Door.May(c.ctx(), c.who, c.project, k.Write); err != nil {
		return nil, err
	}
	var expect store.Expect
	if expect.Revision, err = revision(c.query("resourceVersion")); err != nil {
		return nil, err
	}
	gone, err := c.project.Delete(c.ctx(), c.Door.Act(c.who, c.r), key, expect)
	if err != nil {
		return nil, err
	}
	return object(gone)
}

// Members are the people of a project.
type Members struct {
	Items []Member `json:"items"`
}

// Member is one of them.
type Member struct {
	Name string `json:"name,omitempty"`
	Role string `json:"role"`
}

func members(c *call) (any, error) {
	all, err := c.project.Members(c.ctx())
	out := Members{Items: []Member{}}
	for _, m := range all {
		out.Items = append(out.Items, Member{m.Name, string(m.Role)})
	}
	return out, err
}

func setMember(c *call) (any, error) {
	var in Member
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	name := c.r.PathValue("name")
	if in.Name != "" && in.Name != name {
		return nil, fmt.Errorf("%w: the address names %s, the body %s", errBad, name, in.Name)
	}
	u, err := c.Door.Console.UserNamed(c.ctx(), name)
	if err != nil {
		return nil, err
	}
	m := store.Member{User: u.ID, Name: u.Name, Role: account.Role(in.Role)}
	return Member{m.Name, in.Role}, GiveRole(c.ctx(), c.project, c.Door.Act(c.who, c.r), m)
}

// GiveRole gives a user a role, if that is not one more member than the project may have.
func GiveRole(ctx context.Context, p *store.Project, act audit.Act, m store.Member) error {
	give := func() error { return p.SetMember(ctx, act, m) }
	switch _, err := p.Member(ctx, m.User); {
	case err == nil:
		return give()
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	return quota.Take(ctx, p, quota.Members, act.At, give)
}

func removeMember(c *call) (any, error) {
	return ok{true}, c.project.RemoveMember(c.ctx(), c.Door.Act(c.who, c.r), c.r.PathValue("name"))
}

// Tokens are the robots' of a project.
type Tokens struct {
	Items []Token `json:"items"`
}

// Token is one of them.
type Token struct {
	ID      string               `json:"id"`
	Name    string               `json:"name"`
	Scopes  []account.Permission `json:"scopes"`
	By      string               `json:"by"`
	Created time.Time            `json:"created"`
	Expires time.Time            `json:"expires"`
	Used    time.Time            `json:"used,omitzero"`
	Revoked time.Time            `json:"revoked,omitzero"`
	// Secret is the token itself; only in the answer that makes it.
	Secret string `json:"secret,omitempty"`
}

func token(t store.Token) Token {
	return Token{ID: t.ID, Name: t.Name, Scopes: t.Scopes, By: t.By, Created: t.Created, Expires: t.Expires, Used: t.Used, Revoked: t.Revoked}
}

func tokens(c *call) (any, error) {
	all, err := c.project.Tokens(c.ctx())
	out := Tokens{Items: []Token{}}
	for _, t := range all {
		out.Items = append(out.Items, token(t))
	}
	return out, err
}

// NewToken asks for a token.
type NewToken struct {
	Name   string   `json:"name"`
	Scopes []string `json:"scopes"`
	Days   int      `json:"days"` // until it expires
}

func createToken(c *call) (any, error) {
	var in NewToken
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	t, err := MakeToken(c.ctx(), c.Door, c.who, c.project, c.Door.Act(c.who, c.r), in)
	if err != nil {
		return nil, err
	}
	return created{t}, nil
}

// MakeToken makes a robot's token. Nobody gives a robot what he may not do himself.
func MakeToken(ctx context.Context, door *entry.Door, who entry.Who, p *store.Project, act audit.Act, in NewToken) (Token, error) {
	id, secret, hash, err := account.NewRobot()
	if err != nil {
		return Token{}, err
	}
	if in.Days < 1 || in.Days > 366 {
		return Token{}, fmt.Errorf("%w: a token lives for 1 to 366 days, not %d", store.ErrRefused, in.Days)
	}
	t := store.Token{ID: id, Name: in.Name, Hash: hash, By: act.By, Created: act.At.UTC(), Expires: act.At.Add(time.Duration(in.Days) * 24 * time.Hour).UTC()}
	for _, name := range in.Scopes {
		scope, err := account.ParsePermission(name)
		if err != nil {
			return Token{}, errors.Join(store.ErrRefused, err)
		}
		if !slices.Contains(t.Scopes, scope) {
			t.Scopes = append(t.Scopes, scope)
		}
	}
	for _, scope := range t.Scopes {
		if err := door.May(ctx, who, p, scope); err != nil {
			return Token{}, err
		}
	}
	out := token(t)
	out.Secret = secret
	return out, quota.Take(ctx, p, quota.Tokens, act.At, func() error { return p.CreateToken(ctx, act, t) })
}

func revokeToken(c *call) (any, error) {
	return ok{true}, c.project.RevokeToken(c.ctx(), c.Door.Act(c.who, c.r), c.r.PathValue("id"))
}
