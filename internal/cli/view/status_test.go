package view

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/reconcile/project"
	"davit.dev/davit/internal/reconcile/site"
)

// A state is judged by the newest point's age: an agent that died while all
// was well must not look well for ever.
func TestAppState(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: now.Add(-d)} }
	every := func(d, rpo time.Duration) *v1alpha1.ProtectionPolicy {
		p := &v1alpha1.ProtectionPolicy{}
		p.Spec.Schedule.Every = &metav1.Duration{Duration: d}
		if rpo > 0 {
			p.Spec.Objectives.RPO = &metav1.Duration{Duration: rpo}
		}
		return p
	}
	paused := every(time.Minute, 0)
	paused.Spec.Suspend = true
	failing := []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonCaptureFailed}}
	for name, tc := range map[string]struct {
		status v1alpha1.ApplicationStatus
		policy *v1alpha1.ProtectionPolicy
		want   string
	}{
		"fresh":                   {v1alpha1.ApplicationStatus{NewestInstant: ago(30 * time.Second)}, every(time.Minute, time.Minute), stateProtected},
		"older than RPO":          {v1alpha1.ApplicationStatus{NewestInstant: ago(2 * time.Minute)}, every(time.Minute, time.Minute), stateLagging},
		"agent silent, no RPO":    {v1alpha1.ApplicationStatus{NewestInstant: ago(time.Hour)}, every(time.Minute, 0), stateLagging},
		"no point yet":            {v1alpha1.ApplicationStatus{}, every(time.Minute, 0), stateSeeding},
		"no point, failing":       {v1alpha1.ApplicationStatus{Conditions: failing}, every(time.Minute, 0), stateBroken},
		"points, failing":         {v1alpha1.ApplicationStatus{NewestInstant: ago(time.Second), Conditions: failing}, every(time.Minute, 0), stateDegraded},
		"no schedule":             {v1alpha1.ApplicationStatus{}, nil, stateOnDemand},
		"paused":                  {v1alpha1.ApplicationStatus{NewestInstant: ago(time.Hour)}, paused, statePaused},
		"superseded, however new": {v1alpha1.ApplicationStatus{Role: v1alpha1.RoleSuperseded, NewestInstant: ago(0)}, every(time.Minute, 0), stateSuperseded},
	} {
		app := &v1alpha1.Application{Status: tc.status}
		if got := appState(app, tc.policy, now); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// A site that has written again since the agent judged it is not said to be silent.
func TestASiteThatIsBack(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for ago, silent := range map[time.Duration]bool{5 * time.Second: false, time.Hour: true} {
		s := &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: "east"}}
		s.Status.LastSeen = &metav1.Time{Time: now.Add(-ago)}
		s.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: site.ReasonSilent, Message: "has written to no vault"}}
		v := Status{now: now}
		if err := v.gatherSites(t.Context(), fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(s).Build()); err != nil {
			t.Fatal(err)
		}
		if got := v.Sites[0].Message != ""; got != silent {
			t.Errorf("seen %s ago: %q", ago, v.Sites[0].Message)
		}
	}
}

// A list of points says how old it is, by the vault that was read longest ago; a second
// copy is not read for it.
func TestPointsSayAsOfWhen(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	of := func(name, at string) *v1alpha1.Vault {
		return &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{project.AnnotationShown: at}}}
	}
	was := of("was", "2025-12-31T12:00:00Z") // the vault, before another was promoted
	was.Spec.CopyOf = "main"
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(of("main", "2026-01-31T11:59:20Z"), of("old", "2026-01-31T11:58:00Z"), of("copy", ""), was).Build()
	p := Points{Now: now, AsOf: ShownAsOf(t.Context(), c)}
	var text output.Text
	p.Text(&text)
	if !strings.Contains(text.String(), "As of 2m ago") {
		t.Error(text.String())
	}
}

// A point that verification found damaged does not pass for restorable, even
// before the agent has read the verdict.
func TestDamagedPointIsNotOffered(t *testing.T) {
	p := &v1alpha1.RecoveryPoint{Status: v1alpha1.RecoveryPointStatus{Phase: v1alpha1.PointAvailable}}
	if OfObject(p).Phase != v1alpha1.PointAvailable {
		t.Fatal("a whole point is not offered")
	}
	p.Status.Verification = &v1alpha1.Verification{Damaged: true, Message: "gone"}
	if got := OfObject(p); got.Phase != v1alpha1.PointQuarantined || !got.Damaged {
		t.Errorf("%+v", got)
	}
}

// What is wrong is said whole: the end of a message is what helps.
func TestNotesAreWhole(t *testing.T) {
	message := strings.Repeat("the capture failed because of this and that, ", 5) + "so look there"
	s := Status{
		Applications: []App{{Name: "shop", Message: message}}, Sites: []Site{{Name: "west", Message: message}},
		Running: []Run{{Kind: "backup", ID: "shop-1", Step: message}},
	}
	var out output.Text
	s.Text(&out)
	if n := strings.Count(out.String(), message+"\n"); n != 3 {
		t.Errorf("%d of 3 notes are whole in:\n%s", n, out.String())
	}
}

// A superseded site is calm, and must not look as if the application ran there.
func TestVerdict(t *testing.T) {
	v := Status{Healthy: true, Applications: []App{{State: stateProtected}}}
	if got := v.verdict(); got != "All is well." {
		t.Errorf("verdict %q", got)
	}
	v.Applications = append(v.Applications, App{State: stateSuperseded})
	if got := v.verdict(); got == "All is well." {
		t.Errorf("verdict %q although an application was taken over", got)
	}
}

// TestWhatIsBeingStartedIsNotWell: an application that may run here again and does not yet
// needs a look. The control is the same one when it runs.
func TestWhatIsBeingStartedIsNotWell(t *testing.T) {
	now := time.Unix(1000, 0)
	at := metav1.NewTime(now)
	for reason, want := range map[string]string{v1alpha1.ReasonHeld: stateDegraded, v1alpha1.ReasonProgressing: stateDegraded, v1alpha1.ReasonSucceeded: stateProtected} {
		ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: reason, Message: "StatefulSet shop/db: 0 of 1 ready"}
		if want == stateProtected {
			ready.Status = metav1.ConditionTrue
		}
		app := &v1alpha1.Application{Status: v1alpha1.ApplicationStatus{Role: v1alpha1.RoleActive, NewestInstant: &at, Conditions: []metav1.Condition{ready}}}
		v := Status{Vaults: []Vault{{Ready: "True"}}, Parts: []Part{{"agent", 1, 1}}, Applications: []App{OfApplication(app, nil, now)}}
		v.Healthy = v.healthy()
		if got := v.Applications[0]; got.State != want || strings.Contains(got.Message, ready.Message) != (want != stateProtected) || (v.verdict() == "All is well.") != (want == stateProtected) {
			t.Errorf("%s: %s, %q: %s", reason, got.State, got.Message, v.verdict())
		}
	}
}

// A vault whose clock is far off makes every age wrong: that needs a look.
func TestClocksApart(t *testing.T) {
	for skew, want := range map[time.Duration]bool{0: true, -20 * time.Second: true, time.Minute: false, -time.Hour: false} {
		v := &v1alpha1.Vault{}
		v.Name = "main"
		v.Status.ClockSkew = &metav1.Duration{Duration: skew}
		v.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue}}
		s := Status{Vaults: []Vault{OfVaultObject(v)}, Parts: []Part{{"agent", 1, 1}}}
		var out output.Text
		s.Vaults[0].Checked = time.Unix(0, 0)
		Vaults{Vaults: s.Vaults, Now: time.Unix(1, 0)}.Text(&out)
		if got := s.healthy(); got != want || strings.Contains(out.String(), "mend time synchronisation") == want {
			t.Errorf("%s apart: healthy is %v, said %q", skew, got, out.String())
		}
	}
}
