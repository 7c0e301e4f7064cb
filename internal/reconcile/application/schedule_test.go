package application

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
		next, err := nextCapture(test.spec, test.last, test.failed, noon.Add(-time.Hour), noon)
		switch {
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case test.never != (next == nil):
			t.Errorf("%s: next is %v", name, next)
		case next != nil && !next.Equal(noon.Add(test.want)):
			t.Errorf("%s: next is %s, want noon %+v", name, next, test.want)
		}
	}
	if _, err := nextCapture(v1alpha1.Schedule{Cron: "whenever"}, noon, false, noon, noon); err == nil {
		t.Error("a bad expression was taken")
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
	}, time.Time{})
	if !at.Equal(noon.Add(-30*time.Minute)) || !failed {
		t.Errorf("last is %s, failed %v", at, failed)
	}
}
