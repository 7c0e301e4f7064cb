package console

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/sso"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/console/store/directory"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/mem"
)

const password = "correct horse battery"

var cheap = account.Cost{Passes: 1, Memory: 64, Threads: 1}

// world is a console that is served over TLS, with two projects of two vaults:
// anna is admin of acme, bob of other, vera views acme.
type world struct {
	t      *testing.T
	dir    string
	url    string
	pool   *x509.CertPool
	vaults map[string]*fault.Store   // by address
	keys   map[string]vault.Identity // by project: recovery keys
	now    time.Time                 // it stands still
	stop   func() error
	logs   *logs
	sso    *sso.Config
	backup time.Duration // how often; 0: never
	change func(*Options)
}

// logs is what the console wrote.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOf(t, nil)
}

// newWorldOf is newWorld with other options.
func newWorldOf(t *testing.T, change func(*Options)) *world {
	t.Helper()
	if change == nil {
		t.Parallel()
	}
	w := &world{t: t, change: change, now: time.Now(), dir: filepath.Join(t.TempDir(), "console"), vaults: map[string]*fault.Store{}, keys: map[string]vault.Identity{}, logs: &logs{}}
	ctx := t.Context()
	c, err := store.Create(ctx, w.dir)
	if err != nil {
		t.Fatal(err)
	}
	act := audit.Act{By: "machine/root", At: w.now}
	users := map[string]store.User{}
	for _, name := range []string{"anna", "bob", "vera"} {
		if users[name], err = AddUser(ctx, c, cheap, act, name, password, name == "anna"); err != nil {
			t.Fatal(err)
		}
	}
	for _, made := range [][2]string{{"acme", "anna"}, {"other", "bob"}} { // the first one's vault is the console's home
		name, admin := made[0], made[1]
		address := "mem:" + name
		w.vaults[address] = fault.New(mem.New(time.Now), 1, fault.Faults{})
		p, key, err := consoletest.New(ctx, w.vaults[address], name)
		w.keys[name] = key
		if err == nil {
			err = consoletest.Fill(ctx, p, w.now)
		}
		if err == nil {
			_, err = AddProject(ctx, c, Bind{
				Config: backend.Config{URL: address, SecretKey: "planted-secret"}, Store: w.vaults[address], Project: p, Recovery: key,
				Machine: "test", Admin: users[admin], Act: act,
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	acme, err := c.Project(ctx, "acme")
	if err == nil {
		err = acme.SetMember(ctx, act, store.Member{User: users["vera"].ID, Name: "vera", Role: account.Viewer})
	}
	if err := errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { t.Log(w.logs) }) // hack/verdict looks for secrets in it
	w.serve()
	return w
}

func (w *world) options() Options {
	o := Options{
		SSO: w.sso, Backup: w.backup, Dir: w.dir, Listen: "127.0.0.1:0", Names: Names("127.0.0.1:0", nil), URL: "https://" + filepath.Base(w.dir) + ".example.com", Every: 500 * time.Millisecond, step: 50 * time.Millisecond, Cost: cheap, Now: func() time.Time { return w.now },
		Log: slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Store: func(_ context.Context, cfg backend.Config) (vault.Store, error) {
			return w.vaults[cfg.URL], nil
		},
	}
	if w.change != nil {
		w.change(&o)
	}
	return o
}

// serve starts the console and waits until it is active, unless it is to follow another.
func (w *world) serve() {
	w.t.Helper()
	passive := Passive(w.dir)
	w.start()
	if !passive {
		w.active()
	}
}

// start starts the console and waits until it listens.
func (w *world) start() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	opts := w.options()
	ready, ended := make(chan string, 1), make(chan error, 1)
	opts.Ready = func(address string) {
		select {
		case ready <- address:
		default: // it has begun anew
		}
	}
	go func() { ended <- Serve(ctx, opts) }()
	select {
	case address := <-ready:
		w.url = "https://" + address
	case err := <-ended:
		cancel()
		w.t.Fatal(err)
	}
	w.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	w.t.Cleanup(func() {
		if err := w.stop(); err != nil {
			w.t.Error(err)
		}
	})
	text, err := os.ReadFile(CAFile(w.dir))
	if err != nil {
		w.t.Fatal(err)
	}
	w.pool = x509.NewCertPool()
	w.pool.AppendCertsFromPEM(text)
}

// active waits until this is the active console.
func (w *world) active() {
	w.t.Helper()
	for client := w.client(); ; {
		r, err := http.NewRequestWithContext(w.t.Context(), "GET", w.url+"/healthz/active", nil)
		if err != nil {
			w.t.Fatal(err)
		}
		if code, _ := w.do(client, r); code == http.StatusOK {
			return
		}
		select {
		case <-w.t.Context().Done():
			w.t.Fatal("it does not become active")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (w *world) client() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.pool}}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: transport, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// call asks the API and returns code and body.
func (w *world) call(token, method, path, body string) (int, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+api.Prefix+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" { // as curl says of --data, whatever it is
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return w.do(w.client(), r)
}

func (w *world) do(client *http.Client, r *http.Request) (int, string) {
	w.t.Helper()
	answer, err := client.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func (w *world) login(name string) string {
	w.t.Helper()
	code, text := w.call("", "POST", "/login", `{"name":"`+name+`","password":"`+password+`"}`)
	var in api.LoggedIn
	if code != http.StatusCreated || json.Unmarshal([]byte(text), &in) != nil || in.Token == "" {
		w.t.Fatalf("login of %s: %d %s", name, code, text)
	}
	return in.Token
}

func (w *world) robot(token, project string, scopes string) string {
	w.t.Helper()
	code, text := w.call(token, "POST", "/projects/"+project+"/tokens", `{"name":"ci","days":1,"scopes":[`+scopes+`]}`)
	var made api.Token
	if code != http.StatusCreated || json.Unmarshal([]byte(text), &made) != nil || made.Secret == "" {
		w.t.Fatalf("token: %d %s", code, text)
	}
	return made.Secret
}

const policyJSON = `{"apiVersion":"davit.dev/v1alpha1","kind":"ProtectionPolicy","metadata":{"name":"hourly"},"spec":{"schedule":{"every":"1h"}}}`

// Projects are compartments: whoever has all rights in one learns nothing of
// another, whatever he tries. The last column is what he may do in his own.
func TestCompartments(t *testing.T) {
	w := newWorld(t)
	anna, bob, vera := w.login("anna"), w.login("bob"), w.login("vera")
	annas, bobs := w.robot(anna, "acme", `"read","protect","recover","audit"`), w.robot(bob, "other", `"read","protect","recover","audit"`)
	paths := []string{"/whoami", "/fleet", "/documents/applications", "/documents/protectionpolicies/hourly", "/audit", "/members", "/tokens", "/agents", "/events", "/documents/applications?watch=true"}
	for _, path := range paths {
		for who, token := range map[string]string{"bob": bob, "bob's robot": bobs} {
			if code, text := w.call(token, "GET", "/projects/acme"+path, ""); code != http.StatusNotFound && code != http.StatusUnauthorized || strings.Contains(text, "shop") || strings.Contains(text, "anna") {
				t.Errorf("%s reads %s of acme: %d %s", who, path, code, text)
			}
		}
	}
	// A project that is not there is answered like one that he may not see.
	_, secret := w.call(bob, "GET", "/projects/acme/fleet", "")
	_, missing := w.call(bob, "GET", "/projects/nothing/fleet", "")
	if strings.ReplaceAll(missing, "nothing", "acme") != secret && !strings.Contains(secret, "NotFound") {
		t.Errorf("%s differs from %s", secret, missing)
	}
	for _, c := range []struct {
		who, token, method, path, body string
		want                           int
	}{
		{"stranger", "", "GET", "/projects/acme/fleet", "", 401},
		{"guess", "davit_session_" + strings.Repeat("0", 64), "GET", "/projects/acme/fleet", "", 401},
		{"guess", annas[:len(annas)-1] + map[bool]string{true: "1", false: "0"}[strings.HasSuffix(annas, "0")], "GET", "/projects/acme/fleet", "", 401},
		{"crossed path", bob, "GET", "/projects/other/../acme/fleet", "", 307},
		{"crossed path", bob, "GET", "/projects/other%2f..%2facme/fleet", "", 404},
		{"vera", vera, "GET", "/projects/acme/fleet", "", 200},
		{"vera", vera, "PUT", "/projects/acme/documents/protectionpolicies/hourly", policyJSON, 403},
		{"vera", vera, "GET", "/projects/acme/audit", "", 403},
		{"vera", vera, "GET", "/projects/acme/whoami", "", 200},
		{"robot that may only read the log", w.robot(bob, "other", `"audit"`), "GET", "/projects/other/whoami", "", 200},
		{"stranger", "", "GET", "/projects/acme/whoami", "", 401},
		{"vera", vera, "GET", "/projects/acme/tokens", "", 403},
		{"vera", vera, "PUT", "/projects/acme/members/vera", `{"role":"admin"}`, 403},
		{"bob", bob, "PUT", "/projects/acme/members/bob", `{"role":"admin"}`, 404},
		{"bob's robot", bobs, "GET", "/projects/other/fleet", "", 200},
		{"anna's robot", annas, "PUT", "/projects/acme/documents/protectionpolicies/hourly", policyJSON, 200},
		{"anna's robot", annas, "GET", "/projects/acme/tokens", "", 403},
		{"anna's robot", annas, "GET", "/whoami", "", 401},
		{"anna, administrator", anna, "GET", "/projects/other/fleet", "", 404},
	} {
		if code, text := w.call(c.token, c.method, c.path, c.body); code != c.want {
			t.Errorf("%s: %s %s: %d %s, want %d", c.who, c.method, c.path, code, text, c.want)
		}
	}
	code, text := w.call(anna, "GET", "/projects/acme/tokens", "")
	var tokens api.Tokens
	if code != 200 || json.Unmarshal([]byte(text), &tokens) != nil || len(tokens.Items) != 1 || tokens.Items[0].Secret != "" {
		t.Fatalf("%d %s", code, text)
	}
	if code, text := w.call(anna, "DELETE", "/projects/acme/tokens/"+tokens.Items[0].ID, ""); code != 200 {
		t.Errorf("revoke: %d %s", code, text)
	}
	if code, _ := w.call(annas, "GET", "/projects/acme/fleet", ""); code != 401 {
		t.Errorf("a revoked token: %d", code)
	}
	for _, secret := range []string{annas, bobs, anna, bob, password, "planted-secret"} {
		if strings.Contains(w.logs.String(), secret) {
			t.Error("a secret is in the log")
		}
	}
}

func TestDocumentsOverHTTP(t *testing.T) {
	w := newWorld(t)
	anna := w.login("anna")
	const at = "/projects/acme/documents/protectionpolicies/hourly"
	changed := strings.Replace(policyJSON, `"1h"`, `"2h"`, 1)
	for i, c := range []struct {
		method, path, body string
		want               int
		says               string
	}{
		{"GET", at, "", 404, "NotFound"},
		{"PUT", at, policyJSON, 200, `"resourceVersion":"1"`},
		{"PUT", at, policyJSON, 200, `"resourceVersion":"1"`},
		{"PUT", at + "?create=true", changed, 409, "AlreadyExists"},
		{"PUT", at + "?dryRun=true", changed, 200, `"every":"2h"`},
		{"GET", at, "", 200, `"every":"1h"`},
		{"PUT", at, strings.Replace(changed, `"name":"hourly"`, `"name":"hourly","resourceVersion":"9"`, 1), 409, "Conflict"},
		{"PUT", at, strings.Replace(changed, `"name":"hourly"`, `"name":"hourly","resourceVersion":"1"`, 1), 200, `"generation":2`},
		{"PUT", at, strings.Replace(policyJSON, `"1h"`, `"1s"`, 1), 422, "every must be 10s or more"},
		{"PUT", at + "x", policyJSON, 400, "the address names"},
		{"PUT", at, "{", 422, "Invalid"},
		{"PUT", at, strings.Repeat(" ", 2<<20), 413, "TooLarge"},
		{"GET", "/projects/acme/documents/secrets", "", 404, "keeps no"},
		{"GET", "/projects/acme/documents/protectionpolicies", "", 200, `"kind":"ProtectionPolicyList"`},
		{"GET", "/projects/acme/documents/protectionpolicies?watch=true&resourceVersion=99", "", 410, "Expired"},
		{"DELETE", at + "?resourceVersion=1", "", 409, "Conflict"},
		{"DELETE", at, "", 200, `"resourceVersion":"3"`},
		{"DELETE", at, "", 404, "NotFound"},
		{"GET", "/projects/acme/audit?limit=1", "", 200, `"document.delete"`},
		{"POST", at, "", 404, "NotFound"},
	} {
		if code, text := w.call(anna, c.method, c.path, c.body); code != c.want || !strings.Contains(text, c.says) {
			t.Errorf("%d: %s %s: %d %s, want %d and %q", i, c.method, c.path, code, text, c.want, c.says)
		}
	}
}

// A watch sends what happens, goes on from where it was, and ends with the
// watcher's rights.
func TestWatch(t *testing.T) {
	w := newWorld(t)
	anna := w.login("anna")
	robot := w.robot(anna, "acme", `"read"`)
	const kind = "/projects/acme/documents/protectionpolicies"
	r, err := http.NewRequestWithContext(t.Context(), "GET", w.url+api.Prefix+kind+"?watch=true&resourceVersion=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+robot)
	answer, err := w.client().Do(r) //nolint:bodyclose // it is, at the end of the test
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	events := make(chan string, 64)
	go func() {
		defer close(events)
		text, _ := io.ReadAll(io.TeeReader(answer.Body, chunks(events)))
		_ = text
	}()
	if code, text := w.call(anna, "PUT", kind+"/hourly", policyJSON); code != 200 {
		t.Fatal(code, text)
	}
	waitFor(t, events, "event: ADDED\nid: 1\ndata: ")
	_, text := w.call(anna, "GET", "/projects/acme/tokens", "")
	id := regexp.MustCompile(`"id":"([0-9a-f]+)"`).FindStringSubmatch(text)[1]
	if code, text := w.call(anna, "DELETE", "/projects/acme/tokens/"+id, ""); code != 200 {
		t.Fatal(code, text)
	}
	if code, text := w.call(anna, "DELETE", kind+"/hourly", ""); code != 200 {
		t.Fatal(code, text)
	}
	for text := range events { // until the console ends it
		if strings.Contains(text, "DELETED") {
			t.Error("a revoked token goes on watching")
		}
	}
}

type chunks chan<- string

func (c chunks) Write(p []byte) (int, error) { c <- string(p); return len(p), nil }

func waitFor(t *testing.T, events <-chan string, want string) {
	t.Helper()
	var all strings.Builder
	for text := range events {
		all.WriteString(text)
		if strings.Contains(all.String(), want) {
			return
		}
	}
	t.Fatalf("%q did not come: %s", want, all.String())
}

// The description has every route, and every route that it has answers.
func TestOpenAPI(t *testing.T) {
	w := newWorld(t)
	code, text := w.call("", "GET", "/openapi.json", "")
	var d struct {
		OpenAPI    string
		Paths      map[string]map[string]struct{ Security *[]any }
		Components struct{ Schemas map[string]json.RawMessage }
	}
	if code != 200 || json.Unmarshal([]byte(text), &d) != nil || d.OpenAPI != "3.1.0" || len(d.Paths) < 10 {
		t.Fatalf("%d %.300s", code, text)
	}
	for _, reference := range regexp.MustCompile(`#/components/schemas/([A-Za-z.]+)`).FindAllStringSubmatch(text, -1) {
		if d.Components.Schemas[reference[1]] == nil {
			t.Errorf("there is no schema %s", reference[1])
		}
	}
	fill := strings.NewReplacer("{project}", "acme", "{kind}", "applications", "{name}", "x", "{id}", "x")
	for path, operations := range d.Paths {
		for method, o := range operations {
			code, text := w.call("", strings.ToUpper(method), strings.TrimPrefix(fill.Replace(path), api.Prefix), "")
			if open := o.Security != nil; open == (code == 401) {
				t.Errorf("%s %s without a token: %d %s", method, path, code, text)
			}
		}
	}
}

// Wrong names and passwords are answered alike, few times, and noted.
func TestLoginLimits(t *testing.T) {
	w := newWorld(t)
	try := func(name, word string) (int, string) {
		return w.call("", "POST", "/login", `{"name":"`+name+`","password":"`+word+`"}`)
	}
	codeA, textA := try("anna", "wrong password")
	codeB, textB := try("nobody", "wrong password")
	if codeA != 401 || codeA != codeB || textA != textB {
		t.Errorf("%d %s, %d %s", codeA, textA, codeB, textB)
	}
	limited := false
	for range 10 {
		code, _ := try("anna", "wrong password")
		limited = limited || code == 429
	}
	if code, _ := try("anna", password); !limited || code != 429 {
		t.Errorf("tries are not limited: %t, %d", limited, code)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	c, err := store.Open(t.Context(), w.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.Audit(t.Context(), 0, 2)
	if err != nil || all[1].Refused == "" || all[1].From == "" || all[0].Refused == "" || !strings.Contains(all[0].Detail, "7 more") {
		t.Errorf("%+v, %v", all, err) // 5 tries, 7 that were not even made
	}
	if _, err := c.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}
}

// Deadlines are what a console told a connection.
type deadlines struct {
	*httptest.ResponseRecorder
	read, write chan time.Time
}

func (d *deadlines) SetReadDeadline(at time.Time) error  { d.read <- at; return nil }
func (d *deadlines) SetWriteDeadline(at time.Time) error { d.write <- at; return nil }

// A watch outlives the time that a request may take to arrive, and every answer
// must be taken within a time.
func TestDeadlines(t *testing.T) {
	w := newWorld(t)
	anna := w.login("anna")
	c, err := store.Open(t.Context(), w.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opts := w.options()
	s := newServer(opts, c)
	handler := s.handler(ctx, entry.NewDoor(c, cheap, opts.Now, opts.Log))
	for path, watch := range map[string]bool{"/projects/acme/documents/protectionpolicies?watch=true": true, "/whoami": false} {
		r := httptest.NewRequestWithContext(ctx, "GET", api.Prefix+path, nil)
		r.Header.Set("Authorization", "Bearer "+anna)
		d := &deadlines{httptest.NewRecorder(), make(chan time.Time, 9), make(chan time.Time, 9)}
		ended := make(chan struct{})
		go func() { defer close(ended); handler.ServeHTTP(d, r) }()
		if at := <-d.write; at.IsZero() {
			t.Errorf("%s has no time by which it must be taken", path)
		}
		if watch {
			if at := <-d.read; !at.IsZero() {
				t.Errorf("%s ends at %s", path, at)
			}
			if at := <-d.write; at.IsZero() {
				t.Errorf("%s has no time by which an event must be taken", path)
			}
			cancel()
		}
		<-ended
	}
}

// Who may not see a project learns nothing when its file is damaged: not even
// that it exists. Other projects go on, also where it is the first one, and
// administrators see what is wrong.
func TestDamagedProject(t *testing.T) {
	w := newWorld(t)
	anna, bob, vera := w.login("anna"), w.login("bob"), w.login("vera")
	robot, foreign := w.robot(anna, "acme", `"read"`), w.robot(bob, "other", `"read"`)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	c, err := store.Open(t.Context(), w.dir)
	if err != nil {
		t.Fatal(err)
	}
	acme, err := c.Project(t.Context(), "acme")
	if err := errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
	torn := []byte(strings.Repeat("no database ", 1000))
	if err := os.WriteFile(filepath.Join(w.dir, "projects", acme.ID+".db"), torn, 0o600); err != nil {
		t.Fatal(err)
	}
	w.serve() // although that is the first project, in whose vault is who is active
	for who, token := range map[string]string{"bob": bob, "vera": vera, "a robot": robot, "a foreign robot": foreign} {
		code, text := w.call(token, "GET", "/projects/acme/fleet", "")
		missingCode, missing := w.call(token, "GET", "/projects/nothing/fleet", "")
		if code != missingCode || text != strings.ReplaceAll(missing, "nothing", "acme") {
			t.Errorf("%s is told %d %s, of one that is not there %d %s", who, code, text, missingCode, missing)
		}
	}
	if code, text := w.call(bob, "GET", "/projects/other/fleet", ""); code != 200 {
		t.Errorf("another project: %d %s", code, text)
	}
	if code, text := w.call(bob, "PUT", "/projects/other/documents/protectionpolicies/hourly", policyJSON); code != 200 {
		t.Errorf("another project is not changed: %d %s", code, text)
	}
	if code, _ := w.call(anna, "GET", "/projects/acme/fleet", ""); code != 500 {
		t.Errorf("the administrator is told %d", code)
	}
	for name, want := range map[string]string{"bob": "other", "anna": "database damaged"} {
		w.shown(w.browse(name), "/", want)
	}
	// It has no backup, so that nothing could be brought in its place: it is left as it is.
	if there, err := os.ReadFile(directory.Project(w.dir, acme.ID)); err != nil || !bytes.Equal(there, torn) {
		t.Errorf("what was damaged is gone: %v", err)
	}
}

// Only one process serves a console, and it serves again after it ended.
func TestServeOnce(t *testing.T) {
	w := newWorld(t)
	if err := Serve(t.Context(), w.options()); !errors.Is(err, ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.serve()
	w.login("anna")
	if code, text := w.do(w.client(), w.get("/healthz")); code != 200 || text != "ok\n" {
		t.Errorf("%d %s", code, text)
	}
}

func (w *world) get(path string) *http.Request {
	r, err := http.NewRequestWithContext(w.t.Context(), "GET", w.url+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) post(path string, form url.Values, origin string) *http.Request {
	r, err := http.NewRequestWithContext(w.t.Context(), "POST", w.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if origin != "" {
		r.Header.Set("Origin", origin)
		r.Header.Set("Sec-Fetch-Site", map[bool]string{true: "same-origin", false: "cross-site"}[origin == w.url])
	}
	return r
}

// browse logs in as a browser does.
func (w *world) browse(name string) *http.Client {
	w.t.Helper()
	client := w.client()
	code, text := w.do(client, w.post("/login", url.Values{"name": {name}, "password": {password}}, w.url))
	if code != http.StatusSeeOther {
		w.t.Fatalf("login: %d %s", code, text)
	}
	return client
}

// shown waits until a page holds a text.
func (w *world) shown(client *http.Client, path, text string) string {
	w.t.Helper()
	var page string
	consoletest.Until(w.t, fmt.Sprintf("%q on %s", text, path), func() (bool, string) {
		var code int
		if code, page = w.do(client, w.get(path)); code != 200 && code != 404 { // it may not be known yet
			w.t.Fatalf("%s: %d, %s", path, code, page)
		}
		return code == 200 && strings.Contains(page, text), page
	})
	return page
}

// What is known stands on the pages; a vault that falls silent is said to be.
func TestPages(t *testing.T) {
	w := newWorld(t)
	anna := w.browse("anna")
	page := w.shown(anna, "/p/acme", "1 of 2 applications are protected.")
	for _, want := range []string{"wiki", "Lagging", "drill-shop-2", "What to do now", "anna wants to look", "site"} {
		if !strings.Contains(page, want) {
			t.Errorf("the fleet page does not say %q", want)
		}
	}
	for path, want := range map[string]string{
		"/":                         "1 of 2",
		"/p/acme?q=shop&state=":     "shop",
		"/p/acme/applications/wiki": "per-volume",
		"/p/acme/runs":              "drill-shop-1",
		"/p/acme/runs/drill-shop-2": "It waits for you: anna wants to look",
		"/p/acme/documents":         "There is none yet",
		"/p/acme/plans":             "The vault keeps no plan yet",
		"/p/acme/readiness":         "What recovery of a cluster depends on",
		"/p/acme/events":            "There is none",
		"/p/acme?sort=-lost":        `aria-sort="descending"`,
		"/p/acme/audit":             "member.set",

		"/p/acme/audit?action=member.%2A&until=2126-01-01+04:00":  "member.set",
		"/p/acme/audit?by=nobody&refused=true":                    "No record is like that.",
		"/p/acme/audit?until=2020-01-01T00:00:00Z&object=%3Cb%3E": `value="&lt;b&gt;"`,
		"/p/acme/people":    "vera",
		"/users":            "bob",
		"/audit":            "user.create",
		"/account":          "One-time codes",
		"/assets/style.css": "--ground",
	} {
		w.shown(anna, path, want)
	}
	if code, page := w.do(anna, w.get("/p/acme/audit?since=yesterday")); code != http.StatusUnprocessableEntity || !strings.Contains(page, "is not a time such as") || !strings.Contains(page, `value="yesterday"`) || strings.Contains(page, "member.set") {
		t.Errorf("%d %s", code, page)
	}
	w.vaults["mem:acme"].Set(fault.Faults{Refuse: 1})
	w.shown(anna, "/p/acme", "The vault is silent.")
	w.shown(anna, "/p/acme/applications/shop", "The vault is silent.")
	w.vaults["mem:acme"].Set(fault.Faults{})
	for path, code := range map[string]int{"/p/other": 404, "/p/none": 404, "/p/acme/applications/none": 404, "/p/acme/runs/none": 404, "/p/acme/plans/none": 404, "/p/other/live": 404, "/p/other/plans": 404, "/p/acme/runs/drill-shop-1/report/exe": 404, "/nothing": 404} {
		if got, text := w.do(anna, w.get(path)); got != code || !strings.Contains(text, "nothing that you may see") {
			t.Errorf("%s: %d", path, got)
		}
	}
}

// A page of another site can send nothing, nor can a form without the session's
// secret; with both it is done.
func TestForms(t *testing.T) {
	w := newWorld(t)
	anna, vera := w.browse("anna"), w.browse("vera")
	page := w.shown(anna, "/p/acme/people", `name="form"`)
	form := regexp.MustCompile(`name="form" value="([0-9a-f]+)"`).FindStringSubmatch(page)[1]
	give := url.Values{"form": {form}, "name": {"bob"}, "role": {"viewer"}}
	bare := url.Values{"name": {"bob"}, "role": {"viewer"}}
	if again := w.shown(anna, "/p/acme/people", `name="form"`); strings.Contains(again, form) {
		t.Error("the secret of forms is the same text in two answers")
	}
	for name, c := range map[string]struct {
		client *http.Client
		form   url.Values
		origin string
		want   int
	}{
		"foreign page":   {anna, give, "https://evil.example.com", 403},
		"no secret":      {anna, bare, w.url, 403},
		"other's secret": {vera, give, w.url, 403},
		"stranger":       {w.client(), give, w.url, 303},
	} {
		if code, text := w.do(c.client, w.post("/p/acme/members", c.form, c.origin)); code != c.want {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	if strings.Contains(w.shown(anna, "/p/acme/people", "vera"), ">bob<") {
		t.Fatal("one of them was done")
	}
	if code, text := w.do(anna, w.post("/p/acme/members", give, w.url)); code != 303 {
		t.Errorf("%d %s", code, text)
	}
	w.shown(anna, "/p/acme/people", ">bob<")
	code, text := w.do(anna, w.post("/p/acme/tokens", url.Values{"form": {form}, "name": {"ci"}, "days": {"1"}, "scope": {"read"}}, w.url))
	if code != 200 || !strings.Contains(text, "davit_robot_") {
		t.Errorf("%d %s", code, text)
	}
	if strings.Contains(w.shown(anna, "/p/acme/people", "ci"), "davit_robot_") {
		t.Error("a token is shown twice")
	}
	if code, text := w.do(vera, w.get("/users")); code != 403 {
		t.Errorf("%d %s", code, text)
	}
	if code, _ := w.do(anna, w.post("/logout", url.Values{"form": {form}}, w.url)); code != 303 {
		t.Error(code)
	}
	if code, _ := w.do(anna, w.get("/p/acme")); code != 303 {
		t.Errorf("after logout: %d", code)
	}
}

// What browsers are told about each page.
func TestHeaders(t *testing.T) {
	w := newWorld(t)
	client := w.client()
	answer, err := client.Do(w.post("/login", url.Values{"name": {"anna"}, "password": {password}, "next": {"https://evil.example.com/"}}, w.url))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	cookie := answer.Header.Get("Set-Cookie")
	for _, want := range []string{"__Host-davit=", "Secure", "HttpOnly", "SameSite=Lax", "Path=/"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("the cookie %q has no %s", cookie, want)
		}
	}
	if got := answer.Header.Get("Location"); got != "/" {
		t.Errorf("a login leads to %s", got)
	}
	for name, want := range map[string]string{"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'", "X-Frame-Options": "DENY", "Cache-Control": "no-store", "Strict-Transport-Security": "max-age"} {
		if got := answer.Header.Get(name); !strings.Contains(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	// Pages and what they are made of are compressed, what is shown once is not, and what
	// the browser has already is not sent again.
	anna := w.browse("anna")
	w.shown(anna, "/p/acme", "wiki")
	asked := func(r *http.Request, tag string) (code int, header http.Header) {
		t.Helper()
		r.Header.Set("Accept-Encoding", "gzip")
		if tag != "" {
			r.Header.Set("If-None-Match", tag)
		}
		answer, err := anna.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close() // a stream ends with it
		return answer.StatusCode, answer.Header
	}
	_, style := asked(w.get("/assets/style.css"), "")
	for name, c := range map[string]struct {
		request *http.Request
		tag     string
		code    int
		want    string
	}{
		"page": {w.get("/p/acme"), "", 200, "gzip"}, "style": {w.get("/assets/style.css"), "", 200, "gzip"}, "style again": {w.get("/assets/style.css"), style.Get("ETag"), 304, ""},
		"another tag": {w.get("/assets/style.css"), `W/"00"`, 200, "gzip"}, "stream": {w.get("/p/acme/live"), "", 200, ""},
		"answer to a form": {w.post("/p/acme/members", url.Values{}, w.url), "", 403, ""}, "no such asset": {w.get("/assets/none.css"), "", 404, ""},
	} {
		code, header := asked(c.request, c.tag)
		if got := header.Get("Content-Encoding"); code != c.code || got != c.want {
			t.Errorf("%s: %d, compressed by %q", name, code, got)
		}
	}
	form := regexp.MustCompile(`name="form" value="([0-9a-f]+)"`).FindStringSubmatch(w.shown(anna, "/account", "Set up one-time codes"))[1]
	if code, text := w.do(anna, w.post("/account/want", url.Values{"form": {form}, "password": {password}}, w.url)); code != http.StatusSeeOther {
		t.Fatalf("%d %s", code, text)
	}
	if _, header := asked(w.get("/account"), ""); header.Get("Content-Encoding") != "" {
		t.Errorf("a page with the secret of codes is compressed by %q", header.Get("Content-Encoding"))
	}
	const script = `<script src="/assets/live.js" defer></script>` // the only one there is
	page := w.shown(anna, "/p/acme", script)
	if page = strings.Replace(page, script, "", 1); strings.Contains(page, "<script") || strings.Contains(page, " on") && regexp.MustCompile(` on[a-z]+=`).MatchString(page) || strings.Contains(page, "style=") || strings.Contains(page, "//cdn") {
		t.Error("a page has scripts, styles of its own or things from elsewhere")
	}
}
