package reports

import (
	"fmt"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/recovery"
)

// Reports are in etcd: an application keeps its newest ten, and takes none of
// another's.
func TestTheNewestAreKept(t *testing.T) {
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).Build()
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	keep := func(app string, n int) {
		t.Helper()
		report := &recovery.Report{Application: app, RestoreID: fmt.Sprintf("%s-%d", app, n), StartedAt: at.Add(time.Duration(n) * time.Minute)}
		if err := Keep(t.Context(), c, report); err != nil {
			t.Fatal(err)
		}
	}
	keep("blog", 0)
	for n := range Newest + 3 {
		keep("shop", n)
	}
	all, err := list(t.Context(), c)
	if err != nil || len(all) != Newest+1 {
		t.Fatalf("%d reports are left, %v", len(all), err)
	}
	for id, want := range map[string]bool{"blog-0": true, "shop-2": false, "shop-3": true, fmt.Sprintf("shop-%d", Newest+2): true} {
		if found, err := Find(t.Context(), c, id, ""); (err == nil) != want {
			t.Errorf("report %s: %v, %v", id, found, err)
		}
	}
	if newest, err := Find(t.Context(), c, "shop", "shop"); err != nil || newest.RestoreID != fmt.Sprintf("shop-%d", Newest+2) {
		t.Errorf("the newest is %v, %v", newest, err)
	}
}
