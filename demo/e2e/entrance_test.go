package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/demo/balancer"
)

// What HAProxy is told: how often it asks each site whether it is active, and how
// many noes take a site out.
const (
	probeInterval = 500 * time.Millisecond
	probeFall     = 2
	probeRise     = 1
)

// The ports at which sites answer clients, and load balancers.
const (
	clientPort = 30871
	activePort = 30881
)

// web is a web server that clients of both sites reach.
const web = `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: davit.test/bedtool:1
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "mkdir /tmp/www && echo hello > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: %[1]s}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: %[2]d}]}
`

// answering lets load balancers in, as docs/traffic.md has it, and holds the key
// for the DNS.
const answering = `
apiVersion: v1
kind: Service
metadata: {name: davit-active, namespace: davit-system}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  selector: {app.kubernetes.io/name: davit-node}
  ports: [{name: active, port: 8082, targetPort: 8082, nodePort: %d}]
---
apiVersion: v1
kind: Secret
metadata: {name: www-key, namespace: davit-system}
stringData: {name: davit, algorithm: hmac-sha256, secret: %s}
`

const (
	wwwSecret = "dGhlIGtleSBvZiB0aGUgdGVzdHMgb24gdGhlIGJlZA=="
	wwwName   = "www.shop.test"
)

// said is what a site told HAProxy, or a client was told through it.
type said struct {
	asked, answered time.Time
	site            string // of a client: who served it; empty if nobody did
	active          bool
	what            string
}

// entrance is what stands before two sites: a name server, a load balancer, and a
// client that never stops asking.
type entrance struct {
	app     *app
	asks    string // what HAProxy asks sites
	balance *balancer.Balancer
	mark    int    // in its log, from where on all counts
	host    string // the address that all listens on; the sites reach it too
	port    string // of the name server, if not 53
	secret  string // that has the key, if not www-key
	closed  bool   // the name server lets nobody change the name
	led     string // the site to which the name leads when the name server begins, if not east
	end     func() // of the name server
	clients int    // the port at which sites answer clients
	mu      sync.Mutex
	probes  []said
	visits  []said
}

// hostAddress is where this machine is reached by both sites.
func hostAddress() string {
	site := net.ParseIP(rig.Bed.Site(west).Address()).To4()
	return net.IPv4(site[0], site[1], site[2], 1).String()
}

// newEntrance starts all of it, with clients at east. Sites are asked for what.
func newEntrance(t *testing.T, a *app, what string) *entrance {
	t.Helper()
	f := &entrance{app: a, asks: what, host: hostAddress(), clients: clientPort}
	letIn(t)
	kubectl(t, east, "-n", system, "annotate", "application", a.name, "gate.davit.dev/www=open")
	f.bind(t)
	f.haproxy(t)
	f.visit(t)
	eventually(t, 3*time.Minute, "clients are sent to east, and west is known to be passive", func() (bool, string) {
		return f.steady(east), f.lately()
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.probes, f.visits, f.mark = nil, nil, f.balance.Mark()
	return f
}

// letIn lets load balancers in at both sites.
func letIn(t *testing.T) {
	t.Helper()
	for _, s := range []string{east, west} {
		apply(t, s, fmt.Sprintf(answering, activePort, wwwSecret))
		t.Cleanup(func() {
			_, _ = rig.Kubectl(context.Background(), s, "-n", system, "delete", "service/davit-active", "secret/www-key", "--ignore-not-found")
		})
	}
}

// plan adds the name and the gate to a plan.
func (f *entrance) plan(t *testing.T, file string) string {
	t.Helper()
	out, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	server := f.host
	if f.port != "" {
		server += ":" + f.port
	}
	_, err = fmt.Fprintf(out, `  traffic:
    - {name: gate, kind: gate, object: www}
    - name: www
      kind: dns
      object: %s
      record:
        zone: shop.test
        to: {east: [%s], west: [%s]}
        servers: [{address: %q}]
        secret: %s
`, wwwName, rig.Bed.Site(east).Address(), rig.Bed.Site(west).Address(), server, cmp.Or(f.secret, "www-key"))
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	return file
}

// daemon runs a program until it is stopped, or the test ends.
func daemon(t *testing.T, program string, args ...string) (stop func()) {
	t.Helper()
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%s is not installed: run hack/prepare", program)
	}
	var log bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", program, log.String())
		}
	})
	return stop
}

func configured(t *testing.T, name, format string, args ...any) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newNames is a name server alone, at a port of its own, with its key at both sites.
func newNames(t *testing.T, port string) *entrance {
	t.Helper()
	f := &entrance{host: hostAddress(), port: port, secret: short(t) + "-key"}
	for _, site := range []string{east, west} {
		apply(t, site, fmt.Sprintf("{apiVersion: v1, kind: Secret, metadata: {name: %s, namespace: davit-system}, stringData: {name: davit, algorithm: hmac-sha256, secret: %s}}", f.secret, wwwSecret))
		t.Cleanup(func() {
			_, _ = rig.Kubectl(context.Background(), site, "-n", system, "delete", "secret", f.secret, "--ignore-not-found")
		})
	}
	f.bind(t)
	return f
}

// bind starts a BIND with the zone; the name leads to east, or to the site that is said.
func (f *entrance) bind(t *testing.T) {
	t.Helper()
	led := rig.Bed.Site(cmp.Or(f.led, east)).Address()
	zone := configured(t, "zone", "$TTL 30\n@ IN SOA ns1 admin 1 60 10 3600 5\n@ IN NS ns1\nns1 IN A %s\nwww IN A %s\n", f.host, led)
	mayChange := wwwName
	if f.closed {
		mayChange = "other.shop.test"
	}
	f.end = daemon(t, "/usr/sbin/named", "-g", "-n", "1", "-c", configured(t, "named.conf", `
key "davit" { algorithm hmac-sha256; secret "%s"; };
options { directory "%s"; pid-file none; session-keyfile none; listen-on port %s { %s; }; listen-on-v6 { none; }; recursion no; notify no; dnssec-validation no; };
controls { };
zone "shop.test" { type primary; file "%s"; update-policy { grant davit name %s ANY; grant davit name _davit.%[6]s TXT; }; };
`, wwwSecret, filepath.Dir(zone), cmp.Or(f.port, "53"), f.host, zone, mayChange))
	eventually(t, 3*time.Minute, "BIND says that the name leads to "+led, func() (bool, string) {
		got := f.leads(t)
		return got == led, got
	})
}

// lets has the name server begin anew, as it was made: the key may change the name, or may not.
func (f *entrance) lets(t *testing.T, change bool) {
	t.Helper()
	f.end()
	f.closed = !change
	f.bind(t)
}

func (f *entrance) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(f.host, cmp.Or(f.port, "53")))
	}}
}

// leads asks the name server as clients do.
func (f *entrance) leads(t *testing.T) string {
	t.Helper()
	all, err := f.resolver().LookupNetIP(t.Context(), "ip4", wwwName+".")
	if err != nil {
		return err.Error()
	}
	return strings.Trim(fmt.Sprint(all), "[]")
}

// guard is the TXT record beside the name.
func (f *entrance) guard(t *testing.T) string {
	t.Helper()
	all, err := f.resolver().LookupTXT(t.Context(), "_davit."+wwwName+".")
	if err != nil {
		return err.Error()
	}
	return strings.Join(all, "|")
}

// haproxy starts a real one before both sites. Its questions pass through here, to
// be counted.
func (f *entrance) haproxy(t *testing.T) {
	t.Helper()
	o := balancer.Options{Listen: f.host + ":8880", Question: "/active/" + f.asks, Interval: probeInterval, Fall: probeFall, Rise: probeRise}
	for _, site := range []string{east, west} {
		address := rig.Bed.Site(site).Address()
		asked := f.relay(t, site, fmt.Sprintf("%s:%d", address, activePort))
		o.Sites = append(o.Sites, balancer.Site{Name: site, Clients: fmt.Sprintf("%s:%d", address, f.clients), Asked: asked})
	}
	b, err := balancer.Start(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	f.balance = b
	t.Cleanup(func() {
		said := b.Stop()
		if t.Failed() {
			t.Logf("HAProxy said:\n%s\n%s", said, b.Log(f.mark))
		}
	})
}

// sure waits until a site has been asked, and said yes.
func (f *entrance) sure(t *testing.T, site string) {
	t.Helper()
	eventually(t, 3*time.Minute, site+" has been asked, and said yes", func() (bool, string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return slices.ContainsFunc(f.probes, func(p said) bool { return p.site == site && p.active }), ""
	})
}

// relay passes a site's answers on to HAProxy, and writes them down.
func (f *entrance) relay(t *testing.T, site, to string) string {
	t.Helper()
	l, err := net.Listen("tcp", f.host+":0")
	if err != nil {
		t.Fatal(err)
	}
	reach := &net.Dialer{Timeout: time.Second} // as HAProxy's own
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: reach.DialContext}}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := said{asked: time.Now(), site: site}
		code := http.StatusBadGateway
		if answer, err := client.Get("http://" + to + r.URL.RequestURI()); err != nil {
			p.what = err.Error()
		} else {
			body, _ := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			code, p.what = answer.StatusCode, strings.TrimSpace(string(body))
		}
		p.active, p.answered = code == http.StatusOK, time.Now()
		f.mu.Lock()
		f.probes = append(f.probes, p)
		f.mu.Unlock()
		w.WriteHeader(code)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

// visit has one client ask without end.
func (f *entrance) visit(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			v := ask(ctx, client, "http://"+f.host+":8880/")
			f.mu.Lock()
			f.visits = append(f.visits, v)
			f.mu.Unlock()
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
}

func ask(ctx context.Context, client *http.Client, address string) said {
	v := said{asked: time.Now()}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err == nil {
		var answer *http.Response
		if answer, err = client.Do(r); err == nil {
			_ = answer.Body.Close()
			v.what = answer.Status
			if answer.StatusCode == http.StatusOK {
				v.site = answer.Header.Get("X-Site")
			}
		}
	}
	if err != nil {
		v.what = err.Error()
	}
	v.answered = time.Now()
	return v
}

// steady tells whether HAProxy knows the other site to be passive, and the last
// twenty clients were served by this one.
func (f *entrance) steady(site string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	noes := 0
	for _, p := range f.probes {
		if p.site != site && !p.active {
			noes++
		}
	}
	n := len(f.visits)
	return noes > probeFall && n >= 20 && !slices.ContainsFunc(f.visits[n-20:], func(v said) bool { return v.site != site })
}

// lately is what was said last.
func (f *entrance) lately() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := map[string]string{}
	for _, p := range f.probes {
		last[p.site] = p.what
	}
	if n := len(f.visits); n > 0 {
		last["client"] = f.visits[n-1].site + " " + f.visits[n-1].what
	}
	return fmt.Sprint(last)
}

// moved waits until clients are at west, and says how they fared. One site at most was
// active at any time, and clients met errors only until west had been asked once more after
// it first said yes.
func (f *entrance) moved(t *testing.T) {
	t.Helper()
	eventually(t, 3*time.Minute, "clients are sent to west", func() (bool, string) { return f.steady(west), f.lately() })
	address := rig.Bed.Site(west).Address()
	if got := f.leads(t); got != address {
		t.Errorf("%s leads to %s, want %s", wwwName, got, address)
	}
	for _, want := range []string{"site=west", "epoch." + f.app.name + "=2"} {
		if got := f.guard(t); !strings.Contains(got, want) {
			t.Errorf("the guard of %s is %s, want %s", wwwName, got, want)
		}
	}
	if v := ask(t.Context(), &http.Client{Timeout: time.Minute}, fmt.Sprintf("http://%s:%d/", f.leads(t), clientPort)); v.what != "200 OK" {
		t.Errorf("where %s leads, clients are told %s", wwwName, v.what)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.account()
	for _, fault := range a.faults {
		t.Error(fault)
	}
	if t.Failed() {
		return
	}
	f.control(t, a)
	f.judged(t, east)
	none := a.opened.Sub(a.closed)
	t.Logf("no site was active for %s; of %d clients %d met errors, the last %s after the first, and %s after west was active, when that had been asked %d times more; the bounds are %s and %s",
		none.Round(time.Millisecond), len(f.visits), a.errors, a.last.Sub(a.first).Round(time.Millisecond), max(0, a.last.Sub(a.opened)).Round(time.Millisecond), a.late,
		(none + probeFall*probeInterval + time.Second).Round(time.Millisecond), probeRise*probeInterval+time.Second)
}

// judged is what clients met since one site was active, by what HAProxy itself wrote down.
func (f *entrance) judged(t *testing.T, active string) {
	t.Helper()
	met, err := f.balance.Judge(f.mark, active)
	if err != nil {
		t.Errorf("by what HAProxy wrote down: %v", err)
	}
	t.Logf("by what HAProxy wrote down: %s", met)
}

// control has what would be faults taken for faults.
func (f *entrance) control(t *testing.T, a account) {
	t.Helper()
	after := a.again.Add(time.Millisecond)
	for what, forged := range map[string]*entrance{
		"two are active":            {probes: append(slices.Clone(f.probes), said{asked: after, answered: after, site: east, active: true}), visits: f.visits},
		"none is active again":      {probes: append(slices.Clone(f.probes), said{asked: after, answered: after, site: west}), visits: f.visits},
		"a client meets an error":   {probes: f.probes, visits: append(slices.Clone(f.visits), said{asked: after, answered: after})},
		"a client is sent to east":  {probes: f.probes, visits: append(slices.Clone(f.visits), said{asked: after, answered: after, site: east})},
		"east never says a word":    {probes: slices.DeleteFunc(slices.Clone(f.probes), func(p said) bool { return p.site == east }), visits: f.visits},
		"an error comes beforehand": {probes: f.probes, visits: append(slices.Clone(f.visits), said{asked: a.yes.Add(-time.Second), answered: a.yes.Add(-time.Millisecond)})},
	} {
		if len(forged.account().faults) == 0 {
			t.Errorf("the test does not see it if %s", what)
		}
	}
}

// account is what probes and clients tell of a move from east to west.
type account struct {
	yes            time.Time // when east was asked and said yes for the last time
	closed, opened time.Time // when east said no first, and west yes
	again          time.Time // when west was asked once more
	first, last    time.Time // error
	errors         int
	late           int // how often west was asked between its first yes and the last error
	faults         []string
}

// account goes through what was said. What clients met is judged by what HAProxy had been told, not by a clock.
func (f *entrance) account() account {
	var a account
	for _, p := range f.probes {
		switch {
		case p.site == west && p.active && a.opened.IsZero():
			a.opened = p.answered
		case p.site == west && !p.active && !a.opened.IsZero():
			a.faults = append(a.faults, "west was active, and then said: "+p.what)
		case p.site == west && p.active && a.again.IsZero():
			a.again = p.asked
		case p.site == east && p.active && !a.opened.IsZero() && p.asked.After(a.opened):
			a.faults = append(a.faults, "two were active: west had said so, and east was asked after that")
		case p.site == east && p.active:
			a.yes = p.asked
		case p.site == east && a.closed.IsZero():
			a.closed = p.answered
		}
	}
	if a.closed.IsZero() || a.again.IsZero() {
		a.faults = append(a.faults, "east never said that it is passive, or west was not asked twice")
		return a
	}
	for _, v := range f.visits {
		switch {
		case v.site == "":
			if a.errors++; a.first.IsZero() {
				a.first = v.asked
			}
			a.last = v.answered
			if v.answered.Before(a.yes) || v.asked.After(a.again) {
				a.faults = append(a.faults, fmt.Sprintf("a client met %q while HAProxy knew of an active site", v.what))
			}
		case v.site == east && v.asked.After(a.opened):
			a.faults = append(a.faults, "a client was sent to east after west was active")
		}
	}
	for _, p := range f.probes {
		if p.site == west && p.asked.After(a.opened) && p.asked.Before(a.last) {
			a.late++
		}
	}
	if a.late > probeRise { // no clock: HAProxy asks every probeInterval
		a.faults = append(a.faults, fmt.Sprintf("clients met errors until west had been asked %d times after it was active, not %d", a.late, probeRise))
	}
	return a
}
