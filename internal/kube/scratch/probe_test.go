package scratch

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
)

// asked is an API server that only notes what it is asked for.
type asked struct {
	mu    sync.Mutex
	paths []string
}

func (a *asked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.paths = append(a.paths, r.URL.RequestURI())
	a.mu.Unlock()
	_, _ = w.Write([]byte("secret"))
}

func (a *asked) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.paths
	a.paths = nil
	return all
}

func newProber(t *testing.T) (*Cluster, *asked) {
	t.Helper()
	a := &asked{}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	config := &rest.Config{Host: server.URL}
	k, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return &Cluster{clients: &kube.Clients{RESTConfig: config, Kubernetes: k}}, a
}

const servicesOfCopy = "/api/v1/namespaces/davit-test-x-shop/services/"

func TestAddressOfAnHTTPProbe(t *testing.T) {
	for path, want := range map[string]string{
		"":                "https://api/ns/services/http:web:80/proxy/",
		"/":               "https://api/ns/services/http:web:80/proxy/",
		"/healthz":        "https://api/ns/services/http:web:80/proxy/healthz",
		"/a/?b=c&d=%2F":   "https://api/ns/services/http:web:80/proxy/a/?b=c&d=%2F",
		"/with space/%41": "https://api/ns/services/http:web:80/proxy/with%20space/%2541",
	} {
		u, err := url.Parse("https://api/ns/services/" + proxied(v1alpha1.HTTPProbe{Service: "web", Port: "80"}) + "/proxy")
		if err != nil {
			t.Fatal(err)
		}
		if extend(u, path); u.String() != want {
			t.Errorf("%q: %s, want %s", path, u, want)
		}
	}
	if got := proxied(v1alpha1.HTTPProbe{Service: "web"}); got != "web" {
		t.Errorf("without a port: %s", got)
	}
	if got := proxied(v1alpha1.HTTPProbe{Service: "web", Scheme: "https"}); got != "https:web:" {
		t.Errorf("https without a port: %s", got)
	}
}

func TestAnHTTPProbeAsksItsService(t *testing.T) {
	c, api := newProber(t)
	for want, p := range map[string]v1alpha1.HTTPProbe{
		"web/proxy/":                   {Service: "web"},
		"web/proxy/healthz":            {Service: "web", Path: "/healthz"},
		"http:web:80/proxy/a..b/c%20d": {Service: "web", Port: "80", Path: "/a..b/c d"},
		"https:web:tls/proxy/q?a=../b": {Service: "web", Port: "tls", Scheme: "https", Path: "/q?a=../b"},
	} {
		status, body, err := c.HTTP(t.Context(), "davit-test-x-shop", p)
		got := api.take()
		if err != nil || status != 200 || body != "secret" || len(got) != 1 || got[0] != servicesOfCopy+want {
			t.Errorf("%+v: %d %v, asked %q, want %s", p, status, err, got, want)
		}
	}
}

// TestAnHTTPProbeStaysInItsService: the API server is asked with rights that
// who wrote the probe has not.
func TestAnHTTPProbeStaysInItsService(t *testing.T) {
	c, api := newProber(t)
	for _, p := range []v1alpha1.HTTPProbe{
		{Service: "web", Path: "../../../../kube-system/secrets/token"},
		{Service: "web", Path: "/../../../../kube-system/secrets/token"},
		{Service: "web", Path: "/.."},
		{Service: "web", Path: "/..?x=1"},
		{Service: "web", Path: "/%2e%2E/%2e./secrets"},
		{Service: "web", Path: "/..%2f..%2Fsecrets"},
		{Service: "web", Path: "/%252e%252e/secrets"},
		{Service: "web", Path: "healthz"},
		{Service: "../secrets/token", Path: "/"},
		{Service: "..", Path: "/"},
		{Service: "", Path: "/"},
		{Service: "web", Port: "80/../../secrets", Path: "/"},
		{Service: "web", Scheme: "../x", Port: "80", Path: "/"},
	} {
		_, body, err := c.HTTP(t.Context(), "davit-test-x-shop", p)
		if got := api.take(); err == nil || body != "" || len(got) != 0 {
			t.Errorf("%+v: %v, %q, asked %q", p, err, body, got)
		}
	}
}

func FuzzHTTPProbe(f *testing.F) {
	f.Add("web", "80", "/healthz?a=b")
	f.Add("..", "", "/%2e%2e/..")
	k, err := kubernetes.NewForConfig(&rest.Config{Host: "http://localhost"})
	if err != nil {
		f.Fatal(err)
	}
	c := &Cluster{clients: &kube.Clients{Kubernetes: k}}
	f.Fuzz(func(t *testing.T, service, port, path string) {
		at, err := c.address("davit-test-x-shop", v1alpha1.HTTPProbe{Service: service, Port: port, Path: path})
		if err != nil {
			return
		}
		for _, part := range strings.Split(at.Path, "/") {
			if part == ".." || !strings.HasPrefix(at.Path, servicesOfCopy) || !strings.Contains(at.Path, service) {
				t.Errorf("%q %q %q: %s", service, port, path, at)
			}
		}
	})
}

// TestALongLineEndsNoListening: what comes after a line of any length is heard.
func TestALongLineEndsNoListening(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/log") {
			_, _ = w.Write([]byte("first\n" + strings.Repeat("x", 200<<10) + "\nno such zone\n"))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"p","namespace":"davit-system"},"status":{"phase":"Failed"}}]}`))
	}))
	t.Cleanup(server.Close)
	config := &rest.Config{Host: server.URL}
	c := New(&kube.Clients{RESTConfig: config, Kubernetes: kubernetes.NewForConfigOrDie(config)}, nil)
	if got := c.JobTail(t.Context(), "davit-system", "j"); !strings.HasSuffix(got, "x\nno such zone\n") || len(got) > 100<<10 {
		t.Errorf("%d bytes were heard, ending %q", len(got), got[max(0, len(got)-20):])
	}
	if got, err := c.JobLog(t.Context(), "davit-system", "j"); err != nil || !strings.HasSuffix(got, "x\nno such zone\n") || len(got) > 100<<10 {
		t.Errorf("%d bytes were read, ending %q: %v", len(got), got[max(0, len(got)-20):], err)
	}
}

// TestALogThatIsGoneIsNotWhatWasSaid: a kubelet that has taken a container away gives a line
// of its own for its log. What was heard before stays; the control is a program's own line.
func TestALogThatIsGoneIsNotWhatWasSaid(t *testing.T) {
	const its = gone + "containerd://9a1353fa\n"
	for _, tc := range []struct{ first, then, log, tail string }{
		{"asked to end\n", its, "", "asked to end\n"},
		{its, its, "", ""},
		{"asked to end\n", "asked to end\nended\n", "asked to end\nended\n", "asked to end\nended\n"},
		{"", gone + "db-0: no such pod\nasked again\n", gone + "db-0: no such pod\nasked again\n", gone + "db-0: no such pod\nasked again\n"},
	} {
		logs, phases := []string{tc.first, tc.then}, []string{"Running", "Failed"}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/log") {
				_, _ = w.Write([]byte(logs[0]))
				logs = logs[min(1, len(logs)-1):]
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"j-x","namespace":"ns"},"status":{"phase":"` + phases[0] + `"}}]}`))
			phases = phases[min(1, len(phases)-1):]
		}))
		k, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		c := &Cluster{clients: &kube.Clients{Kubernetes: k}}
		if got := c.JobTail(t.Context(), "ns", "j"); got != tc.tail {
			t.Errorf("heard of %q, then %q: %q", tc.first, tc.then, got)
		}
		if got, err := c.JobLog(t.Context(), "ns", "j"); got != tc.log || err != nil {
			t.Errorf("the log of %q: %q, %v", tc.then, got, err)
		}
		server.Close()
	}
}
