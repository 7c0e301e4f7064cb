package scratch

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/standby"
)

// What nodes answer a load balancer is asked of those that are ready, and of those alone.
func TestEntrances(t *testing.T) {
	pod := func(name, ready string) string {
		return `{"metadata":{"namespace":"davit-system","name":"` + name + `"},"spec":{"nodeName":"on-` + name + `"},"status":{"conditions":[{"type":"Ready","status":"` + ready + `"}]}}`
	}
	answers := map[string]func(http.ResponseWriter){
		"lit":    func(w http.ResponseWriter) { _, _ = w.Write([]byte("active\n")) },
		"dark":   func(w http.ResponseWriter) { http.Error(w, "passive: shop: fenced", http.StatusServiceUnavailable) },
		"denied": func(w http.ResponseWriter) { http.Error(w, "nobody lets you", http.StatusForbidden) },
		"silent": func(w http.ResponseWriter) { http.Error(w, "no endpoints", http.StatusServiceUnavailable) },
	}
	for name, c := range map[string]struct {
		pods []string
		want []standby.Entrance
		err  string
	}{
		"all of them": {[]string{pod("lit", "True"), pod("dark", "True"), pod("silent", "True"), pod("gone", "False")}, []standby.Entrance{
			{Node: "on-lit", Active: true}, {Node: "on-dark", Why: "passive: shop: fenced"},
		}, ""},
		"none answers": {[]string{pod("silent", "True")}, nil, "ask node on-silent: answered 503: no endpoints"},
		"none may be":  {[]string{pod("denied", "True")}, nil, `ask node on-denied: pods/proxy "denied" is forbidden: nobody lets you`},
		"none is":      {[]string{pod("gone", "False")}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if r.URL.Path == "/api/v1/namespaces/davit-system/pods" {
					_, _ = w.Write([]byte(`{"kind":"PodList","apiVersion":"v1","items":[` + strings.Join(c.pods, ",") + `]}`))
					return
				}
				rest, ok := strings.CutPrefix(r.URL.RequestURI(), "/api/v1/namespaces/davit-system/pods/http:")
				which, path, _ := strings.Cut(rest, ":")
				if answer := answers[which]; ok && answer != nil && path == "8082/proxy/active/shop?gate=lb" {
					answer(w)
					return
				}
				t.Errorf("asked for %s", r.URL.RequestURI())
			}))
			defer server.Close()
			config := &rest.Config{Host: server.URL}
			k, err := kubernetes.NewForConfig(config)
			if err != nil {
				t.Fatal(err)
			}
			got, err := (&Cluster{clients: &kube.Clients{RESTConfig: config, Kubernetes: k}}).Entrances(t.Context(), "/active/shop?gate=lb")
			if !slices.Equal(got, c.want) || (err != nil) != (c.err != "") || err != nil && err.Error() != c.err || apierrors.IsForbidden(err) != (name == "none may be") {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}
