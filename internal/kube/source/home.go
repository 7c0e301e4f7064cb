package source

import (
	"context"
	"errors"
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

func up(node *corev1.Node) bool { return readiness(node).Status == corev1.ConditionTrue }

func readiness(node *corev1.Node) corev1.NodeCondition {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c
		}
	}
	return corev1.NodeCondition{}
}

// home is ErrNodeLost where a volume is on one node's own disks alone, and the
// cluster has not heard of that node for so long that it gave it up, or has it no more: nothing can
// cut the volume, or make a cut of it readable, until the node is back. Storage that
// is merely near one node, as in a zone that has no other, does not need it for that.
func (v *Volumes) home(ctx context.Context, pv *corev1.PersistentVolume) error {
	err := v.homeAsKnown(ctx, pv)
	if errors.Is(err, ErrNodeLost) { // it may be back since the nodes were listed
		v.mu.Lock()
		v.listed = time.Time{}
		v.mu.Unlock()
		err = v.homeAsKnown(ctx, pv)
	}
	return err
}

func (v *Volumes) homeAsKnown(ctx context.Context, pv *corev1.PersistentVolume) error {
	node, err := v.owner(ctx, pv)
	switch {
	case err != nil:
		return err
	case node == nil:
		return v.homeless(ctx, pv)
	}
	return lost(pv, node)
}

// homeless is ErrNodeLost where a volume was on the disks of a node that was removed.
func (v *Volumes) homeless(ctx context.Context, pv *corev1.PersistentVolume) error {
	near, bound, err := v.around(ctx, pv)
	if err != nil || !bound || len(near) > 0 {
		return err
	}
	all, err := v.nodes(ctx)
	if err != nil {
		return err
	}
	for _, t := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, e := range slices.Concat(t.MatchExpressions, t.MatchFields) {
			if e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 && namesNodes(e.Key, all) {
				return removed(pv, e.Values[0])
			}
		}
	}
	return nil
}

// namesNodes tells whether a label is one by which nodes are named, as all that have it show.
func namesNodes(key string, all []corev1.Node) bool {
	names := len(all) > 0 && (key == corev1.LabelHostname || key == metav1.ObjectNameField)
	for i := range all {
		switch value, has := all[i].Labels[key]; {
		case has && value != all[i].Name && value != all[i].Labels[corev1.LabelHostname]:
			return false
		case has:
			names = true
		}
	}
	return names
}

func removed(pv *corev1.PersistentVolume, node string) error {
	return fmt.Errorf("%w: volume %s is on the disks of node %s, which is no node of the cluster any more: bring it back; if it is gone for good, restore what was on it from an older point, or leave the claim out",
		ErrNodeLost, pv.Name, node)
}

// owner is the node on whose own disks alone a volume is; nil: there is none.
func (v *Volumes) owner(ctx context.Context, pv *corev1.PersistentVolume) (*corev1.Node, error) {
	near, _, err := v.around(ctx, pv)
	if err != nil || len(near) != 1 || !ownDisks(pv.Spec.NodeAffinity.Required, &near[0]) {
		return nil, err
	}
	return &near[0], nil
}

func lost(pv *corev1.PersistentVolume, node *corev1.Node) error {
	if c := readiness(node); c.Status == corev1.ConditionUnknown {
		return fmt.Errorf("%w: volume %s is on the disks of node %s, of which nothing was heard since %s: bring the node back; if it is gone for good, restore what was on it from an older point, or leave the claim out",
			ErrNodeLost, pv.Name, node.Name, c.LastTransitionTime.UTC().Format(time.RFC3339))
	}
	return nil
}

// ownDisks tells whether a selector that means one node names it, and not where it
// stands: each driver has a label of its own for that.
func ownDisks(s *corev1.NodeSelector, node *corev1.Node) bool {
	names := func(e corev1.NodeSelectorRequirement) bool {
		return e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 &&
			(e.Values[0] == node.Name || e.Values[0] == node.Labels[corev1.LabelHostname])
	}
	return slices.ContainsFunc(s.NodeSelectorTerms, func(t corev1.NodeSelectorTerm) bool {
		return slices.ContainsFunc(t.MatchExpressions, names) || slices.ContainsFunc(t.MatchFields, names)
	})
}

// comesBack is how long a node that was given up while its volume was being captured
// is waited for: it may only have been started anew.
const comesBack = time.Minute

// atHome is ctx until the node is lost, and stays so, on whose disks alone a claim's
// volume is; then ErrNodeLost is its cause. stop ends the watch.
func (v *Volumes) atHome(ctx context.Context, c capture.Claim) (watched context.Context, stop func()) {
	watched, end := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(nodesAge)
		defer tick.Stop()
		h := house{v: v, claim: c}
		var since time.Time
		for {
			select {
			case <-watched.Done():
				return
			case <-tick.C:
			}
			switch err := h.look(watched); {
			case errors.Is(err, errNoHome):
				return
			case !errors.Is(err, ErrNodeLost):
				since = time.Time{}
			case since.IsZero():
				since = v.opts.Now()
			case v.opts.Now().Sub(since) >= comesBack:
				end(err)
			}
		}
	}()
	return watched, func() { end(nil) }
}

// errNoHome says that a volume is on no node's own disks.
var errNoHome = errors.New("the volume is on no node's own disks")

// house looks again and again how the node is on whose disks a claim's volume is. It asks
// for that node alone: of all of them a large cluster has much to say.
type house struct {
	v     *Volumes
	claim capture.Claim
	pv    *corev1.PersistentVolume
	node  string
}

func (h *house) look(ctx context.Context) error {
	core := h.v.app.Kubernetes.CoreV1()
	if h.pv == nil {
		pv, err := core.PersistentVolumes().Get(ctx, h.claim.Volume, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("get persistent volume: %w", err)
		}
		h.pv = pv
	}
	if h.node == "" {
		node, err := h.v.owner(ctx, h.pv)
		switch {
		case err != nil:
			return err
		case node == nil:
			return errNoHome
		}
		h.node = node.Name
	}
	node, err := core.Nodes().Get(ctx, h.node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return removed(h.pv, h.node)
	}
	if err != nil {
		return fmt.Errorf("get node: %w", err)
	}
	return lost(h.pv, node)
}

// because is ErrNodeLost, with what is known of the node, where that ended what failed.
func because(watched context.Context, err error) error {
	if cause := context.Cause(watched); err != nil && errors.Is(cause, ErrNodeLost) {
		return cause
	}
	return err
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
