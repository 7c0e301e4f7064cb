package application

import (
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/process"
)

func plain(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name)}
}

func under(m metav1.ObjectMeta, version, kind, name string) metav1.ObjectMeta {
	m = made(m, version, kind, name)
	m.OwnerReferences[0].UID = types.UID("uid-" + name)
	return m
}

// family is an application whose pods bear its label, and whose workloads do not.
func family() []client.Object {
	one := ptr.To[int32](1)
	return []client.Object{
		&appsv1.StatefulSet{ObjectMeta: plain("db"), Spec: appsv1.StatefulSetSpec{Replicas: one}},
		&corev1.Pod{ObjectMeta: under(labelled("shop", "db-0"), "apps/v1", "StatefulSet", "db")},
		&appsv1.Deployment{ObjectMeta: plain("web"), Spec: appsv1.DeploymentSpec{Replicas: one}},
		&appsv1.ReplicaSet{ObjectMeta: under(plain("web-1"), "apps/v1", "Deployment", "web"), Spec: appsv1.ReplicaSetSpec{Replicas: one}},
		&corev1.Pod{ObjectMeta: under(labelled("shop", "web-1-x"), "apps/v1", "ReplicaSet", "web-1")},
		&corev1.Pod{ObjectMeta: under(labelled("shop", "web-1-y"), "apps/v1", "ReplicaSet", "web-1")},
		&batchv1.CronJob{ObjectMeta: plain("report")},
		&batchv1.Job{ObjectMeta: under(plain("report-1"), "batch/v1", "CronJob", "report")},
		&corev1.Pod{ObjectMeta: under(labelled("shop", "report-1-x"), "batch/v1", "Job", "report-1")},
		&appsv1.StatefulSet{ObjectMeta: plain("cache"), Spec: appsv1.StatefulSetSpec{Replicas: one}}, // another application's
		&corev1.Pod{ObjectMeta: under(plain("cache-0"), "apps/v1", "StatefulSet", "cache")},
	}
}

// TestFenceStopsTheOwnersOfWhatTheSelectorChooses: else the pods would run on,
// for it is their owners that are stopped.
func TestFenceStopsTheOwnersOfWhatTheSelectorChooses(t *testing.T) {
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(family()...).Build()
	f := fencer{client: c, reader: c, now: time.Now}
	app := &v1alpha1.Application{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop"},
		Spec:       v1alpha1.ApplicationSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "shop"}}},
	}
	done, err := f.fence(t.Context(), app, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := done.stopped
	slices.Sort(got)
	want := []string{
		"CronJob shop/report (not suspended)", "Deployment shop/web (1 replicas)", "Job shop/report-1 (not suspended)", "StatefulSet shop/db (1 replicas)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("stopped %q, want %q", got, want)
	}
	if again, err := f.fence(t.Context(), app, nil); err != nil || len(again.stopped) != 0 {
		t.Errorf("stopped again %q, %v", again.stopped, err)
	}
	var cache appsv1.StatefulSet
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "cache"}, &cache); err != nil || *cache.Spec.Replicas != 1 {
		t.Errorf("stopped another application's: %+v, %v", cache.Spec.Replicas, err)
	}
}
