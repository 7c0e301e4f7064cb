package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/process"
)

// TestAChoreRunsOnceAndEnds: what hangs neither piles up nor holds anything
// else back, and is over when its time is.
func TestAChoreRunsOnceAndEnds(t *testing.T) {
	var c chore
	began, ended := make(chan struct{}), make(chan error, 1)
	hang := func(ctx context.Context) {
		close(began)
		<-ctx.Done()
		ended <- context.Cause(ctx)
	}
	if !c.begin(t.Context(), 50*time.Millisecond, hang) {
		t.Fatal("not begun")
	}
	<-began
	if c.begin(t.Context(), time.Hour, func(context.Context) { t.Error("done twice at a time") }) {
		t.Error("begun beside itself")
	}
	if err := <-ended; err == nil || err.Error() != "not done within 50ms" {
		t.Errorf("ended with %v", err)
	}
	c.running.Wait()
	again := make(chan struct{})
	if !c.begin(t.Context(), time.Hour, func(context.Context) { close(again) }) {
		t.Fatal("never begun again")
	}
	<-again
}

// TestOldReportsGo, and nothing else that a restore made.
func TestOldReportsGo(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	aMap := func(name string, age time.Duration, labels ...string) client.Object {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.SystemNamespace, Name: name, CreationTimestamp: metav1.NewTime(now.Add(-age)), Labels: map[string]string{"app.kubernetes.io/part-of": "davit"},
		}}
		for _, l := range labels {
			m.Labels[l] = "r"
		}
		return m
	}
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(
		aMap("restore-report-old", keepReports+time.Minute, v1alpha1.LabelRestore),
		aMap("restore-report-new", keepReports-time.Minute, v1alpha1.LabelRestore),
		aMap("restore-report-theirs", 2*keepReports),
		aMap("settings", 2*keepReports, v1alpha1.LabelRestore),
	).Build()
	s := &sweeper{reader: c, writer: c, pool: &pool{now: func() time.Time { return now }}, log: slog.New(slog.DiscardHandler)}
	s.oldReports(t.Context())
	var left corev1.ConfigMapList
	if err := c.List(t.Context(), &left); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range left.Items {
		names = append(names, m.Name)
	}
	slices.Sort(names)
	if want := []string{"restore-report-new", "restore-report-theirs", "settings"}; !slices.Equal(names, want) {
		t.Errorf("left are %v, want %v", names, want)
	}
}

// TestAPointBeingCapturedIsAlive, whatever became of one of another application that has
// the same name.
func TestAPointBeingCapturedIsAlive(t *testing.T) {
	rp := func(namespace, name string, phase v1alpha1.PointPhase) client.Object {
		return &v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Status: v1alpha1.RecoveryPointStatus{Phase: phase}}
	}
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(
		rp("bill", "release-2", v1alpha1.PointAvailable), rp("shop", "release-2", v1alpha1.PointCapturing), rp("shop", "release-1", v1alpha1.PointAvailable),
	).Build()
	alive := (&sweeper{reader: c}).capturing(t.Context())
	for name, want := range map[string]bool{"release-2": true, "release-1": false, "release-0": false} {
		if alive(name) != want {
			t.Errorf("%s is being captured: %v, want %v", name, !want, want)
		}
	}
}

// pages is an API server with many points, that gives them by pages.
type pages struct {
	client.Reader
	points []v1alpha1.RecoveryPoint
	asked  []int
}

// List gives a page.
func (p *pages) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	var o client.ListOptions
	o.ApplyOptions(opts)
	first := 0
	if o.Continue != "" {
		var err error
		if first, err = strconv.Atoi(o.Continue); err != nil {
			return err
		}
	}
	end := len(p.points)
	if o.Limit > 0 {
		end = min(end, first+int(o.Limit))
	}
	out := list.(*v1alpha1.RecoveryPointList)
	out.Items = p.points[first:end]
	if end < len(p.points) {
		out.Continue = strconv.Itoa(end)
	}
	p.asked = append(p.asked, end-first)
	return nil
}

// TestManyPointsAreReadByPages: the sweep asks the API server itself, and holds no more of them
// at a time than of a few.
func TestManyPointsAreReadByPages(t *testing.T) {
	p := &pages{points: make([]v1alpha1.RecoveryPoint, 2*pageOf+7)}
	for i := range p.points {
		p.points[i].Name = fmt.Sprintf("shop-%05d", i)
	}
	p.points[3].Status.Phase, p.points[2*pageOf+6].Status.Phase = v1alpha1.PointCapturing, v1alpha1.PointCapturing
	ids, err := (&sweeper{reader: p}).owners(t.Context())
	if want := []string{"shop-00003", fmt.Sprintf("shop-%05d", 2*pageOf+6)}; err != nil || !slices.Equal(ids, want) {
		t.Errorf("captured are %q, want %q: %v", ids, want, err)
	}
	if want := []int{pageOf, pageOf, 7}; !slices.Equal(p.asked, want) {
		t.Errorf("pages of %v, want %v", p.asked, want)
	}
}

// TestWhoseSnapshotsAreKept: those of applications that want it, go by a policy that is there,
// and are this site's to capture.
func TestWhoseSnapshotsAreKept(t *testing.T) {
	policy := func(name string, every time.Duration) client.Object {
		p := &v1alpha1.ProtectionPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name}}
		p.Spec.Schedule.Every = &metav1.Duration{Duration: every}
		return p
	}
	objects := []client.Object{policy("hourly", time.Hour), policy("monthly", 30*24*time.Hour)}
	app := func(name string, change func(*v1alpha1.Application)) {
		a := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name}}
		a.Spec.Policy, a.Spec.Volumes.ChangedBlocks, a.Status.Role = "hourly", v1alpha1.ChangedBlocksAuto, v1alpha1.RoleActive
		change(a)
		objects = append(objects, a)
	}
	app("kept", func(*v1alpha1.Application) {})
	app("never", func(a *v1alpha1.Application) { a.Spec.Volumes.ChangedBlocks = v1alpha1.ChangedBlocksNever })
	app("without-policy", func(a *v1alpha1.Application) { a.Spec.Policy = "" })
	app("policy-gone", func(a *v1alpha1.Application) { a.Spec.Policy = "daily" })
	app("rare", func(a *v1alpha1.Application) { a.Spec.Policy = "monthly" })
	app("superseded", func(a *v1alpha1.Application) { a.Status.Role = v1alpha1.RoleSuperseded })
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(objects...).Build()
	keeps, err := (&sweeper{reader: c, pool: &pool{now: time.Now}}).keeping(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects[2:] {
		if got := keeps(o.GetName()); got != (o.GetName() == "kept") {
			t.Errorf("%s: %t", o.GetName(), got)
		}
	}
	if keeps("gone") {
		t.Error("one that is gone keeps its snapshots")
	}
}
