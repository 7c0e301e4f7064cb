package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	chief    = "anna"
	password = "correct horse battery"
)

// control is a real console outside the clusters.
type control struct {
	dir, address, url string
	project           string
	secrets           string // a directory of files
	token             string // of a session, once someone is in
	run               *exec.Cmd
	ended             chan struct{}
}

// do runs a davit command that asks no cluster.
func (c *control) do(t *testing.T, args ...string) outcome {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(rig.Root, "bin", "davit"), append([]string{"--timeout", "4m"}, args...)...)
	s3 := rig.Bed.S3()
	cmd.Env = append(os.Environ(), "DAVIT_ACCESS_KEY="+s3.AccessKey, "DAVIT_SECRET_KEY="+s3.SecretKey, "DAVIT_CONSOLES="+filepath.Join(c.secrets, "consoles.json"))
	cmd.WaitDelay = 5 * time.Second
	return finish(t, cmd)
}

// start starts the console, again at the same address, and waits until it lets
// people in.
func (c *control) start(t *testing.T) {
	t.Helper()
	eventually(t, 3*time.Minute, "the console lets people in", func() (bool, string) {
		if c.ended == nil {
			c.spawn(t)
		}
		select {
		case <-c.ended: // its port may be another's for a moment
			c.ended = nil
			return false, "it ended"
		default:
		}
		got := c.do(t, "login", "--console", c.url, "--ca-file", filepath.Join(c.dir, "ca.pem"), "--user", chief, "--password-file", filepath.Join(c.secrets, "password"))
		return got.code == 0, got.all()
	})
}

func (c *control) spawn(t *testing.T) {
	t.Helper()
	host, _, err := net.SplitHostPort(c.address)
	if err != nil {
		t.Fatal(err)
	}
	c.run = exec.Command(filepath.Join(rig.Root, "bin", "davit"), "console", "--data", c.dir, "--listen", c.address, "--name", host, "--refresh", "1s")
	said, err := os.OpenFile(filepath.Join(c.secrets, "console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	c.run.Stderr = said
	if err := c.run.Start(); err != nil {
		t.Fatal(err)
	}
	run, ended := c.run, make(chan struct{})
	c.ended = ended
	go func() {
		defer close(ended)
		_ = run.Wait()
	}()
}

// kill ends it as a lost machine does.
func (c *control) kill() {
	if c.ended != nil {
		_ = c.run.Process.Kill()
		<-c.ended
		c.ended = nil
	}
}

// newControl makes a console for a project's vault, at the host's address in the
// bed.
func newControl(t *testing.T, vault, project, key string) *control {
	t.Helper()
	endpoint, err := url.Parse(rig.Bed.S3().Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	gateway := net.ParseIP(endpoint.Hostname()).To4()
	if gateway == nil {
		t.Fatalf("the object store is at %s", endpoint.Host)
	}
	gateway[3] = 1 // this machine, as the bed's networks see it
	c := &control{project: project, dir: filepath.Join(t.TempDir(), "console"), secrets: t.TempDir()}
	for port := 20_000 + os.Getpid()%8_000; ; port++ { // below those that outgoing connections are given
		c.address = net.JoinHostPort(gateway.String(), fmt.Sprint(port))
		if l, err := net.Listen("tcp", c.address); err == nil {
			_ = l.Close()
			break
		} else if port > 32_000 {
			t.Fatal(err)
		}
	}
	c.url = "https://" + c.address
	if err := os.WriteFile(filepath.Join(c.secrets, "password"), []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.do(t, "console", "init", "--data", c.dir, "--vault-url", vault, "--project", project, "--recovery-key-file", key, "--join",
		"--admin", chief, "--password-file", filepath.Join(c.secrets, "password")).want(t, 0)
	t.Cleanup(func() {
		c.kill()
		said, _ := os.ReadFile(filepath.Join(c.secrets, "console.log"))
		keep(t, string(said))
	})
	c.start(t)
	return c
}

// enrol has a site's agent call it.
func (c *control) enrol(t *testing.T, site string) {
	t.Helper()
	enrol := []string{"enrol", "--console", c.url, "--enrol-token-file", c.admits(t, site)}
	davit(t, site, "", enrol...).want(t, 3, "--documents")
	davit(t, site, "", append(enrol, "--documents", "all", "--runs", "drill", "--restores", "clone")...).want(t, 0)
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.Background(), site, "-n", system, "delete", "secret", "davit-console", "--ignore-not-found")
	})
}

// admits makes a token for a site's agent, and returns its file.
func (c *control) admits(t *testing.T, site string) string {
	t.Helper()
	token := filepath.Join(t.TempDir(), site+".token")
	c.do(t, "console", "enrol", site, "--data", c.dir, "--project", c.project, "--token-file", token).want(t, 0)
	return token
}

// ask asks the console's API, as the person who is logged in at it.
func (c *control) ask(t *testing.T, path string, into any) error {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(c.dir, "ca.pem"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	web := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}}}
	if c.token == "" { // few passwords are taken in a minute, a session outlives the process
		var in struct{ Token string }
		said := fmt.Appendf(nil, `{"name": %q, "password": %q}`, chief, password)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+"/api/v1/login", bytes.NewReader(said))
		if err != nil {
			return err
		}
		if err := answered(web, r, &in); err != nil {
			return err
		}
		c.token = in.Token
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+"/api/v1"+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	return answered(web, r, into)
}

func answered(web *http.Client, r *http.Request, into any) error {
	answer, err := web.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", r.URL.Path, answer.Status)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

// toldEvent is an event as the console has it.
type toldEvent struct {
	Number, Seq int64
	At          time.Time
	Object      struct{ Kind, Name string }
	Reason      string
}

// consoleTold has agents call a console that runs outside the clusters: a policy
// and an application that are written there arrive where they are for, and are
// kept; without the console protection goes on, and what happened meanwhile is
// told when it is back, in order and once; and a drill that is asked for there is
// made by the agent of its site, as is a switchover that two others agreed to.
func consoleTold(t *testing.T) {
	a := &app{vault: "told"}
	address := bucket(t, "e2e-told-"+run, "")
	key := addVault(t, a.vault, address, []string{east, west}, "--project", "told")
	c := newControl(t, address, "told", key)
	a.deploy(t)
	c.enrol(t, east)
	c.enrol(t, west)
	documents := filepath.Join(c.secrets, "documents.yaml")
	if err := os.WriteFile(documents, fmt.Appendf(nil, `
apiVersion: davit.dev/v1alpha1
kind: ProtectionPolicy
metadata: {name: %[1]s}
spec: {schedule: {every: 10s}, retention: {last: 50}}
---
apiVersion: davit.dev/v1alpha1
kind: Application
metadata: {name: %[1]s, annotations: {davit.dev/sites: east}}
spec: {vault: told, policy: %[1]s, namespaces: [%[1]s]}
`, a.name), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unprotect(east, a.name) })
	c.do(t, "--console", c.url, "apply", "-f", documents).want(t, 0)
	c.stand(t, a.name, "applied")
	made := func() []string {
		return strings.Fields(try(t, east, "-n", system, "get", "recoverypoints", "-o",
			`jsonpath={range .items[?(@.status.phase=="Available")]}{.spec.application}/{.metadata.name}{"\n"}{end}`))
	}
	captured := func(least int) (mine []string) {
		t.Helper()
		eventually(t, 4*time.Minute, fmt.Sprintf("%d points were captured", least), func() (bool, string) {
			mine = nil
			for _, one := range made() {
				if name, ok := strings.CutPrefix(one, a.name+"/"); ok {
					mine = append(mine, name)
				}
			}
			return len(mine) >= least, fmt.Sprint(mine)
		})
		return mine
	}
	before := captured(1)
	if got := try(t, west, "-n", system, "get", "application", a.name, "--ignore-not-found", "-o", "name"); got != "" {
		t.Errorf("west has %s", got)
	}
	eventually(t, 3*time.Minute, "east says how the documents stand", func() (bool, string) {
		said := davit(t, east, "", "status").all()
		return strings.Contains(strings.Join(strings.Fields(said), " "), "documents applied: 2"), said
	})

	c.kill()
	away := captured(len(before) + 2)
	c.start(t)
	c.heard(t, away)
	c.drills(t, a)
	c.copies(t, a)

	c.do(t, "--console", c.url, "delete", "-f", documents).want(t, 0)
	eventually(t, 3*time.Minute, "what was deleted is gone", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "application,protectionpolicy", "-l", "davit.dev/console=told", "-o", "name")
		return got == "", got
	})
	c.switches(t, a)
}

// drills begins a drill at the console: the target's agent makes it, once, and
// carries it to its end. A failover, which the site does not let consoles begin, is
// refused with what would let it.
func (c *control) drills(t *testing.T, a *app) {
	t.Helper()
	text, err := os.ReadFile(planOf(t, a, "5s"))
	if err != nil {
		t.Fatal(err)
	}
	apply(t, west, string(text))
	t.Cleanup(func() {
		for _, args := range [][]string{{"recoveryplan", a.name, "--ignore-not-found"}, {"runs", "-l", "davit.dev/plan=" + a.name}} {
			_, _ = rig.Kubectl(context.Background(), west, append([]string{"delete"}, args...)...)
		}
	})
	type request struct{ ID, Run, By, State, Why string }
	var all struct{ Items []request }
	eventually(t, 4*time.Minute, "the site has begun the drill", func() (bool, string) {
		if err := c.ask(t, "/projects/told/requests", &all); err != nil {
			return false, err.Error()
		}
		if len(all.Items) == 0 { // the console may not have read the plan yet
			return false, c.do(t, "--console", c.url, "drill", a.name, "--to", west, "--reason", "practice").all()
		}
		return all.Items[0].State == "created", fmt.Sprint(all.Items)
	})
	asked := all.Items[0]
	c.do(t, "--console", c.url, "failover", a.name, "--to", west, "--yes").want(t, 3, "lets the console begin drills only", "--runs all")
	made := kubectl(t, west, "get", "run", asked.Run, "-o", `jsonpath={.spec.verb} {.spec.requestedBy} {.spec.reason} {.metadata.annotations.davit\.dev/console-request}`)
	if want := "drill " + chief + "@console/told practice told/" + asked.ID; made != want || asked.By != chief+"@console/told" {
		t.Errorf("the site made %q of %+v, want %q", made, asked, want)
	}
	type seen struct {
		Run, State, By, Why string
		Over                bool
	}
	var fleet struct{ Known struct{ Runs []seen } }
	eventually(t, 4*time.Minute, "the drill is over", func() (bool, string) {
		fleet.Known.Runs = nil
		if err := c.ask(t, "/projects/told/fleet", &fleet); err != nil {
			return false, err.Error()
		}
		return len(fleet.Known.Runs) == 1 && fleet.Known.Runs[0].Over, fmt.Sprint(fleet.Known.Runs)
	})
	if err := c.ask(t, "/projects/told/requests", &all); err != nil || len(all.Items) != 1 {
		t.Errorf("it was asked for more than once: %v, %v", all.Items, err)
	}
	if r := fleet.Known.Runs[0]; r.Run != asked.Run || r.State != "Completed" || r.By != asked.By {
		t.Errorf("%+v", r)
	}
	if got := kubectl(t, west, "get", "namespaces", "-l", "davit.dev/sandbox", "-o", `jsonpath={.items[*].metadata.annotations.davit\.dev/run}`); strings.Contains(got, asked.Run) {
		t.Errorf("sandboxes are left of %s", got)
	}
}

// copies restores at the console: what a copy would do is shown, and then it is made by
// the site's agent, with its data. What the site does not let consoles do is refused.
func (c *control) copies(t *testing.T, a *app) {
	t.Helper()
	target := a.name + "-copy"
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.Background(), east, "delete", "namespace", target, "--ignore-not-found", "--wait=false")
		names, _ := rig.Kubectl(context.Background(), east, "-n", system, "get", "restores", "-o", "name")
		for _, name := range strings.Fields(names) {
			if strings.Contains(name, "/"+a.name+"-console-") {
				_, _ = rig.Kubectl(context.Background(), east, "-n", system, "delete", name, "--ignore-not-found", "--wait=false")
			}
		}
	})
	clone := []string{"--console", c.url, "restore", a.name, "--site", east, "--as-clone", "--map-namespace", a.name + "=" + target}
	got := c.do(t, append(clone, "--dry-run")...)
	if got.code != 0 && got.code != 4 || !strings.Contains(got.all(), "nothing was changed") || !strings.Contains(got.all(), "create") {
		t.Fatalf("%d %s", got.code, got.all())
	}
	if got := kubectl(t, east, "get", "namespace", target, "--ignore-not-found", "-o", "name"); got != "" {
		t.Fatalf("a dry run made %s", got)
	}
	c.do(t, "--console", c.url, "restore", a.name, "--existing", "exact", "--yes").want(t, 3, "lets the console restore copies only", "--restores all")
	got = c.do(t, append(clone, "--wait", "--reason", "to look at")...)
	if got.code != 0 && got.code != 4 || !strings.Contains(got.all(), "is restored at site east") {
		t.Fatalf("%d %s", got.code, got.all())
	}
	made := kubectl(t, east, "-n", system, "get", "restores", "-o", `jsonpath={range .items[*]}{.spec.application} {.spec.mode} {.spec.serviceAccountName} {.metadata.annotations.davit\.dev/requested-by}{"\n"}{end}`)
	if want := a.name + " Clone davit-restore " + chief + "@console/told"; !strings.Contains(made, want) {
		t.Errorf("no %q in %q", want, made)
	}
	if got := kubectl(t, east, "-n", target, "get", "deployments,statefulsets,pods", "-o", "name"); got == "" {
		t.Error("nothing is in the copy")
	}
}

// stand waits until all documents of a name stand as wanted.
func (c *control) stand(t *testing.T, name, want string) {
	t.Helper()
	eventually(t, 3*time.Minute, "the documents are "+want, func() (bool, string) {
		var all struct {
			Items []struct{ Kind, Name, Site, State, Why string }
		}
		if err := c.ask(t, "/projects/told/placements", &all); err != nil {
			return false, err.Error()
		}
		n := 0
		for _, one := range all.Items {
			if one.Name == name && one.State == want {
				n++
			}
		}
		return n == 2 && n == len(all.Items), fmt.Sprint(all.Items)
	})
}

// heard waits until the console has heard of all these points, and checks that it
// heard of each once, and in order.
func (c *control) heard(t *testing.T, points []string) {
	t.Helper()
	var all struct{ Items []toldEvent }
	times := map[string]int{}
	eventually(t, 3*time.Minute, "the console has heard of all points", func() (bool, string) {
		all.Items = nil
		if err := c.ask(t, "/projects/"+c.project+"/events?site=east&after=0", &all); err != nil {
			return false, err.Error()
		}
		clear(times)
		for _, e := range all.Items {
			if e.Object.Kind == "RecoveryPoint" && e.Reason == "Succeeded" {
				times[e.Object.Name]++
			}
		}
		for _, p := range points {
			if times[p] == 0 {
				return false, fmt.Sprintf("nothing of %s in %v", p, times)
			}
		}
		return true, ""
	})
	for name, n := range times {
		if n != 1 {
			t.Errorf("the console heard %d times of %s", n, name)
		}
	}
	for i := 1; i < len(all.Items); i++ {
		if e, before := all.Items[i], all.Items[i-1]; e.At.Before(before.At) { // numbers begin anew with a pod
			t.Errorf("event %d of %s comes after %d of %s", e.Seq, e.At, before.Seq, before.At)
		}
	}
}
