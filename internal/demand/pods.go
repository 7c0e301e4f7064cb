package demand

import (
	"encoding/json"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/vault"
)

// workloads are the kinds that make pods, and whether on every node.
var workloads = map[string]bool{
	"deployments.apps": false, "statefulsets.apps": false, "replicasets.apps": false, "replicationcontrollers": false,
	"daemonsets.apps": true, "pods": false, "jobs.batch": false,
}

// workload is what all of them have in common, and pods themselves.
type workload struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Replicas    *int32                 `json:"replicas"`
		Parallelism *int32                 `json:"parallelism"`
		Suspend     bool                   `json:"suspend"`
		Template    corev1.PodTemplateSpec `json:"template"`
	} `json:"spec"`
	Status struct {
		CompletionTime *metav1.Time `json:"completionTime"`
	} `json:"status"`
}

// podsOf says which pods an object of one of the kinds makes. What a controller
// made itself is counted there.
func podsOf(kind string, object []byte) (preflight.Pods, error) {
	var w workload
	if err := json.Unmarshal(object, &w); err != nil {
		return preflight.Pods{}, fmt.Errorf("read %s: %w: %w", kind, vault.ErrDamaged, err)
	}
	if metav1.GetControllerOf(&w.ObjectMeta) != nil || w.Status.CompletionTime != nil || kind == "jobs.batch" && w.Spec.Suspend {
		return preflight.Pods{}, nil
	}
	spec := w.Spec.Template.Spec
	if kind == "pods" {
		var pod corev1.Pod
		if err := json.Unmarshal(object, &pod); err != nil {
			return preflight.Pods{}, fmt.Errorf("read %s: %w: %w", kind, vault.ErrDamaged, err)
		}
		spec = pod.Spec
	}
	p := preflight.Pods{Namespace: w.Namespace, Workload: kind + "/" + w.Name, Count: w.count(), EveryNode: workloads[kind]}
	p.Where = where(&spec)
	p.Each, p.Limit = Room(&spec)
	return p, nil
}

// count is how many there are; of what was at rest when it was captured, as
// many as there were before.
func (w workload) count() int64 {
	n := int64(1)
	for _, set := range []*int32{w.Spec.Replicas, w.Spec.Parallelism} {
		if set != nil {
			n = int64(*set)
		}
	}
	if before, err := strconv.ParseInt(w.Annotations[v1alpha1.AnnotationReplicas], 10, 32); err == nil && n == 0 {
		n = before
	}
	return max(n, 0)
}

// Room is what one pod asks for, and may take at most: its containers together,
// or one of those that run before them, whichever is more.
func Room(spec *corev1.PodSpec) (asks, limit preflight.Room) {
	for i := range spec.Containers {
		asks, limit = add(asks, spec.Containers[i].Resources.Requests), add(limit, spec.Containers[i].Resources.Limits)
	}
	var before, beforeLimit preflight.Room
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways { // it runs beside the others
			asks, limit = add(asks, c.Resources.Requests), add(limit, c.Resources.Limits)
			continue
		}
		before, beforeLimit = larger(before, add(preflight.Room{}, c.Resources.Requests)), larger(beforeLimit, add(preflight.Room{}, c.Resources.Limits))
	}
	asks, limit = add(larger(asks, before), spec.Overhead), add(larger(limit, beforeLimit), spec.Overhead)
	asks.Pods, limit.Pods = 1, 1
	return asks, limit
}

// most bounds what one container may be said to ask for, so that sums stay numbers.
const most = 1 << 44

func add(r preflight.Room, list corev1.ResourceList) preflight.Room {
	return preflight.Room{
		CPU:    r.CPU + bounded(list, corev1.ResourceCPU, (*resource.Quantity).MilliValue),
		Memory: r.Memory + bounded(list, corev1.ResourceMemory, (*resource.Quantity).Value),
	}
}

func bounded(list corev1.ResourceList, name corev1.ResourceName, value func(*resource.Quantity) int64) int64 {
	q, found := list[name]
	if !found {
		return 0
	}
	return min(max(value(&q), 0), most)
}

func larger(a, b preflight.Room) preflight.Room {
	return preflight.Room{CPU: max(a.CPU, b.CPU), Memory: max(a.Memory, b.Memory)}
}
