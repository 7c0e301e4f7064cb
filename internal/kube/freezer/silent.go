package freezer

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/mover"
)

// onNode is the field of pods that names their node.
const onNode = "spec.nodeName"

// silent says of which places' nodes it is known beforehand that nobody there can hold
// a file system still, and why. Without that each capture of what they had mounted would
// stand for the whole of armLimit, its hooks' pods at rest, as long as the node is lost.
// Who has just ceased to answer is asked all the same: it may be starting anew.
func (f *Freezer) silent(ctx context.Context, found places) (map[string]string, error) {
	silent := map[string]string{}
	for name := range found {
		var node corev1.Node
		err := f.client.Get(ctx, client.ObjectKey{Name: name}, &node)
		if err != nil && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("get node %s: %w", name, err)
		}
		if c := readiness(node.Status.Conditions); c.Status == corev1.ConditionUnknown {
			silent[name] = fmt.Sprintf("nothing was heard of it since %s: bring it back; if it is gone for good, `kubectl delete node %s` has its pods start elsewhere",
				c.LastTransitionTime.UTC().Format(time.RFC3339), name)
			continue
		}
		why, err := f.down(ctx, name)
		if err != nil {
			return nil, err
		}
		if why != "" {
			silent[name] = why
		}
	}
	return silent, nil
}

// processes are pods of Davit's node processes.
func (f *Freezer) processes(ctx context.Context, which client.ListOption) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := f.client.List(ctx, &list, client.InNamespace(v1alpha1.SystemNamespace), client.MatchingLabels{mover.NodeAppLabel: mover.NodeAppName}, which)
	if err != nil {
		return nil, fmt.Errorf("list node processes: %w", err)
	}
	return list.Items, nil
}

// down says why a node's process does not answer, where it did not for longer than it
// would be waited for.
func (f *Freezer) down(ctx context.Context, node string) (why string, err error) {
	pods, err := f.processes(ctx, client.MatchingFields{onNode: node})
	if err != nil {
		return "", err
	}
	for i := range pods {
		c := podReadiness(&pods[i])
		if c.Status == corev1.ConditionTrue || f.now().Sub(c.LastTransitionTime.Time) < armLimit {
			return "", nil
		}
		why = fmt.Sprintf("its node process, pod %s, is not ready since %s: see `kubectl -n davit-system logs %s`",
			pods[i].Name, c.LastTransitionTime.UTC().Format(time.RFC3339), pods[i].Name)
	}
	if why != "" {
		return why, nil
	}
	others, err := f.processes(ctx, client.Limit(1))
	if err != nil || len(others) == 0 { // nothing is known of any
		return "", err
	}
	return "no node process of Davit runs there: see `kubectl -n davit-system describe daemonset " + mover.NodeAppName + "`", nil
}

func readiness(conditions []corev1.NodeCondition) corev1.NodeCondition {
	for _, c := range conditions {
		if c.Type == corev1.NodeReady {
			return c
		}
	}
	return corev1.NodeCondition{}
}

// podReadiness is that of a pod; one of which nothing is said yet was made just now.
func podReadiness(pod *corev1.Pod) corev1.PodCondition {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c
		}
	}
	return corev1.PodCondition{LastTransitionTime: pod.CreationTimestamp}
}
