package source

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube/mover"
)

// A driver whose volumes are each on one node's own disks runs a snapshotter on
// every node, which takes up only what carries this label with its node's name
// ("distributed snapshotting"). The snapshot controller labels what it makes;
// what Davit makes itself must carry it, too, or nobody takes it up. Elsewhere
// nobody looks at it.
const managedByNode = "snapshot.storage.kubernetes.io/managed-by"

// nodesAge is how old a list of the nodes may be: all volumes of a capture are
// planned with one.
const nodesAge = 10 * time.Second

// nodes lists those of the cluster. Whoever may not see them knows of none.
func (v *Volumes) nodes(ctx context.Context) ([]corev1.Node, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now := v.opts.Now(); v.listed.IsZero() || now.Sub(v.listed) > nodesAge {
		list, err := v.app.Kubernetes.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil && !apierrors.IsForbidden(err) {
			return nil, fmt.Errorf("list nodes: %w", err)
		}
		v.listed, v.known = now, nil
		if err == nil {
			v.known = list.Items
		}
	}
	return v.known, nil
}

// around returns the nodes from which a volume can be reached, and false where
// that is every node.
func (v *Volumes) around(ctx context.Context, pv *corev1.PersistentVolume) ([]corev1.Node, bool, error) {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return nil, false, nil
	}
	all, err := v.nodes(ctx)
	if err != nil {
		return nil, false, err
	}
	var near []corev1.Node
	for i := range all {
		if selects(pv.Spec.NodeAffinity.Required, &all[i]) {
			near = append(near, all[i])
		}
	}
	return near, true, nil
}

// only names the node from which alone a volume can be reached, or "": as the
// snapshot controller finds it.
func (v *Volumes) only(ctx context.Context, pv *corev1.PersistentVolume) (string, error) {
	near, _, err := v.around(ctx, pv)
	if err != nil || len(near) != 1 {
		return "", err
	}
	return near[0].Name, nil
}

// beside says where a cut is to be read: from where its volume can be reached.
// A snapshot on one node's disks can be had nowhere else, and the scheduler
// knows nothing of that before the copy exists. A cordoned node will do where there
// is no other. Where none is up, the storage may let the copy be made elsewhere, and
// there is nothing to lose.
func (v *Volumes) beside(ctx context.Context, c capture.Claim) (mover.Scheduling, error) {
	pv, err := v.app.Kubernetes.CoreV1().PersistentVolumes().Get(ctx, c.Volume, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return mover.Scheduling{}, nil
	}
	if err != nil {
		return mover.Scheduling{}, fmt.Errorf("get persistent volume: %w", err)
	}
	near, bound, err := v.around(ctx, pv)
	if err != nil || !bound {
		return mover.Scheduling{}, err
	}
	var out mover.Scheduling
	cordoned := !slices.ContainsFunc(near, func(n corev1.Node) bool { return up(&n) && !n.Spec.Unschedulable })
	for i := range near {
		if !up(&near[i]) || near[i].Spec.Unschedulable != cordoned {
			continue
		}
		out.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: pv.Spec.NodeAffinity.Required.DeepCopy()}}
		out.Tolerations = append(out.Tolerations, tolerated(near[i].Spec.Taints)...)
	}
	if cordoned && out.Affinity != nil { // people keep new work from it, not this copy from what it holds
		out.Tolerations = append(out.Tolerations, corev1.Toleration{Key: corev1.TaintNodeUnschedulable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule})
	}
	return out, nil
}

func up(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// tolerated are the taints by which people keep others from their nodes; not
// those by which Kubernetes says that a node is unwell.
func tolerated(taints []corev1.Taint) []corev1.Toleration {
	var out []corev1.Toleration
	for _, t := range taints {
		if !strings.HasPrefix(t.Key, "node.kubernetes.io/") {
			out = append(out, corev1.Toleration{Key: t.Key, Operator: corev1.TolerationOpEqual, Value: t.Value, Effect: t.Effect})
		}
	}
	return out
}

// selects tells whether a node is one of those that a selector means: any of
// its terms, with all that the term says.
func selects(s *corev1.NodeSelector, node *corev1.Node) bool {
	fields := labels.Set{metav1.ObjectNameField: node.Name}
	for _, term := range s.NodeSelectorTerms {
		if len(term.MatchExpressions)+len(term.MatchFields) > 0 && meets(term.MatchExpressions, node.Labels) && meets(term.MatchFields, fields) {
			return true
		}
	}
	return false
}

var selectorOperators = map[corev1.NodeSelectorOperator]selection.Operator{
	corev1.NodeSelectorOpIn: selection.In, corev1.NodeSelectorOpNotIn: selection.NotIn,
	corev1.NodeSelectorOpExists: selection.Exists, corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
	corev1.NodeSelectorOpGt: selection.GreaterThan, corev1.NodeSelectorOpLt: selection.LessThan,
}

func meets(all []corev1.NodeSelectorRequirement, set labels.Set) bool {
	for _, one := range all {
		r, err := labels.NewRequirement(one.Key, selectorOperators[one.Operator], one.Values)
		if err != nil || !r.Matches(set) {
			return false
		}
	}
	return true
}
