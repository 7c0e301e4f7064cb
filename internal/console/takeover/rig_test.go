package takeover_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a condition may take to come true. It bounds a test that
// hangs, and judges nothing.
const patience = 3 * time.Minute

// between is the pause between two looks.
const between = 50 * time.Millisecond

// until waits for a condition.
func until(t *testing.T, what string, fn func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !fn(); time.Sleep(between) { // between two looks
		if time.Now().After(end) {
			t.Fatalf("not %s", what)
		}
	}
}

// davit builds the command once.
var davit = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "davit-takeover-")
	if err != nil {
		return "", err
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", dir+"/davit", "./cmd/davit")
	build.Dir = strings.TrimSpace(string(root))
	out, err := build.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return dir + "/davit", err
})

func TestMain(m *testing.M) {
	if file := os.Getenv(clockFile); file != "" {
		os.Exit(serveByClock(file))
	}
	code := m.Run()
	if os.Getenv("DAVIT_TEST_BED") != "" {
		if bin, err := davit(); err == nil {
			_ = os.RemoveAll(filepath.Dir(bin))
		}
	}
	os.Exit(code)
}

// place is a vault, as processes find it.
type place struct {
	flags []string
	env   []string
	// way is between one console and the vault; nil where nothing can be.
	way func(t *testing.T) *way
	// clocks says that consoles have clocks that can be set, and lines that people and agents
	// reach them by lines alone.
	clocks, lines bool
}

// directory is a vault in a directory.
func directory(t *testing.T) place {
	dir := t.TempDir()
	return place{flags: []string{"--vault-url", "file://" + dir}}
}

// server is a vault on the S3 server of the bed. No process reaches it but through
// a way of its own, as a proxy.
func server(t *testing.T) place {
	address := os.Getenv("DAVIT_TEST_S3")
	if address == "" {
		t.Skip("DAVIT_TEST_S3 names no S3 server")
	}
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		t.Fatal("DAVIT_TEST_S3: want http://ACCESS:SECRET@HOST:PORT/BUCKET")
	}
	secret, _ := u.User.Password()
	return place{
		flags: []string{
			"--vault-url", fmt.Sprintf("s3://%s/takeover-%d-%d?insecureHTTP=true", strings.Trim(u.Path, "/"), os.Getpid(), time.Now().UnixNano()),
			"--endpoint", "http://vault.invalid", "--region", u.Query().Get("region"), "--path-style",
		},
		env: []string{"DAVIT_ACCESS_KEY=" + u.User.Username(), "DAVIT_SECRET_KEY=" + secret},
		way: func(t *testing.T) *way { return newWay(t, &url.URL{Scheme: u.Scheme, Host: u.Host}) },
	}
}

// How a way is.
const (
	open = ""
	shut = "shut" // connections break
	mute = "mute" // nothing is ever answered
	full = "full" // what is there can be read
	slow = "slow"
)

// delay is that of a slow vault.
const delay = 400 * time.Millisecond

// way is a proxy between one console and the vault.
type way struct {
	*httptest.Server
	mu      sync.Mutex
	how     string
	changed chan struct{}
}

func newWay(t *testing.T, to *url.URL) *way {
	w := &way{changed: make(chan struct{})}
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32}
	t.Cleanup(transport.CloseIdleConnections)
	on := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // it is signed
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		how, changed := w.how, w.changed
		w.mu.Unlock()
		switch {
		case how == shut:
			panic(http.ErrAbortHandler)
		case how == mute:
			select {
			case <-r.Context().Done():
			case <-changed:
			}
			panic(http.ErrAbortHandler)
		case how == full && r.Method != http.MethodGet && r.Method != http.MethodHead:
			rw.Header().Set("Content-Type", "application/xml")
			rw.WriteHeader(http.StatusInsufficientStorage)
			_, _ = io.WriteString(rw, "<Error><Code>InsufficientStorage</Code><Message>no room</Message></Error>")
			return
		case how == slow:
			select {
			case <-r.Context().Done():
			case <-time.After(delay):
			}
		}
		on.ServeHTTP(rw, r)
	}))
	t.Cleanup(func() { w.be(open); w.CloseClientConnections(); w.Close() })
	return w
}

// be changes how the way is.
func (w *way) be(how string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.how = how
	close(w.changed)
	w.changed = make(chan struct{})
}

// console is a process that serves one, and its way to the vault.
type console struct {
	name, dir, url string
	front          string // where people and agents find it
	line           *line  // by which they do; nil: directly
	env            []string
	serves         []string // the program that serves it
	clock          string   // the file by which its clock is set, if it can be
	way            *way
	cmd            *exec.Cmd
	ended          chan struct{}
	log            *os.File
}

// rig is one vault with two consoles.
type rig struct {
	t     *testing.T
	bin   string
	dir   string
	place place
	a, b  *console
	web   *http.Client
	token string // a session of anna's
	robot string
}

const (
	project  = "acme"
	password = "correct horse battery"
)

// address is one that no other process listens on.
func address(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.91.%d.%d:0", os.Getpid()>>8&0xff, os.Getpid()&0xff))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// newRig makes a console, and a second one that has joined it, and serves both. The
// first is active.
func newRig(t *testing.T, p place) *rig {
	t.Helper()
	if os.Getenv("DAVIT_TEST_BED") == "" {
		t.Skip("real processes, in real time: set DAVIT_TEST_BED=1")
	}
	bin, err := davit()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, bin: bin, dir: t.TempDir(), place: p}
	r.a, r.b = r.console("a"), r.console("b")
	if err := os.WriteFile(r.dir+"/password", []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	vault := append([]string{"--recovery-key-file", r.dir + "/key", "--project", project}, p.flags...)
	r.must(r.run(r.a, append([]string{"console", "init", "--data", r.a.dir, "--admin", "anna", "--password-file", r.dir + "/password"}, vault...)...))
	r.serve(r.a)
	r.trust()
	until(t, "active", func() bool { return r.active(r.a) })
	r.letIn()
	join := append([]string{"console", "join", "--data", r.b.dir, "--recovery-key-file", r.dir + "/key"}, p.flags...)
	until(t, "joined", func() bool { return r.run(r.b, join...) == nil }) // as soon as there is a backup
	r.serve(r.b)
	until(t, "following", func() bool { return r.passive(r.b) && r.metric(r.b, "follow_seconds") < 2 })
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) console(name string) *console {
	c := &console{name: name, dir: filepath.Join(r.dir, name), url: "https://" + address(r.t), env: append(os.Environ(), r.place.env...)}
	c.front, c.serves = c.url, []string{r.bin}
	if r.place.lines {
		c.line = newLine(r.t, strings.TrimPrefix(c.url, "https://"))
		c.front = "https://" + c.line.address
	}
	if r.place.clocks {
		c.clock = c.dir + ".clock"
		c.serves = []string{os.Args[0]}
		if name == "b" {
			c.serves = append(elsewhere(r.t), c.serves...)
		}
	}
	if r.place.way != nil {
		c.way = r.place.way(r.t)
		c.env = append(c.env, "HTTP_PROXY="+c.way.URL, "http_proxy="+c.way.URL, "NO_PROXY=", "no_proxy=")
	}
	return c
}

// run runs a command as the machine of a console has it.
func (r *rig) run(c *console, args ...string) error {
	cmd := exec.CommandContext(r.t.Context(), r.bin, args...)
	cmd.Env = c.env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args[:2], " "), err, out)
	}
	return nil
}

// serve starts the process of a console.
func (r *rig) serve(c *console) {
	r.t.Helper()
	var err error
	c.log, err = os.OpenFile(filepath.Join(r.dir, c.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	r.must(err)
	host := strings.TrimPrefix(c.url, "https://")
	args := append(c.serves[1:len(c.serves):len(c.serves)], "console", "--data", c.dir, "--listen", host, "--name", strings.Split(host, ":")[0], "--url", c.front, "--refresh", "2s")
	c.cmd = exec.Command(c.serves[0], args...)
	c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = append(c.env[:len(c.env):len(c.env)], "GOMAXPROCS=2"), c.log, c.log
	if c.clock != "" {
		c.cmd.Env = append(c.cmd.Env, clockFile+"="+c.clock)
	}
	r.must(c.cmd.Start())
	cmd, ended := c.cmd, make(chan struct{})
	c.ended = ended
	go func() { defer close(ended); _ = cmd.Wait() }()
	r.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		<-ended
		_ = c.log.Close()
		text, _ := os.ReadFile(c.log.Name())
		r.t.Logf("console %s:\n%s", c.name, text) // hack/verdict looks for secrets in it
	})
}

// signal sends one to the process of a console.
func (r *rig) signal(c *console, s syscall.Signal) {
	r.t.Helper()
	r.must(c.cmd.Process.Signal(s))
	if s == syscall.SIGKILL || s == syscall.SIGTERM {
		<-c.ended
	}
}

// trust makes the client that trusts the console's authority.
func (r *rig) trust() {
	r.t.Helper()
	pool := x509.NewCertPool()
	until(r.t, "served", func() bool {
		text, err := os.ReadFile(r.a.dir + "/ca.pem")
		return err == nil && pool.AppendCertsFromPEM(text)
	})
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 16}
	r.t.Cleanup(transport.CloseIdleConnections)
	r.web = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// askLimit bounds a request. It is shorter than what a stopped console takes to be replaced.
const askLimit = 5 * time.Second

func (r *rig) ask(ctx context.Context, c *console, token, method, path, body string) (int, []byte, error) {
	return r.askAt(ctx, c.url, token, method, path, body)
}

func (r *rig) askAt(ctx context.Context, url, token, method, path, body string) (int, []byte, error) {
	q, err := http.NewRequestWithContext(ctx, method, url+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := r.web.Do(q)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, text, err
}

// call asks and decodes. The answer has to be good.
func (r *rig) call(c *console, token, method, path string, in, out any) {
	r.t.Helper()
	body, err := json.Marshal(in)
	r.must(err)
	if in == nil {
		body = nil
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	code, text, err := r.ask(ctx, c, token, method, "/api/v1"+path, string(body))
	if err == nil && code/100 != 2 {
		err = fmt.Errorf("console %s answers %s %s with %d %s", c.name, method, path, code, text)
	}
	if err == nil && out != nil {
		err = json.Unmarshal(text, out)
	}
	r.must(err)
}

// letIn logs anna in and makes a robot.
func (r *rig) letIn() {
	r.t.Helper()
	var in struct{ Token string }
	r.call(r.a, "", "POST", "/login", map[string]string{"name": "anna", "password": password}, &in)
	r.token = in.Token
	var made struct{ Secret string }
	r.call(r.a, r.token, "POST", "/projects/"+project+"/tokens", map[string]any{"name": "writer", "scopes": []string{"read", "protect"}, "days": 1}, &made)
	r.robot = made.Secret
}

// limited is a context for one request.
func (r *rig) limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.t.Context(), askLimit)
}

// state is what a console says of itself to anybody; code 0: it says nothing.
func (r *rig) state(c *console, path string) (int, string) {
	ctx, cancel := context.WithTimeout(r.t.Context(), askLimit)
	defer cancel()
	code, text, err := r.ask(ctx, c, "", "GET", path, "")
	if err != nil {
		return 0, err.Error()
	}
	return code, string(text)
}

func (r *rig) active(c *console) bool {
	code, _ := r.state(c, "/healthz/active")
	return code == http.StatusOK
}

// passive tells whether a console says that it follows another.
func (r *rig) passive(c *console) bool {
	code, text := r.state(c, "/healthz/active")
	return code == http.StatusServiceUnavailable && strings.Contains(text, "the active one is at")
}

// metric is one of a console's own; -1: it is not told.
func (r *rig) metric(c *console, name string) float64 {
	_, text := r.state(c, "/metrics")
	for line := range strings.Lines(text) {
		var v float64
		if _, err := fmt.Sscanf(line, "davit_console_"+name+" %g", &v); err == nil {
			return v
		}
	}
	return -1
}

// tenant is a project, and who writes in it.
type tenant struct{ project, token string }

func (r *rig) own() tenant { return tenant{project, r.robot} }

func (r *rig) put(ctx context.Context, c *console, name string) (int, error) {
	return r.putIn(ctx, c, r.own(), name)
}

func (r *rig) putIn(ctx context.Context, c *console, in tenant, name string) (int, error) {
	var sites string
	if strings.HasSuffix(name, "5") { // some are handed on to a site
		sites = `,"annotations":{"davit.dev/sites":"s00"}`
	}
	body := fmt.Sprintf(`{"apiVersion":"davit.dev/v1alpha1","kind":"ProtectionPolicy","metadata":{"name":%q%s},"spec":{"schedule":{"every":"1h"}}}`, name, sites)
	code, _, err := r.askAt(ctx, c.front, in.token, "PUT", "/api/v1/projects/"+in.project+"/documents/protectionpolicies/"+name, body)
	return code, err
}

// documents are those that a console has.
func (r *rig) documents(c *console) map[string]bool {
	r.t.Helper()
	return r.documentsOf(c, r.own())
}

func (r *rig) documentsOf(c *console, of tenant) map[string]bool {
	r.t.Helper()
	var list struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	r.call(c, of.token, "GET", "/projects/"+of.project+"/documents/protectionpolicies", nil, &list)
	all := map[string]bool{}
	for _, d := range list.Items {
		all[d.Metadata.Name] = true
	}
	return all
}

// writer writes documents without pause to whichever console takes them.
type writer struct {
	rig     *rig
	in      tenant
	after   func() // each document that was acknowledged
	stop    func()
	running sync.WaitGroup
	rest    sync.RWMutex // held to write while nobody is to

	mu    sync.Mutex
	acked []string
	by    map[*console]int
}

const hands = 3

func (r *rig) write(after func()) *writer { return r.writeIn(r.own(), after) }

func (r *rig) writeIn(in tenant, after func()) *writer {
	ctx, cancel := context.WithCancel(r.t.Context())
	w := &writer{rig: r, in: in, after: after, by: map[*console]int{}}
	for i := range hands {
		w.running.Go(func() { w.run(ctx, i) })
	}
	w.stop = sync.OnceFunc(func() { cancel(); w.running.Wait() })
	r.t.Cleanup(w.stop)
	return w
}

func (w *writer) run(ctx context.Context, hand int) {
	to := w.rig.a
	for n := 1; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("w-%d-%06d", hand, n)
		w.rest.RLock()
		limited, cancel := context.WithTimeout(ctx, askLimit)
		code, err := w.rig.putIn(limited, to, w.in, name)
		cancel()
		w.rest.RUnlock()
		if err == nil && code == http.StatusOK {
			w.mu.Lock()
			w.acked = append(w.acked, name)
			w.by[to]++
			w.mu.Unlock()
			w.after()
			continue
		}
		if to == w.rig.a {
			to = w.rig.b
		} else {
			to = w.rig.a
		}
		time.Sleep(between) // between two tries
	}
}

func (w *writer) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string{}, w.acked...)
}

func (w *writer) count(c *console) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.by[c]
}

// more waits until a console has acknowledged so many more.
func (w *writer) more(c *console, n int) {
	w.rig.t.Helper()
	from := w.count(c)
	until(w.rig.t, "acknowledged by "+c.name, func() bool { return w.count(c) >= from+n })
}

// caughtUp waits until a console follows, with nothing new to follow meanwhile: on a
// busy machine who writes without pause may be the faster one for long.
func (w *writer) caughtUp(what string, follows func() bool) {
	w.rig.t.Helper()
	w.rest.Lock()
	defer w.rest.Unlock()
	until(w.rig.t, "following: "+what, follows)
}

// kept fails for what was acknowledged and is not there.
func (w *writer) kept(c *console) {
	w.rig.t.Helper()
	acked := w.all()
	there := w.rig.documentsOf(c, w.in)
	for _, name := range acked {
		if !there[name] {
			w.rig.t.Errorf("%s was acknowledged, and console %s has it not", name, c.name)
		}
	}
	w.rig.t.Logf("console %s has all %d documents of %s that were acknowledged", c.name, len(acked), w.in.project)
}

// takes waits until a console is active, and returns how long that took.
func (r *rig) takes(c *console, since time.Time) time.Duration {
	r.t.Helper()
	until(r.t, "active: "+c.name, func() bool { return r.active(c) })
	return time.Since(since).Round(time.Millisecond)
}

func (w *way) is(how string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.how == how
}
