package proof

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/trial"
	"davit.dev/davit/internal/vault"
)

// tests is a tester over a site's cluster and vault; what a test finds is decided by the test.
type tests struct {
	*Tester
	*site
	asked []string
	found func(opts trial.Options) (trial.Report, error)
}

// Test implements Trials.
func (s *tests) Test(_ context.Context, _ string, opts trial.Options) (trial.Report, error) {
	s.asked = append(s.asked, opts.Point)
	opts.Began([]string{"davit-test-x-shop"})
	return s.found(opts)
}

func newTests(t *testing.T, spec v1alpha1.RestoreTestPolicy) *tests {
	t.Helper()
	s := &tests{site: newSite(t, hourly())}
	var policy v1alpha1.ProtectionPolicy
	if err := s.site.Client.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop"}, &policy); err != nil {
		t.Fatal(err)
	}
	policy.Spec.RestoreTest = &spec
	if err := s.site.Client.Update(t.Context(), &policy); err != nil {
		t.Fatal(err)
	}
	s.Tester = &Tester{Client: s.site.Client, Trials: s, Events: record.NewFakeRecorder(100), Now: func() time.Time { s.now = s.now.Add(time.Microsecond); return s.now }}
	s.found = func(opts trial.Options) (trial.Report, error) {
		return trial.Report{Point: opts.Point, Passed: true, RTO: 9 * time.Second}, nil
	}
	return s
}

func (s *tests) look() v1alpha1.RestoreTestStatus {
	s.t.Helper()
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop"}
	if _, err := s.Reconcile(s.t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
		s.t.Fatal(err)
	}
	var app v1alpha1.Application
	if err := s.Client.Get(s.t.Context(), key, &app); err != nil {
		s.t.Fatal(err)
	}
	return ptr.Deref(app.Status.RestoreTest, v1alpha1.RestoreTestStatus{})
}

func everyHour() v1alpha1.RestoreTestPolicy {
	return v1alpha1.RestoreTestPolicy{Every: &metav1.Duration{Duration: time.Hour}}
}

func failing(opts trial.Options) (trial.Report, error) {
	r := trial.Report{Point: opts.Point, Failure: "probe rows: nobody answers", Probes: []vault.MarkProbe{{Name: "rows", Message: "nobody answers"}}}
	return r, fmt.Errorf("test: %w: %s", trial.ErrFailed, r.Failure)
}

func TestTheNewestIsTestedWhenDue(t *testing.T) {
	s := newTests(t, everyHour())
	if got := s.look(); got.At != nil || len(s.asked) != 0 {
		t.Errorf("tested without a point: %+v", got)
	}
	s.publish("p1")
	s.publish("p2")
	got := s.look()
	if !slices.Equal(s.asked, []string{"p2"}) || !got.Passed || got.Point != "p2" || got.RTO.Duration != 9*time.Second || !got.Next.Time.Equal(noon.Add(time.Hour)) || got.Running != nil || got.Namespaces != nil {
		t.Fatalf("asked %v, status %+v", s.asked, got)
	}
	s.now = noon.Add(59 * time.Minute)
	if s.look(); len(s.asked) != 1 {
		t.Errorf("tested again before it was due")
	}
	s.now = noon.Add(61 * time.Minute)
	if s.look(); len(s.asked) != 2 {
		t.Errorf("not tested again")
	}
}

func TestAFailureIsTold(t *testing.T) {
	spec := everyHour()
	spec.Newest = ptr.To[int32](3)
	s := newTests(t, spec)
	for _, id := range []string{"p1", "p2", "p3"} {
		s.publish(id)
	}
	s.found = func(opts trial.Options) (trial.Report, error) {
		if opts.Point == "p2" {
			return failing(opts)
		}
		return trial.Report{Point: opts.Point, Passed: true}, nil
	}
	got := s.look()
	if !slices.Equal(s.asked, []string{"p3", "p2"}) || got.Passed || got.Point != "p2" || got.Message == "" || len(got.Probes) != 1 || got.At == nil {
		t.Errorf("asked %v, status %+v", s.asked, got)
	}
	if e := <-s.Tester.Events.(*record.FakeRecorder).Events; !strings.Contains(e, "RestoreTestFailed recovery point p2") {
		t.Errorf("event %q", e)
	}
}

func TestNoVerdictIsTriedAgain(t *testing.T) {
	s := newTests(t, everyHour())
	s.publish("p1")
	s.found = func(trial.Options) (trial.Report, error) { return trial.Report{}, errors.New("no answer") }
	if got := s.look(); got.At != nil || got.Error != "no answer" || got.Running != nil || !got.TriedAt.Time.Equal(noon) {
		t.Errorf("status %+v", got)
	}
	if s.look(); len(s.asked) != 1 {
		t.Error("tried again at once")
	}
	s.now = noon.Add(retryAfter)
	if s.look(); len(s.asked) != 2 {
		t.Error("not tried again")
	}
}

// TestNoVerdictIsTriedLessAndLess: each try is a whole copy.
func TestNoVerdictIsTriedLessAndLess(t *testing.T) {
	s := newTests(t, everyHour())
	s.publish("p1")
	s.found = func(trial.Options) (trial.Report, error) {
		return trial.Report{}, fmt.Errorf("test: %w", trial.ErrNoAnswer)
	}
	for ; s.now.Before(noon.Add(24 * time.Hour)); s.now = s.now.Add(10 * time.Minute) {
		s.look()
	}
	if n := len(s.asked); n < 24 || n > 32 {
		t.Errorf("tried %d times in a day without an answer", n)
	}
	s.found = func(opts trial.Options) (trial.Report, error) {
		return trial.Report{Point: opts.Point, Passed: true}, nil
	}
	s.now = s.now.Add(retryAtMost)
	if got := s.look(); !got.Passed || got.Tries != 0 || got.Error != "" {
		t.Errorf("status %+v", got)
	}
}

// TestNothingProvenIsAnAnswer: it is told, counts as no pass and no failure, and
// the next test comes when it is due.
func TestNothingProvenIsAnAnswer(t *testing.T) {
	spec := everyHour()
	spec.Newest = ptr.To[int32](3)
	s := newTests(t, spec)
	s.publish("p1")
	s.publish("p2")
	s.found = func(opts trial.Options) (trial.Report, error) {
		return trial.Report{Point: opts.Point, Unproven: "nothing runs"}, fmt.Errorf("test: %w: nothing runs", trial.ErrNothingProven)
	}
	got := s.look()
	if got.Passed || got.Unproven != "nothing runs" || got.At == nil || got.Error != "" || !got.Next.Time.Equal(noon.Add(time.Hour)) || !slices.Equal(s.asked, []string{"p2"}) {
		t.Errorf("asked %v, status %+v", s.asked, got)
	}
	if e := <-s.Tester.Events.(*record.FakeRecorder).Events; !strings.Contains(e, "NothingProven recovery point p2: nothing runs") {
		t.Errorf("event %q", e)
	}
	s.now = noon.Add(30 * time.Minute)
	if s.look(); len(s.asked) != 1 {
		t.Error("tried again before it was due")
	}
}

func TestNothingIsTestedBesideACapture(t *testing.T) {
	s := newTests(t, everyHour())
	s.publish("p1")
	busy := &v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "now"}, Status: v1alpha1.RecoveryPointStatus{Phase: v1alpha1.PointCapturing}}
	if err := s.Client.Create(t.Context(), busy); err != nil {
		t.Fatal(err)
	}
	if s.look(); len(s.asked) != 0 {
		t.Error("tested beside a capture")
	}
	s.now = noon.Add(2 * makeRoomFor)
	if s.look(); len(s.asked) != 1 {
		t.Error("never tested, as there is always a capture")
	}
}

// TestWhatIsDeletedMeanwhileIsTriedAgainLater, and not at once for ever.
func TestWhatIsDeletedMeanwhileIsTriedAgainLater(t *testing.T) {
	s := newTests(t, everyHour())
	s.publish("p1")
	s.found = func(trial.Options) (trial.Report, error) {
		return trial.Report{}, fmt.Errorf("test: %w: it was deleted meanwhile", vault.ErrNotFound)
	}
	if got := s.look(); got.At != nil || got.Running != nil || got.Namespaces != nil || got.TriedAt == nil || !strings.Contains(got.Error, "deleted") {
		t.Errorf("status %+v", got)
	}
	if s.look(); len(s.asked) != 1 {
		t.Error("tried again at once")
	}
	s.now = noon.Add(retryAfter)
	if s.look(); len(s.asked) != 2 {
		t.Error("not tried again")
	}
}
