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
	"testing/synctest"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
)

// site is what a cluster says.
type site struct {
	app    atomic.Pointer[v1alpha1.Application]
	other  atomic.Pointer[v1alpha1.Application]
	plan   atomic.Pointer[v1alpha1.RecoveryPlan]
	ready  atomic.Bool
	silent atomic.Bool

	hang          atomic.Pointer[chan struct{}] // questions hang until it is closed, whatever their context says
	asking, asked atomic.Int64
}

func (s *site) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	if s.silent.Load() {
		return errors.New("no answer")
	}
	p := s.plan.Load()
	if p == nil || p.Name != key.Name {
		return apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("recoveryplans").GroupResource(), key.Name)
	}
	p.DeepCopyInto(into.(*v1alpha1.RecoveryPlan))
	return nil
}

func (s *site) List(_ context.Context, into client.ObjectList, opts ...client.ListOption) error {
	switch into := into.(type) {
	case *v1alpha1.ApplicationList:
		if a := s.app.Load(); a != nil {
			into.Items = append(into.Items, *a)
		}
		if a := s.other.Load(); a != nil {
			into.Items = append(into.Items, *a)
		}
	case *discoveryv1.EndpointSliceList:
		s.asking.Add(1)
		s.asked.Add(1)
		defer s.asking.Add(-1)
		if h := s.hang.Load(); h != nil {
			<-*h
			return errors.New("no answer")
		}
		var o client.ListOptions
		o.ApplyOptions(opts)
		if strings.Contains(o.LabelSelector.String(), "never") {
			return nil
		}
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
	get(web+"?gate=www", 503, "shop.web: gate www is not open here")
	s.role(v1alpha1.RoleActive, 2, "west", v1alpha1.AnnotationGate+"www")
	get(web+"?gate=www", 200, "active")
	get(web+"?gate=www&gate=api", 503, "gate api is not open here")
	get(web+",shop.db", 503, "shop.db: this site knows nothing of it")
	get(web+"?service=shop/web", 503, "no ready endpoint")
	s.ready.Store(true)
	get(web+"?service=shop/web", 200, "active")
	s.silent.Store(true) // the API server is: what was last heard counts
	get(web+"?service=shop/web", 200, "active")
	get(web+"?service=shop/not-heard-of", 503, "or the API server did not answer")
	get(web+"?service=shop/never-there", 503, "no endpoints")
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

// TestAPlan: a site is active for a plan that it has while it is for all of its
// applications, and its gates stand open. What is not known is passive.
func TestAPlan(t *testing.T) {
	s := &site{}
	h := &Handler{Applications: s, Services: s, Now: time.Now}
	const path = "/active/plan/all"
	get := func(path string, want int, says string) {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %d %q, want %d %q", path, w.Code, w.Body, want, says)
		}
	}
	s.role(v1alpha1.RoleActive, 2, "west")
	get(path, 503, `no plan "all"`)
	get("/active/plan/", 503, `no plan ""`)
	p := &v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: "all"}}
	s.plan.Store(p)
	get(path, 503, "no application")
	p.Spec.Applications = []v1alpha1.PlanApplication{{Name: "shop.web"}}
	get(path, 200, "active")
	get("/active/plan/other", 503, `no plan "other"`)
	s.silent.Store(true)
	get(path, 503, "was not read yet")
	s.silent.Store(false)

	// One application that another site holds makes all of it passive; the control is the
	// same site without that in its plan, above.
	p.Spec.Applications = append(p.Spec.Applications, v1alpha1.PlanApplication{Name: "shop.db"})
	get(path, 503, "shop.db: this site knows nothing of it")
	db := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"}}
	db.Status.Role, db.Status.Epoch, db.Status.EpochSite = v1alpha1.RoleSuperseded, 3, "east"
	s.other.Store(db)
	get(path, 503, "shop.db: site east holds it, under epoch 3")
	db = db.DeepCopy()
	db.Status.Role, db.Status.Epoch, db.Status.EpochSite = v1alpha1.RoleActive, 4, "west"
	s.other.Store(db)
	get(path, 200, "active")
	s.ready.Store(false)
	get(path+"?service=shop/web", 503, "no ready endpoint")
	s.ready.Store(true)
	get("/active/plan/all?service=shop/db", 200, "active")

	// Its gates are asked for unasked, each on what it is for.
	p.Spec.Traffic = []v1alpha1.PlanTraffic{
		{Name: "www", Kind: "gate", Object: "www", Application: "shop.web"},
		{Name: "db", Kind: "gate", Object: "db", Application: "shop.db"},
		{Name: "name", Kind: "dns", Object: "www.example.com"},
	}
	get(path, 503, "shop.web: gate www is not open here")
	s.role(v1alpha1.RoleActive, 2, "west", v1alpha1.AnnotationGate+"www")
	get(path, 503, "shop.db: gate db is not open here")
	get(path+"?gate=www", 200, "active")
	get(path+"?gate=none", 503, `no gate "none"`)
	h.Fenced = func(app string) (string, bool) { return "superseded", app == "shop.db" }
	get(path+"?gate=www", 503, "shop.db: this node fences it")
}

// TestAFencedApplication is passive also where the cluster says otherwise, since
// nobody has told it yet.
func TestAFencedApplication(t *testing.T) {
	s := &site{}
	s.role(v1alpha1.RoleActive, 2, "west")
	fenced := map[string]string{}
	h := &Handler{Applications: s, Services: s, Now: time.Now, Fenced: func(app string) (string, bool) {
		why, is := fenced[app]
		return why, is
	}}
	fenced["other"] = "superseded"
	if code := check(t, h, "/active/shop.web"); code != 200 {
		t.Errorf("another one is fenced: %d", code)
	}
	fenced["shop.web"] = "superseded"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/active/shop.web", nil))
	if w.Code != 503 || !strings.Contains(w.Body.String(), "shop.web: this node fences it: superseded") {
		t.Errorf("it is fenced: %d %s", w.Code, w.Body)
	}
}

// check asks as a load balancer does.
func check(t *testing.T, h *Handler, path string) int {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w.Code
}

// TestTheAPIServerHangs: who asks does not wait for it, and it gets no question
// twice at a time, nor more than a few at once. The time is not the real one.
func TestTheAPIServerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		s.role(v1alpha1.RoleActive, 2, "west")
		s.ready.Store(true)
		h := &Handler{Applications: s, Services: s, Now: time.Now}
		const web = "/active/shop.web?service=shop/web"
		if code := check(t, h, web); code != 200 {
			t.Fatalf("before: %d", code)
		}
		hang := make(chan struct{})
		s.hang.Store(&hang)
		for range 10 {
			time.Sleep(freshFor) // virtual time
			began := time.Now()
			if code := check(t, h, web); code != 200 || time.Since(began) > patience {
				t.Errorf("while it hangs: %d after %s", code, time.Since(began))
			}
			if n := s.asking.Load(); n != 1 {
				t.Errorf("it is asked %d times at once for the same", n)
			}
		}
		many := web
		for i := range most - 1 {
			many += fmt.Sprintf("&service=shop/other-%d", i)
		}
		for range 3 {
			began := time.Now()
			if code := check(t, h, many); code != 503 || time.Since(began) > askTimeout {
				t.Errorf("of services that it never spoke of: %d after %s", code, time.Since(began))
			}
		}
		if n := s.asking.Load(); n != atOnce {
			t.Errorf("it is asked %d questions at once, want %d", n, atOnce)
		}
		close(hang)
		synctest.Wait()
		s.hang.Store(nil)
		if code := check(t, h, many); code != 200 { // it answers again
			t.Errorf("after: %d", code)
		}
	})
}

// TestMadeUpNames: what load balancers ask for stays in memory, however many
// other names are asked for.
func TestMadeUpNames(t *testing.T) {
	s := &site{}
	s.role(v1alpha1.RoleActive, 2, "west")
	s.ready.Store(true)
	var seconds atomic.Int64
	h := &Handler{Applications: s, Services: s, Now: func() time.Time { return time.Unix(seconds.Add(1), 0) }}
	const path = "/active/shop.web?service=shop/"
	ask := func(name string, want int) {
		t.Helper()
		if code := check(t, h, path+name); code != want {
			t.Fatalf("%s: %d, want %d", name, code, want)
		}
	}
	ask("web", 200)
	for i := range 2 * most {
		ask(fmt.Sprintf("never-%d", i), 503)
		if i%100 == 0 {
			ask("web", 200)
		}
		ask(fmt.Sprintf("other-%d", i), 200)
	}
	if n := len(h.memory.known); n > most {
		t.Errorf("%d are remembered", n)
	}
	s.silent.Store(true)
	ask("web", 200)
	ask("other-0", 503) // the control: one that nobody asked for since
}

// backend is a site behind the load balancer: its application, and its agent.
type backend struct {
	site
	name            string
	app, agent      *httptest.Server
	asked           atomic.Int64 // questions by the load balancer
	served, refused atomic.Int64 // clients; questions by the load balancer since it is passive
}

func newBackend(t *testing.T, name string) *backend {
	b := &backend{name: name}
	h := &Handler{Applications: &b.site, Services: &b.site, Now: time.Now}
	b.agent = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		b.asked.Add(1)
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
	c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
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
	// What does not come in so many questions of the load balancer to each side never does.
	const enough = 300
	until := func(what string, done func() bool) {
		t.Helper()
		limit := [2]int64{east.asked.Load() + enough, west.asked.Load() + enough}
		for !done() {
			if east.asked.Load() > limit[0] && west.asked.Load() > limit[1] {
				t.Fatalf("it never came to %s: %s", what, ask())
			}
			select {
			case <-t.Context().Done():
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
