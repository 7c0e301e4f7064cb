package restore

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/recovery"
)

// A restore that another agent began is measured from its beginning.
func TestTimesOfAContinuedRestore(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name     string
		again    time.Duration // after began
		rto, rpo time.Duration
	}{
		{"not interrupted", 400 * time.Millisecond, 30 * time.Second, time.Minute},
		{"interrupted", 20 * time.Second, 50 * time.Second, 40 * time.Second},
	} {
		st := &v1alpha1.RestoreStatus{StartedAt: &metav1.Time{Time: began}}
		fill(st, recovery.Report{StartedAt: began.Add(c.again), Instant: began, RTO: 30 * time.Second, RPO: time.Minute})
		if st.RTO.Duration != c.rto || st.RPO.Duration != c.rpo {
			t.Errorf("%s: RTO %s, RPO %s; want %s, %s", c.name, st.RTO.Duration, st.RPO.Duration, c.rto, c.rpo)
		}
	}
}
