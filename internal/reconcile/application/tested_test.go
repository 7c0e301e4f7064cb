package application

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
)

func TestAFailedRestoreTestIsLoud(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	at := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: now.Add(d)} }
	rto := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	asks := &v1alpha1.ProtectionPolicy{Spec: v1alpha1.ProtectionPolicySpec{
		RestoreTest: &v1alpha1.RestoreTestPolicy{Every: rto(time.Hour)}, Objectives: v1alpha1.Objectives{RTO: rto(time.Minute)},
	}}
	for name, test := range map[string]struct {
		policy *v1alpha1.ProtectionPolicy
		last   *v1alpha1.RestoreTestStatus
		reason string
		ready  bool
		says   string
	}{
		"nobody asks":                           {nil, nil, v1alpha1.ReasonNotVerified, true, "asks for no restore test"},
		"not yet":                               {asks, nil, v1alpha1.ReasonNotVerified, true, "nothing has been restored"},
		"passed":                                {asks, &v1alpha1.RestoreTestStatus{At: at(-time.Minute), Point: "p1", Passed: true, RTO: rto(time.Second), Next: at(time.Hour)}, v1alpha1.ReasonSucceeded, true, "p1: it worked after 1s"},
		"failed":                                {asks, &v1alpha1.RestoreTestStatus{At: at(-time.Minute), Point: "p1", Message: "probe rows", Next: at(time.Hour)}, v1alpha1.ReasonTestFailed, false, "p1: probe rows"},
		"nothing proven":                        {asks, &v1alpha1.RestoreTestStatus{At: at(-time.Minute), Point: "p1", Unproven: "nothing runs", Next: at(time.Hour)}, v1alpha1.ReasonNothingProven, false, "nothing is proven: nothing runs"},
		"too slow":                              {asks, &v1alpha1.RestoreTestStatus{At: at(-time.Minute), Passed: true, RTO: rto(2 * time.Minute), Next: at(time.Hour)}, v1alpha1.ReasonTooSlow, false, "after 2m0s"},
		"late":                                  {asks, &v1alpha1.RestoreTestStatus{Next: at(-2 * time.Hour), Error: "no answer"}, v1alpha1.ReasonOverdue, false, "no answer"},
		"late, but now":                         {asks, &v1alpha1.RestoreTestStatus{Next: at(-2 * time.Hour), Running: at(-time.Minute)}, v1alpha1.ReasonNotVerified, true, ""},
		"failed once, and nobody asks any more": {nil, &v1alpha1.RestoreTestStatus{At: at(-time.Minute), Message: "probe rows"}, v1alpha1.ReasonNotVerified, true, ""},
	} {
		good := v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Name: "p1"}, Status: v1alpha1.RecoveryPointStatus{Phase: v1alpha1.PointAvailable, Instant: at(-time.Minute)}}
		app := shop("ns", v1alpha1.ApplicationSpec{})
		app.Status.Role, app.Status.RestoreTest = v1alpha1.RoleActive, test.last
		s := &scope{app: app, policy: test.policy, now: now, points: []v1alpha1.RecoveryPoint{good}}
		(&Reconciler{}).summarize(s)
		tested := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionTested)
		ready := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
		if tested.Reason != test.reason || !strings.Contains(tested.Message, test.says) || (ready.Status == metav1.ConditionTrue) != test.ready {
			t.Errorf("%s: tested %+v, ready %+v", name, tested, ready)
		}
	}
}
