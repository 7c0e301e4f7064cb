package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// slowly is a web server that takes its time to start, and to end.
const slowly = `
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s, labels: {davit-e2e: "true"}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: web
        image: davit.test/bedtool:1
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "trap '' TERM; mkdir /tmp/www && echo open > /tmp/www/index.html && sleep 5 && httpd -f -p 8080 -h /tmp/www"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: %[1]s}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`

// partner is what no site runs: applications need it, and want to be announced to it.
type partner struct {
	address string
	mu      sync.Mutex
	open    bool
	asked   int
	told    []string // who called, with what
}

func newPartner(t *testing.T) *partner {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(hostAddress(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	p := &partner{address: l.Addr().String()}
	server := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return p
}

// ServeHTTP answers.
func (p *partner) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1024))
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case r.URL.Path == "/announce":
		p.told = append(p.told, r.Method+" "+r.Header.Get("Authorization")+" "+string(body))
		w.WriteHeader(http.StatusAccepted)
	case !p.open:
		p.asked++
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		p.asked++
		fmt.Fprintln(w, "ok")
	}
}

func (p *partner) heard() (asked int, told []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked, slices.Clone(p.told)
}

// inWaves moves two applications of one plan, of which the second group needs the first, and
// things that no site runs. While one of them refuses, by HTTP or by not listening, nothing is changed. Else the last one to start is
// the first to stop, nothing starts before what it needs answers, and a call to the outside is made once, with its secret.
func inWaves(t *testing.T) {
	front, back := &app{name: short(t) + "-a-front", vault: common}, &app{name: short(t) + "-b-back", vault: common} // by name, front would be first
	other := newPartner(t)
	for _, a := range []*app{back, front} {
		for _, site := range []string{east, west} {
			removeNamespace(t, site, a.name)
		}
		t.Cleanup(func() { unprotect(west, a.name) })
		apply(t, east, fmt.Sprintf(slowly, a.name))
	}
	for _, a := range []*app{back, front} {
		kubectl(t, east, "-n", a.name, "rollout", "status", "deployment/web", "--timeout", "4m")
		a.protect(t)
		a.backup(t)
	}
	secret := short(t) + "-partner"
	apply(t, west, "{apiVersion: v1, kind: Secret, metadata: {name: "+secret+", namespace: davit-system}, stringData: {token: opensesame}}")
	t.Cleanup(func() {
		_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), west, "-n", system, "delete", "secret", secret, "--ignore-not-found")
	})
	file := filepath.Join(t.TempDir(), "plan.yaml")
	probe := "{kind: http, target: 'http://" + other.address + "/pay', expect: ok, timeout: 5s}"
	store := strings.TrimPrefix(rig.Bed.S3().Endpoint, "http://")
	text := fmt.Sprintf(`apiVersion: davit.dev/v1alpha1
kind: RecoveryPlan
metadata: {name: %[1]s}
spec:
  vault: %[2]s
  sites: [{name: east}, {name: west}]
  applications:
    - {name: %[3]s, group: front, needs: [pay, store]}
    - {name: %[4]s, group: back, probes: [{kind: http, target: "http://web.%[4]s/", expect: "^open", timeout: 5s}]}
  groups: [{name: back}, {name: front, after: [back]}]
  outside:
    - {name: pay, probes: {east: %[5]s, west: %[5]s}}
    - {name: store, probes: {east: {kind: tcp, target: "%[8]s", timeout: 5s}, west: {kind: tcp, target: "%[8]s", timeout: 5s}}}
  limits: {outside: 10s}
  fence: {timeout: 60s}
  steps:
    - {name: announce, kind: http, timeout: 1m, after: [ready/%[3]s], call: {method: POST, url: "http://%[6]s/announce", expect: 202, body: at west,
       headers: [{name: Authorization, value: "Bearer ", from: {secret: %[7]s, key: token}}]}}
`, short(t), common, front.name, back.name, probe, other.address, secret, store)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	var r runView
	davit(t, west, common, "switchover", "-f", file, "--yes", "-o", "json").want(t, 1).read(t, &r)
	if status, _ := r.step("outside/pay"); r.State != "RolledBack" || status != "Failed" {
		t.Fatalf("%+v", r)
	}
	davit(t, west, common, "runs", "show", r.Run).want(t, 0, "outside/pay", "503")
	if status, _ := r.step("outside/store"); status != "Succeeded" {
		t.Errorf("of what listens, the run says %q", status)
	}
	if asked, told := other.heard(); asked == 0 || len(told) > 0 {
		t.Errorf("what refuses was asked %d times, and told %q", asked, told)
	}
	for _, a := range []*app{back, front} {
		if got := epochs(t, commonBucket(), a.name); got != 1 {
			t.Errorf("%s was claimed although what the plan needs refuses: there are %d epochs", a.name, got)
		}
		if gen := kubectl(t, east, "-n", a.name, "get", "deployment", "web", "-o", "jsonpath={.metadata.generation}"); gen != "1" {
			t.Errorf("%s was touched although what the plan needs refuses: generation %s", a.name, gen)
		}
	}

	other.mu.Lock()
	other.open = true
	other.mu.Unlock()
	host, _, _ := net.SplitHostPort(store)
	nobody := net.JoinHostPort(host, "1") // the control of the probe by TCP
	closed := configured(t, "closed.yaml", "%s", strings.ReplaceAll(text, store, nobody))
	davit(t, west, common, "switchover", "-f", closed, "--yes", "-o", "json").want(t, 1).read(t, &r)
	if status, _ := r.step("outside/store"); r.State != "RolledBack" || status != "Failed" {
		t.Fatalf("%+v", r)
	}
	davit(t, west, common, "runs", "show", r.Run).want(t, 0, "probe "+nobody, "connection refused")
	if got := epochs(t, commonBucket(), back.name); got != 1 {
		t.Fatalf("%s was claimed although nobody listens where the plan needs somebody: there are %d epochs", back.name, got)
	}
	davit(t, west, common, "switchover", "-f", file, "--yes", "-o", "json").want(t, 0).read(t, &r)
	if r.State != "AwaitingCommit" || r.Level != "proven" || len(r.Applications) != 2 {
		t.Fatalf("%+v", r)
	}
	if _, told := other.heard(); !slices.Equal(told, []string{"POST Bearer opensesame at west"}) {
		t.Errorf("the partner was told %q", told)
	}
	if said := davit(t, west, common, "runs", "report", r.Run, "-o", "json").want(t, 0).all() + davit(t, west, common, "runs", "show", r.Run, "--logs").all(); strings.Contains(said, "opensesame") {
		t.Error("the run tells the secret of its call")
	}
	// By what the clusters wrote down.
	ready := stamp(t, west, back, "pods", `{.items[0].status.conditions[?(@.type=="Ready")].lastTransitionTime}`)
	made := stamp(t, west, front, "pods", "{.items[0].metadata.creationTimestamp}")
	if made.Before(ready) {
		t.Errorf("the pod of %s was made at %s, and %s, which it needs, was ready at %s", front.name, made, back.name, ready)
	}
	const stopped = `{.items[0].metadata.annotations.davit\.dev/replicas-before-fence} {.items[0].spec.replicas}`
	for _, a := range []*app{back, front} {
		if got := kubectl(t, east, "-n", a.name, "get", "deployments", "-o", "jsonpath="+stopped); got != "1 0" {
			t.Errorf("east has of %s, before and now, replicas %s", a.name, got)
		}
	}
	// The one that goes last ends its pod five seconds after it is told to.
	first, last := scaled(t, front), scaled(t, back)
	t.Logf("%s was stopped at %s, %s at %s; at west the one was made at %s, the other ready at %s", front.name, first, back.name, last, made, ready)
	if last.Sub(first) < 3*time.Second {
		t.Errorf("%s was stopped at %s, and %s, which needs it, at %s", back.name, last, front.name, first)
	}
	davit(t, west, common, "runs", "commit", r.Run).want(t, 0, "Completed")
}

// stamp is a time of the first object of its kind.
func stamp(t *testing.T, site string, a *app, kind, path string) time.Time {
	t.Helper()
	got := kubectl(t, site, "-n", a.name, "get", kind, "-o", "jsonpath="+path)
	at, err := time.Parse(time.RFC3339, strings.TrimSpace(got))
	if err != nil {
		t.Fatalf("%s of %s: %q", kind, a.name, got)
	}
	return at
}

// scaled is when somebody last changed how many replicas east is to have.
func scaled(t *testing.T, a *app) (at time.Time) {
	t.Helper()
	var object struct {
		Metadata struct {
			ManagedFields []struct {
				Time     time.Time
				FieldsV1 struct {
					Spec map[string]any `json:"f:spec"`
				}
			}
		}
	}
	got := kubectl(t, east, "-n", a.name, "get", "deployment", "web", "--show-managed-fields", "-o", "json")
	if err := json.Unmarshal([]byte(got), &object); err != nil {
		t.Fatal(err)
	}
	for _, f := range object.Metadata.ManagedFields {
		if _, sets := f.FieldsV1.Spec["f:replicas"]; sets && f.Time.After(at) {
			at = f.Time
		}
	}
	if at.IsZero() {
		t.Fatalf("nobody scaled %s:\n%s", a.name, got)
	}
	return at
}
