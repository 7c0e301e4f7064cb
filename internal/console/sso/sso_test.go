package sso

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/sso/ssotest"
)

const sample = `
issuer: https://sso.example.com
clientID: davit
url: https://console.example.com:8443
roles:
- {group: sre, project: acme, role: recoverer}
- {group: boss, project: acme, role: admin}
- {group: boss, project: other, role: viewer}
`

func TestConfig(t *testing.T) {
	c, err := Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	if c.redirect() != "https://console.example.com:8443/login/sso/return" || c.life() != 8*time.Hour {
		t.Errorf("%+v", c)
	}
	got := c.roles([]string{"boss", "sre"})
	if got["acme"] != account.Admin || got["other"] != account.Viewer {
		t.Errorf("%v", got)
	}
	if got := c.roles([]string{"SRE", "sre "}); got["acme"] != "" || len(got) != 2 {
		t.Errorf("%v", got)
	}
	for _, change := range [][2]string{
		{"https://sso", "http://sso"},
		{"clientID: davit", ""},
		{":8443", "/x"},
		{"recoverer", "root"},
		{"group: sre", "group: ''"},
		{"issuer:", "isuer:"},
		{"roles:", "roles: []\nx:"},
		{"clientID: davit", "clientID: davit\nsessionHours: 200"},
		{"clientID: davit", "clientID: davit\ngroupsClaim: ''"},
	} {
		if c, err := Parse([]byte(strings.Replace(sample, change[0], change[1], 1))); err == nil {
			t.Errorf("%q instead of %q was taken: %+v", change[1], change[0], c)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("issuer: [x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text)
		if err == nil && (len(c.Roles) == 0 || c.ClientID == "" || !strings.HasPrefix(c.Issuer, "https://")) {
			t.Errorf("%+v", c)
		}
	})
}

// world is a provider, and the console's way to it, at a time that stands still.
type world struct {
	t        *testing.T
	provider *ssotest.Provider
	way      *Provider
	now      time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	w := &world{t: t, provider: ssotest.New(), now: time.Now()}
	t.Cleanup(w.provider.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	config := filepath.Join(t.TempDir(), "oidc.yaml")
	err := os.WriteFile(ca, []byte(w.provider.CA), 0o600)
	if err == nil {
		err = os.WriteFile(config, []byte(strings.Replace(sample, "https://sso.example.com", w.provider.URL+"\ncaFile: "+ca, 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(config)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	w.way = New(c, func() time.Time { return w.now }, done)
	t.Cleanup(func() { close(done); w.way.Wait() })
	return w
}

// begin begins a login, and has the provider say these claims.
func (w *world) begin(c ssotest.Claims, how func(ssotest.Claims) string) (answer url.Values, state string) {
	w.t.Helper()
	w.provider.Say(c, how)
	to, state, err := w.way.Begin(w.t.Context(), "/p/acme")
	if err == nil {
		answer, err = w.provider.Login(to)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return answer, state
}

func (w *world) anna() ssotest.Claims { return w.provider.Person("7", "Anna", w.now, "sre") }

func TestLogin(t *testing.T) {
	w := newWorld(t)
	answer, state := w.begin(w.anna(), nil)
	id, next, err := w.way.Finish(t.Context(), answer, state)
	if err != nil || next != "/p/acme" || id.Issuer != w.provider.URL || id.Subject != "7" || id.Name != "Anna" || id.Roles["acme"] != account.Recoverer || id.Life != 8*time.Hour {
		t.Fatalf("%+v, %q, %v", id, next, err)
	}
	asked := w.provider.Asked
	if _, _, err := w.way.Finish(t.Context(), answer, state); !errors.Is(err, ErrRefused) || w.provider.Asked != asked {
		t.Errorf("the same answer again: %v", err)
	}
}

// What does not prove who somebody is lets nobody in.
func TestAbuse(t *testing.T) {
	w := newWorld(t)
	with := func(key string, value any) ssotest.Claims {
		c := w.anna()
		c[key] = value
		return c
	}
	for name, c := range map[string]struct {
		claims ssotest.Claims
		how    func(ssotest.Claims) string
		change func(answer url.Values, state *string)
	}{
		"audience":          {claims: with("aud", "wiki")},
		"made for another":  {claims: with("azp", "wiki")},
		"nonce":             {claims: with("nonce", "of another login")},
		"no nonce":          {claims: with("nonce", "")},
		"expired":           {claims: with("exp", w.now.Add(-time.Minute).Unix())},
		"other issuer":      {claims: with("iss", "https://evil.example.com")},
		"no subject":        {claims: with("sub", "")},
		"alg none":          {claims: w.anna(), how: ssotest.Unsigned},
		"other's key":       {claims: w.anna(), how: ssotest.Forged},
		"no token":          {claims: w.anna(), how: func(ssotest.Claims) string { return "" }},
		"state of another":  {claims: w.anna(), change: func(_ url.Values, state *string) { *state = strings.Repeat("0", 32) }},
		"no cookie":         {claims: w.anna(), change: func(_ url.Values, state *string) { *state = "" }},
		"no state":          {claims: w.anna(), change: func(a url.Values, state *string) { a.Del("state"); *state = "" }},
		"code of another":   {claims: w.anna(), change: func(a url.Values, _ *string) { a.Set("code", "injected") }},
		"provider says no":  {claims: w.anna(), change: func(a url.Values, _ *string) { a.Set("error", "access_denied") }},
		"answer of another": {claims: w.anna(), change: func(a url.Values, _ *string) { a.Set("iss", "https://evil.example.com") }},
	} {
		answer, state := w.begin(c.claims, c.how)
		if c.change != nil {
			c.change(answer, &state)
		}
		id, _, err := w.way.Finish(t.Context(), answer, state)
		if !errors.Is(err, ErrRefused) || id.Subject != "" {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
	// The same without what is wrong is taken: the cases show something.
	answer, state := w.begin(w.anna(), nil)
	if _, _, err := w.way.Finish(t.Context(), answer, state); err != nil {
		t.Error(err)
	}
	answer, state = w.begin(w.anna(), nil)
	w.now = w.now.Add(underway + time.Second)
	if _, _, err := w.way.Finish(t.Context(), answer, state); !errors.Is(err, ErrRefused) {
		t.Errorf("too late: %v", err)
	}
}

// Logins that nobody finishes take bounded room, and that comes back.
func TestManyLogins(t *testing.T) {
	w := newWorld(t)
	for range most {
		if _, _, err := w.way.Begin(t.Context(), "/"); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := w.way.Begin(t.Context(), "/"); !errors.Is(err, ErrTooMany) {
		t.Fatal(err)
	}
	w.now = w.now.Add(underway + time.Second)
	if _, _, err := w.way.Begin(t.Context(), "/"); err != nil {
		t.Error(err)
	}
}

// A provider that is silent fails logins, and is asked again by the next.
func TestSilence(t *testing.T) {
	w := newWorld(t)
	w.provider.Silence(true)
	if _, _, err := w.way.Begin(t.Context(), "/"); !errors.Is(err, ErrSilent) {
		t.Fatal(err)
	}
	if _, err := w.way.BeginDevice(t.Context(), "192.0.2.1"); !errors.Is(err, ErrSilent) {
		t.Fatal(err)
	}
	w.provider.Silence(false)
	answer, state := w.begin(w.anna(), nil)
	w.provider.Silence(true)
	if _, _, err := w.way.Finish(t.Context(), answer, state); !errors.Is(err, ErrSilent) {
		t.Error(err)
	}
}

func TestDevice(t *testing.T) {
	w := newWorld(t)
	w.provider.Say(w.anna(), nil)
	p, err := w.way.BeginDevice(t.Context(), "192.0.2.1")
	if err != nil || p.Code != "ABCD-EFGH" || !strings.HasPrefix(p.URL, w.provider.URL) {
		t.Fatalf("%+v, %v", p, err)
	}
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.way.FinishDevice(short, p.Handle); !errors.Is(err, ErrPending) {
		t.Fatal(err)
	}
	w.provider.Answer()
	id, err := w.way.FinishDevice(t.Context(), p.Handle)
	if err != nil || id.Subject != "7" || id.Roles["acme"] != account.Recoverer {
		t.Fatalf("%+v, %v", id, err)
	}
	for _, handle := range []string{p.Handle, "", "davit_session_" + strings.Repeat("0", 64)} {
		if _, err := w.way.FinishDevice(t.Context(), handle); !errors.Is(err, ErrRefused) {
			t.Errorf("%q: %v", handle, err)
		}
	}
	w.provider.Say(w.provider.Person("7", "Anna", w.now.Add(-time.Hour), "sre"), nil) // expired
	if p, err = w.way.BeginDevice(t.Context(), "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	var none entry.Vouched
	if id, err := w.way.FinishDevice(t.Context(), p.Handle); !errors.Is(err, ErrRefused) || id.Subject != none.Subject {
		t.Errorf("%+v, %v", id, err)
	}
}

// Nobody takes all logins at command lines alone, and what was taken comes back.
func TestManyDevices(t *testing.T) {
	w := newWorld(t)
	for range mostOfOne {
		if _, err := w.way.BeginDevice(t.Context(), "192.0.2.1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.way.BeginDevice(t.Context(), "192.0.2.1"); !errors.Is(err, ErrTooMany) {
		t.Errorf("one has all: %v", err)
	}
	if _, err := w.way.BeginDevice(t.Context(), "192.0.2.2"); err != nil {
		t.Errorf("another: %v", err)
	}
	w.now = w.now.Add(underway + time.Second)
	if _, err := w.way.BeginDevice(t.Context(), "192.0.2.1"); err != nil {
		t.Errorf("later: %v", err)
	}
}

// Who waits for a provider that hangs waits no longer than he wants, one question
// is asked for all, and what was known goes on.
func TestHanging(t *testing.T) {
	w := newWorld(t)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	asked := w.provider.Hang()
	errs := make(chan error)
	go func() {
		_, _, err := w.way.Begin(t.Context(), "/")
		errs <- err
	}()
	<-asked
	for range 3 {
		if _, _, err := w.way.Begin(ended, "/"); !errors.Is(err, context.Canceled) {
			t.Errorf("who went away: %v", err)
		}
	}
	w.provider.Go()
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	if n := w.provider.Discoveries(); n != 1 {
		t.Errorf("%d questions for four logins", n)
	}
	w.now = w.now.Add(fresh + time.Second)
	w.provider.Silence(true)
	for range 3 {
		if _, _, err := w.way.Begin(t.Context(), "/"); err != nil {
			t.Errorf("what was known is forgotten: %v", err)
		}
	}
	if n := w.provider.Discoveries(); n != 2 {
		t.Errorf("%d questions: it is asked by each login", n)
	}
	w.now = w.now.Add(respite + time.Second)
	if _, _, err := w.way.Begin(t.Context(), "/"); err != nil || w.provider.Discoveries() != 3 {
		t.Errorf("it is not asked again: %v", err)
	}
}

// Nothing starts once it is waited for what runs.
func TestEnded(t *testing.T) {
	w := newWorld(t)
	done := make(chan struct{})
	way := New(w.way.config, func() time.Time { return w.now }, done)
	if _, err := way.BeginDevice(t.Context(), "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	close(done)
	way.Wait()
	if _, err := way.BeginDevice(t.Context(), "192.0.2.1"); !errors.Is(err, ErrSilent) || len(way.devices) != 1 {
		t.Errorf("a login at a command line: %v, %d", err, len(way.devices))
	}
	w.now = w.now.Add(fresh + time.Second)
	if _, _, err := way.Begin(t.Context(), "/"); !errors.Is(err, ErrSilent) {
		t.Errorf("a question to the provider: %v", err)
	}
}
