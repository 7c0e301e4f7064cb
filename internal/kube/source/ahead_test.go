package source

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	p := &pages{many: many{each: firstPage + pageGrowth*firstPage + 50, text: 8}}
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

// uneven is an API server whose objects are small up to one, and large from there
// on, as with Secrets that are named by what made them.
type uneven struct {
	small, large int
	mu           sync.Mutex
	limits       []int
}

func (u *uneven) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	u.mu.Lock()
	u.limits = append(u.limits, limit)
	u.mu.Unlock()
	end, next := min(from+limit, u.small+u.large), ""
	if end < u.small+u.large {
		next = strconv.Itoa(end)
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"metadata":{"resourceVersion":"%s","continue":"%s"},"items":[`, manyRevision, next)
	for i := from; i < end; i++ {
		size := 8
		if i >= u.small {
			size = 700 << 10
		}
		// What breaks off is the client's own doing.
		_, _ = fmt.Fprintf(w, `%s{"metadata":{"name":"object-%06d"},"data":{"value":"%s"}}`, strings.Repeat(",", min(i-from, 1)), i, strings.Repeat("A", size))
	}
	fmt.Fprint(w, "]}")
}

// TestLargeObjectsAfterSmallOnes come all, once and in their order, in pages that
// are never large.
func TestLargeObjectsAfterSmallOnes(t *testing.T) {
	u := &uneven{small: 700, large: 13}
	server := httptest.NewServer(u)
	t.Cleanup(server.Close)
	clients, err := kube.New(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := NewCluster(clients)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	_, err = cluster.List(t.Context(), secretsOfShop, func(page []unstructured.Unstructured) error {
		bytes := 0
		for i := range page {
			if want := fmt.Sprintf("object-%06d", seen); page[i].GetName() != want {
				t.Errorf("%s came, want %s", page[i].GetName(), want)
			}
			value, _, _ := unstructured.NestedString(page[i].Object, "data", "value")
			bytes += len(value)
			seen++
		}
		if bytes > pageMost {
			t.Errorf("a page has %d MiB", bytes>>20)
		}
		return nil
	})
	if err != nil || seen != u.small+u.large {
		t.Errorf("%d objects, %v", seen, err)
	}
	for i := 1; i < len(u.limits); i++ {
		if u.limits[i] > pageGrowth*u.limits[i-1] {
			t.Errorf("pages of %v objects were asked for", u.limits)
			break
		}
	}
	if most := slices.Max(u.limits); most < 2*firstPage {
		t.Errorf("pages never grew: %v", u.limits)
	}
}
