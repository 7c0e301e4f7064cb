package source

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
)

// pages is an API server that tells when each page was asked for.
type pages struct {
	many
	asked chan string // by their continue tokens
	count atomic.Int64
	fails string // the token of the page that cannot be had
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("continue")
	p.count.Add(1)
	p.asked <- token
	if p.fails != "" && token == p.fails {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"not yours","code":403}`)
		return
	}
	p.many.ServeHTTP(w, r)
}

var secretsOfShop = capture.Query{Kind: capture.Kind{Version: "v1", Kind: "Secret", Resource: "secrets", Namespaced: true}, Namespace: "shop"}

func clusterOf(t *testing.T, p *pages) *Cluster {
	t.Helper()
	p.asked = make(chan string, 100)
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	clients, err := kube.New(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := NewCluster(clients)
	if err != nil {
		t.Fatal(err)
	}
	return cluster
}

// next waits until a page was asked for.
func (p *pages) next(t *testing.T) string {
	t.Helper()
	select {
	case token := <-p.asked:
		return token
	case <-time.After(time.Minute):
		t.Fatal("no page was asked for")
		return ""
	}
}

// TestThePageAfterIsAskedForMeanwhile: before the first one's objects are done
// with, and all come, once and in their order.
func TestThePageAfterIsAskedForMeanwhile(t *testing.T) {
	p := &pages{many: many{each: firstPage + maxPage + 50, text: 8}}
	cluster, seen := clusterOf(t, p), 0
	_, err := cluster.List(t.Context(), secretsOfShop, func(page []unstructured.Unstructured) error {
		if seen == 0 {
			for _, want := range []string{"", fmt.Sprint(firstPage)} {
				if got := p.next(t); got != want {
					t.Errorf("page %q was asked for, want %q", got, want)
				}
			}
		}
		for i := range page {
			if want := fmt.Sprintf("object-%06d", seen); page[i].GetName() != want {
				t.Errorf("%s came, want %s", page[i].GetName(), want)
			}
			seen++
		}
		return nil
	})
	if err != nil || seen != p.each || p.count.Load() != 3 {
		t.Errorf("%d objects in %d pages, %v", seen, p.count.Load(), err)
	}
}

// TestWhoeverStopsAsksForNoMore: an error of who takes the objects is the list's.
func TestWhoeverStopsAsksForNoMore(t *testing.T) {
	p := &pages{many: many{each: 10 * maxPage, text: 8}}
	cluster, full := clusterOf(t, p), errors.New("vault full")
	_, err := cluster.List(t.Context(), secretsOfShop, func([]unstructured.Unstructured) error { return full })
	if !errors.Is(err, full) || p.count.Load() > 2 {
		t.Errorf("%v, after %d pages", err, p.count.Load())
	}
}

// TestAPageThatFailsComesAfterTheOneBefore.
func TestAPageThatFailsComesAfterTheOneBefore(t *testing.T) {
	p := &pages{many: many{each: 2 * firstPage, text: 8}, fails: fmt.Sprint(firstPage)}
	cluster, seen := clusterOf(t, p), 0
	_, err := cluster.List(t.Context(), secretsOfShop, func(page []unstructured.Unstructured) error {
		seen += len(page)
		return nil
	})
	if err == nil || seen != firstPage {
		t.Errorf("%v, after %d objects", err, seen)
	}
}
