package cli_test

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/reports"
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
		if err := reports.Keep(t.Context(), c, report); err != nil {
			t.Fatal(err)
		}
	}
	keep("blog", 0)
	for n := range reports.Newest + 3 {
		keep("shop", n)
	}
	var all corev1.ConfigMapList
	if err := c.List(t.Context(), &all, client.InNamespace(v1alpha1.SystemNamespace)); err != nil || len(all.Items) != reports.Newest+1 {
		t.Fatalf("%d reports are left, %v", len(all.Items), err)
	}
	for id, want := range map[string]bool{"blog-0": true, "shop-2": false, "shop-3": true, fmt.Sprintf("shop-%d", reports.Newest+2): true} {
		if found, err := reports.Find(t.Context(), c, id, ""); (err == nil) != want {
			t.Errorf("report %s: %v, %v", id, found, err)
		}
	}
	if newest, err := reports.Find(t.Context(), c, "shop", "shop"); err != nil || newest.RestoreID != fmt.Sprintf("shop-%d", reports.Newest+2) {
		t.Errorf("the newest is %v, %v", newest, err)
	}
}
