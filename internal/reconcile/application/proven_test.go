package application

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
)

func TestProvenIsToldAndDamageIsLoud(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	at := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: now.Add(d)} }
	asks := &v1alpha1.ProtectionPolicy{Spec: v1alpha1.ProtectionPolicySpec{Verify: &v1alpha1.VerifyPolicy{Every: &metav1.Duration{Duration: time.Hour}}}}
	damaged := &v1alpha1.Verification{How: v1alpha1.ProvenSample, Damaged: true}
	for name, test := range map[string]struct {
		policy *v1alpha1.ProtectionPolicy
		proof  *v1alpha1.Verification
		last   *v1alpha1.VerificationStatus
		reason string
		ready  bool
		says   string
	}{
		"nobody asks":                  {nil, nil, nil, v1alpha1.ReasonNotVerified, true, "asks for no verification"},
		"not yet":                      {asks, nil, nil, v1alpha1.ReasonNotVerified, true, "nothing has been read back yet"},
		"proven":                       {asks, nil, &v1alpha1.VerificationStatus{At: at(-time.Minute), How: "sample", Points: []string{"p1"}, Next: at(time.Hour)}, v1alpha1.ReasonSucceeded, true, "(sample): p1"},
		"a little late":                {asks, nil, &v1alpha1.VerificationStatus{At: at(-3 * time.Hour), Next: at(-time.Minute)}, v1alpha1.ReasonSucceeded, true, ""},
		"late":                         {asks, nil, &v1alpha1.VerificationStatus{Next: at(-2 * time.Hour), Error: "no answer"}, v1alpha1.ReasonOverdue, false, "no answer"},
		"a copy is damaged":            {asks, nil, &v1alpha1.VerificationStatus{At: at(-time.Minute), Next: at(time.Hour), Copies: []v1alpha1.CopyVerification{{Vault: "far", Repaired: []string{"p1"}}, {Vault: "second", Damaged: []string{"p1"}}}}, v1alpha1.ReasonDamaged, false, "second copy second is damaged"},
		"a copy was mended":            {asks, nil, &v1alpha1.VerificationStatus{At: at(-time.Minute), How: "full", Next: at(time.Hour), Copies: []v1alpha1.CopyVerification{{Vault: "far", Repaired: []string{"p1"}}}}, v1alpha1.ReasonSucceeded, true, "read back"},
		"a copy that nobody asks of":   {nil, nil, &v1alpha1.VerificationStatus{Copies: []v1alpha1.CopyVerification{{Vault: "second", Damaged: []string{"p1"}}}}, v1alpha1.ReasonNotVerified, true, "asks for no verification"},
		"damaged, though nobody asked": {nil, damaged, nil, v1alpha1.ReasonDamaged, false, "bad"},
	} {
		good := v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Name: "good"}, Status: v1alpha1.RecoveryPointStatus{Phase: v1alpha1.PointAvailable, Instant: at(-time.Minute)}}
		bad := v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Status: v1alpha1.RecoveryPointStatus{Phase: v1alpha1.PointQuarantined, Verification: test.proof}}
		app := shop("ns", v1alpha1.ApplicationSpec{})
		app.Status.Role, app.Status.Verification = v1alpha1.RoleActive, test.last
		s := &scope{app: app, policy: test.policy, now: now, points: []v1alpha1.RecoveryPoint{good, bad}}
		(&Reconciler{}).summarize(s)
		verified := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionVerified)
		ready := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
		if verified.Reason != test.reason || !strings.Contains(verified.Message, test.says) || (ready.Status == metav1.ConditionTrue) != test.ready {
			t.Errorf("%s: verified %+v, ready %+v", name, verified, ready)
		}
	}
}
