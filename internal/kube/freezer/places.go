package freezer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube/mover"
)

// places are the volumes in use, by node. A claim that no pod uses has none:
// nothing writes to it.
type places map[string][]v1alpha1.FrozenVolume

// places finds where the claims are mounted: with every pod that was given a
// node and has not ended. One that is being deleted may still write, unless it is
// Davit's own that held a restored volume: of that the mount may be gone already.
func (f *Freezer) places(ctx context.Context, plans []capture.VolumePlan) (places, error) {
	found, _, err := f.used(ctx, plans, nil)
	return found, err
}

// over are pods that have ended, by UID.
type over map[types.UID]bool

// used is places, with the pods that have ended. Where those that had ended before are
// known, the others count too: they may have used a claim since, and be done.
func (f *Freezer) used(ctx context.Context, plans []capture.VolumePlan, before over) (places, over, error) {
	byNamespace := map[string]map[string]capture.Claim{}
	for _, p := range plans {
		if byNamespace[p.Claim.Namespace] == nil {
			byNamespace[p.Claim.Namespace] = map[string]capture.Claim{}
		}
		byNamespace[p.Claim.Namespace][p.Claim.Name] = p.Claim
	}
	found, now := places{}, over{}
	for ns, claims := range byNamespace {
		var pods corev1.PodList
		if err := f.client.List(ctx, &pods, client.InNamespace(ns)); err != nil {
			return nil, nil, fmt.Errorf("list pods of %s: %w", ns, err)
		}
		// Those that run have their volumes mounted, the others perhaps not yet, or no more.
		slices.SortStableFunc(pods.Items, func(a, b corev1.Pod) int { return rank(&a) - rank(&b) })
		for i := range pods.Items {
			pod := &pods.Items[i]
			ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
			now[pod.UID] = ended
			if ended && (before == nil || before[pod.UID]) || !pod.DeletionTimestamp.IsZero() && mover.Holds(pod) {
				continue
			}
			found.add(pod, claims)
		}
	}
	for _, volumes := range found {
		slices.SortFunc(volumes, func(a, b v1alpha1.FrozenVolume) int { return strings.Compare(a.Claim, b.Claim) })
	}
	return found, now, nil
}

func rank(pod *corev1.Pod) int {
	switch {
	case pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp.IsZero():
		return 0
	case pod.Status.Phase == corev1.PodRunning:
		return 1
	}
	return 2
}

// add takes note of a pod's claims, one pod for each claim and node.
func (p places) add(pod *corev1.Pod, claims map[string]capture.Claim) {
	node := pod.Spec.NodeName
	if node == "" {
		return
	}
	for _, name := range claimsOf(pod) {
		c, ours := claims[name]
		if !ours || p.has(node, c.Key()) {
			continue
		}
		p[node] = append(p[node], v1alpha1.FrozenVolume{Claim: c.Key(), PodUID: string(pod.UID), PersistentVolume: c.Volume})
	}
}

// claimsOf names the claims that a pod mounts, generic ephemeral ones too.
func claimsOf(pod *corev1.Pod) []string {
	var all []string
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
			all = append(all, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			all = append(all, pod.Name+"-"+v.Name)
		}
	}
	return all
}

func (p places) has(node, claim string) bool {
	return slices.ContainsFunc(p[node], func(v v1alpha1.FrozenVolume) bool { return v.Claim == claim })
}

// beyond says what is in use now and was not before.
func (p places) beyond(before places) string {
	for _, node := range p.nodes() {
		for _, v := range p[node] {
			if !before.has(node, v.Claim) {
				return fmt.Sprintf("a pod on node %s began to use claim %s in the meantime", node, v.Claim)
			}
		}
	}
	return ""
}
