package console

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"davit.dev/davit/internal/console/client"
	"davit.dev/davit/internal/console/sso"
	"davit.dev/davit/internal/console/sso/ssotest"
)

// withProvider is a world whose console has a login provider: people of the group
// sre are recoverers of acme.
func withProvider(t *testing.T) (*world, *ssotest.Provider) {
	t.Helper()
	w := newWorld(t)
	p := ssotest.New()
	t.Cleanup(p.Close)
	ca, config := filepath.Join(t.TempDir(), "ca.pem"), filepath.Join(t.TempDir(), "oidc.yaml")
	text := fmt.Sprintf("issuer: %s\nclientID: davit\ncaFile: %s\nurl: https://console.example.com\nroles: [{group: sre, project: acme, role: recoverer}]\n", p.URL, ca)
	err := os.WriteFile(ca, []byte(p.CA), 0o600)
	if err == nil {
		err = os.WriteFile(config, []byte(text), 0o600)
	}
	if err == nil {
		w.sso, err = sso.Load(config)
	}
	if err == nil {
		err = w.stop()
	}
	if err != nil {
		t.Fatal(err)
	}
	w.serve()
	return w, p
}

// visit opens a page and returns the answer and where it sends one.
func (w *world) visit(browser *http.Client, path string) (code int, text, to string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), "GET", w.url+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	keep := *browser
	keep.CheckRedirect = func(r *http.Request, _ []*http.Request) error { to = r.URL.String(); return http.ErrUseLastResponse }
	code, text = w.do(&keep, r)
	return code, text, strings.TrimPrefix(to, w.url)
}

// begin goes to the provider, logs in there and returns what comes back.
func (w *world) begin(browser *http.Client, p *ssotest.Provider, next, group string) url.Values {
	w.t.Helper()
	p.Say(p.Person("7", "anna", w.now, group), nil)
	code, text, to := w.visit(browser, "/login/sso?next="+url.QueryEscape(next))
	answer, err := p.Login(to)
	if code != http.StatusSeeOther || err != nil {
		w.t.Fatal(code, text, err)
	}
	return answer
}

// A person comes in by the provider, to where he wanted, and nowhere else.
func TestBrowserByProvider(t *testing.T) {
	w, p := withProvider(t)
	if _, text, _ := w.visit(w.client(), "/login?next=/p/acme"); !strings.Contains(text, `href="/login/sso?next=%2fp%2facme"`) {
		t.Fatal(text)
	}
	for next, want := range map[string]string{"/p/acme": "/p/acme", "//evil.example.com": "/", "https://evil.example.com/": "/", `/\evil.example.com`: "/", "javascript:alert(1)": "/"} {
		browser := w.client()
		answer := w.begin(browser, p, next, "sre")
		if code, _, _ := w.visit(w.client(), sso.ReturnPath+"?"+answer.Encode()); code != http.StatusUnauthorized {
			t.Errorf("another browser's login: %d", code)
		}
		code, text, to := w.visit(browser, sso.ReturnPath+"?"+answer.Encode())
		if code != http.StatusSeeOther || to != want {
			t.Fatalf("%s: %d to %q, want %q: %s", next, code, to, want, text)
		}
		if code, text, _ := w.visit(browser, "/p/acme"); code != http.StatusOK || !strings.Contains(text, "anna@sso") {
			t.Fatal(code, text)
		}
		if code, _, _ := w.visit(browser, sso.ReturnPath+"?"+answer.Encode()); code != http.StatusUnauthorized {
			t.Errorf("the same answer again: %d", code)
		}
		if code, _, _ := w.visit(browser, "/p/other"); code != http.StatusNotFound {
			t.Errorf("a project without a role: %d", code)
		}
	}
	browser := w.client()
	answer := w.begin(browser, p, "/", "sales")
	if code, text, _ := w.visit(browser, sso.ReturnPath+"?"+answer.Encode()); code != http.StatusForbidden || strings.Contains(text, "acme") {
		t.Errorf("without a role: %d %s", code, text)
	}
	if said := w.logs.String(); strings.Contains(said, "planted-access-token") || strings.Contains(said, "the-code") {
		t.Error("a secret was logged")
	}
}

// With the provider down the console serves, and local accounts come in.
func TestProviderDown(t *testing.T) {
	w, p := withProvider(t)
	p.Silence(true)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.serve()
	code, text, _ := w.visit(w.client(), "/login/sso")
	if code != http.StatusServiceUnavailable || !strings.Contains(text, "local account") || !strings.Contains(text, `name="password"`) {
		t.Errorf("%d %s", code, text)
	}
	if code, text := w.call("", "POST", "/login/device", ""); code != http.StatusServiceUnavailable || !strings.Contains(text, "local account") || strings.Contains(text, p.URL) {
		t.Errorf("%d %s", code, text)
	}
	if !strings.Contains(w.logs.String(), "502") {
		t.Error("the log does not say what the provider answers")
	}
	if code, _ := w.call(w.login("anna"), "GET", "/projects/acme/fleet", ""); code != http.StatusOK {
		t.Errorf("anna: %d", code)
	}
	p.Silence(false)
	w.begin(w.client(), p, "/", "sre") // the next login asks again
}

// A command line gets a session when the person has answered at the provider.
func TestCommandLineByProvider(t *testing.T) {
	w, p := withProvider(t)
	p.Say(p.Person("7", "anna", w.now, "sre"), nil)
	ca, err := os.ReadFile(CAFile(w.dir))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(w.url, "", client.Trust{CA: string(ca)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d, err := c.BeginDevice(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Answer()
	if _, err := c.FinishDevice(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Standing(t.Context(), "acme"); err != nil || s.Name != "user/anna@sso" || s.Role != "recoverer" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := c.FinishDevice(t.Context(), d); !client.Is(err, http.StatusUnauthorized) {
		t.Errorf("a second session: %v", err)
	}
}
