package target

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/restore"
)

// labelBeside is the same on the holders of all volumes of one workload. Where
// a workload's pods keep away from each other, so must their holders: what a
// holder binds on one node's disks stays there, and a pod that may not go there
// never starts. The workload's own labels would make Services send to holders.
const labelBeside = "davit.dev/holds-beside"

// besideOf names the workload whose pods have these labels, in one restore.
func besideOf(req restore.FillRequest, pod labels.Set) string {
	sum := sha256.Sum256([]byte(req.Owner + "\x00" + req.Namespace + "\x00" + pod.String()))
	return hex.EncodeToString(sum[:10])
}

// besides turns what a workload's pods demand of each other into what their
// holders wish of each other. They only wish: a target may have fewer nodes than
// the source, and data is better on any node than on none.
func besides(s *mover.Scheduling, req restore.FillRequest) {
	pod := labels.Set{}
	for key, value := range req.PodLabels {
		pod[key] = fmt.Sprint(value)
	}
	if len(pod) == 0 {
		return
	}
	mark := besideOf(req, pod)
	those := &metav1.LabelSelector{MatchLabels: map[string]string{labelBeside: mark}}
	found := false
	for i := range s.TopologySpreadConstraints {
		c := &s.TopologySpreadConstraints[i]
		if selectsPod(c.LabelSelector, pod) {
			c.LabelSelector, c.MatchLabelKeys, c.MinDomains = those, nil, nil
			c.WhenUnsatisfiable = corev1.ScheduleAnyway
			found = true
		}
	}
	if s.Affinity != nil {
		if a := s.Affinity.PodAntiAffinity; a != nil {
			found = wish(&a.RequiredDuringSchedulingIgnoredDuringExecution, &a.PreferredDuringSchedulingIgnoredDuringExecution, those, pod, req.Namespace) || found
		}
		if a := s.Affinity.PodAffinity; a != nil {
			found = wish(&a.RequiredDuringSchedulingIgnoredDuringExecution, &a.PreferredDuringSchedulingIgnoredDuringExecution, those, pod, req.Namespace) || found
		}
	}
	if found {
		s.Labels = map[string]string{labelBeside: mark}
	}
}

// wish moves the terms that mean the workload's own pods from what is required
// to what is preferred, and lets them mean their holders.
func wish(required *[]corev1.PodAffinityTerm, preferred *[]corev1.WeightedPodAffinityTerm, those *metav1.LabelSelector, pod labels.Set, namespace string) bool {
	own := func(t *corev1.PodAffinityTerm) bool {
		return selectsPod(t.LabelSelector, pod) && (len(t.Namespaces) == 0 || slices.Contains(t.Namespaces, namespace))
	}
	found := false
	for i := range *preferred {
		if t := &(*preferred)[i].PodAffinityTerm; own(t) {
			*t = corev1.PodAffinityTerm{LabelSelector: those, TopologyKey: t.TopologyKey}
			found = true
		}
	}
	var others []corev1.PodAffinityTerm
	for i := range *required {
		t := (*required)[i]
		if !own(&t) {
			others = append(others, t)
			continue
		}
		*preferred = append(*preferred, corev1.WeightedPodAffinityTerm{
			Weight: 100, PodAffinityTerm: corev1.PodAffinityTerm{LabelSelector: those, TopologyKey: t.TopologyKey},
		})
		found = true
	}
	*required = others
	return found
}

func selectsPod(s *metav1.LabelSelector, pod labels.Set) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && !selector.Empty() && selector.Matches(pod)
}

// gatherings know, by workload, whose holders have no node yet. A holder that
// went before the next was placed would be missing from what that keeps away
// from.
type gatherings struct {
	mu  sync.Mutex
	all map[string]*gathering
}

type gathering struct {
	users   int
	missing int           // holders that are not placed
	changed chan struct{} // closed when missing gets less
}

// enter tells of one more holder to come. placed says that it has its node, or
// never will; stay waits until all that are to come have theirs; leave ends it.
func (g *gatherings) enter(key string) (placed func(), stay func(context.Context), leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one := g.all[key]
	if one == nil {
		one = &gathering{changed: make(chan struct{})}
		g.all[key] = one
	}
	one.users++
	one.missing++
	placed = sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		one.missing--
		close(one.changed)
		one.changed = make(chan struct{})
	})
	stay = func(ctx context.Context) {
		for {
			g.mu.Lock()
			missing, changed := one.missing, one.changed
			g.mu.Unlock()
			if missing == 0 {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}
	leave = func() {
		placed()
		g.mu.Lock()
		defer g.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(g.all, key)
		}
	}
	return placed, stay, leave
}
