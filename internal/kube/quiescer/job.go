package quiescer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/quiesce"
)

const (
	// jobLook is how often a Job is looked at.
	jobLook = 250 * time.Millisecond
	// jobCleanup bounds what is done of a Job after its time is over.
	jobCleanup = 15 * time.Second
	// jobKept is how long a Job stays, in seconds, that nobody removes.
	jobKept = 300
	// jobLimit bounds a Job, in seconds, for which nobody waits any more.
	jobLimit = 3600
	// jobLines bounds what is read of a Job's log.
	jobLines = 200
	// jobGrace bounds what a Job's pods may take to end when they are told to, in
	// seconds. It is shorter than jobCleanup.
	jobGrace = 8
	// labelExclude keeps an object out of recovery points.
	labelExclude = "davit.dev/exclude"
	managedBy    = "davit"
)

// jobName is that of all Jobs that a CronJob's template is run as. There is one
// at a time: what a capture that died still runs is ended before it is run again.
func jobName(cronJob string) string {
	sum := sha256.Sum256([]byte(cronJob))
	return "davit-hook-" + hex.EncodeToString(sum[:8])
}

// job runs what a CronJob would run, to its end, and returns the end of its log.
// The Job is removed in any case, and what it runs with it; should this process
// die, it ends and goes by itself.
func (r *Runner) job(ctx context.Context, t quiesce.Target, j *quiesce.Job) (string, error) {
	cron, err := r.clients.Kubernetes.BatchV1().CronJobs(t.Namespace).Get(ctx, j.CronJob, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("read CronJob %s/%s: %w", t.Namespace, j.CronJob, err)
	}
	job := jobOf(cron, deadlineOf(ctx))
	if err := r.clearJob(ctx, job); err != nil {
		return "", fmt.Errorf("remove an older Job of this hook: %w", err)
	}
	made, err := r.clients.Kubernetes.BatchV1().Jobs(t.Namespace).Create(ctx, job, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("make Job of CronJob %s/%s: %w", t.Namespace, j.CronJob, err)
	}
	failed := r.awaitJob(ctx, made)
	// It is removed also when the capture is called off; the log is in its pod.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), jobCleanup)
	defer cancel()
	log, err := r.logOf(end, made)
	if err != nil {
		log.note(fmt.Sprintf("(its log could not be read: %v)", err))
	}
	if failed != nil {
		failed = fmt.Errorf("job %s/%s %w: %s", made.Namespace, made.Name, failed, log.tail())
	}
	if err := r.clearJob(end, made); err != nil {
		failed = errors.Join(failed, fmt.Errorf("remove job %s/%s, which may still be running: %w", made.Namespace, made.Name, err))
	}
	return log.String(), failed
}

// deadlineOf is how long a Job may run, in seconds.
func deadlineOf(ctx context.Context) int64 {
	if end, ok := ctx.Deadline(); ok {
		return max(1, int64(time.Until(end)/time.Second)+1)
	}
	return jobLimit
}

// jobOf is the Job that a CronJob's template makes, once and bounded.
func jobOf(cron *batchv1.CronJob, seconds int64) *batchv1.Job {
	spec := *cron.Spec.JobTemplate.Spec.DeepCopy()
	spec.BackoffLimit, spec.Suspend = ptr.To[int32](0), nil
	if grace := &spec.Template.Spec.TerminationGracePeriodSeconds; *grace == nil || **grace > jobGrace {
		*grace = ptr.To[int64](jobGrace)
	}
	spec.BackoffLimitPerIndex, spec.MaxFailedIndexes = nil, nil
	spec.ActiveDeadlineSeconds, spec.TTLSecondsAfterFinished = &seconds, ptr.To[int32](jobKept)
	mark := func(meta *metav1.ObjectMeta) {
		set := map[string]string{}
		for key, value := range meta.Labels {
			set[key] = value
		}
		set[v1alpha1.LabelManagedBy], set[labelExclude] = managedBy, "true"
		meta.Labels = set
	}
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: jobName(cron.Name), Namespace: cron.Namespace,
			Labels: cron.Spec.JobTemplate.Labels, Annotations: cron.Spec.JobTemplate.Annotations,
		},
		Spec: spec,
	}
	mark(&job.ObjectMeta)
	mark(&job.Spec.Template.ObjectMeta)
	return job
}

// awaitJob waits for its end. The error goes on after the Job's name.
func (r *Runner) awaitJob(ctx context.Context, job *batchv1.Job) error {
	tick := time.NewTicker(jobLook)
	defer tick.Stop()
	for {
		live, err := r.clients.Kubernetes.BatchV1().Jobs(job.Namespace).Get(ctx, job.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return errors.New("was removed by somebody else")
		case err == nil && live.UID != job.UID:
			return errors.New("was replaced by somebody else")
		case err == nil:
			if over, failed := outcome(live); over {
				return failed
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("has not ended, and is called off: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// outcome tells whether a Job is over, and how it failed.
func outcome(job *batchv1.Job) (over bool, failed error) {
	for _, c := range job.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case batchv1.JobComplete, batchv1.JobSuccessCriteriaMet:
			return true, nil
		case batchv1.JobFailed, batchv1.JobFailureTarget:
			return true, fmt.Errorf("failed (%s)", strings.TrimSpace(c.Reason+" "+c.Message))
		}
	}
	return false, nil
}

// clearJob removes a Job of Davit's and waits until what it ran is gone.
func (r *Runner) clearJob(ctx context.Context, job *batchv1.Job) error {
	api := r.clients.Kubernetes.BatchV1().Jobs(job.Namespace)
	tick := time.NewTicker(jobLook)
	defer tick.Stop()
	for {
		old, err := api.Get(ctx, job.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return err
		case old.Labels[v1alpha1.LabelManagedBy] != managedBy:
			return fmt.Errorf("job %s/%s is not Davit's: rename it", old.Namespace, old.Name)
		case old.DeletionTimestamp == nil:
			foreground := metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground), Preconditions: &metav1.Preconditions{UID: &old.UID}}
			if err := api.Delete(ctx, old.Name, foreground); ignoreNotFound(err) != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("its pods are not gone: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// logOf is the end of the log of a Job's newest pod.
func (r *Runner) logOf(ctx context.Context, job *batchv1.Job) (*output, error) {
	out := &output{}
	api := r.clients.Kubernetes.CoreV1().Pods(job.Namespace)
	pods, err := api.List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job.Name})
	if err != nil {
		return out, err
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if !metav1.IsControlledBy(pod, job) {
			continue
		}
		if pod.Status.Phase == corev1.PodPending {
			out.note("its pod " + pod.Name + " did not start: " + waiting(pod))
			continue
		}
		log, err := api.GetLogs(pod.Name, &corev1.PodLogOptions{
			Container: pod.Spec.Containers[0].Name, TailLines: ptr.To[int64](jobLines), LimitBytes: ptr.To[int64](maxOutput),
		}).Stream(ctx)
		if err != nil {
			return out, err
		}
		_, err = io.Copy(out, io.LimitReader(log, maxOutput))
		_ = log.Close() // it was read
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// waiting says why a pod does not start.
func waiting(pod *corev1.Pod) string {
	for _, s := range pod.Status.ContainerStatuses {
		if s.State.Waiting != nil {
			return strings.TrimSpace(s.State.Waiting.Reason + " " + s.State.Waiting.Message)
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Status == corev1.ConditionFalse && c.Message != "" {
			return c.Reason + " " + c.Message
		}
	}
	return "no reason is known"
}
