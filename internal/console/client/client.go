// Package client speaks to a console's API: with a session or a robot's token,
// over TLS that trusts what a person pinned, and nothing else then. It follows no
// redirection, and sends a token to nobody but the console that it is for.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/begin"
)

// Bounds of one request.
const (
	dialLimit   = 10 * time.Second
	headerLimit = 2 * time.Minute // a console answers within that
	maxAnswer   = 256 << 20
	// A console that stands still keeps its connections: what nothing was heard on for
	// pingAfter is asked for a sign of life, and let go pingLimit later. Otherwise
	// every further request would go the same dead way, also where another console
	// has the address by now.
	pingAfter = 10 * time.Second
	pingLimit = 5 * time.Second
)

// Error is what a console says when it does not do what was asked.
type Error struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Active is the address of the console to ask instead, where this one stands
	// by and says so.
	Active string `json:"active,omitempty"`
	// KeyUnused says that nothing was made, nor will be, with the recovery key that was
	// named for a project.
	KeyUnused bool `json:"keyUnused,omitempty"`
}

// Error implements error.
func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the console answers %d %s", e.Code, http.StatusText(e.Code))
	}
	return "the console says: " + e.Message
}

// Is tells whether the console answered with this code.
func Is(err error, code int) bool {
	var said *Error
	return errors.As(err, &said) && said.Code == code
}

// ErrUnreachable says that no console answered.
var ErrUnreachable = errors.New("the console does not answer")

// Client is the way to one console.
type Client struct {
	url   string
	token string
	trust Trust
	http  *http.Client
	signs *http.HTTP2Config // of life, that a connection is asked for
	// Moved is told when a console that stands by named the active one, which is
	// asked from then on.
	Moved func(active string)
}

// CheckURL says whether text may be a console's address.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("the address %q is none of a console: write https://HOST:PORT", text)
	}
	return nil
}

// New returns a client for a console. The token may be empty before a login.
func New(address, token string, trust Trust) (*Client, error) {
	if err := CheckURL(address); err != nil {
		return nil, err
	}
	c := &Client{token: token, trust: trust, signs: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingLimit}}
	return c, c.turn(address)
}

// turn has the client ask the console at another address.
func (c *Client) turn(address string) error {
	u, err := url.Parse(strings.TrimRight(address, "/"))
	if err != nil {
		return err
	}
	config, err := c.trust.config(u.Hostname())
	if err != nil {
		return err
	}
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	c.url = u.String()
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: dialLimit}).DialContext, ForceAttemptHTTP2: true,
			TLSClientConfig: config, TLSHandshakeTimeout: dialLimit, ResponseHeaderTimeout: headerLimit, IdleConnTimeout: time.Minute,
			HTTP2: c.signs,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

// Close lets the connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// URL is the address of the console that is asked.
func (c *Client) URL() string { return c.url }

// SetToken has the client speak with another token.
func (c *Client) SetToken(token string) { c.token = token }

// request is one thing to ask.
type request struct {
	method string
	path   []string // below the API's root; escaped here
	query  url.Values
	header http.Header
	body   []byte
}

func (c *Client) send(ctx context.Context, q request) (*http.Response, error) {
	address := c.url + api.Prefix
	for _, segment := range q.path {
		address += "/" + url.PathEscape(segment)
	}
	if len(q.query) > 0 {
		address += "?" + q.query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, q.method, address, bytes.NewReader(q.body))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.url, err)
	}
	for name, values := range q.header {
		r.Header[name] = values
	}
	r.Header.Set("User-Agent", "davit")
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, c.trust.explain(c.url, broken(ctx, err))
	}
	return answer, nil
}

// broken leaves the method and the address out, which http puts before all it
// says, and says what sort of error it is.
func broken(ctx context.Context, err error) error {
	var about *url.Error
	if errors.As(err, &about) {
		err = about.Err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// ask sends a request and reads the answer into out. Where a console that stands
// by names the active one, that is asked once.
func (c *Client) ask(ctx context.Context, q request, out any) error {
	err := c.once(ctx, q, out)
	var said *Error
	if !errors.As(err, &said) || said.Active == "" || CheckURL(said.Active) != nil || strings.TrimRight(said.Active, "/") == c.url {
		return err
	}
	if err := c.turn(said.Active); err != nil {
		return err
	}
	if c.Moved != nil {
		c.Moved(c.url)
	}
	return c.once(ctx, q, out)
}

func (c *Client) once(ctx context.Context, q request, out any) error {
	answer, err := c.send(ctx, q)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer of %s: %w", c.url, broken(ctx, err))
	}
	if answer.StatusCode >= http.StatusMultipleChoices {
		return refusal(answer.StatusCode, text)
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("read answer of %s: is it a console, and not newer than this davit? %w", c.url, err)
	}
	return nil
}

// refusal reads what a console says when it refuses. Something before it, such as
// a proxy, may say something else.
func refusal(code int, text []byte) error {
	var said Error
	if json.Unmarshal(text, &said) != nil || said.Code != code {
		return &Error{Code: code}
	}
	return &said
}

// Login opens a person's session, and speaks with it from then on.
func (c *Client) Login(ctx context.Context, name, password, code string) (api.LoggedIn, error) {
	body, err := json.Marshal(api.Login{Name: name, Password: password, Code: code})
	if err != nil {
		return api.LoggedIn{}, err
	}
	var in api.LoggedIn
	c.token = ""
	if err := c.ask(ctx, request{method: "POST", path: []string{"login"}, body: body}, &in); err != nil {
		return in, err
	}
	c.token = in.Token
	return in, nil
}

// BeginDevice begins a login by the console's login provider.
func (c *Client) BeginDevice(ctx context.Context) (d api.DeviceLogin, err error) {
	c.token = ""
	return d, c.ask(ctx, request{method: "POST", path: []string{"login", "device"}}, &d)
}

// FinishDevice waits for the person's answer there, and speaks with the session
// from then on.
func (c *Client) FinishDevice(ctx context.Context, d api.DeviceLogin) (api.LoggedIn, error) {
	body, err := json.Marshal(api.DeviceHandle{Handle: d.Handle})
	if err != nil {
		return api.LoggedIn{}, err
	}
	for {
		var answer api.DeviceAnswer
		if err := c.ask(ctx, request{method: "POST", path: []string{"login", "device", "finish"}, body: body}, &answer); err != nil {
			return api.LoggedIn{}, err
		}
		if !answer.Pending {
			c.token = answer.Token
			return api.LoggedIn{Token: answer.Token, Expires: answer.Expires}, nil
		}
	}
}

// Logout ends the session.
func (c *Client) Logout(ctx context.Context) error {
	return c.ask(ctx, request{method: "POST", path: []string{"logout"}}, &struct{}{})
}

// Whoami is the person that speaks.
func (c *Client) Whoami(ctx context.Context) (who api.Whoami, err error) {
	return who, c.ask(ctx, request{method: "GET", path: []string{"whoami"}}, &who)
}

// Standing is what whoever speaks may do in a project.
func (c *Client) Standing(ctx context.Context, project string) (s api.Standing, err error) {
	return s, c.ask(ctx, request{method: "GET", path: []string{"projects", project, "whoami"}}, &s)
}

// Projects are those in which the person has a role.
func (c *Client) Projects(ctx context.Context) ([]api.ProjectItem, error) {
	var all api.Projects
	return all.Items, c.ask(ctx, request{method: "GET", path: []string{"projects"}}, &all)
}

// Ref names a document.
type Ref struct {
	Project string
	// Kind is the plural that addresses have.
	Kind      string
	Namespace string // of a list: "" is all
	Name      string
	// Site asks instead for what people or git made at a site, or with * at all of them.
	Site string
}

func (r Ref) request(method string) request {
	q := request{method: method, path: []string{"projects", r.Project, "documents", r.Kind}, query: url.Values{}}
	if r.Name != "" {
		q.path = append(q.path, r.Name)
	}
	if r.Namespace != "" {
		q.query.Set("namespace", r.Namespace)
	}
	if r.Site != "" {
		q.query.Set("site", r.Site)
	}
	return q
}

// List lists the documents of a kind.
func (c *Client) List(ctx context.Context, of Ref) (all api.List, err error) {
	of.Name = ""
	return all, c.ask(ctx, of.request("GET"), &all)
}

// Get reads a document.
func (c *Client) Get(ctx context.Context, what Ref) (o api.Object, err error) {
	return o, c.ask(ctx, what.request("GET"), &o)
}

// How says how a document is written.
type How struct {
	DryRun bool // check it only
	Create bool // only if it is not there
}

// Apply writes a document, as JSON or YAML, and returns what is kept. A
// resourceVersion in it makes that conditional.
func (c *Client) Apply(ctx context.Context, what Ref, text []byte, how How) (o api.Object, err error) {
	q := what.request("PUT")
	q.body = text
	if how.DryRun {
		q.query.Set("dryRun", "true")
	}
	if how.Create {
		q.query.Set("create", "true")
	}
	return o, c.ask(ctx, q, &o)
}

// Delete removes a document, with a revision only if it is still at that.
func (c *Client) Delete(ctx context.Context, what Ref, revision string) (o api.Object, err error) {
	q := what.request("DELETE")
	if revision != "" {
		q.query.Set("resourceVersion", revision)
	}
	return o, c.ask(ctx, q, &o)
}

// Begin asks the target's agent for a run, by the console. The id in it makes the
// same again be the same request.
func (c *Client) Begin(ctx context.Context, project, plan string, in api.NewRun) (s begin.Shown, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return s, err
	}
	return s, c.ask(ctx, request{method: "POST", path: []string{"projects", project, "plans", plan, "runs"}, body: body}, &s)
}
