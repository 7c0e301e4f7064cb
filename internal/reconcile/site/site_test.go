package site

import (
	"context"
	"errors"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/process"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestReadiness(t *testing.T) {
	ago := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: noon.Add(-d)} }
	for name, test := range map[string]struct {
		site  string
		seen  *metav1.Time
		ready bool
	}{
		"itself":         {"east", nil, true},
		"heard of":       {"west", ago(silentAfter), true},
		"silent":         {"west", ago(silentAfter + time.Second), false},
		"never heard of": {"west", nil, false},
	} {
		s := &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: test.site}, Status: v1alpha1.SiteStatus{LastSeen: test.seen, KubeVersion: "v1.33.0"}}
		c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(s).WithStatusSubresource(s).Build()
		r := &Reconciler{Client: c, Site: "east", KubeVersion: func(context.Context) (string, error) { return "v1.34.4", nil }, Now: func() time.Time { return noon }}
		got := look(t, r, test.site)
		if meta.IsStatusConditionTrue(got.Status.Conditions, v1alpha1.ConditionReady) != test.ready || got.Status.Local != (test.site == "east") {
			t.Errorf("%s: %+v", name, got.Status)
		}
		if want := map[bool]string{true: "v1.34.4", false: "v1.33.0"}[got.Status.Local]; got.Status.KubeVersion != want {
			t.Errorf("%s: Kubernetes %s, want %s", name, got.Status.KubeVersion, want)
		}
		r.KubeVersion = func(context.Context) (string, error) { return "", errors.New("no answer") }
		if again := look(t, r, test.site); again.Status.KubeVersion != got.Status.KubeVersion {
			t.Errorf("%s: an unanswered question changed the version to %q", name, again.Status.KubeVersion)
		}
	}
}

func look(t *testing.T, r *Reconciler, name string) v1alpha1.Site {
	t.Helper()
	if res, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: name}}); err != nil || res.RequeueAfter == 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	var got v1alpha1.Site
	if err := r.Client.Get(t.Context(), client.ObjectKey{Name: name}, &got); err != nil {
		t.Fatal(err)
	}
	return got
}
