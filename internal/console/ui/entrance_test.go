package ui

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/failover"
)

// Who sends a form when his session has ended is told that nothing was done, and comes back to the
// page of the form; who only looked comes back to where he was.
func TestEntrance(t *testing.T) {
	for _, c := range []struct{ method, at, next, was string }{
		{"GET", "/", "", ""},
		{"GET", "/p/acme/runs?q=x", "/p/acme/runs?q=x", "get"},
		{"POST", "/p/acme/plans/shop/begin", "/p/acme/plans/shop", "post"},
		{"POST", "/p/acme/runs/drill-1/requests", "/p/acme/runs/drill-1", "post"},
		{"POST", "/p/acme/applications/shop/restore", "/p/acme/applications/shop", "post"},
		{"POST", "/p/acme/restores/0a/cancel", "/p/acme/restores/0a", "post"},
		{"POST", "/p/acme/members/remove", "/p/acme/people", "post"},
		{"POST", "/p/acme/quota", "/p/acme/people", "post"},
		{"POST", "/projects/restore", "/projects", "post"},
		{"POST", "/users/change", "/users", "post"},
	} {
		for _, known := range []bool{false, true} {
			r := httptest.NewRequest(c.method, c.at, nil)
			if known {
				r.AddCookie(&http.Cookie{Name: cookie, Value: "ended"})
			}
			got, err := url.Parse("/login" + entrance(r))
			if err != nil {
				t.Fatal(err)
			}
			q := got.Query()
			switch {
			case known && c.at == "/" && (q.Get("was") != "get" || q.Get("next") != "/"), c.at != "/" && q.Get("next") != c.next, known && c.at != "/" && q.Get("was") != c.was, !known && q.Get("was") != "":
				t.Errorf("%s %s, known %v: %s", c.method, c.at, known, got)
			}
		}
	}
	if r := httptest.NewRequest("POST", "/logout", nil); entrance(r) != "" {
		t.Error(entrance(r))
	}
}

// On the first page the most urgent of all projects comes first, not all of the first project.
func TestMostUrgentOfAll(t *testing.T) {
	now := time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
	quiet := &fleet.Snapshot{Applications: []fleet.Application{{Name: "shop", Points: []fleet.Point{{Good: true, Instant: now}}}}}
	burns := &fleet.Snapshot{Runs: []fleet.Run{{Result: failover.Result{Run: "failover-1", State: failover.SplitBrain}}}}
	var d startData
	d.add("a", quiet.Tasks(now), nil, true)
	d.add("b", burns.Tasks(now), nil, true)
	d.urgent()
	if len(d.Tasks) != 2 || d.Tasks[0].Project != "b" || !strings.Contains(d.Tasks[0].What, "two sites may be writing") {
		t.Errorf("%+v", d.Tasks)
	}
}
