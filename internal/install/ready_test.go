package install

import (
	"errors"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube"
)

func TestStuckOnlyAfterUnbrokenTrouble(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	type sight struct {
		after   time.Duration
		trouble string
	}
	for name, test := range map[string]struct {
		seen  []sight
		stuck bool
	}{
		"no trouble":           {[]sight{{0, ""}, {time.Hour, ""}}, false},
		"trouble for a moment": {[]sight{{0, "x"}, {patience - 1, "x"}}, false},
		"trouble that stays":   {[]sight{{0, "x"}, {patience / 2, "y"}, {patience, "x"}}, true},
		"trouble that went":    {[]sight{{0, "x"}, {patience / 2, ""}, {patience, "x"}, {patience + 1, "x"}}, false},
	} {
		var s stuckFor
		var err error
		for _, see := range test.seen {
			err = s.look(start.Add(see.after), see.trouble)
		}
		if errors.Is(err, errStuck) != test.stuck {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHopelessPods(t *testing.T) {
	waiting := func(reason string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Image: "r/davit:1", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "because"}}}
	}
	crashed := corev1.ContainerStatus{RestartCount: 2, LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 7}}}
	healed := crashed
	healed.Ready = true
	for name, test := range map[string]struct {
		state corev1.ContainerStatus
		image string
		want  string
	}{
		"pull":                  {waiting("ErrImagePull"), "r/davit:1", "image r/davit:1 cannot be pulled: ErrImagePull: because"},
		"pull, back off":        {waiting("ImagePullBackOff"), "r/davit:1", "ImagePullBackOff: because"},
		"crash":                 {crashed, "r/davit:1", "exit code 7"},
		"crashed once, is up":   {healed, "r/davit:1", ""},
		"starts":                {waiting("ContainerCreating"), "r/davit:1", ""},
		"of the install before": {waiting("ErrImagePull"), "r/davit:0", ""},
	} {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "davit-agent-1", Labels: map[string]string{PartOfLabel: partOf}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Image: test.image}}},
			Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{test.state}},
		}
		in := installer{clients: &kube.Clients{Kubernetes: fake.NewClientset(pod)}}
		got := in.hopeless(t.Context(), v1alpha1.SystemNamespace, "r/davit:1")
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// TestADeadNode: a node that does not answer holds up no install, and so no run that waits
// for one. A process that is not ready on a node that answers does, and so do all that are dead.
func TestADeadNode(t *testing.T) {
	node := func(name string, ready corev1.ConditionStatus) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}}}
	}
	pod := func(on string, ready corev1.ConditionStatus) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "davit-node-" + on, Labels: map[string]string{NameLabel: NodeName}},
			Spec:       corev1.PodSpec{NodeName: on}, Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
		}
	}
	const up, down = corev1.ConditionTrue, corev1.ConditionUnknown
	for name, test := range map[string]struct {
		b, onB corev1.ConditionStatus
		ready  int32
		want   bool
	}{
		"all are ready": {up, up, 2, true}, "dead": {down, down, 1, true}, "not ready, on one that answers": {up, down, 1, false},
		"dead, and another is not ready": {down, down, 0, false}, "its pod is not marked yet": {down, up, 1, false},
	} {
		agent := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: AgentName}}
		agent.Spec.Replicas = ptr.To[int32](1)
		agent.Status = appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}
		all := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: NodeName}}
		all.Status = appsv1.DaemonSetStatus{DesiredNumberScheduled: 2, UpdatedNumberScheduled: 2, NumberReady: test.ready}
		in := installer{clients: &kube.Clients{Kubernetes: fake.NewClientset(agent, all, node("a", up), node("b", test.b), pod("a", up), pod("b", test.onB))}}
		if text, ready := in.readiness(t.Context()); ready != test.want {
			t.Errorf("%s: %t: %s", name, ready, text)
		}
	}
}
