package remote_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"davit.dev/davit/internal/cli"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/client"
)

// beDavit has this binary be davit itself.
const beDavit = "DAVIT_TEST_BE_DAVIT"

func TestMain(m *testing.M) {
	if os.Getenv(beDavit) != "" {
		os.Exit(cli.Main(append([]string{"davit"}, os.Args[1:]...), cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
	}
	os.Exit(m.Run())
}

const (
	password = "correct horse battery"
	patience = 2 * time.Minute // for what another process does
)

// rig is a console in a process of its own, with a vault in a directory, behind an
// address that outlives it.
type rig struct {
	t       *testing.T
	dir     string
	url     string
	process *exec.Cmd

	mu   sync.Mutex
	real string // where the console listens
	said bytes.Buffer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	t.Setenv("DAVIT_CONSOLES", r.path("logins/consoles.json"))
	r.file("password", password+"\n")
	if err := os.Mkdir(r.path("vault"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.want(0, "", "console", "init", "--data", r.path("data"), "--vault-url", "file://"+r.path("vault"), "--recovery-key-file", r.path("key"), "--admin", "anna", "--password-file", r.path("password"))
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { front.Close() })
	r.url = "https://" + front.Addr().String()
	go r.pass(front)
	r.serve()
	t.Cleanup(func() { r.kill(); t.Log(r.text()) }) // hack/verdict looks for secrets in it
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) file(name, text string) string {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Dir(r.path(name)), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(r.path(name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return r.path(name)
}

// pass hands connections on to where the console listens now.
func (r *rig) pass(front net.Listener) {
	for {
		in, err := front.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		out, err := net.Dial("tcp", r.real)
		r.mu.Unlock()
		if err != nil {
			in.Close()
			continue
		}
		go func() { _, _ = io.Copy(out, in); out.Close() }()
		go func() { _, _ = io.Copy(in, out); in.Close() }()
	}
}

func (r *rig) start(args ...string) (*exec.Cmd, io.Reader, io.Reader) {
	r.t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), beDavit+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	return cmd, out, errs
}

var served = regexp.MustCompile(`url=https://(\S+)`)

func (r *rig) serve() {
	r.t.Helper()
	cmd, out, log := r.start("console", "--data", r.path("data"), "--listen", "127.0.0.1:0", "--backup-every", "0", "--refresh", "1s")
	r.process = cmd
	go func() { _, _ = io.Copy(r, out) }()
	address := make(chan string, 1)
	go func() {
		defer close(address)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			_, _ = r.Write(append(lines.Bytes(), '\n'))
			if found := served.FindStringSubmatch(lines.Text()); found != nil {
				address <- found[1]
			}
		}
	}()
	select {
	case found, ok := <-address:
		if !ok {
			r.t.Fatal("the console ended: ", r.text())
		}
		r.mu.Lock()
		r.real = found
		r.mu.Unlock()
	case <-time.After(patience):
		r.t.Fatal("the console is not served: ", r.text())
	}
}

// Write keeps all that was said by anybody, to look for secrets in it.
func (r *rig) Write(text []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said.Write(text)
}

func (r *rig) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said.String()
}

func (r *rig) kill() {
	r.mu.Lock()
	r.real = "" // the port may be another's by now
	r.mu.Unlock()
	_ = r.process.Process.Kill()
	_ = r.process.Wait()
}

// want runs davit, and fails unless it ends with the code and says all of these.
func (r *rig) want(code int, input string, args ...string) func(words ...string) string {
	r.t.Helper()
	var out, errs bytes.Buffer
	got := cli.Main(append([]string{"davit"}, args...), cli.Streams{In: strings.NewReader(input), Out: &out, Err: &errs})
	_, _ = r.Write(append(out.Bytes(), errs.Bytes()...))
	if got != code {
		r.t.Fatalf("davit %q ends with %d, want %d:\n%s%s", args, got, code, &out, &errs)
	}
	return func(words ...string) string {
		r.t.Helper()
		for _, word := range words {
			if !strings.Contains(out.String()+errs.String(), word) {
				r.t.Fatalf("davit %q does not say %q:\n%s%s", args, word, &out, &errs)
			}
		}
		return out.String()
	}
}

// token is the one that the current logins hold.
func (r *rig) token() string {
	r.t.Helper()
	text, err := os.ReadFile(os.Getenv("DAVIT_CONSOLES"))
	if err != nil {
		r.t.Fatal(err)
	}
	found := regexp.MustCompile(`"token": "(\S+)"`).FindSubmatch(text)
	if found == nil {
		r.t.Fatalf("no token in %s", text)
	}
	return string(found[1])
}

const (
	hourly = `# how often
apiVersion: davit.dev/v1alpha1
kind: ProtectionPolicy
metadata: {name: hourly}
spec: {schedule: {every: 1h}}
`
	shop = `apiVersion: davit.dev/v1alpha1
kind: Application
metadata: {name: shop, labels: {team: sales}}
spec: {vault: main, policy: hourly, namespaces: [shop]}
`
	daily = `apiVersion: davit.dev/v1alpha1
kind: ProtectionPolicy
metadata: {name: daily}
spec: {schedule: {cron: "0 3 * * *"}}
`
)

// The commands at a console, against a console that runs.
func TestConsole(t *testing.T) {
	r := newRig(t)
	r.login()
	r.documents()
	r.control()
	r.follow()
	r.people()
	r.robots()
	r.tampered()
	r.leave()
	said := r.text()
	for name, secret := range map[string]string{"password": password, "session": "davit_session_", "robot's token": "davit_robot_"} {
		if strings.Contains(strings.ReplaceAll(said, "begins with davit_robot_", ""), secret) {
			t.Errorf("a %s was said", name)
		}
	}
}

func (r *rig) login() {
	r.t.Helper()
	file, ca := r.path("logins/consoles.json"), r.path("data/ca.pem")
	r.want(2, "", "get", "apps")("login --console")
	r.want(2, "", "login", "--user", "anna")("--console is missing")
	r.want(2, "", "--console", "http://127.0.0.1:1", "login", "--user", "anna")("write https://HOST:PORT")
	r.want(2, "", "--console", r.url, "login")("--user", "--token-file")
	r.want(2, "", "--console", r.url, "backup", "shop")("works at a cluster")
	r.want(3, "", "--console", r.url, "apply", "-f", r.file("hourly.yaml", hourly))("not logged in")
	in := []string{"--console", r.url, "login", "--user", "anna", "--password-file", r.path("password")}
	pin := regexp.MustCompile(`fingerprint ([0-9a-f]{64})`).FindStringSubmatch(r.want(3, "", in...)("not trusted", "--ca-file") + r.text())
	r.want(3, "", "--console", r.url, "login", "--sso", "--ca-file", ca)("this console has none", "--user NAME")
	if pin == nil {
		r.t.Fatal("the fingerprint is not said")
	}
	r.want(3, "", append(in, "--ca-fingerprint", strings.Repeat("0", 64))...)("none of its certificates")
	r.want(3, "wrong password\n\n", "--console", r.url, "login", "--user", "anna", "--ca-file", ca)("is wrong")
	if _, err := os.Stat(file); err == nil {
		r.t.Fatal("a failed login is kept")
	}
	r.want(0, "", append(in, "--ca-fingerprint", pin[1])...)("Logged in to "+r.url, "user/anna")
	r.want(0, "", append(in, "--project", "default")...)("Logged in") // by what the pin found
	r.want(3, "", append(in, "--project", "other")...)("no role in a project other")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		r.t.Fatal(info, err)
	}
	r.want(0, "", "whoami")("user/anna, administrator", "default", "admin", "recover")
	if err := os.Chmod(file, 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.want(3, "", "whoami")("others may read", "chmod 600")
	if err := os.Chmod(file, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) documents() {
	r.t.Helper()
	r.want(0, "", "get", "all")("has none of them")
	r.file("all/hourly.yaml", hourly)
	r.file("all/shop.yaml", shop)
	r.file("all/notes.txt", "no document")
	all := r.path("all")
	r.want(3, hourly+"---\n"+strings.Replace(daily, "cron", "crown", 1)+"---\n"+strings.Replace(shop, "vault: main", "vault: 7", 1), "apply", "-f", "-")(
		"nothing was changed", "standard input, document 2", "crown", "document 3")
	r.want(3, "", "get", "policy", "hourly")("not found")
	r.want(0, "", "get", "policies", "--site", "*")("has none of them")
	r.want(3, "", "get", "policy", "hourly", "--site", "east")("not found")
	r.want(2, "kind: Pod", "apply", "-f", "-")("kubectl")
	r.want(2, hourly+"---\n"+hourly, "apply", "-f", "-")("which of them is meant")
	r.want(0, "", "apply", "-f", all, "--dry-run")("protectionpolicy.davit.dev/hourly created (dry run)")
	r.want(4, "", "diff", "-f", all)("+++ application.davit.dev/shop", "+  policy: hourly")
	r.want(0, "", "--console", r.url+"/", "apply", "-f", all)("protectionpolicy.davit.dev/hourly created\n", "application.davit.dev/shop created\n")
	r.want(0, "", "apply", "-f", all)("hourly unchanged", "shop unchanged")
	r.want(0, "", "diff", "-f", all)
	r.want(0, "", "get", "apps,policies")("NAMESPACE", "davit-system  shop", "1h")
	r.want(0, "", "get", "apps", "-o", "wide")("team=sales")
	if got := r.want(0, "", "get", "all", "-o", "name")(); got != "application.davit.dev/shop\nprotectionpolicy.davit.dev/hourly\n" {
		r.t.Fatalf("%q", got)
	}
	list := r.want(0, "", "get", "all", "-o", "yaml")("kind: List")
	r.want(0, list, "apply", "-f", "-")("hourly unchanged", "shop unchanged")
	mine := strings.Replace(r.want(0, "", "get", "policy/hourly", "-o", "yaml")("resourceVersion"), "every: 1h", "every: 2h", 1)
	r.want(4, mine, "diff", "-f", "-")("-    every: 1h", "+    every: 2h")
	r.want(0, strings.Replace(hourly, "1h", "3h", 1), "apply", "-f", "-")("hourly configured")
	r.want(3, mine, "apply", "-f", "-")("resourceVersion", "somebody changed it since", "davit get KIND NAME -o yaml")
	r.want(3, mine, "delete", "-f", "-")("resourceVersion")
	r.want(0, "", "get", "policy", "hourly", "-o", "json")(`"every": "3h"`)
	r.want(0, "", "delete", "policy", "hourly", "--dry-run")("hourly deleted (dry run)")
	r.want(3, "", "delete", "policy", "hourly", "missing")("not found")
	r.want(0, "", "delete", "policy", "hourly", "missing", "--ignore-not-found")("hourly deleted\n")
	r.want(3, "", "delete", "policy", "hourly")("not found")
	r.want(3, "", "get", "apps", "--project", "other")("not found", "whoami")
}

// follow watches in a process of its own, over the death of the console.
func (r *rig) follow() {
	r.t.Helper()
	cmd, out, errs := r.start("watch", "policies", "-o", "json")
	go func() { _, _ = io.Copy(r, errs) }()
	lines := make(chan client.Event)
	go func() {
		for all := bufio.NewScanner(out); all.Scan(); {
			var e client.Event
			_ = json.Unmarshal(all.Bytes(), &e)
			lines <- e
		}
		close(lines)
	}()
	want := func(kind, name string) {
		r.t.Helper()
		select {
		case e := <-lines:
			if e.Type != kind || e.Object.Metadata.Name != name {
				r.t.Fatalf("%+v, want %s %s: %s", e, kind, name, r.text())
			}
		case <-time.After(patience):
			r.t.Fatalf("no %s %s: %s", kind, name, r.text())
		}
	}
	r.want(0, hourly, "apply", "-f", "-")
	want("ADDED", "hourly")
	r.kill()
	r.want(1, "", "get", "apps")("does not answer", "is the console up")
	r.serve()
	r.want(0, daily, "apply", "-f", "-")("daily created")
	want("ADDED", "daily")
	r.want(0, "", "delete", "policy", "daily")
	want("DELETED", "daily")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		r.t.Fatal(err)
	}
	if _, more := <-lines; more {
		r.t.Fatal("more events")
	}
	if err := cmd.Wait(); err != nil {
		r.t.Fatal("an interrupted watch ends with ", err)
	}
}

// people set up one-time codes, and log in with them.
func (r *rig) people() {
	r.t.Helper()
	file, codes := r.path("codes"), []string{"users", "codes", "--own-password-file"}
	r.want(2, "", "users", "codes")("give --own-password-file and --secret-file, or --code")
	r.want(2, "", append(codes, r.path("password"))...)("--secret-file is missing")
	r.want(3, "not hers at all\n", append(codes, "-", "--secret-file", file)...)("your own password is not right")
	if _, err := os.Lstat(file); err == nil {
		r.t.Fatal("a file is left that holds nothing")
	}
	r.want(3, "", "users", "codes", "--code", "123456")("not the one that the phone should show")
	r.want(0, "", append(codes, r.path("password"), "--secret-file", file)...)("waits for its first code")
	text, err := os.ReadFile(file)
	if err != nil {
		r.t.Fatal(err)
	}
	address, err := url.Parse(strings.TrimSpace(string(text)))
	if err != nil || address.Scheme != "otpauth" {
		r.t.Fatalf("%s, %v", text, err)
	}
	secret := address.Query().Get("secret")
	first, err := totp.GenerateCode(secret, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	r.want(0, "", "users", "codes", "--code", first)("is asked for one-time codes from now on")
	r.want(3, "", append(codes, r.path("password"), "--secret-file", file+"2")...)("codes are asked for already")
	in := []string{"--console", r.url, "login", "--user", "anna"}
	r.want(3, password+"\n", in...)("is wrong")
	code, err := totp.GenerateCode(secret, time.Now().Add(30*time.Second)) // that one was used
	if err != nil {
		r.t.Fatal(err)
	}
	r.want(0, password+"\n"+code+"\n", in...)("Logged in")
	r.want(3, code+"\n", append(in, "--password-file", r.path("password"))...)("is wrong") // a code counts once
}

// robots have a token of one project, with scopes.
func (r *rig) robots() {
	r.t.Helper()
	anna := os.Getenv("DAVIT_CONSOLES")
	r.file("robot", r.robot(r.token())+"\n")
	r.t.Setenv("DAVIT_CONSOLES", r.path("robots.json"))
	in := []string{"--console", r.url, "login", "--ca-file", r.path("data/ca.pem"), "--token-file"}
	r.want(2, "", append(in, r.path("robot"))...)("--project is missing")
	r.want(2, "", append(in, r.path("password"), "--project", "default")...)("no robot's token")
	r.want(3, "", append(in, r.path("robot"), "--project", "other")...)("takes the token not")
	r.want(0, "", append(in, r.path("robot"), "--project", "default")...)("robot/ci")
	r.want(0, "", "whoami", "-o", "json")(`"robot/ci"`, `"read"`)
	r.want(0, "", "get", "policies")("hourly")
	r.want(3, daily, "apply", "-f", "-")("scope protect", "whoami")
	r.want(0, "", "logout")("robot/ci is logged out")
	r.t.Setenv("DAVIT_CONSOLES", anna)
}

func (r *rig) robot(session string) string {
	r.t.Helper()
	body := strings.NewReader(`{"name":"ci","days":1,"scopes":["read"]}`)
	q, err := http.NewRequestWithContext(r.t.Context(), "POST", r.url+api.Prefix+"/projects/default/tokens", body)
	if err != nil {
		r.t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+session)
	config, err := os.ReadFile(r.path("data/ca.pem"))
	if err != nil {
		r.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: trusting(config)}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	var made api.Token
	if err := json.NewDecoder(answer.Body).Decode(&made); err != nil || made.Secret == "" {
		r.t.Fatal(answer.Status, err)
	}
	return made.Secret
}

// leave ends a session, here and at the console.
func (r *rig) leave() {
	r.t.Helper()
	session := r.token()
	r.want(0, "", "logout")("is logged out")
	r.want(2, "", "whoami")("logged in to no console")
	ca, err := os.ReadFile(r.path("data/ca.pem"))
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := client.New(r.url, session, client.Trust{CA: string(ca)})
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Whoami(context.Background()); !client.Is(err, http.StatusUnauthorized) {
		r.t.Fatal("the session goes on: ", err)
	}
	// A session that the console does not know any more says what to do.
	r.file("logins/consoles.json", fmt.Sprintf(`{"consoles":[{"url":%q,"ca":%q,"name":"user/anna","project":"default","token":%q}]}`, r.url, ca, session))
	r.want(3, "", "get", "apps")("log in first", "davit login")
	r.want(0, "", "logout")
}

func trusting(ca []byte) *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}
