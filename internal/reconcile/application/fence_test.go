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

func made(m metav1.ObjectMeta, version, kind, name string) metav1.ObjectMeta {
	m.OwnerReferences = []metav1.OwnerReference{{APIVersion: version, Kind: kind, Name: name, UID: "u", Controller: ptr.To(true)}}
	return m
}

func annotated(m metav1.ObjectMeta, key, value string) metav1.ObjectMeta {
	m.Annotations = map[string]string{key: value}
	return m
}

func davits(m metav1.ObjectMeta) metav1.ObjectMeta {
	m.Labels[v1alpha1.LabelManagedBy] = "davit"
	return m
}

func daemonSpec(selector map[string]string) appsv1.DaemonSetSpec {
	return appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{NodeSelector: selector}}}
}

// running is what runs in two namespaces, one of them the application's.
func running() []client.Object {
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
		&corev1.ReplicationController{ObjectMeta: labelled("shop", "old"), Spec: corev1.ReplicationControllerSpec{Replicas: ptr.To[int32](1)}},
		&appsv1.DaemonSet{ObjectMeta: labelled("shop", "logs"), Spec: daemonSpec(map[string]string{"disk": "ssd"})},
		&appsv1.DaemonSet{ObjectMeta: labelled("other", "logs")},
		&corev1.Pod{ObjectMeta: labelled("shop", "bare")},
		&corev1.Pod{ObjectMeta: labelled("other", "bare")},
		&corev1.Pod{ObjectMeta: labelled("shop", "ended"), Status: corev1.PodStatus{Phase: corev1.PodSucceeded}},
		&corev1.Pod{ObjectMeta: made(labelled("shop", "db-0"), "apps/v1", "StatefulSet", "db")},
		&corev1.Pod{ObjectMeta: made(labelled("shop", "pg-1"), "pg.example.com/v1", "Cluster", "pg")},
		&corev1.Pod{ObjectMeta: annotated(labelled("shop", "static"), corev1.MirrorPodAnnotationKey, "x")},
		&corev1.Pod{ObjectMeta: davits(labelled("shop", "holder"))},
		&batchv1.CronJob{ObjectMeta: labelled("shop", "report")},
		&batchv1.CronJob{ObjectMeta: labelled("shop", "paused"), Spec: batchv1.CronJobSpec{Suspend: ptr.To(true)}},
		&batchv1.Job{ObjectMeta: labelled("shop", "running")},
		&batchv1.Job{ObjectMeta: labelled("shop", "done"), Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}}},
	}
}

func TestFence(t *testing.T) {
	all := []string{
		"CronJob shop/report (not suspended)", "Deployment shop/implied (1 replicas)", "Deployment shop/web (3 replicas)",
		"Job shop/running (not suspended)", "ReplicaSet shop/bare (2 replicas)", "ReplicationController shop/old (1 replicas)",
		`DaemonSet shop/logs (node selector {"disk":"ssd"})`, "Pod shop/bare (deleted: it has no controller; a recovery point has it)",
		"Pod shop/pg-1 (deleted: made by Cluster pg, which may make it again: stop its operator)", "StatefulSet shop/db (1 replicas)",
	}
	for name, test := range map[string]struct {
		selector *metav1.LabelSelector
		want     []string
	}{
		"by label":  {&metav1.LabelSelector{MatchLabels: map[string]string{"app": "shop"}}, all},
		"all of it": {nil, append([]string{"Deployment shop/cache (1 replicas)"}, all...)},
		"none":      {&metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}}, nil},
	} {
		c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(running()...).Build()
		f := fencer{client: c, reader: c, now: time.Now}
		app := &v1alpha1.Application{ObjectMeta: labelled("shop", "shop"), Spec: v1alpha1.ApplicationSpec{Selector: test.selector}}
		done, err := f.fence(context.Background(), app, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := done.stopped
		slices.Sort(got)
		slices.Sort(test.want)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: stopped %q, want %q", name, got, test.want)
		}
		if again, err := f.fence(context.Background(), app, nil); err != nil || len(again.stopped) != 0 {
			t.Errorf("%s: stopped again %q, %v", name, again.stopped, err)
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

func TestFenceKeepsTheNodeSelectorOfADaemonSet(t *testing.T) {
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(running()...).Build()
	f := fencer{client: c, reader: c, now: time.Now}
	if _, err := f.fence(t.Context(), &v1alpha1.Application{ObjectMeta: labelled("shop", "shop")}, nil); err != nil {
		t.Fatal(err)
	}
	var d appsv1.DaemonSet
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "logs"}, &d); err != nil {
		t.Fatal(err)
	}
	if got := d.Annotations[v1alpha1.AnnotationNodeSelector]; got != `{"disk":"ssd"}` || d.Spec.Template.Spec.NodeSelector[v1alpha1.LabelNowhere] != "true" {
		t.Errorf("annotation %s, selector %v", got, d.Spec.Template.Spec.NodeSelector)
	}
	for _, left := range []client.ObjectKey{{Namespace: "other", Name: "bare"}, {Namespace: "shop", Name: "ended"}, {Namespace: "shop", Name: "db-0"}, {Namespace: "shop", Name: "static"}, {Namespace: "shop", Name: "holder"}} {
		if err := c.Get(t.Context(), left, &corev1.Pod{}); err != nil {
			t.Errorf("the fence touched pod %s: %v", left, err)
		}
	}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "bare"}, &corev1.Pod{}); err == nil {
		t.Error("a pod that could write is still there")
	}
}

// A StatefulSet that deletes the claims of pods it is scaled down by would
// delete the diverged data of the superseded site.
func TestFenceKeepsClaims(t *testing.T) {
	for _, before := range []*appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
		nil,
		{WhenScaled: appsv1.RetainPersistentVolumeClaimRetentionPolicyType, WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType},
		{WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenDeleted: appsv1.RetainPersistentVolumeClaimRetentionPolicyType},
	} {
		set := &appsv1.StatefulSet{
			ObjectMeta: labelled("shop", "db"),
			Spec:       appsv1.StatefulSetSpec{Replicas: ptr.To[int32](2), PersistentVolumeClaimRetentionPolicy: before.DeepCopy()},
		}
		halt(set)
		now := set.Spec.PersistentVolumeClaimRetentionPolicy
		if *set.Spec.Replicas != 0 || now != nil && now.WhenScaled != appsv1.RetainPersistentVolumeClaimRetentionPolicyType {
			t.Errorf("%v: scaled to %d, claims %v", before, *set.Spec.Replicas, now)
		}
		if now != nil && now.WhenDeleted != before.WhenDeleted {
			t.Errorf("%v: when deleted became %s", before, now.WhenDeleted)
		}
		deletes := before != nil && before.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		if _, noted := set.Annotations[v1alpha1.AnnotationClaims]; noted != deletes {
			t.Errorf("%v: noted %v, want %v", before, noted, deletes)
		}
	}
}
