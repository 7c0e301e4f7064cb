// Package quiescer carries out hooks in a cluster: it finds their pods, runs
// commands in containers and keeps sessions open, asks pods, and runs Jobs.
package quiescer

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/quiesce"
)

// pageSize bounds the pods asked for at a time.
const pageSize = 500

// defaultContainer is how a pod says which of its containers people mean.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// Runner acts with the rights of its clients.
type Runner struct{ clients *kube.Clients }

var _ quiesce.Runner = (*Runner)(nil)

// New makes a Runner.
func New(clients *kube.Clients) *Runner { return &Runner{clients} }

// Pods implements quiesce.Runner.
func (r *Runner) Pods(ctx context.Context, namespaces []string) ([]quiesce.Pod, error) {
	var all []quiesce.Pod
	for _, ns := range namespaces {
		opts := metav1.ListOptions{Limit: pageSize}
		for {
			page, err := r.clients.Kubernetes.CoreV1().Pods(ns).List(ctx, opts)
			if err != nil {
				return nil, fmt.Errorf("list pods of %s: %w", ns, err)
			}
			for i := range page.Items {
				if unfit, idle := fitness(&page.Items[i]); !idle && !ofHook(&page.Items[i]) {
					all = append(all, podOf(&page.Items[i], unfit))
				}
			}
			if opts.Continue = page.Continue; opts.Continue == "" {
				break
			}
		}
	}
	return all, nil
}

func podOf(pod *corev1.Pod, unfit string) quiesce.Pod {
	p := quiesce.Pod{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), Labels: pod.Labels, Annotations: pod.Annotations,
		Default: pod.Annotations[defaultContainer], Unfit: unfit,
	}
	for _, c := range pod.Spec.Containers {
		p.Containers = append(p.Containers, quiesce.Container{Name: c.Name, Image: c.Image})
	}
	for _, c := range pod.Spec.InitContainers {
		p.Others = append(p.Others, c.Name)
	}
	return p
}

// ofHook tells whether a pod is of a hook's Job, whatever labels it has beside.
func ofHook(pod *corev1.Pod) bool {
	return pod.Labels[v1alpha1.LabelManagedBy] == managedBy && pod.Labels[labelExclude] == "true"
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
	var output string
	var err error
	switch {
	case a.Job != nil:
		output, err = r.job(ctx, t, a.Job)
	case a.HTTP != nil:
		output, err = r.ask(ctx, t, a.HTTP)
	default:
		if _, err = r.same(ctx, t); err == nil {
			output, err = r.Exec(ctx, t, a.Command)
		}
	}
	if apierrors.IsNotFound(err) && t.Pod == "" && r.noNamespace(ctx, t.Namespace) {
		err = fmt.Errorf("%w, with its namespace: %w", quiesce.ErrGone, err)
	}
	return output, err
}

// noNamespace tells whether a namespace is known not to be there.
func (r *Runner) noNamespace(ctx context.Context, name string) bool {
	_, err := r.clients.Kubernetes.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	return apierrors.IsNotFound(err)
}
