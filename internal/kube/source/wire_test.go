package source

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
)

// TestPagesComeByHTTP1: each list has a connection of its own, which the next page
// takes again. All else of the same clients speaks HTTP/2.
func TestPagesComeByHTTP1(t *testing.T) {
	const pages = 4
	var mu sync.Mutex
	proto, from := map[string]int{}, map[string]bool{}
	crowd := many{each: firstPage * (1<<pages - 1)} // each page has twice as many as the one before
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		proto[r.URL.Path] = r.ProtoMajor
		if r.URL.Path == "/api/v1/namespaces/shop/secrets" {
			from[r.RemoteAddr] = true
		}
		mu.Unlock()
		crowd.ServeHTTP(w, r)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	clients, err := kube.New(&rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := NewCluster(clients)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Version(t.Context()); err != nil {
		t.Fatal(err)
	}
	q := capture.Query{Kind: capture.Kind{Version: "v1", Kind: "Secret", Resource: "secrets", Namespaced: true}, Namespace: "shop"}
	got := 0
	_, err = cluster.List(t.Context(), q, func(page []unstructured.Unstructured) error {
		got += len(page)
		return nil
	})
	if err != nil || got != crowd.each {
		t.Fatalf("%d objects of %d: %v", got, crowd.each, err)
	}
	if proto["/version"] != 2 || proto["/api/v1/namespaces/shop/secrets"] != 1 {
		t.Errorf("HTTP versions: %v", proto)
	}
	if len(from) != 1 {
		t.Errorf("the pages of one list came by %d connections", len(from))
	}
}
