package application

import (
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
)

// hold writes which runs hold an application, and looks often enough for what
// they want to happen.
func (s *site) hold(app *v1alpha1.Application, runs string) v1alpha1.Application {
	s.t.Helper()
	var now v1alpha1.Application
	if err := s.Client.Get(s.t.Context(), client.ObjectKeyFromObject(app), &now); err != nil {
		s.t.Fatal(err)
	}
	if now.Annotations == nil {
		now.Annotations = map[string]string{}
	}
	now.Annotations[v1alpha1.AnnotationHeldBy] = runs
	if runs == "" {
		delete(now.Annotations, v1alpha1.AnnotationHeldBy)
	}
	if err := s.Client.Update(s.t.Context(), &now); err != nil {
		s.t.Fatal(err)
	}
	s.reconcile(app)
	s.reconcile(app)
	return s.reconcile(app)
}

func everything() []client.Object {
	keep := appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType}
	return []client.Object{
		web("shop"), web("other"),
		&appsv1.StatefulSet{ObjectMeta: labelled("shop", "db"), Spec: appsv1.StatefulSetSpec{Replicas: ptr.To[int32](3), PersistentVolumeClaimRetentionPolicy: &keep}},
		&appsv1.DaemonSet{ObjectMeta: labelled("shop", "logs"), Spec: daemonSpec(map[string]string{"disk": "ssd"})},
		&batchv1.CronJob{ObjectMeta: labelled("shop", "report")},
		&batchv1.CronJob{ObjectMeta: labelled("shop", "paused"), Spec: batchv1.CronJobSpec{Suspend: ptr.To(true)}},
	}
}

// specs are what the workloads of the namespace shop say, without what is
// about the object itself.
func (s *site) specs() []any {
	s.t.Helper()
	var d appsv1.Deployment
	var db appsv1.StatefulSet
	var logs appsv1.DaemonSet
	var report, paused batchv1.CronJob
	for name, o := range map[string]client.Object{"web": &d, "db": &db, "logs": &logs, "report": &report, "paused": &paused} {
		if err := s.Client.Get(s.t.Context(), client.ObjectKey{Namespace: "shop", Name: name}, o); err != nil {
			s.t.Fatal(err)
		}
		for key := range o.GetAnnotations() {
			if strings.HasSuffix(key, "-before-fence") && *d.Spec.Replicas != 0 {
				s.t.Errorf("%s still carries %s", name, key)
			}
		}
	}
	return []any{
		*d.Spec.Replicas, *db.Spec.Replicas, db.Spec.PersistentVolumeClaimRetentionPolicy.WhenScaled,
		logs.Spec.Template.Spec.NodeSelector["disk"], ptr.Deref(report.Spec.Suspend, false), ptr.Deref(paused.Spec.Suspend, false),
	}
}

func TestAHeldApplicationRestsAndRunsAgain(t *testing.T) {
	app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}})
	s := newSite(t, "", append(everything(), app)...)
	s.claim("shop", "east")
	before := s.specs()
	got := s.hold(app, "move-1")
	if got.Status.Rest == nil || !got.Status.Rest.Stopped || !slices.Equal(got.Status.Rest.Runs, []string{"move-1"}) || s.replicas("shop") != 0 {
		t.Fatalf("rest %+v, %d replicas", got.Status.Rest, s.replicas("shop"))
	}
	if s.replicas("other") != 2 {
		t.Error("stopped what is not the application's")
	}
	// Two runs hold it: it rests until both have let go.
	s.hold(app, "move-1,move-2")
	if got = s.hold(app, "move-2"); got.Status.Rest == nil || s.replicas("shop") != 0 {
		t.Fatalf("one of two let go: %+v, %d replicas", got.Status.Rest, s.replicas("shop"))
	}
	got = s.hold(app, "")
	if after := s.specs(); !slices.Equal(before, after) {
		t.Errorf("before %v, after %v; %+v", before, after, got.Status.Rest)
	}
}

func TestAHoldThatEndsStartsNothingWhereAnotherSiteWrites(t *testing.T) {
	for name, test := range map[string]struct {
		holders []string // of epochs 1, 2, ...; the hold begins under the first
		want    int32
	}{
		"another took over": {[]string{"east", "west"}, 0},
		"it was given back": {[]string{"east", "west", "east"}, 2}, // the control
	} {
		t.Run(name, func(t *testing.T) {
			app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}})
			s := newSite(t, "", append(everything(), app)...)
			s.claim("shop", "east")
			s.hold(app, "move-1")
			for i, holder := range test.holders[1:] {
				c := lease.Claim{Site: holder, Request: holder + "-again"}
				if _, err := lease.New(s.project).Claim(t.Context(), "shop", int64(i+2), c); err != nil {
					t.Fatal(err)
				}
				s.reconcile(app)
			}
			s.hold(app, "")
			if n := s.replicas("shop"); n != test.want {
				t.Errorf("%d replicas, want %d", n, test.want)
			}
		})
	}
}

// A failover holds nothing beforehand. When it is rolled back, what was fenced
// for it runs again; a failback decides by itself.
func TestWhatWasGivenBackRunsAgain(t *testing.T) {
	for request, want := range map[string]int32{"move" + lease.GivenBack: 2, "restore-7": 0} {
		app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}})
		s := newSite(t, "", append(everything(), app)...)
		s.claim("shop", "east", "west")
		if s.reconcile(app); s.replicas("shop") != 0 {
			t.Fatal("not fenced")
		}
		if _, err := lease.New(s.project).Claim(t.Context(), "shop", 3, lease.Claim{Site: "east", Request: request}); err != nil {
			t.Fatal(err)
		}
		if s.reconcile(app); s.replicas("shop") != want {
			t.Errorf("%s: %d replicas, want %d", request, s.replicas("shop"), want)
		}
	}
}

func TestWhatCannotStartAgainIsNotHeld(t *testing.T) {
	app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}})
	s := newSite(t, "", append(everything(), app, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "alone"}})...)
	s.claim("shop", "east")
	got := s.hold(app, "move-1")
	if got.Status.Rest == nil || !strings.Contains(got.Status.Rest.Refused, "shop/alone") || s.replicas("shop") != 2 {
		t.Errorf("rest %+v, %d replicas", got.Status.Rest, s.replicas("shop"))
	}
	if got = s.hold(app, ""); got.Status.Rest != nil || s.replicas("shop") != 2 {
		t.Errorf("afterwards: %+v", got.Status.Rest)
	}
}

func TestAPodThatStillEndsIsNotRest(t *testing.T) {
	app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}})
	pod := &corev1.Pod{ObjectMeta: made(labelled("shop", "db-0"), "apps/v1", "StatefulSet", "db")}
	s := newSite(t, "", append(everything(), app, pod)...)
	s.claim("shop", "east")
	if got := s.hold(app, "move-1"); got.Status.Rest == nil || got.Status.Rest.Stopped || len(got.Status.Rest.Running) != 1 {
		t.Fatalf("rest while a pod runs: %+v", got.Status.Rest)
	}
	if err := s.Client.Delete(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if got := s.reconcile(app); !got.Status.Rest.Stopped {
		t.Errorf("rest after it ended: %+v", got.Status.Rest)
	}
}

func TestARestoreDecidesWhatRuns(t *testing.T) {
	app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}})
	app.Annotations = map[string]string{v1alpha1.AnnotationRestoring: "r"}
	s := newSite(t, "", append(everything(), app)...)
	s.claim("shop", "east")
	if s.hold(app, "move-1"); s.replicas("shop") != 2 {
		t.Error("stopped what a restore starts")
	}
}

// TestWhatRanWhileHeldIsNoted: what is started while a run holds the application, as by git, an operator or an
// autoscaler, writes what the run may have captured before. The mark of when something ran last tells it; what
// writes nothing does not change it.
func TestWhatRanWhileHeldIsNoted(t *testing.T) {
	app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}})
	s := newSite(t, "", append(everything(), app)...)
	s.claim("shop", "east")
	got := s.hold(app, "move-1")
	if !got.Status.Rest.Stopped || got.Status.Rest.Mark() == "never" {
		t.Fatalf("rest %+v", got.Status.Rest)
	}
	last := got.Status.Rest.Mark()
	look := func(what string, ran bool, names string) {
		t.Helper()
		s.reconcile(app)
		rest := s.reconcile(app).Status.Rest
		if (rest.Mark() != last) != ran || !strings.Contains(strings.Join(rest.LastRan.What, ";"), names) || !rest.Stopped {
			t.Errorf("%s: %s, then %s: %+v", what, last, rest.Mark(), rest)
		}
		last = rest.Mark()
	}
	change := func(o client.Object, with func()) {
		t.Helper()
		if err := s.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			t.Fatal(err)
		}
		with()
		if err := s.Client.Update(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	ended := func(name string, at time.Time) {
		t.Helper()
		p := &corev1.Pod{ObjectMeta: made(labelled("shop", name), "batch/v1", "Job", "report"), Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}
		p.CreationTimestamp = metav1.NewTime(at)
		if err := s.Client.Create(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	look("nothing", false, "")
	report := &batchv1.CronJob{ObjectMeta: labelled("shop", "report")}
	change(report, func() { report.Spec.Suspend = ptr.To(false) })
	look("a CronJob goes on", false, "")
	web := web("shop")
	change(web, func() { web.Spec.Replicas = ptr.To[int32](1) })
	look("an autoscaler scales", true, "Deployment shop/web")
	look("nothing again", false, "")
	s.hold(app, "move-1,move-2")
	look("another run holds it, too", false, "")
	ended("report-1", time.Now().Add(-time.Hour))
	look("a pod ran to its end", true, "Pod shop/report-1")
	ended("report-0", time.Now().Add(-2*time.Hour))
	look("an older one", false, "")
	if _, err := lease.New(s.project).Claim(t.Context(), "shop", 2, lease.Claim{Site: "west", Request: "move-1"}); err != nil {
		t.Fatal(err)
	}
	look("it is another's", false, "")
	change(web, func() { web.Spec.Replicas = ptr.To[int32](3) })
	look("scaled at a superseded site", true, "Deployment shop/web")
}

// TestWhatARivalRanIsNothingNew: two applications cover the same pods and are moved together. That one of them is not
// the site's any more makes no news of what had ended before for the other, whose fence would be refused for it. The
// control is a pod that came later.
func TestWhatARivalRanIsNothingNew(t *testing.T) {
	app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}})
	rival := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "shop"}}})
	rival.Name, rival.UID, rival.Status.Role = "reports", "uid-reports", v1alpha1.RoleActive
	ended := func(name string, age time.Duration) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: made(labelled("shop", name), "batch/v1", "Job", "report"), Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}
		p.CreationTimestamp = metav1.NewTime(time.Now().Add(-age))
		return p
	}
	s := newSite(t, "", app, rival, ended("report-1", time.Hour))
	s.claim("shop", "east")
	rest := s.hold(app, "move").Status.Rest
	if !rest.Stopped {
		t.Fatalf("rest %+v", rest)
	}
	rival.Status.Role = v1alpha1.RoleSuperseded
	if err := s.Client.Status().Update(t.Context(), rival); err != nil {
		t.Fatal(err)
	}
	now := s.reconcile(app).Status.Rest
	if now.Mark() != rest.Mark() {
		t.Errorf("something ran: %+v", now.LastRan)
	}
	if err := s.Client.Create(t.Context(), ended("report-2", time.Minute)); err != nil {
		t.Fatal(err)
	}
	if later := s.reconcile(app).Status.Rest; later.Mark() == now.Mark() {
		t.Errorf("what came later is not seen: %+v", later.LastRan)
	}
}
