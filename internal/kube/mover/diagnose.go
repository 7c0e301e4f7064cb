package mover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
)

// hopeless are the reasons of a waiting container that time does not heal.
var hopeless = map[string]bool{
	"InvalidImageName":           true,
	"ErrImageNeverPull":          true,
	"ImagePullBackOff":           true,
	"CreateContainerConfigError": true,
	"CreateContainerError":       true,
	"RunContainerError":          true,
	"CrashLoopBackOff":           true,
}

// awaitHolder waits until the pod runs, or before that until enough says that it
// need not run yet; or says why it does not.
func (m *Mover) awaitHolder(ctx context.Context, req Request, pod *corev1.Pod, enough func(*corev1.Pod) bool) (*corev1.Pod, error) {
	got := &corev1.Pod{}
	got.Namespace, got.Name = pod.Namespace, pod.Name
	var last corev1.Pod
	watch := vigil{m: m}
	err := await(ctx, m.workload, got, &corev1.PodList{}, func(exists bool) (bool, error) {
		if !exists {
			return false, fmt.Errorf("%w: holder pod %s/%s was removed by someone else", ErrNotMounted, pod.Namespace, pod.Name)
		}
		got.DeepCopyInto(&last)
		if reason := hopelessReason(got); reason != "" {
			return false, fmt.Errorf("%w: holder pod %s/%s: %s", ErrNotMounted, pod.Namespace, pod.Name, reason)
		}
		if holderRuns(got) || enough(got) {
			return true, nil
		}
		if why := watch.lost(ctx, got.Spec.NodeName); why != "" {
			err := fmt.Errorf("%w: %w: holder pod %s/%s does not start: %s", ErrNoAnswer, ErrNotMounted, pod.Namespace, pod.Name, why)
			return false, m.orElsewhere(ctx, got.Spec.NodeName, err)
		}
		return false, nil
	})
	if err != nil && ctx.Err() != nil && !errors.Is(context.Cause(ctx), errBound) {
		return nil, fmt.Errorf("%w: %s: %w", ErrNotMounted, m.whyNot(ctx, req, &last), err)
	}
	if err != nil {
		return nil, err
	}
	return got, nil
}

func holderRuns(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp.IsZero() && pod.Spec.NodeName != ""
}

// hopelessReason is why the pod can never run, or empty.
func hopelessReason(pod *corev1.Pod) string {
	if pod.Status.Phase == corev1.PodFailed {
		return "failed: " + pod.Status.Reason + ": " + pod.Status.Message
	}
	for _, s := range pod.Status.ContainerStatuses {
		if w := s.State.Waiting; w != nil && hopeless[w.Reason] {
			if strings.Contains(w.Reason, "Image") {
				return fmt.Sprintf("image %s cannot be pulled on node %s: %s: %s", s.Image, pod.Spec.NodeName, w.Reason, w.Message)
			}
			return w.Reason + ": " + w.Message
		}
	}
	return ""
}

// whyNot gathers what the cluster says about a holder pod that does not run.
// It has its own deadline, as the caller's has passed.
func (m *Mover) whyNot(ctx context.Context, req Request, pod *corev1.Pod) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var why []string
	var pvc corev1.PersistentVolumeClaim
	if err := m.workload.Get(ctx, client.ObjectKey{Namespace: req.Namespace, Name: req.Claim}, &pvc); err == nil && pvc.Status.Phase != corev1.ClaimBound {
		text := "claim is not bound"
		if class := pvc.Spec.StorageClassName; class != nil {
			text += " (storage class " + *class + ")"
		}
		why = append(why, text+m.eventsOf(ctx, req.Namespace, "PersistentVolumeClaim", req.Claim))
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			why = append(why, "holder pod cannot be scheduled: "+c.Message)
		}
	}
	for _, s := range pod.Status.ContainerStatuses {
		if w := s.State.Waiting; w != nil && w.Message != "" {
			why = append(why, "container waits: "+w.Reason+": "+w.Message)
		}
	}
	if pod.Spec.NodeName != "" {
		why = append(why, "holder pod is on node "+pod.Spec.NodeName+m.eventsOf(ctx, req.Namespace, "Pod", pod.Name))
	}
	if len(why) == 0 {
		return "holder pod " + req.Namespace + "/" + req.holderName() + " does not run, and the cluster gives no reason"
	}
	return strings.Join(why, "; ")
}

// eventsOf returns the newest few warnings about an object, led by ": ".
func (m *Mover) eventsOf(ctx context.Context, namespace, kind, name string) string {
	var events corev1.EventList
	err := m.workload.List(ctx, &events, client.InNamespace(namespace), client.Limit(500))
	if err != nil {
		return ""
	}
	var texts []string
	seen := map[string]bool{}
	for i := len(events.Items) - 1; i >= 0 && len(texts) < 3; i-- {
		e := events.Items[i]
		about := e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name
		telling := e.Type == corev1.EventTypeWarning || e.Reason == "WaitForFirstConsumer" || e.Reason == "ExternalProvisioning"
		if about && telling && !seen[e.Message] {
			seen[e.Message] = true
			texts = append(texts, e.Reason+": "+e.Message)
		}
	}
	if len(texts) == 0 {
		return ""
	}
	return ": " + strings.Join(texts, "; ")
}

// nodeReady says whether the node has a davit node process that can work. One
// that is being restarted is given a moment; a missing one is not waited for.
func (m *Mover) nodeReady(ctx context.Context, node string) error {
	deadline := m.opts.Now().Add(m.opts.NodeGrace)
	for {
		reason, exists, err := m.nodeProcess(ctx, node)
		if err != nil || reason == "" {
			return err
		}
		if !exists || !m.opts.Now().Before(deadline) {
			return fmt.Errorf("%w on node %s: %s: see kubectl -n %s get pods -l %s=%s -o wide, or run davit install",
				ErrNoNodeProcess, node, reason, v1alpha1.SystemNamespace, NodeAppLabel, NodeAppName)
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// nodeProcess looks for the node's ready pod; reason says what is wrong.
func (m *Mover) nodeProcess(ctx context.Context, node string) (reason string, exists bool, err error) {
	var pods corev1.PodList
	if err := m.system.List(ctx, &pods, client.InNamespace(v1alpha1.SystemNamespace), client.MatchingLabels{NodeAppLabel: NodeAppName}); err != nil {
		return "", false, fmt.Errorf("list davit node processes: %w", err)
	}
	reason = "it runs no pod of the DaemonSet"
	for i := range pods.Items {
		p := &pods.Items[i]
		if p.Spec.NodeName != node {
			continue
		}
		if podReady(p) {
			return "", true, nil
		}
		exists, reason = true, "pod "+p.Name+" is not ready"
		if why := hopelessReason(p); why != "" {
			reason += ": " + why
		}
	}
	return reason, exists, nil
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && pod.DeletionTimestamp.IsZero()
		}
	}
	return false
}
