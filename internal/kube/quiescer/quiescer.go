// Package quiescer carries out hooks in a cluster: it finds their pods, runs
// commands in containers, and keeps sessions open.
package quiescer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/quiesce"
)

// defaultContainer is how a pod says which of its containers people mean.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// Runner acts with the rights of its clients.
type Runner struct{ clients *kube.Clients }

var _ quiesce.Runner = (*Runner)(nil)

// New makes a Runner.
func New(clients *kube.Clients) *Runner { return &Runner{clients} }

// Targets implements quiesce.Runner.
func (r *Runner) Targets(ctx context.Context, namespaces []string, hook quiesce.Hook) ([]quiesce.Target, error) {
	var targets []quiesce.Target
	for _, ns := range namespaces {
		pods, err := r.clients.Kubernetes.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: hook.Pods.String()})
		if err != nil {
			return nil, fmt.Errorf("list pods of %s: %w", ns, err)
		}
		for i := range pods.Items {
			pod := &pods.Items[i]
			unfit, idle := fitness(pod)
			if idle {
				continue
			}
			container, err := containerOf(pod, hook.Container)
			if err != nil {
				return nil, err
			}
			targets = append(targets, quiesce.Target{Namespace: ns, Pod: pod.Name, UID: string(pod.UID), Container: container, Unfit: unfit})
		}
	}
	return targets, nil
}

// fitness says why a hook cannot run in a pod in which something may run all
// the same; idle, that nothing does.
func fitness(pod *corev1.Pod) (unfit string, idle bool) {
	running := func(s corev1.ContainerStatus) bool { return s.State.Running != nil }
	started := slices.ContainsFunc(pod.Status.InitContainerStatuses, running) || slices.ContainsFunc(pod.Status.ContainerStatuses, running)
	switch {
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return "", true
	case pod.DeletionTimestamp != nil:
		return "is being deleted", pod.Status.Phase == corev1.PodPending && !started
	case pod.Status.Phase != corev1.PodRunning:
		return "has not started all of its containers", !started
	}
	return "", false
}

func containerOf(pod *corev1.Pod, name string) (string, error) {
	if name == "" {
		name = pod.Annotations[defaultContainer]
	}
	if name == "" {
		return pod.Spec.Containers[0].Name, nil
	}
	var names []string
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for _, c := range list {
			names = append(names, c.Name)
		}
	}
	if !slices.Contains(names, name) {
		return "", fmt.Errorf("pod %s/%s has no container %q: it has %s", pod.Namespace, pod.Name, name, strings.Join(names, ", "))
	}
	return name, nil
}

// same reads the target's pod, and makes sure that it is the one meant.
func (r *Runner) same(ctx context.Context, t quiesce.Target) (*corev1.Pod, error) {
	pod, err := r.clients.Kubernetes.CoreV1().Pods(t.Namespace).Get(ctx, t.Pod, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("%w: %s", quiesce.ErrGone, t.Key())
	case err != nil:
		return nil, fmt.Errorf("read pod %s: %w", t.Key(), err)
	case t.UID != "" && string(pod.UID) != t.UID:
		return nil, fmt.Errorf("%w: %s was replaced by another of its name", quiesce.ErrGone, t.Key())
	}
	return pod, nil
}

// Run implements quiesce.Runner.
func (r *Runner) Run(ctx context.Context, t quiesce.Target, a quiesce.Action) (string, error) {
	if _, err := r.same(ctx, t); err != nil {
		return "", err
	}
	return r.Exec(ctx, t, a.Command)
}
