package quiescer

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"

	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/quiesce"
)

// served is a pod that answers at this machine's own address.
func served(t *testing.T, handler http.HandlerFunc) (*corev1.Pod, string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", UID: "u", Labels: map[string]string{"app": "web"}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: host, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "web", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
		},
	}
	var n int32
	if _, err := fmt.Sscan(port, &n); err != nil {
		t.Fatal(err)
	}
	pod.Spec.Containers = []corev1.Container{{Name: "web", Ports: []corev1.ContainerPort{{Name: "admin", ContainerPort: n}}}}
	return pod, port
}

func runnerOf(objects ...runtime.Object) *Runner {
	return New(&kube.Clients{Kubernetes: fake.NewClientset(objects...)})
}

var inWeb = quiesce.Target{Namespace: "shop", Pod: "web-0", UID: "u"}

// post is a request as a hook has it when all is filled in.
func post(port string) *quiesce.HTTP {
	return &quiesce.HTTP{Port: port, Scheme: "http", Method: "POST", Path: "/pause?token=hush"}
}

func TestRequest(t *testing.T) {
	pod, port := served(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprint(w, r.Method, " ", r.URL.Path, " ", r.URL.RawQuery, " ", r.Host, " ", r.Header.Get("X-A"), " ", string(body))
	})
	for _, name := range []string{port, "admin"} {
		h := post(name)
		h.Headers, h.Body = []quiesce.Header{{Name: "X-A", Value: "b"}, {Name: "Host", Value: "shop.example"}}, "now"
		got, err := runnerOf(pod).Run(t.Context(), inWeb, quiesce.Action{HTTP: h})
		if err != nil || got != "POST /pause token=hush shop.example b now" {
			t.Errorf("port %s: %q, %v", name, got, err)
		}
	}
	for name, tt := range map[string]struct {
		change func(*corev1.Pod, *quiesce.HTTP)
		says   string
	}{
		"no such port":       {func(_ *corev1.Pod, h *quiesce.HTTP) { h.Port = "metrics" }, `has no port "metrics"`},
		"port 0":             {func(_ *corev1.Pod, h *quiesce.HTTP) { h.Port = "0" }, `has no port "0"`},
		"the node's network": {func(p *corev1.Pod, _ *quiesce.HTTP) { p.Spec.HostNetwork = true }, "no hook may ask"},
		"no address":         {func(p *corev1.Pod, _ *quiesce.HTTP) { p.Status.PodIP = "" }, "has no address yet"},
		"another pod":        {func(p *corev1.Pod, _ *quiesce.HTTP) { p.UID = "other" }, quiesce.ErrGone.Error()},
		// What has the address of these may be another tenant's.
		"has ended":       {func(p *corev1.Pod, _ *quiesce.HTTP) { p.Status.Phase = corev1.PodSucceeded }, quiesce.ErrGone.Error()},
		"has failed":      {func(p *corev1.Pod, _ *quiesce.HTTP) { p.Status.Phase = corev1.PodFailed }, quiesce.ErrGone.Error()},
		"goes":            {func(p *corev1.Pod, _ *quiesce.HTTP) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }, "is being deleted"},
		"runs no more":    {func(p *corev1.Pod, _ *quiesce.HTTP) { p.Status.ContainerStatuses = nil }, "runs no container"},
		"nobody knows of": {func(p *corev1.Pod, _ *quiesce.HTTP) { p.Status.Phase = corev1.PodUnknown }, "runs no container"},
	} {
		p, h := pod.DeepCopy(), post(port)
		tt.change(p, h)
		if _, err := runnerOf(p).Run(t.Context(), inWeb, quiesce.Action{HTTP: h}); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBadAnswers: each is a bounded, clear failure.
func TestBadAnswers(t *testing.T) {
	elsewhere := 0
	_, other := served(t, func(http.ResponseWriter, *http.Request) { elsewhere++ })
	hung := make(chan struct{})
	t.Cleanup(func() { close(hung) })
	pod, port := served(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "http://127.0.0.1:"+other+"/", http.StatusTemporaryRedirect)
		case "/fails":
			http.Error(w, "database is down", http.StatusInternalServerError)
		case "/endless":
			for n := 0; n < 1<<10 && r.Context().Err() == nil; n++ {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		case "/headers":
			for i := range 100 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 4<<10))
			}
		case "/hangs":
			select {
			case <-hung:
			case <-r.Context().Done():
			}
		case "/dies":
			panic(http.ErrAbortHandler)
		}
	})
	for path, says := range map[string]string{
		"/redirect": "307", "/fails": "500 Internal Server Error: database is down", "/headers": "exceeded", "/dies": "EOF", "/hangs": "deadline exceeded",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if path == "/hangs" {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
		}
		h := post(port)
		h.Path = path + "?token=hush"
		_, err := runnerOf(pod).Run(ctx, inWeb, quiesce.Action{HTTP: h})
		cancel()
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if elsewhere > 0 {
		t.Error("a redirection was followed")
	}
	h := post(port)
	h.Path = "/endless"
	if got, err := runnerOf(pod).Run(t.Context(), inWeb, quiesce.Action{HTTP: h}); err != nil || len(got) > maxOutput {
		t.Errorf("an endless answer gave %d bytes, %v", len(got), err)
	}
	h.Path, h.Status = "/fails", []int32{204, 500}
	if _, err := runnerOf(pod).Run(t.Context(), inWeb, quiesce.Action{HTTP: h}); err != nil {
		t.Errorf("a status that is wanted: %v", err)
	}
}

func TestRequestToService(t *testing.T) {
	pod, port := served(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "paused") })
	number := intstr.Parse(port)
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{
			{Name: "admin", Port: 80, TargetPort: intstr.FromString("admin")}, {Name: "plain", Port: 81, TargetPort: number}, {Name: "same", Port: number.IntVal},
		}},
	}
	apart := quiesce.Target{Namespace: "shop", Of: "service/web"}
	ask := func(port string, objects ...runtime.Object) (string, error) {
		h := post(port)
		h.Service = "web"
		return runnerOf(objects...).Run(t.Context(), apart, quiesce.Action{HTTP: h})
	}
	waiting := pod.DeepCopy()
	waiting.Name, waiting.Status.Conditions, waiting.Status.PodIP = "a-waiting", nil, "192.0.2.1"
	for _, port := range []string{"80", "admin", "81", port} {
		if got, err := ask(port, pod, waiting, service); err != nil || got != "paused" {
			t.Errorf("port %s: %q, %v", port, got, err)
		}
	}
	open, named := service.DeepCopy(), service.DeepCopy()
	open.Spec.Selector = nil // whoever writes its endpoints leads it anywhere
	named.Spec.Type = corev1.ServiceTypeExternalName
	for name, tt := range map[string]struct {
		port    string
		objects []runtime.Object
		says    string
	}{
		"no selector":   {"80", []runtime.Object{pod, open}, "may lead anywhere"},
		"external name": {"80", []runtime.Object{pod, named}, "may lead anywhere"},
		"no such port":  {"82", []runtime.Object{pod, service}, "has no port 82"},
		"nobody ready":  {"80", []runtime.Object{waiting, service}, "is ready"},
		"no service":    {"80", []runtime.Object{pod, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}, "not found"},
		"no namespace":  {"80", nil, quiesce.ErrGone.Error()},
	} {
		if _, err := ask(tt.port, tt.objects...); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
