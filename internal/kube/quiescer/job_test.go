package quiescer

import (
	"context"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/quiesce"
)

func flushing() *batchv1.CronJob {
	cron := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "flush"}}
	cron.Spec.Suspend = ptr.To(true)
	cron.Spec.JobTemplate.Spec = batchv1.JobSpec{BackoffLimit: ptr.To[int32](6), Template: corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "db"}},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "flush", Image: "tools"}}},
	}}
	return cron
}

// field is a cluster whose Jobs end as told, as soon as they are made.
func field(t *testing.T, end batchv1.JobConditionType, objects ...runtime.Object) (*Runner, *fake.Clientset, *[]*batchv1.Job) {
	t.Helper()
	client := fake.NewClientset(objects...)
	var made []*batchv1.Job
	client.PrependReactor("create", "jobs", func(a clienttesting.Action) (bool, runtime.Object, error) {
		job := a.(clienttesting.CreateAction).GetObject().(*batchv1.Job)
		job.UID = types.UID("u-" + job.Name)
		if end != "" {
			job.Status.Conditions = []batchv1.JobCondition{{Type: end, Status: corev1.ConditionTrue, Reason: "BackoffLimitExceeded", Message: "1 failed"}}
		}
		made = append(made, job.DeepCopy())
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: job.Namespace, Name: job.Name + "-x", Labels: map[string]string{batchv1.JobNameLabel: job.Name},
			OwnerReferences: []metav1.OwnerReference{{UID: job.UID, Controller: ptr.To(true)}},
		}, Spec: job.Spec.Template.Spec, Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}
		_ = client.Tracker().Add(pod)
		return false, nil, nil
	})
	return New(&kube.Clients{Kubernetes: client}), client, &made
}

var ofFlush = quiesce.Target{Namespace: "shop", Of: "cronjob/flush"}

func leftJobs(t *testing.T, client *fake.Clientset) int {
	t.Helper()
	list, err := client.BatchV1().Jobs("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

func TestJob(t *testing.T) {
	r, client, made := field(t, batchv1.JobComplete, flushing())
	got, err := r.Run(t.Context(), ofFlush, quiesce.Action{Job: &quiesce.Job{CronJob: "flush"}})
	if err != nil || got != "fake logs" || len(*made) != 1 || leftJobs(t, client) != 0 {
		t.Fatalf("%q, %v, made %d, left %d", got, err, len(*made), leftJobs(t, client))
	}
	job := (*made)[0]
	switch spec := job.Spec; {
	case *spec.BackoffLimit != 0 || spec.Suspend != nil || spec.ActiveDeadlineSeconds == nil || spec.TTLSecondsAfterFinished == nil:
		t.Errorf("the Job is not bounded: %+v", spec)
	case spec.Template.Labels["app"] != "db" || spec.Template.Labels[labelExclude] != "true" || job.Labels[labelExclude] != "true" || job.Labels[v1alpha1.LabelManagedBy] == "":
		t.Errorf("labels %v, %v", job.Labels, spec.Template.Labels)
	case flushing().Spec.JobTemplate.Spec.Template.Labels[labelExclude] != "":
		t.Error("the template was changed")
	}
	// Its pod is not taken for one that is to be brought to rest.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p", Labels: job.Spec.Template.Labels}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	pods, err := runnerOf(pod).Pods(t.Context(), []string{"shop"})
	if err != nil || len(pods) != 0 {
		t.Errorf("pods %v, %v", pods, err)
	}
}

func TestBadJobs(t *testing.T) {
	foreign := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: jobName("flush")}}
	old := foreign.DeepCopy()
	old.Labels = map[string]string{v1alpha1.LabelManagedBy: managedBy}
	for name, tt := range map[string]struct {
		end     batchv1.JobConditionType
		objects []runtime.Object
		says    string
		made    int
		left    int
	}{
		"fails":           {batchv1.JobFailed, []runtime.Object{flushing()}, "failed (BackoffLimitExceeded 1 failed): fake logs", 1, 0},
		"hangs":           {"", []runtime.Object{flushing()}, "has not ended, and is called off", 1, 0},
		"no CronJob":      {"", []runtime.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}, `"flush" not found`, 0, 0},
		"no namespace":    {"", nil, quiesce.ErrGone.Error(), 0, 0},
		"somebody else's": {"", []runtime.Object{flushing(), foreign}, "is not Davit's", 0, 1},
		"one of the dead": {batchv1.JobComplete, []runtime.Object{flushing(), old}, "", 1, 0},
		"cannot be made":  {"", []runtime.Object{flushing()}, "make Job of CronJob shop/flush", 0, 0},
		"is taken away":   {"", []runtime.Object{flushing()}, "was removed by somebody else", 1, 1}, // as far as the tracker knows
	} {
		t.Run(name, func(t *testing.T) {
			r, client, made := field(t, tt.end, tt.objects...)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			switch name {
			case "hangs": // called off as soon as it is looked at
				client.PrependReactor("get", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) {
					if len(*made) > 0 {
						cancel()
					}
					return false, nil, nil
				})
			case "cannot be made":
				client.PrependReactor("create", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) {
					return true, nil, apierrors.NewForbidden(batchv1.Resource("jobs"), "x", context.Canceled)
				})
			case "is taken away":
				client.PrependReactor("get", "jobs", func(a clienttesting.Action) (bool, runtime.Object, error) {
					return true, nil, apierrors.NewNotFound(batchv1.Resource("jobs"), a.(clienttesting.GetAction).GetName())
				})
			}
			_, err := r.Run(ctx, ofFlush, quiesce.Action{Job: &quiesce.Job{CronJob: "flush"}})
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Run = %v, want %q", err, tt.says)
			}
			if len(*made) != tt.made {
				t.Errorf("made %d Jobs, want %d", len(*made), tt.made)
			}
			if left := leftJobs(t, client); left != tt.left {
				t.Errorf("%d Jobs are left, want %d", left, tt.left)
			}
		})
	}
}
