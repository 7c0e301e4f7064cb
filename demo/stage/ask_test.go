package stage

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// server says what an API server with two pods, a vault and their kinds does.
func server(t *testing.T) *asker {
	t.Helper()
	pod := func(name string) string {
		return `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "` + name + `", "labels": {"davit.dev/point": "p"}}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}`
	}
	answers := map[string]string{
		"/api":                          `{"kind": "APIVersions", "versions": ["v1"]}`,
		"/apis":                         `{"kind": "APIGroupList", "apiVersion": "v1", "groups": [{"name": "davit.dev", "versions": [{"groupVersion": "davit.dev/v1alpha1", "version": "v1alpha1"}], "preferredVersion": {"groupVersion": "davit.dev/v1alpha1", "version": "v1alpha1"}}]}`,
		"/api/v1":                       `{"kind": "APIResourceList", "groupVersion": "v1", "resources": [{"name": "pods", "singularName": "pod", "shortNames": ["po"], "namespaced": true, "kind": "Pod", "verbs": ["get", "list"]}]}`,
		"/apis/davit.dev/v1alpha1":      `{"kind": "APIResourceList", "groupVersion": "davit.dev/v1alpha1", "resources": [{"name": "vaults", "singularName": "vault", "namespaced": false, "kind": "Vault", "verbs": ["get", "list"]}]}`,
		"/api/v1/namespaces/shop/pods":  `{"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [` + pod("db-0") + `, ` + pod("db-1") + `]}`,
		"/api/v1/pods?labelSelector=a":  `{"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [` + pod("db-9") + `]}`,
		"/api/v1/namespaces/empty/pods": `{"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}`,

		"/api/v1/namespaces/shop/pods/db-0":   pod("db-0"),
		"/apis/davit.dev/v1alpha1/vaults/e2e": `{"apiVersion": "davit.dev/v1alpha1", "kind": "Vault", "metadata": {"name": "e2e"}, "status": {"lock": {"mode": "compliance", "days": 1}}}`,
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		asked := r.URL.Path
		if by := r.URL.Query().Get("labelSelector"); by != "" {
			asked += "?labelSelector=" + by
		}
		if text, ok := answers[asked]; ok {
			_, _ = w.Write([]byte(text))
			return
		}
		w.WriteHeader(http.StatusNotFound)
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		_, _ = w.Write([]byte(`{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "\"` + name + `\" not found", "reason": "NotFound", "code": 404}`))
	}))
	t.Cleanup(s.Close)
	a, err := newAsker(&rest.Config{Host: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestGet: what is answered without kubectl is what kubectl says.
func TestGet(t *testing.T) {
	a := server(t)
	for line, want := range map[string]string{
		"-n shop get pod db-0 -o name":                                                           "pod/db-0\n",
		"-n shop get pods -o name":                                                               "pod/db-0\npod/db-1\n",
		"get po/db-0 -n shop -o jsonpath={.status.phase}":                                        "Running",
		"get pods -A -l a -o jsonpath={.items[*].metadata.name}":                                 "db-9",
		"-n empty get pods -o jsonpath={.items[*].metadata.name}":                                "",
		"-n empty get pods --ignore-not-found -o name":                                           "",
		"-n shop get pod none --ignore-not-found -o name":                                        "",
		"get vaults.davit.dev e2e -o name":                                                       "vault.davit.dev/e2e\n",
		"get vault e2e -o jsonpath={.status.lock}":                                               `{"days":1,"mode":"compliance"}`,
		"get vault e2e -o jsonpath={.status.lock.days}{.status.nothing}":                         "1",
		`-n shop get pods -o jsonpath={range.items[*]}{.metadata.labels.davit\.dev/point};{end}`: "p;p;",
		`-n shop get pod db-0 -o jsonpath={.status.conditions[?(@.type=="Ready")].status}`:       "True",
	} {
		q, ok := parseGet(strings.Fields(line))
		if got, err := a.get(t.Context(), q); !ok || err != nil || got != want {
			t.Errorf("kubectl %s: got %q, %v (%v), want %q", line, got, err, ok, want)
		}
	}
	q, _ := parseGet(strings.Fields("-n shop get pod none -o name"))
	if _, err := a.get(t.Context(), q); err == nil || !strings.Contains(err.Error(), `Error from server (NotFound): "none" not found`) {
		t.Errorf("what is not there: %v", err)
	}
	q, _ = parseGet(strings.Fields("get houses -o name"))
	if _, err := a.get(t.Context(), q); !errors.Is(err, errUnanswered) {
		t.Errorf("a kind that nobody knows: %v", err)
	}
}

// TestUnanswered: what get and exec know nothing of is left to kubectl.
func TestUnanswered(t *testing.T) {
	for _, line := range []string{
		"get pods", "get pods -o json", "get pods,services -o name", "get pod a b -o name", "get pods -o name --watch", "delete pod a", "-n shop exec db-0", "-n shop exec deployment/web -- true",
		"-n shop exec -i db-0 -- cat", "--as anna get pods -o name",
	} {
		_, question := parseGet(strings.Fields(line))
		_, order := parseExec(strings.Fields(line))
		if question || order {
			t.Errorf("kubectl %s is answered", line)
		}
	}
	o, ok := parseExec(strings.Fields("-n shop exec db-0 -c db -- sh -c true"))
	if !ok || o.namespace != "shop" || o.pod != "db-0" || o.container != "db" || strings.Join(o.command, " ") != "sh -c true" {
		t.Errorf("got %+v, %v", o, ok)
	}
}

// TestPause: who waits leaves the machine to what is waited for.
func TestPause(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{0: 200 * time.Millisecond, time.Second: 2 * time.Second, time.Minute: 3 * time.Second} {
		if got := pause(took); got != want {
			t.Errorf("after an answer that took %s: %s, want %s", took, got, want)
		}
	}
}
