package application

import (
	"context"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/process"
)

func labelled(ns, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"app": "shop"}}
}

// world is what runs in two namespaces, one of them the application's.
func world() []client.Object {
	owned := labelled("shop", "web-abc")
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "u", Controller: ptr.To(true)}}
	unlabelled := labelled("shop", "cache")
	unlabelled.Labels = nil
	return []client.Object{
		&appsv1.Deployment{ObjectMeta: labelled("shop", "web"), Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](3)}},
		&appsv1.Deployment{ObjectMeta: labelled("shop", "implied")},
		&appsv1.Deployment{ObjectMeta: labelled("shop", "idle"), Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](0)}},
		&appsv1.Deployment{ObjectMeta: unlabelled, Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](1)}},
		&appsv1.Deployment{ObjectMeta: labelled("other", "web"), Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](3)}},
		&appsv1.StatefulSet{ObjectMeta: labelled("shop", "db"), Spec: appsv1.StatefulSetSpec{Replicas: ptr.To[int32](1)}},
		&appsv1.ReplicaSet{ObjectMeta: owned, Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](3)}},
		&appsv1.ReplicaSet{ObjectMeta: labelled("shop", "bare"), Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](2)}},
		&batchv1.CronJob{ObjectMeta: labelled("shop", "report")},
		&batchv1.CronJob{ObjectMeta: labelled("shop", "paused"), Spec: batchv1.CronJobSpec{Suspend: ptr.To(true)}},
		&batchv1.Job{ObjectMeta: labelled("shop", "running")},
		&batchv1.Job{ObjectMeta: labelled("shop", "done"), Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}}},
	}
}

func TestFence(t *testing.T) {
	all := []string{
		"CronJob shop/report (not suspended)", "Deployment shop/implied (1 replicas)", "Deployment shop/web (3 replicas)",
		"Job shop/running (not suspended)", "ReplicaSet shop/bare (2 replicas)", "StatefulSet shop/db (1 replicas)",
	}
	for name, test := range map[string]struct {
		selector *metav1.LabelSelector
		want     []string
	}{
		"by label":  {&metav1.LabelSelector{MatchLabels: map[string]string{"app": "shop"}}, all},
		"all of it": {nil, append([]string{"Deployment shop/cache (1 replicas)"}, all...)},
		"none":      {&metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}}, nil},
	} {
		c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(world()...).Build()
		f := fencer{client: c, reader: c, now: time.Now}
		app := &v1alpha1.Application{ObjectMeta: labelled("shop", "shop"), Spec: v1alpha1.ApplicationSpec{Selector: test.selector}}
		got, err := f.fence(context.Background(), app)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		slices.Sort(got)
		slices.Sort(test.want)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: stopped %q, want %q", name, got, test.want)
		}
		if again, err := f.fence(context.Background(), app); err != nil || len(again) != 0 {
			t.Errorf("%s: stopped again %q, %v", name, again, err)
		}
		untouched(t, c)
	}
}

// untouched checks what the fence must leave alone, and the note it keeps.
func untouched(t *testing.T, c client.Client) {
	t.Helper()
	var other, idle, web appsv1.Deployment
	for key, into := range map[client.ObjectKey]client.Object{
		{Namespace: "other", Name: "web"}: &other, {Namespace: "shop", Name: "idle"}: &idle, {Namespace: "shop", Name: "web"}: &web,
	} {
		if err := c.Get(context.Background(), key, into); err != nil {
			t.Fatal(err)
		}
	}
	if *other.Spec.Replicas != 3 || len(idle.Annotations) != 0 {
		t.Error("the fence touched what is not the application's, or was idle")
	}
	if *web.Spec.Replicas == 0 && web.Annotations[v1alpha1.AnnotationReplicas] != "3" {
		t.Errorf("annotations of the stopped are %v", web.Annotations)
	}
}
