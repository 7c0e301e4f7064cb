package oidc

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
)

// host is what browsers call the console.
const host = "console.test"

// provider starts the server, with one person, test-user, whose subject is id1.
func provider(t *testing.T) *httptest.Server {
	t.Helper()
	storage.RegisterClients(storage.WebClient("davit", "planted-client-secret", "https://"+host+"/login/sso/return"))
	var handler http.Handler
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(s.Close)
	handler = exampleop.SetupServer(s.URL, storage.NewStorage(storage.NewUserStore(s.URL)), slog.New(slog.DiscardHandler), false)
	return s
}

// rig is a console in a process of its own.
type rig struct {
	t    *testing.T
	dir  string
	real string // where it listens

	mu  sync.Mutex
	log strings.Builder
}

func (r *rig) file(name, text string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func (r *rig) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

func (r *rig) run(dir, name string, args ...string) {
	r.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func newRig(t *testing.T, p *httptest.Server) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	davit := filepath.Join(r.dir, "davit")
	r.run("../..", "go", "build", "-o", davit, "./cmd/davit")
	if err := os.Mkdir(filepath.Join(r.dir, "vault"), 0o700); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(r.dir, "data")
	r.run(r.dir, davit, "console", "init", "--data", data, "--vault-url", "file://"+filepath.Join(r.dir, "vault"), "--recovery-key-file", filepath.Join(r.dir, "key"),
		"--admin", "anna", "--password-file", r.file("password", "correct horse battery"))
	ca := r.file("provider.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw})))
	config := r.file("oidc.yaml", fmt.Sprintf(`issuer: %s
clientID: davit
clientSecretFile: %s
caFile: %s
url: https://%s
scopes: [profile]
groupsClaim: sub
roles: [{group: id1, project: default, role: operator}]
`, p.URL, r.file("secret", "planted-client-secret\n"), ca, host))
	cmd := exec.Command(davit, "console", "--data", data, "--listen", "127.0.0.1:0", "--name", host, "--oidc-config", config, "--backup-every", "0")
	log, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); t.Log(r.said()) }) // hack/verdict looks for secrets in it
	address := make(chan string, 1)
	go func() {
		defer close(address)
		served := regexp.MustCompile(`url=https://(\S+)`)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			r.mu.Lock()
			fmt.Fprintln(&r.log, lines.Text())
			r.mu.Unlock()
			if found := served.FindStringSubmatch(lines.Text()); found != nil {
				address <- found[1]
			}
		}
	}()
	select {
	case r.real = <-address:
	case <-time.After(2 * time.Minute):
	}
	if r.real == "" {
		t.Fatal("the console is not served: ", r.said())
	}
	return r
}

// browser knows the console by its name, and follows redirections.
func (r *rig) browser(p *httptest.Server) *http.Client {
	r.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(p.Certificate())
	ca, err := os.ReadFile(filepath.Join(r.dir, "data", "ca.pem"))
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		r.t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == host+":443" {
			address = r.real
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DialContext: dial}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: transport, Timeout: 2 * time.Minute}
}

func (r *rig) page(answer *http.Response, err error) (string, *url.URL) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text), answer.Request.URL
}

var field = regexp.MustCompile(`name="id" value="([^"]+)"`)

// A person logs in at the server and is in at the console, with the role of his
// group; with a wrong password he is not.
func TestBrowser(t *testing.T) {
	p := provider(t)
	r := newRig(t, p)
	for password, in := range map[string]bool{"verysecure": true, "wrong": false} {
		browser := r.browser(p)
		text, at := r.page(browser.Get("https://" + host + "/login/sso?next=/p/default"))
		form := field.FindStringSubmatch(text)
		if form == nil {
			t.Fatalf("%s shows %s: %s", at, text, r.said())
		}
		to := url.URL{Scheme: at.Scheme, Host: at.Host, Path: "/login/username"}
		issuer, err := url.Parse(p.URL)
		if err != nil {
			t.Fatal(err)
		}
		text, at = r.page(browser.PostForm(to.String(), url.Values{"id": {form[1]}, "username": {"test-user@" + issuer.Hostname()}, "password": {password}}))
		if got := at.Host == host && at.Path == "/p/default" && strings.Contains(text, "@sso"); got != in {
			t.Errorf("password %s: in is %t at %s: %s\n%s", password, got, at, text, r.said())
		}
		text, at = r.page(browser.Get("https://" + host + "/p/default"))
		if got := at.Path == "/p/default"; got != in {
			t.Errorf("password %s: %s: %s", password, at, text)
		}
	}
	if said := r.said(); strings.Contains(said, "planted-client-secret") || strings.Contains(said, "id_token") {
		t.Error("a secret was logged")
	}
}
