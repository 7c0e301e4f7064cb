package drilling

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/schedule"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

const week = 7 * 24 * time.Hour

var noon = time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC) // a Wednesday

func TestTurns(t *testing.T) {
	day := func(n int, hour int) time.Time { return time.Date(2026, 5, n, hour, 0, 0, 0, time.UTC) }
	for _, tt := range []struct {
		what                string
		every               time.Duration
		cron                string
		last, refused, want time.Time
	}{
		{what: "every, never drilled: at once", every: week, want: day(1, 0)},
		{what: "cron, never drilled: the next time", cron: "0 3 * * 6", want: day(2, 3)},
		{what: "every, after one", every: week, last: day(5, 9), want: day(12, 9)},
		{what: "every, missed: one, in the past", every: 24 * time.Hour, last: day(2, 9), want: day(3, 9)},
		{what: "cron, missed: one, in the past", cron: "0 3 * * *", last: day(2, 3), want: day(3, 3)},
		{what: "every, refused", every: week, last: day(1, 9), refused: day(6, 11), want: day(6, 12)},
		{what: "cron, refused right before a turn", cron: "30 11 * * *", refused: day(6, 11), want: day(6, 11).Add(30 * time.Minute)},
		{what: "a clock that was set back", every: 24 * time.Hour, last: day(20, 0), want: day(7, 12)},
		{what: "never", cron: "0 0 30 2 *"},
	} {
		table, err := schedule.Parse(tt.every, tt.cron, "")
		if err != nil {
			t.Fatal(err)
		}
		got := turn{table: table, interval: tt.cron == "", created: day(1, 0), last: tt.last, refused: tt.refused, now: noon}.due()
		if !got.Equal(tt.want) {
			t.Errorf("%s: due %s, want %s", tt.what, got, tt.want)
		}
	}
}

// site is a cluster at a vault where east runs the application.
type site struct {
	t *testing.T
	*Reconciler
	project *vault.Project
	clock   time.Time
}

func at(t *testing.T, name string, d *v1alpha1.PlanDrills) *site {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	project, err := vault.CreateProject(t.Context(), mem.New(time.Now), "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lease.New(project).Claim(t.Context(), "db", 1, lease.Claim{Site: "east", At: noon, Holder: "ann", Request: "1"}); err != nil {
		t.Fatal(err)
	}
	p := &v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: "shop", CreationTimestamp: metav1.NewTime(noon)}, Spec: v1alpha1.RecoveryPlanSpec{
		Sites: []v1alpha1.PlanSite{{Name: "east"}, {Name: "west"}}, Applications: []v1alpha1.PlanApplication{{Name: "db"}},
		Fence: v1alpha1.PlanFence{Timeout: metav1.Duration{Duration: time.Minute}}, Drills: d,
	}}
	s := &site{t: t, project: project, clock: noon}
	s.Reconciler = &Reconciler{
		Site: name, Events: record.NewFakeRecorder(100), Now: func() time.Time { return s.clock },
		Project: func(context.Context, string) (*vault.Project, error) { return project, nil },
		Client: fake.NewClientBuilder().WithScheme(process.Scheme()).WithStatusSubresource(&v1alpha1.RecoveryPlan{}, &v1alpha1.Run{}).
			WithObjects(&v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "main"}}, p).Build(),
	}
	return s
}

func weekly() *v1alpha1.PlanDrills {
	return &v1alpha1.PlanDrills{Schedule: v1alpha1.Schedule{Every: &metav1.Duration{Duration: week}}}
}

// look reconciles after a while, and returns the Runs that there are.
func (s *site) look(after time.Duration) []v1alpha1.Run {
	s.t.Helper()
	s.clock = s.clock.Add(after)
	if _, err := s.Reconcile(s.t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "shop"}}); err != nil {
		s.t.Fatal(err)
	}
	var list v1alpha1.RunList
	if err := s.Client.List(s.t.Context(), &list); err != nil {
		s.t.Fatal(err)
	}
	return list.Items
}

// says checks the condition, and when the next drill is due.
func (s *site) says(status metav1.ConditionStatus, next time.Time, text string) {
	s.t.Helper()
	p := s.plan()
	c := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionDrilled)
	if c == nil || c.Status != status || !strings.Contains(c.Message, text) {
		s.t.Errorf("want %s %q: %+v", status, text, c)
	}
	if got := p.Status.NextDrill; (got == nil) != next.IsZero() || got != nil && !got.Time.Equal(next) {
		s.t.Errorf("next drill at %v, want %s", got, next)
	}
}

func (s *site) plan() *v1alpha1.RecoveryPlan {
	s.t.Helper()
	var p v1alpha1.RecoveryPlan
	if err := s.Client.Get(s.t.Context(), client.ObjectKey{Name: "shop"}, &p); err != nil {
		s.t.Fatal(err)
	}
	return &p
}

// end ends a drill now, which took a minute; one that was refused did not begin.
func (s *site) end(o v1alpha1.Run, phase failover.Phase, why string, begun bool) {
	s.t.Helper()
	if o.CreationTimestamp.IsZero() { // the fake sets none
		if err := s.Client.Delete(s.t.Context(), &o); err != nil {
			s.t.Fatal(err)
		}
		o.CreationTimestamp, o.ResourceVersion = metav1.NewTime(s.clock), ""
		if err := s.Client.Create(s.t.Context(), &o); err != nil {
			s.t.Fatal(err)
		}
	}
	now := metav1.NewTime(s.clock)
	o.Status.Phase, o.Status.Why, o.Status.EndedAt = string(phase), why, &now
	if begun {
		start := metav1.NewTime(s.clock.Add(-time.Minute))
		o.Status.BegunAt = &start
	}
	if err := s.Client.Status().Update(s.t.Context(), &o); err != nil {
		s.t.Fatal(err)
	}
}

// TestDrillsComeInTheirTurn: each once, the next counted from the last, one that
// was missed made up for by one.
func TestDrillsComeInTheirTurn(t *testing.T) {
	s := at(t, "west", weekly())
	runs := s.look(time.Second)
	if len(runs) != 1 || runs[0].Name != "shop-drill-20260506-120000" || runs[0].Spec.To != "west" || runs[0].Spec.Verb != "drill" || runs[0].Spec.Vault != "main" {
		t.Fatalf("%+v", runs)
	}
	if again := s.look(time.Minute); len(again) != 1 {
		t.Fatalf("it was ordered twice: %+v", again)
	}
	s.says(metav1.ConditionUnknown, noon, "is under way")
	s.look(2 * time.Hour)
	s.says(metav1.ConditionFalse, noon, "is under way") // overdue
	s.end(runs[0], failover.Completed, "", true)
	if got := s.look(0); len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	next := s.clock.Add(week - time.Minute)
	s.says(metav1.ConditionTrue, next, "passed at")
	runs = s.look(5 * week) // nobody was there
	if len(runs) != 2 || runs[1].Name != "shop-drill-"+next.Format("20060102-150405") {
		t.Fatalf("%+v", runs)
	}
	s.end(runs[1], failover.Failed, "ready/db: no such image", true)
	if got := s.look(time.Second); len(got) != 2 {
		t.Fatalf("more than one missed drill was made up for: %+v", got)
	}
	s.says(metav1.ConditionFalse, s.clock.Add(week-time.Minute-time.Second), "no such image")
}

func TestARefusedDrillIsTriedAgain(t *testing.T) {
	s := at(t, "west", weekly())
	runs := s.look(0)
	s.end(runs[0], failover.Failed, "db has no recovery point", false)
	s.look(time.Second)
	s.says(metav1.ConditionFalse, noon.Add(time.Hour), "no recovery point")
	if runs = s.look(time.Hour); len(runs) != 2 {
		t.Fatalf("%+v", runs)
	}
}

// TestADrillWaitsForRuns that move one of its applications, as long as these are
// not over.
func TestADrillWaitsForRuns(t *testing.T) {
	s := at(t, "west", weekly())
	spec := failover.Spec{
		Run: "move", Plan: "other", Verb: plan.Failover, From: "east", To: "south", By: "ann", At: noon, Accept: failover.TimedOut, Applications: []string{"db"},
		Steps: []plan.Step{{Name: "claim/db", Kind: plan.KindClaim, Application: "db", Timeout: time.Minute}},
	}
	r := register.New(s.project)
	if err := r.Begin(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	j := journal.Create(s.project, "move", "one")
	if err := j.Append(t.Context(), []failover.Entry{{Kind: failover.Opened, At: noon, By: "ann", Spec: &spec}, {Kind: failover.Took, At: noon, By: "one"}}); err != nil {
		t.Fatal(err)
	}
	if runs := s.look(time.Minute); len(runs) != 0 {
		t.Fatalf("beside a run: %+v", runs)
	}
	s.says(metav1.ConditionUnknown, noon, "the next waits: run move, a failover of plan other, is under way with db")
	if err := j.Append(t.Context(), []failover.Entry{{Kind: failover.Evaluated, At: noon, Facts: &failover.Facts{Problems: []string{"no"}}}}); err != nil {
		t.Fatal(err)
	}
	if runs := s.look(time.Minute); len(runs) != 1 {
		t.Fatalf("the run is over: %+v", runs)
	}
}

// TestWhereNothingIsDrilled: where the applications run, where others drill, while
// it is suspended, and before anything is protected.
func TestWhereNothingIsDrilled(t *testing.T) {
	elsewhere, suspended := weekly(), weekly()
	elsewhere.Sites, suspended.Suspend = []string{"east"}, true
	unprotected := at(t, "west", weekly())
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	empty, err := vault.CreateProject(t.Context(), mem.New(time.Now), "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	unprotected.Project = func(context.Context, string) (*vault.Project, error) { return empty, nil }
	for what, s := range map[string]*site{
		"where it runs": at(t, "east", weekly()), "where others drill": at(t, "west", elsewhere), "suspended": at(t, "west", suspended),
		"unprotected": unprotected, "no schedule": at(t, "west", nil), "no site of the plan": at(t, "south", weekly()),
	} {
		if runs := s.look(time.Minute); len(runs) != 0 {
			t.Errorf("%s: %+v", what, runs)
		}
		if next := s.plan().Status.NextDrill; next != nil && what != "unprotected" {
			t.Errorf("%s: the next is said to be due at %s", what, next)
		}
	}
}

// TestOldOrdersGo: the objects of drills that ended long ago are removed, and the
// schedule goes on as if they were there.
func TestOldOrdersGo(t *testing.T) {
	s := at(t, "west", weekly())
	for i := range keep + 3 {
		begun := metav1.NewTime(noon.Add(time.Duration(i) * time.Minute))
		o := &v1alpha1.Run{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("old-%02d", i), CreationTimestamp: begun, Labels: map[string]string{v1alpha1.LabelScheduled: "true"}},
			Spec:       v1alpha1.RunSpec{Plan: "shop", Verb: "drill", To: "west"},
		}
		if err := s.Client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		o.Status = v1alpha1.RunStatus{Phase: "Completed", BegunAt: &begun, EndedAt: &begun}
		if err := s.Client.Status().Update(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	runs := s.look(time.Hour)
	if len(runs) != keep || runs[0].Name != "old-03" {
		t.Errorf("%d are left, the oldest is %s", len(runs), runs[0].Name)
	}
	s.says(metav1.ConditionTrue, noon.Add(week+12*time.Minute), "old-12 passed")
}
