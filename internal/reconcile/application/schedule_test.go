package application

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/api/v1alpha1"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestNextCapture(t *testing.T) {
	minute := v1alpha1.Schedule{Every: &metav1.Duration{Duration: time.Minute}}
	hour := v1alpha1.Schedule{Every: &metav1.Duration{Duration: time.Hour}}
	nightly := v1alpha1.Schedule{Cron: "0 3 * * *"}
	for name, test := range map[string]struct {
		spec   v1alpha1.Schedule
		last   time.Time
		failed bool
		want   time.Duration // from noon
		never  bool
	}{
		"first is due at once":        {spec: minute, want: 0},
		"in the middle":               {spec: minute, last: noon.Add(-20 * time.Second), want: 40 * time.Second},
		"missed many, made up by one": {spec: minute, last: noon.Add(-time.Hour), want: 0},
		"clock was set back":          {spec: minute, last: noon.Add(time.Hour), want: time.Minute},
		"a failed one sooner":         {spec: hour, last: noon.Add(-30 * time.Second), failed: true, want: 30 * time.Second},
		"a failed one not sooner":     {spec: minute, last: noon.Add(-30 * time.Second), failed: true, want: 30 * time.Second},
		"cron":                        {spec: nightly, last: noon.Add(-9 * time.Hour), want: 15 * time.Hour},
		"cron missed":                 {spec: nightly, last: noon.Add(-48 * time.Hour), want: -33 * time.Hour},
		"cron, never ran":             {spec: nightly, want: 15 * time.Hour},
		"no schedule":                 {spec: v1alpha1.Schedule{}, never: true},
	} {
		s := &scope{policy: &v1alpha1.ProtectionPolicy{Spec: v1alpha1.ProtectionPolicySpec{Schedule: test.spec}}, memory: &memory{}, now: noon}
		table, _, err := s.timetable()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		next := nextCapture(table, test.last, test.failed, noon.Add(-time.Hour), noon)
		switch {
		case test.never != (next == nil):
			t.Errorf("%s: next is %v", name, next)
		case next != nil && !next.Equal(noon.Add(test.want)):
			t.Errorf("%s: next is %s, want noon %+v", name, next, test.want)
		}
	}
}

// policed is an application of a policy, active here.
func policed(t *testing.T, spec v1alpha1.ProtectionPolicySpec, now time.Time) (*site, *v1alpha1.Application) {
	t.Helper()
	app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}, Policy: "often"})
	app.CreationTimestamp = metav1.NewTime(now.AddDate(0, -1, 0))
	policy := &v1alpha1.ProtectionPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: app.Namespace, Name: "often"}, Spec: spec}
	s := newSite(t, "", app, policy)
	s.Now = func() time.Time { return now }
	return s, app
}

func (s *site) requested() int {
	s.t.Helper()
	var points v1alpha1.RecoveryPointList
	if err := s.Client.List(s.t.Context(), &points); err != nil {
		s.t.Fatal(err)
	}
	return len(points.Items)
}

// After an outage of a day, of an application captured every minute, one
// capture is asked for, however often the agent looks.
func TestOutageIsMadeUpForByOneCapture(t *testing.T) {
	for name, schedule := range map[string]v1alpha1.Schedule{
		"interval": {Every: &metav1.Duration{Duration: time.Minute}},
		"cron":     {Cron: "* * * * *", TimeZone: "Europe/Berlin"},
	} {
		s, app := policed(t, v1alpha1.ProtectionPolicySpec{Schedule: schedule}, noon)
		old := &v1alpha1.RecoveryPoint{
			ObjectMeta: metav1.ObjectMeta{Namespace: app.Namespace, Name: "shop-20260101-120000000-bcdfgh"},
			Spec:       v1alpha1.RecoveryPointSpec{Application: "shop", Trigger: v1alpha1.TriggerSchedule},
			Status:     v1alpha1.RecoveryPointStatus{Phase: v1alpha1.PointAvailable, Instant: &metav1.Time{Time: noon.AddDate(0, 0, -1)}},
		}
		if err := s.Client.Create(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			s.reconcile(app)
		}
		if got := s.requested(); got != 2 {
			t.Errorf("%s: %d captures were asked for, want one", name, got-1)
		}
	}
}

// A schedule that can never keep its objective is said with the arithmetic; it
// is followed all the same.
func TestImpossibleObjectiveIsSaidAndTheScheduleKept(t *testing.T) {
	for _, test := range []struct {
		schedule v1alpha1.Schedule
		rpo      time.Duration
		reason   string
		says     string
	}{
		{v1alpha1.Schedule{Cron: "0 12 * * *"}, time.Hour, v1alpha1.ReasonImpossible, "up to 24h0m0s pass between two captures"},
		{v1alpha1.Schedule{Cron: "0 12 * * *"}, 25 * time.Hour, v1alpha1.ReasonNoPoint, ""},
		{v1alpha1.Schedule{Cron: "0 12 * * *", TimeZone: "Europe/Berlin"}, 24*time.Hour + time.Minute, v1alpha1.ReasonImpossible, "25h0m0s"},
		{v1alpha1.Schedule{Cron: "whenever"}, 0, v1alpha1.ReasonInvalid, "whenever"},
		{v1alpha1.Schedule{Cron: "0 12 * * *", TimeZone: "Middle/Earth"}, 0, v1alpha1.ReasonInvalid, "Middle/Earth"},
	} {
		spec := v1alpha1.ProtectionPolicySpec{Schedule: test.schedule}
		if test.rpo > 0 {
			spec.Objectives.RPO = &metav1.Duration{Duration: test.rpo}
		}
		s, app := policed(t, spec, noon.Add(time.Minute))
		got := s.reconcile(app)
		c := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady)
		if c == nil || c.Reason != test.reason || !strings.Contains(c.Message, test.says) {
			t.Errorf("%+v with %s: Ready is %+v, want %s", test.schedule, test.rpo, c, test.reason)
		}
		if asked := s.requested() == 1; asked == (test.reason == v1alpha1.ReasonInvalid) {
			t.Errorf("%+v: captured %v", test.schedule, asked)
		}
	}
}

func TestLastScheduledReadsTheName(t *testing.T) {
	point := func(name string, trigger v1alpha1.PointTrigger, phase v1alpha1.PointPhase) v1alpha1.RecoveryPoint {
		return v1alpha1.RecoveryPoint{
			ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(noon)},
			Spec:       v1alpha1.RecoveryPointSpec{Trigger: trigger},
			Status:     v1alpha1.RecoveryPointStatus{Phase: phase},
		}
	}
	at, failed := lastScheduled([]v1alpha1.RecoveryPoint{
		point("shop-20260102-110000000-bcdfgh", v1alpha1.TriggerSchedule, v1alpha1.PointAvailable),
		point("shop-20260102-113000000-bcdfgh", v1alpha1.TriggerSchedule, v1alpha1.PointFailed),
		point("shop-20260102-115900000-bcdfgh", v1alpha1.TriggerManual, v1alpha1.PointAvailable),
		point("shop-20260103-113000000-bcdfgh", v1alpha1.TriggerSchedule, v1alpha1.PointAvailable), // by a clock that was ahead
	}, noon.Add(time.Hour), noon)
	if !at.Equal(noon.Add(-30*time.Minute)) || !failed {
		t.Errorf("last is %s, failed %v", at, failed)
	}
	// The leader before this one may have a clock that is a little ahead.
	before := point("shop-20260102-120020000-bcdfgh", v1alpha1.TriggerSchedule, v1alpha1.PointCapturing)
	if at, _ := lastScheduled([]v1alpha1.RecoveryPoint{before}, time.Time{}, noon); !at.Equal(noon.Add(20 * time.Second)) {
		t.Errorf("last is %s: what a leader asked for 20s ahead is asked for again", at)
	}
}

// A clock that was a day ahead, here or where the application ran before, leaves a point of
// tomorrow. Captures go on all the same, and the status does not stay green if they fail.
func TestAPointThatIsYetToCome(t *testing.T) {
	hour := metav1.Duration{Duration: time.Hour}
	for name, schedule := range map[string]v1alpha1.Schedule{
		"interval": {Every: &metav1.Duration{Duration: time.Minute}},
		"cron":     {Cron: "* * * * *"},
	} {
		s, app := policed(t, v1alpha1.ProtectionPolicySpec{Schedule: schedule, Objectives: v1alpha1.Objectives{RPO: &hour}}, noon)
		add := func(name string, phase v1alpha1.PointPhase, at time.Time) {
			t.Helper()
			err := s.Client.Create(t.Context(), &v1alpha1.RecoveryPoint{
				ObjectMeta: metav1.ObjectMeta{Namespace: app.Namespace, Name: name},
				Spec:       v1alpha1.RecoveryPointSpec{Application: "shop", Trigger: v1alpha1.TriggerSchedule},
				Status:     v1alpha1.RecoveryPointStatus{Phase: phase, Instant: &metav1.Time{Time: at}, StartedAt: &metav1.Time{Time: at}},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		is := func(kind, reason, newest string) {
			t.Helper()
			got := s.reconcile(app)
			c := meta.FindStatusCondition(got.Status.Conditions, kind)
			if c == nil || c.Reason != reason || got.Status.NewestPoint != newest {
				t.Errorf("%s: newest point is %q, %s is %+v, want %q and %s", name, got.Status.NewestPoint, kind, c, newest, reason)
			}
		}
		tomorrow, now, failed := "shop-20260103-120000000-bcdfgh", "shop-20260102-115900000-bcdfgh", "shop-20260102-115930000-bcdfgh"
		add(tomorrow, v1alpha1.PointAvailable, noon.AddDate(0, 0, 1))
		is(v1alpha1.ConditionProtected, v1alpha1.ReasonLagging, tomorrow)
		for range 5 {
			s.reconcile(app)
		}
		if got := s.requested(); got != 2 {
			t.Errorf("%s: %d captures were asked for, want one", name, got-1)
		}
		add(now, v1alpha1.PointAvailable, noon.Add(-time.Minute))
		is(v1alpha1.ConditionProtected, v1alpha1.ReasonSucceeded, now)
		add(failed, v1alpha1.PointFailed, noon.Add(-30*time.Second))
		is(v1alpha1.ConditionReady, v1alpha1.ReasonCaptureFailed, now)
	}
}

// TestAFailureStaysBesideThoseYetToCome: captures that failed while a clock was ahead do not
// hide the one that failed now.
func TestAFailureStaysBesideThoseYetToCome(t *testing.T) {
	s, app := policed(t, v1alpha1.ProtectionPolicySpec{Schedule: v1alpha1.Schedule{Every: &metav1.Duration{Duration: time.Hour}}}, noon)
	add := func(id string, phase v1alpha1.PointPhase, at time.Time) {
		t.Helper()
		err := s.Client.Create(t.Context(), &v1alpha1.RecoveryPoint{
			ObjectMeta: metav1.ObjectMeta{Namespace: app.Namespace, Name: id},
			Spec:       v1alpha1.RecoveryPointSpec{Application: "shop", Trigger: v1alpha1.TriggerSchedule},
			Status:     v1alpha1.RecoveryPointStatus{Phase: phase, Instant: &metav1.Time{Time: at}, StartedAt: &metav1.Time{Time: at}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range keepFailed {
		add(fmt.Sprintf("shop-20260103-12000000%d-bcdfgh", i), v1alpha1.PointFailed, noon.AddDate(0, 0, 1))
	}
	add("shop-20260102-114000000-bcdfgh", v1alpha1.PointAvailable, noon.Add(-20*time.Minute))
	add("shop-20260102-115930000-bcdfgh", v1alpha1.PointFailed, noon.Add(-30*time.Second))
	s.reconcile(app)
	got := s.reconcile(app)
	if c := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady); c == nil || c.Reason != v1alpha1.ReasonCaptureFailed {
		t.Errorf("Ready is %+v", c)
	}
	if got := s.requested(); got != keepFailed+1 {
		t.Errorf("%d points are left, want %d that failed and one", got, keepFailed)
	}
}

// TestAPolicyOnItsWayIsNotMissing: kinds come into the cache one by one, so it may
// have an application before the policy that was made first.
func TestAPolicyOnItsWayIsNotMissing(t *testing.T) {
	for name, made := range map[string]bool{"made": true, "control: not made": false} {
		app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}, Policy: "daily"})
		objects := []client.Object{app}
		if made {
			objects = append(objects, &v1alpha1.ProtectionPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: app.Namespace, Name: "daily"}})
		}
		s := newSite(t, "", objects...)
		s.Client = interceptor.NewClient(s.Client.(client.WithWatch), interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
				if _, is := o.(*v1alpha1.ProtectionPolicy); is {
					return apierrors.NewNotFound(schema.GroupResource{Resource: "protectionpolicies"}, key.Name)
				}
				return c.Get(ctx, key, o, opts...)
			},
		})
		got := s.reconcile(app)
		ready := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || (ready.Reason == v1alpha1.ReasonInvalid) == made {
			t.Errorf("%s: %+v", name, ready)
		}
	}
}

// TestNothingNewIsNotWritten: an application is looked at every few seconds, and most of the time
// there is nothing to say. The control is a point that appears.
func TestNothingNewIsNotWritten(t *testing.T) {
	app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}})
	s := newSite(t, "", app)
	s.claim("shop", "east")
	var written int
	s.Client = interceptor.NewClient(s.Client.(client.WithWatch), interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			written++
			return c.SubResource(sub).Patch(ctx, o, patch, opts...)
		},
	})
	for range 3 {
		s.reconcile(app)
	}
	if written != 1 {
		t.Errorf("%d writes of the status in three looks, want 1", written)
	}
	instant := metav1.Now()
	rp := &v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Namespace: app.Namespace, Name: "p"}, Spec: v1alpha1.RecoveryPointSpec{Application: app.Name}}
	rp.Status = v1alpha1.RecoveryPointStatus{Phase: v1alpha1.PointAvailable, Instant: &instant}
	if err := s.Client.Create(t.Context(), rp); err != nil {
		t.Fatal(err)
	}
	if err := s.Client.Status().Update(t.Context(), rp); err != nil {
		t.Fatal(err)
	}
	if got := s.reconcile(app); written != 2 || got.Status.Points != 1 {
		t.Errorf("%d writes, and the status says %d points, want 2 and 1", written, got.Status.Points)
	}
}

// TestAPinHoldsUpNoCapture: what is captured and cannot be pinned yet is no capture that goes on.
func TestAPinHoldsUpNoCapture(t *testing.T) {
	var rp v1alpha1.RecoveryPoint
	rp.Status.Phase = v1alpha1.PointCapturing
	going := active(&rp)
	rp.Status.FinishedAt = &metav1.Time{}
	if !going || active(&rp) {
		t.Errorf("active while it is captured: %v, and afterwards: %v", going, active(&rp))
	}
}
