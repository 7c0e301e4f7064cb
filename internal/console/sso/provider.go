package sso

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/entry"
)

// Errors, wrapped, by which callers decide.
var (
	// ErrSilent says that the provider does not answer, or not as one.
	ErrSilent = errors.New("the login provider does not answer as it should: log in with a local account, or try again; the console's log says why")
	// ErrRefused says that what came back does not prove who somebody is.
	ErrRefused = errors.New("the login by the provider is not accepted: begin again on the login page")
	// ErrTooMany says that too many logins are under way.
	ErrTooMany = errors.New("too many logins are under way: wait a minute")
)

// Bounds.
const (
	askLimit  = 15 * time.Second // one request to the provider
	maxAnswer = 1 << 20
	underway  = 10 * time.Minute // how long a login may take
	most      = 1000             // logins at once
	fresh     = time.Hour        // how long what the provider says of itself counts
	respite   = 30 * time.Second // how long it counts further when it is silent then
)

// Provider is the way to a provider. It is asked when somebody logs in, and not
// before.
type Provider struct {
	config *Config
	now    func() time.Time
	done   <-chan struct{}
	http   *http.Client

	running sync.WaitGroup

	mu      sync.Mutex
	ended   bool // nothing starts any more
	found   *oidc.Provider
	until   time.Time        // it is not asked for again before
	search  *search          // nil: none is under way
	logins  map[string]login // by state
	devices map[string]*device
}

// login is one that is under way in a browser.
type login struct {
	nonce, verifier, next string
	ends                  time.Time
}

// New returns the way to a provider. Logins end when done is closed.
func New(c *Config, now func() time.Time, done <-chan struct{}) *Provider {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: c.roots, MinVersion: tls.VersionTLS12}
	return &Provider{
		config: c, now: now, done: done, logins: map[string]login{}, devices: map[string]*device{},
		http: &http.Client{Transport: bounded{transport}, Timeout: askLimit, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// Wait returns when nothing runs any more, after done was closed.
func (p *Provider) Wait() {
	<-p.done
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.running.Wait()
	p.http.CloseIdleConnections()
}

// bounded bounds answers.
type bounded struct{ next *http.Transport }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.next.RoundTrip(r)
	if err == nil {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(answer.Body, maxAnswer), answer.Body}
	}
	return answer, err
}

// CloseIdleConnections is for http.Client.
func (b bounded) CloseIdleConnections() { b.next.CloseIdleConnections() }

// search is a question to the provider what it is, under way.
type search struct {
	done  chan struct{} // closed when it is answered
	found *oidc.Provider
	err   error
}

// discover asks the provider what it is; the answer counts for an hour, and
// longer while there is no newer one. All who need it meanwhile wait for one question.
func (p *Provider) discover(ctx context.Context) (*oidc.Provider, error) {
	p.mu.Lock()
	if p.found != nil && p.now().Before(p.until) {
		defer p.mu.Unlock()
		return p.found, nil
	}
	if p.search == nil {
		s := &search{done: make(chan struct{})}
		if err := p.start(func(ctx context.Context) { p.ask(ctx, s) }); err != nil {
			p.mu.Unlock()
			return nil, err
		}
		p.search = s
	}
	s := p.search
	p.mu.Unlock()
	select {
	case <-s.done:
		return s.found, s.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrSilent, ctx.Err())
	}
}

// ask answers a search. What is known goes on while nothing newer is.
func (p *Provider) ask(ctx context.Context, s *search) {
	found, err := oidc.NewProvider(oidc.ClientContext(ctx, p.http), p.config.Issuer)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.found, p.until = found, p.now().Add(fresh)
	case p.found != nil: // what does not answer now says so when it is needed
		p.until = p.now().Add(respite)
	default:
		s.err = fmt.Errorf("%w: %w", ErrSilent, err)
	}
	s.found, p.search = p.found, nil
	close(s.done)
}

// start runs what Wait waits for, with a context that ends with done; not when
// Wait may have begun. p.mu is held.
func (p *Provider) start(run func(ctx context.Context)) error {
	if p.ended {
		return fmt.Errorf("%w: the console is being stopped", ErrSilent)
	}
	p.running.Go(func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		p.running.Go(func() {
			select {
			case <-p.done:
				cancel()
			case <-ctx.Done():
			}
		})
		run(ctx)
	})
	return nil
}

func (p *Provider) oauth(found *oidc.Provider) *oauth2.Config {
	return &oauth2.Config{
		ClientID: p.config.ClientID, ClientSecret: p.config.secret, Endpoint: found.Endpoint(), RedirectURL: p.config.redirect(),
		Scopes: append([]string{oidc.ScopeOpenID}, p.config.Scopes...),
	}
}

// Begin begins a login in a browser: where to send it, and the state that it has
// to bring back. next is where it wants to go afterwards.
func (p *Provider) Begin(ctx context.Context, next string) (to, state string, err error) {
	found, err := p.discover(ctx)
	if err != nil {
		return "", "", err
	}
	state, err = account.NewID()
	if err != nil {
		return "", "", err
	}
	l := login{verifier: oauth2.GenerateVerifier(), next: next, ends: p.now().Add(underway)}
	if l.nonce, err = account.NewID(); err != nil {
		return "", "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tidy()
	if len(p.logins) >= most {
		return "", "", ErrTooMany
	}
	p.logins[state] = l
	return p.oauth(found).AuthCodeURL(state, oidc.Nonce(l.nonce), oauth2.S256ChallengeOption(l.verifier)), state, nil
}

// tidy forgets logins that nobody finished.
func (p *Provider) tidy() {
	for state, l := range p.logins {
		if p.now().After(l.ends) {
			delete(p.logins, state)
		}
	}
	for handle, d := range p.devices {
		if p.now().After(d.ends) {
			delete(p.devices, handle)
		}
	}
}

// take takes a login that is under way; it counts once.
func (p *Provider) take(state string) (login, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, ok := p.logins[state]
	delete(p.logins, state)
	return l, ok && p.now().Before(l.ends)
}

// Finish ends a login with what a browser brought back from the provider. state is
// what the browser itself was given, so that nobody is led into another's login.
func (p *Provider) Finish(ctx context.Context, answer url.Values, state string) (id entry.Vouched, next string, err error) {
	given := answer.Get("state")
	if given == "" || subtle.ConstantTimeCompare([]byte(given), []byte(state)) != 1 {
		return id, "", fmt.Errorf("%w: it was not begun in this browser", ErrRefused)
	}
	l, ok := p.take(given)
	if !ok {
		return id, "", fmt.Errorf("%w: it is over already, or was begun more than %s ago", ErrRefused, underway)
	}
	if why := answer.Get("error"); why != "" {
		return id, "", fmt.Errorf("%w: the provider says %.100q", ErrRefused, why)
	}
	if from := answer.Get("iss"); from != "" && from != p.config.Issuer {
		return id, "", fmt.Errorf("%w: the answer is another provider's", ErrRefused)
	}
	found, err := p.discover(ctx)
	if err != nil {
		return id, "", err
	}
	token, err := p.oauth(found).Exchange(oidc.ClientContext(ctx, p.http), answer.Get("code"), oauth2.VerifierOption(l.verifier))
	if err != nil {
		return id, "", exchange(err)
	}
	id, err = p.vouched(ctx, found, token, l.nonce)
	return id, l.next, err
}

// exchange judges an error of the provider's. Its text could hold what was sent.
func exchange(err error) error {
	var said *oauth2.RetrieveError
	if errors.As(err, &said) && said.ErrorCode != "" {
		return fmt.Errorf("%w: the provider says %.100q", ErrRefused, said.ErrorCode)
	}
	return fmt.Errorf("%w: %w", ErrSilent, err)
}

// vouched reads who somebody is from a token of the provider's, which must be
// signed by it, for this console, not expired, and for this login.
func (p *Provider) vouched(ctx context.Context, found *oidc.Provider, token *oauth2.Token, nonce string) (entry.Vouched, error) {
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return entry.Vouched{}, fmt.Errorf("%w: the provider gave no ID token", ErrRefused)
	}
	verifier := found.VerifierContext(oidc.ClientContext(ctx, p.http), &oidc.Config{ClientID: p.config.ClientID, Now: p.now})
	t, err := verifier.Verify(ctx, raw)
	if err != nil {
		return entry.Vouched{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if subtle.ConstantTimeCompare([]byte(t.Nonce), []byte(nonce)) != 1 {
		return entry.Vouched{}, fmt.Errorf("%w: the token is of another login", ErrRefused)
	}
	var claims map[string]json.RawMessage
	if err := t.Claims(&claims); err != nil || t.Subject == "" {
		return entry.Vouched{}, fmt.Errorf("%w: the token says nothing of a person", ErrRefused)
	}
	if other := text(claims["azp"]); other != "" && other != p.config.ClientID {
		return entry.Vouched{}, fmt.Errorf("%w: the token was made for another client", ErrRefused)
	}
	return entry.Vouched{
		Issuer: t.Issuer, Subject: t.Subject, Name: text(claims[p.config.NameClaim]), Roles: p.config.roles(texts(claims[p.config.GroupsClaim])), Life: p.config.life(),
	}, nil
}

func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// texts reads a list of texts, or one.
func texts(raw json.RawMessage) []string {
	var all []string
	if json.Unmarshal(raw, &all) == nil {
		return slices.DeleteFunc(all, func(s string) bool { return s == "" })
	}
	if one := text(raw); one != "" {
		return []string{one}
	}
	return nil
}
