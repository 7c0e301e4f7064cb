package application

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
)

// TestTheCachesPointsAreOnlyRead: what the status says of them is a copy, for the answer to its
// patch is read into it.
func TestTheCachesPointsAreOnlyRead(t *testing.T) {
	instant := metav1.NewTime(time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC))
	s := &scope{
		app: &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "shop"}}, now: instant.Add(time.Minute), memory: &memory{},
		points: []v1alpha1.RecoveryPoint{{ObjectMeta: metav1.ObjectMeta{Name: "shop-1"}, Status: v1alpha1.RecoveryPointStatus{Phase: v1alpha1.PointAvailable, Instant: &instant}}},
	}
	(&Reconciler{}).summarize(s)
	newest := s.app.Status.NewestInstant
	if s.app.Status.NewestPoint != "shop-1" || newest == nil || !newest.Equal(&instant) {
		t.Fatalf("the newest is %s of %s", s.app.Status.NewestPoint, newest)
	}
	if newest == &instant {
		t.Error("the status points into the cache")
	}
}
