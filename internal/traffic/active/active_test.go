package active

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
)

// site is what a cluster says.
type site struct {
	app    atomic.Pointer[v1alpha1.Application]
	ready  atomic.Bool
	silent atomic.Bool
}

func (s *site) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return errors.New("not asked for")
}

func (s *site) List(_ context.Context, into client.ObjectList, _ ...client.ListOption) error {
	switch into := into.(type) {
	case *v1alpha1.ApplicationList:
		if a := s.app.Load(); a != nil {
			into.Items = append(into.Items, *a)
		}
	case *discoveryv1.EndpointSliceList:
		if s.silent.Load() {
			return errors.New("no answer")
		}
		into.Items = []discoveryv1.EndpointSlice{{Endpoints: []discoveryv1.Endpoint{{Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(s.ready.Load())}}}}}
	}
	return nil
}

func (s *site) role(role v1alpha1.Role, epoch int64, holder string, annotations ...string) {
	a := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Annotations: map[string]string{}}}
	a.Status.Role, a.Status.Epoch, a.Status.EpochSite = role, epoch, holder
	for _, k := range annotations {
		a.Annotations[k] = "x"
	}
	s.app.Store(a)
}

func TestAnswers(t *testing.T) {
	s := &site{}
	now := time.Unix(0, 0)
	h := &Handler{Applications: s, Services: s, Now: func() time.Time { now = now.Add(time.Second); return now }}
	get := func(path string, want int, says string) {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %d %q, want %d %q", path, w.Code, w.Body, want, says)
		}
	}
	const web = "/active/shop.web"
	get(web, 503, "knows nothing of it")
	get("/active/", 503, "knows nothing of it")
	s.role(v1alpha1.RoleUnknown, 0, "")
	get(web, 503, "knows nothing of it")
	s.role(v1alpha1.RoleStandby, 1, "east")
	get(web, 503, "shop.web: site east holds it, under epoch 1")
	s.role(v1alpha1.RoleActive, 2, "west", v1alpha1.AnnotationRestoring)
	get(web, 503, "being restored")
	s.role(v1alpha1.RoleActive, 2, "west", v1alpha1.AnnotationHeldBy)
	get(web, 503, "at rest")
	s.role(v1alpha1.RoleActive, 2, "west")
	get(web, 200, "active")
	get(web+",shop.db", 503, "shop.db: this site knows nothing of it")
	get(web+"?service=shop/web", 503, "no ready endpoint")
	s.ready.Store(true)
	get(web+"?service=shop/web", 200, "active")
	s.silent.Store(true) // the API server is: what was last heard counts
	get(web+"?service=shop/web", 200, "active")
	get(web+"?service=shop/never-heard-of", 503, "no ready endpoint")
	get(web+"?service=kube-system/dns", 503, "not one of these")
	get(web+"?service=shop", 503, "not one of these")
	s.role(v1alpha1.RoleSuperseded, 3, "east")
	get(web, 503, "site east holds it, under epoch 3")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, web, nil))
	if w.Code != 400 {
		t.Errorf("POST: %d", w.Code)
	}
}

// backend is a site behind the load balancer: its application, and its agent.
type backend struct {
	site
	name            string
	app, agent      *httptest.Server
	served, refused atomic.Int64 // questions by the load balancer since it is passive
}

func newBackend(t *testing.T, name string) *backend {
	b := &backend{name: name}
	h := &Handler{Applications: &b.site, Services: &b.site, Now: time.Now}
	b.agent = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != 200 {
			b.refused.Add(1)
		}
		w.WriteHeader(rec.Code)
	}))
	b.app = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if a := b.site.app.Load(); a == nil || a.Status.Role != v1alpha1.RoleActive { // it is fenced
			http.Error(w, b.name, http.StatusBadGateway)
			return
		}
		b.served.Add(1)
		_, _ = fmt.Fprint(w, b.name)
	}))
	t.Cleanup(b.agent.Close)
	t.Cleanup(b.app.Close)
	return b
}

func (b *backend) line(fall int) string {
	_, port, _ := net.SplitHostPort(b.agent.Listener.Addr().String())
	return fmt.Sprintf("  server %s %s check port %s inter 100ms fall %d rise 1\n", b.name, b.app.Listener.Addr(), port, fall)
}

// haproxy starts a real one before the backends.
func haproxy(t *testing.T, fall int, all ...*backend) string {
	t.Helper()
	bin := "/usr/sbin/haproxy"
	if _, err := os.Stat(bin); err != nil {
		if os.Getenv("DAVIT_CI") != "" {
			t.Fatal("haproxy is not installed: run hack/prepare")
		}
		t.Skip("haproxy is not installed (Debian package haproxy)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	var servers strings.Builder
	for _, b := range all {
		servers.WriteString(b.line(fall))
	}
	config := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
global
  stats timeout 10s
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
  retries 0
listen www
  bind %s
  option httpchk GET /active/shop.web
  http-check expect status 200
%s`, address, servers.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-db", "-f", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return "http://" + address
}

// TestHAProxy moves an application from east to west behind a real load
// balancer. Clients may meet errors only until it has asked the old side as
// often as it is told to, and the new side once: counted in its questions.
func TestHAProxy(t *testing.T) {
	const fall = 2
	east, west := newBackend(t, "east"), newBackend(t, "west")
	east.role(v1alpha1.RoleActive, 1, "east")
	west.role(v1alpha1.RoleStandby, 1, "east")
	url := haproxy(t, fall, east, west)
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func() string {
		r, err := c.Get(url)
		if err != nil {
			return err.Error()
		}
		defer func() { _ = r.Body.Close() }()
		if r.StatusCode != 200 {
			return r.Status
		}
		body := make([]byte, 16)
		n, _ := r.Body.Read(body)
		return string(body[:n])
	}
	until := func(what string, done func() bool) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for !done() {
			select {
			case <-deadline:
				t.Fatalf("it never came to %s: %s", what, ask())
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	until("west being found passive", func() bool { return west.refused.Load() >= fall && ask() == "east" })
	for range 50 {
		if got := ask(); got != "east" {
			t.Fatalf("before: %s", got)
		}
	}
	if n := west.served.Load(); n != 0 {
		t.Errorf("the passive site was sent %d clients", n)
	}
	// West claims; east reads the newer epoch, and only then west is ready.
	west.role(v1alpha1.RoleActive, 2, "west", v1alpha1.AnnotationRestoring)
	east.refused.Store(0)
	east.role(v1alpha1.RoleSuperseded, 2, "west")
	before := east.served.Load()
	west.role(v1alpha1.RoleActive, 2, "west")
	until("west", func() bool { return ask() == "west" })
	// Once the old side has said no as often as it takes, no client meets it.
	until("east being out", func() bool { return east.refused.Load() > fall })
	for range 50 {
		if got := ask(); got != "west" {
			t.Fatalf("after %d refused questions: %s", east.refused.Load(), got)
		}
	}
	if n := east.served.Load(); n != before {
		t.Errorf("two were active: the old site served %d clients more", n-before)
	}
	// The control: a site that does not heed the newer epoch is sent clients.
	east.role(v1alpha1.RoleActive, 1, "east")
	until("the old site again", func() bool { return ask() == "east" })
}
