package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"

	"davit.dev/davit/api/v1alpha1"
)

// look is how often readiness is looked at.
const look = 500 * time.Millisecond

// patience is how long a pod may be in a state that seldom heals by itself.
const patience = 45 * time.Second

// awaitDefinitions waits until the API server serves the CRDs.
func (in installer) awaitDefinitions(ctx context.Context, objects []unstructured.Unstructured) error {
	for i := range objects {
		if objects[i].GetKind() != "CustomResourceDefinition" {
			continue
		}
		if err := in.awaitEstablished(ctx, &objects[i]); err != nil {
			return err
		}
	}
	in.clients.Mapper.Reset()
	return nil
}

func (in installer) awaitEstablished(ctx context.Context, crd *unstructured.Unstructured) error {
	r, err := in.resource(crd)
	if err != nil {
		return err
	}
	var why string
	err = wait.PollUntilContextCancel(ctx, look/5, true, func(ctx context.Context) (bool, error) {
		got, err := r.Get(ctx, crd.GetName(), metav1.GetOptions{})
		if err != nil {
			why = err.Error()
			return false, nil
		}
		established, reason := crdState(got)
		why = reason
		return established, nil
	})
	if err != nil {
		return fmt.Errorf("wait for definition %s: %w: %s", crd.GetName(), err, why)
	}
	return nil
}

func crdState(crd *unstructured.Unstructured) (established bool, why string) {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, c := range conditions {
		m, _ := c.(map[string]any)
		switch {
		case m["type"] == "Established" && m["status"] == "True":
			established = true
		case m["status"] == "False":
			why = fmt.Sprintf("%v: %v", m["reason"], m["message"])
		}
	}
	return established, why
}

// awaitReady waits for the agent and every node process whose node answers. What keeps them is
// told while waiting and is in the error. What does not heal by itself ends the
// waiting early.
func (in installer) awaitReady(ctx context.Context, budget time.Duration, image string) error {
	var state string
	var stuck stuckFor
	err := wait.PollUntilContextCancel(ctx, look, true, func(ctx context.Context) (bool, error) {
		now, ready := in.readiness(ctx)
		if now != state {
			state = now
			in.progress.say("%s", now)
		}
		if ready {
			return true, nil
		}
		return false, stuck.look(time.Now(), in.hopeless(ctx, v1alpha1.SystemNamespace, image))
	})
	if errors.Is(err, errStuck) {
		return fmt.Errorf("davit is installed but will not get ready: %s: %w", state, err)
	}
	if err != nil {
		return fmt.Errorf("davit is installed but not ready after %s: %s%s", budget, state, in.podTroubles(context.WithoutCancel(ctx), v1alpha1.SystemNamespace))
	}
	return nil
}

func (in installer) readiness(ctx context.Context) (string, bool) {
	apps := in.clients.Kubernetes.AppsV1()
	agent, err := apps.Deployments(v1alpha1.SystemNamespace).Get(ctx, AgentName, metav1.GetOptions{})
	if err != nil {
		return err.Error(), false
	}
	nodes, err := apps.DaemonSets(v1alpha1.SystemNamespace).Get(ctx, NodeName, metav1.GetOptions{})
	if err != nil {
		return err.Error(), false
	}
	text := fmt.Sprintf("agent %d of %d, node processes %d of %d ready",
		agent.Status.AvailableReplicas, *agent.Spec.Replicas, nodes.Status.NumberReady, nodes.Status.DesiredNumberScheduled)
	dead := int32(0)
	if nodes.Status.NumberReady < nodes.Status.DesiredNumberScheduled {
		if dead = in.onDeadNodes(ctx); dead > 0 {
			text += fmt.Sprintf(", %d on nodes that do not answer", dead)
		}
	}
	return text, agentReady(agent) && nodesReady(nodes, dead)
}

// onDeadNodes counts the node processes that are not ready because their nodes are not.
// Nobody waits for those: a run may be waiting for the install.
func (in installer) onDeadNodes(ctx context.Context) (dead int32) {
	core := in.clients.Kubernetes.CoreV1()
	pods, err := core.Pods(v1alpha1.SystemNamespace).List(ctx, metav1.ListOptions{LabelSelector: NameLabel + "=" + NodeName})
	if err != nil {
		return 0
	}
	nodes, err := core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0
	}
	answers := map[string]bool{}
	for i := range nodes.Items {
		answers[nodes.Items[i].Name] = slices.ContainsFunc(nodes.Items[i].Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
		if up, known := answers[p.Spec.NodeName]; known && !up && !ready && p.DeletionTimestamp.IsZero() {
			dead++
		}
	}
	return dead
}

func agentReady(d *appsv1.Deployment) bool {
	return d.Status.ObservedGeneration >= d.Generation && d.Status.UpdatedReplicas == *d.Spec.Replicas &&
		d.Status.AvailableReplicas == *d.Spec.Replicas && d.Status.Replicas == *d.Spec.Replicas
}

// nodesReady: dead are on nodes that do not answer.
func nodesReady(d *appsv1.DaemonSet, dead int32) bool {
	return d.Status.ObservedGeneration >= d.Generation && d.Status.DesiredNumberScheduled > 0 &&
		d.Status.UpdatedNumberScheduled+dead >= d.Status.DesiredNumberScheduled && d.Status.NumberReady > 0 && d.Status.NumberReady+dead >= d.Status.DesiredNumberScheduled
}

// errStuck says that waiting longer is of no use.
var errStuck = errors.New("pods cannot start")

// stuckFor measures for how long there has been trouble without a break.
type stuckFor struct{ since time.Time }

// look is told what is wrong now, and is an error once that lasts too long.
func (s *stuckFor) look(now time.Time, trouble string) error {
	switch {
	case trouble == "":
		s.since = time.Time{}
	case s.since.IsZero():
		s.since = now
	case now.Sub(s.since) >= patience:
		return fmt.Errorf("%w: %s: correct that and install again", errStuck, trouble)
	}
	return nil
}

// hopeless says which pods of this image cannot start, or nothing. Those of an
// earlier install are on their way out.
func (in installer) hopeless(ctx context.Context, namespace, image string) string {
	pods, err := in.clients.Kubernetes.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: PartOfLabel + "=" + partOf})
	if err != nil {
		return ""
	}
	var troubles []string
	for i := range pods.Items {
		p := &pods.Items[i]
		if why := hopelessPod(p); why != "" && p.DeletionTimestamp.IsZero() && p.Spec.Containers[0].Image == image {
			troubles = append(troubles, "pod "+p.Name+": "+why)
		}
	}
	return strings.Join(troubles, "; ")
}

// hopelessPod says why a pod cannot start. A crashing container runs for a
// moment between two crashes: it is hopeless then too.
func hopelessPod(pod *corev1.Pod) string {
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil {
			switch w.Reason {
			case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName":
				return fmt.Sprintf("image %s cannot be pulled: %s: %s", c.Image, w.Reason, w.Message)
			case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
				return w.Reason + ": " + w.Message
			}
		}
		if last := c.LastTerminationState.Terminated; !c.Ready && c.RestartCount > 1 && last != nil {
			return fmt.Sprintf("crashes again and again, last with exit code %d: see kubectl -n %s logs --previous %s -c %s", last.ExitCode, pod.Namespace, pod.Name, c.Name)
		}
	}
	return ""
}

// podTroubles says what the pods that are not ready say of themselves.
func (in installer) podTroubles(ctx context.Context, namespace string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	pods, err := in.clients.Kubernetes.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: PartOfLabel + "=" + partOf})
	if err != nil {
		return ""
	}
	var out strings.Builder
	for i := range pods.Items {
		if why := podTrouble(&pods.Items[i]); why != "" {
			fmt.Fprintf(&out, "; pod %s: %s", pods.Items[i].Name, why)
		}
	}
	return out.String()
}

func podTrouble(pod *corev1.Pod) string {
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		switch {
		case c.State.Waiting != nil && c.State.Waiting.Message != "":
			return c.State.Waiting.Reason + ": " + c.State.Waiting.Message
		case c.State.Waiting != nil && c.State.Waiting.Reason != "ContainerCreating":
			return c.State.Waiting.Reason
		case c.State.Running != nil && !c.Ready:
			return "runs but is not ready: see kubectl -n " + pod.Namespace + " logs " + pod.Name + " -c " + c.Name
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Reason + ": " + c.Message
		}
	}
	return ""
}
