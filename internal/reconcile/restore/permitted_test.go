package restore

import (
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/recovery"
)

// TestPermitted: whoever may create a Restore in a namespace reads, by it, what
// was captured there, and not what was captured in another.
func TestPermitted(t *testing.T) {
	for _, c := range []struct {
		namespace, application string
		mode                   v1alpha1.RestoreMode
		ok                     bool
	}{
		{v1alpha1.SystemNamespace, "payroll.db", v1alpha1.RestoreTakeOver, true},
		{v1alpha1.SystemNamespace, "shop", v1alpha1.RestoreInPlace, true},
		{"payroll", "payroll.db", v1alpha1.RestoreInPlace, true},
		{"payroll", "payroll.db", v1alpha1.RestoreClone, true},
		{"payroll", "payroll.db", v1alpha1.RestoreTakeOver, false},
		{"guest", "payroll.db", v1alpha1.RestoreClone, false},
		{"guest", "shop", v1alpha1.RestoreClone, false},
		{"guest", "guest", v1alpha1.RestoreInPlace, false},
		{"guest", "guestbook.db", v1alpha1.RestoreInPlace, false},
	} {
		rs := &v1alpha1.Restore{
			ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace},
			Spec:       v1alpha1.RestoreSpec{Application: c.application, Mode: c.mode},
		}
		if err := permitted(rs); (err == nil) != c.ok || err != nil && !errors.Is(err, recovery.ErrRefused) {
			t.Errorf("%s of %s in %s: %v", c.mode, c.application, c.namespace, err)
		}
	}
}

// What waited longer than whoever asked for it meant is not begun; what has begun goes on.
func TestLate(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	r := &Reconciler{Now: func() time.Time { return now }}
	for name, test := range map[string]struct {
		by     string
		begun  bool
		refuse bool
	}{
		"nobody says": {}, "in time": {by: "2026-01-02T03:00:00Z"}, "too late": {by: "2026-01-02T02:59:59Z", refuse: true},
		"begun": {by: "2026-01-02T02:59:59Z", begun: true}, "no time": {by: "noon", refuse: true},
	} {
		rs := &v1alpha1.Restore{}
		if test.by != "" {
			rs.Annotations = map[string]string{AnnotationBeginBy: test.by}
		}
		if test.begun {
			rs.Status.StartedAt = &metav1.Time{Time: now}
		}
		if err := r.late(rs); errors.Is(err, recovery.ErrRefused) != test.refuse {
			t.Errorf("%s: %v", name, err)
		}
	}
}
