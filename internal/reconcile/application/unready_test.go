package application

import (
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
)

// stuck is a Deployment of one replica whose pod is not ready, since so long before a time.
func stuck(name string, now time.Time, since time.Duration) []client.Object {
	labels := map[string]string{"app": name}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}},
		},
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name + "-1", Labels: labels, CreationTimestamp: metav1.NewTime(now.Add(-time.Hour)),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name + "-abc", UID: "rs", Controller: ptr.To(true)}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(now.Add(-since))}}},
	}
	return []client.Object{d, p}
}

// TestWhatWasNotReadyBeforeIsNotWaitedFor: it is started with the rest and named, and the application is ready
// without it. The controls are a workload that became unready when the run began, and a node that had stopped it.
func TestWhatWasNotReadyBeforeIsNotWaitedFor(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	stops := v1alpha1.FencedApplication{Application: "shop", Reason: "superseded", Epoch: 2}
	for name, c := range map[string]struct {
		since time.Duration
		says  []v1alpha1.FencedApplication
		waits bool
	}{
		"never ready":           {time.Hour, nil, false},
		"since a moment":        {10 * time.Second, nil, true},
		"a node has stopped it": {time.Hour, []v1alpha1.FencedApplication{stops}, true},
	} {
		t.Run(name, func(t *testing.T) {
			report := saysOf(nodeOf("one"), now, c.says...)
			s, app := givenBack(t, report, append(stuck("never", now, c.since), web("shop"))...)
			s.Now = func() time.Time { return now.Add(2 * time.Minute) } // the node says no more
			got := s.reconcile(app)
			const web, never = "Deployment shop/web: 0 of 2 ready", "Deployment shop/never: 0 of 1 ready"
			waits, unready := []string{never, web}, []string(nil)
			if !c.waits {
				waits, unready = []string{web}, []string{never}
			}
			r := got.Status.Rest
			if r == nil || !slices.Equal(r.Waits, waits) || !slices.Equal(r.Unready, unready) {
				t.Fatalf("%+v", r)
			}
			var d appsv1.Deployment
			for name, n := range map[string]int32{"web": 2, "never": 1} {
				if err := s.Client.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: name}, &d); err != nil {
					t.Fatal(err)
				}
				if *d.Spec.Replicas != n {
					t.Errorf("%s: %d replicas", name, *d.Spec.Replicas)
				}
			}
			got.Status.Rest = &v1alpha1.RestStatus{Runs: []string{"move"}} // what it says was never written
			if err := s.Client.Status().Update(t.Context(), &got); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				got = s.reconcile(app)
				if r := got.Status.Rest; r == nil || !slices.Equal(r.Waits, waits) || !slices.Equal(r.Unready, unready) {
					t.Fatalf("done again: %+v", r)
				}
			}
			if err := s.Client.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "never"}, &d); err != nil || d.Annotations[v1alpha1.AnnotationUnready] != "" {
				t.Errorf("%v, %v", d.Annotations, err)
			}
			becomesReady(t, s, "web", 2)
			for range 2 {
				got = s.reconcile(app)
				if r := got.Status.Rest; r == nil || !slices.Equal(r.Unready, unready) || (len(r.Waits) == 0) == c.waits || (ready(got) == "") == c.waits {
					t.Errorf("the other is ready: %+v, %q", r, ready(got))
				}
			}
			becomesReady(t, s, "never", 1)
			if got = s.reconcile(app); got.Status.Rest != nil || ready(got) != "" {
				t.Errorf("all is ready: %+v, %q", got.Status.Rest, ready(got))
			}
		})
	}
}

// becomesReady has a Deployment have so many pods.
func becomesReady(t *testing.T, s *site, name string, n int32) {
	t.Helper()
	var d appsv1.Deployment
	if err := s.Client.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: name}, &d); err != nil {
		t.Fatal(err)
	}
	d.Status.AvailableReplicas, d.Status.UpdatedReplicas, d.Status.ReadyReplicas = n, n, n
	if err := s.Client.Status().Update(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
}

// TestLastingly: of a workload it counts how its pods have stood for a minute.
func TestLastingly(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		change func(d *appsv1.Deployment, p *corev1.Pod)
		want   bool
	}{
		"not ready for an hour": {func(*appsv1.Deployment, *corev1.Pod) {}, true},
		"made just now":         {func(_ *appsv1.Deployment, p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(now) }, false},
		"says nothing yet":      {func(_ *appsv1.Deployment, p *corev1.Pod) { p.Status.Conditions = nil }, true},
		"ready":                 {func(_ *appsv1.Deployment, p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionTrue }, false},
		"another's":             {func(_ *appsv1.Deployment, p *corev1.Pod) { p.Labels = map[string]string{"app": "other"} }, false},
		"another namespace's":   {func(_ *appsv1.Deployment, p *corev1.Pod) { p.Namespace = "bank" }, false},
		"has ended":             {func(_ *appsv1.Deployment, p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, false},
		"no selector":           {func(d *appsv1.Deployment, _ *corev1.Pod) { d.Spec.Selector = nil }, false},
	} {
		objects := stuck("never", now, time.Hour)
		d, p := objects[0].(*appsv1.Deployment), objects[1].(*corev1.Pod) //nolint:forcetypeassert // as stuck makes them
		c.change(d, p)
		w := &world{pods: []*corev1.Pod{p}}
		if got := w.lastingly(d, now.Add(-unreadyFor)); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if w := (&world{}); w.lastingly(stuck("never", now, time.Hour)[0], now) {
		t.Error("one without pods")
	}
	if rest := (&v1alpha1.RestStatus{Unready: []string{"Deployment shop/web-2: x"}}); wasUnready(rest, "Deployment shop/web") || !wasUnready(rest, "Deployment shop/web-2") || wasUnready(nil, "") {
		t.Error("another's name")
	}
}

// TestManyThatWereNotReady: what the status says of them is all that is left of it once they are started.
func TestManyThatWereNotReady(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	objects := []client.Object{web("shop")}
	const many = 30
	for i := range many {
		objects = append(objects, stuck(fmt.Sprintf("never-%02d", i), now, time.Hour)...)
	}
	s, app := givenBack(t, saysOf(nodeOf("one"), now), objects...)
	for range 3 {
		got := s.reconcile(app)
		if r := got.Status.Rest; r == nil || len(r.Unready) != many || !slices.Equal(r.Waits, []string{"Deployment shop/web: 0 of 2 ready"}) {
			t.Fatalf("%+v", r)
		}
	}
}

// TestWhatLacksWhatWasStoppedIsWaitedFor: an earlier try stopped the database alone, and since then nothing is ready.
func TestWhatLacksWhatWasStoppedIsWaitedFor(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	db := web("shop")
	db.Name, db.Spec.Replicas, db.Annotations = "db", ptr.To[int32](0), map[string]string{v1alpha1.AnnotationReplicas: "1"}
	s, app := givenBack(t, saysOf(nodeOf("one"), now), append(stuck("lacks", now, time.Hour), web("shop"), db)...)
	if r := s.reconcile(app).Status.Rest; r == nil || len(r.Unready) > 0 || len(r.Waits) != 3 {
		t.Errorf("%+v", r)
	}
}
