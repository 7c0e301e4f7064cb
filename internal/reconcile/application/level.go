package application

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/reconcile/measure"
)

const (
	// evidenceFor is how long a node's report counts.
	evidenceFor = time.Minute
	// namedNodes bounds how many nodes a message names.
	namedNodes = 3
)

// level finds out how surely the superseded application is stopped: proven
// needs the word of every node, as any of them may run its pods; missing are those that have not given it.
func (r *Reconciler) level(s *scope, missing []string, unheard, stopped error) {
	was := s.app.Status.Fence
	now := &v1alpha1.FenceStatus{Level: v1alpha1.FenceAsked, Epoch: s.standing.Current.Number, Since: metaTime(s.now)}
	switch {
	case unheard != nil:
		now.Message = cut(unheard.Error())
	case len(missing) > 0:
		now.Message = strings.Join(missing[:min(len(missing), namedNodes)], "; ")
		if more := len(missing) - namedNodes; more > 0 {
			now.Message += fmt.Sprintf("; and %d more", more)
		}
	case stopped != nil:
		now.Message = "not everything could be stopped through the API server"
	default:
		now.Level = v1alpha1.FenceProven
	}
	if was != nil && was.Level == now.Level && was.Epoch == now.Epoch {
		now.Since = was.Since
	} else {
		kind := corev1.EventTypeNormal
		if now.Level != v1alpha1.FenceProven {
			kind = corev1.EventTypeWarning
		}
		r.Events.Eventf(s.app, kind, "Fenced", "fence below epoch %d is %s %s", now.Epoch, now.Level, now.Message)
	}
	s.app.Status.Fence = now
}

// unproven names the nodes that have not proven the fence, with the reason.
func (r *Reconciler) unproven(ctx context.Context, s *scope) ([]string, error) {
	return r.doubts(ctx, s, func(report *v1alpha1.NodeFence) string {
		return fencedAt(report, s.app.VaultName(), s.standing.Current.Number)
	})
}

// doubts names the nodes whose report says nothing that counts, or of which
// doubt finds something, with the reason.
func (r *Reconciler) doubts(ctx context.Context, s *scope, doubt func(report *v1alpha1.NodeFence) string) ([]string, error) {
	var nodes corev1.NodeList
	var reports v1alpha1.NodeFenceList
	if err := r.Client.List(ctx, &nodes); err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	// Not from the cache, which would watch all namespaces.
	if err := r.Reader.List(ctx, &reports, client.InNamespace(v1alpha1.SystemNamespace)); err != nil {
		return nil, fmt.Errorf("list what nodes say: %w", err)
	}
	if len(nodes.Items) == 0 {
		return []string{"no node is known"}, nil
	}
	said := map[string]*v1alpha1.NodeFence{}
	for i := range reports.Items {
		said[reports.Items[i].Name] = &reports.Items[i]
	}
	var missing []string
	for i := range nodes.Items {
		node := &nodes.Items[i]
		why := unheard(node, said[node.Name], s.now)
		if why == "" {
			why = doubt(said[node.Name])
		}
		if why != "" {
			missing = append(missing, "node "+node.Name+": "+why)
		}
	}
	slices.Sort(missing)
	return missing, nil
}

// unheard is why a node's report does not count now; empty if it does.
func unheard(node *corev1.Node, report *v1alpha1.NodeFence, now time.Time) string {
	switch {
	case report == nil || report.Status.ObservedAt == nil:
		return "says nothing: is Davit's node process there?"
	case !ownedBy(report, node):
		return "its report is of an earlier node of this name"
	case now.Sub(report.Status.ObservedAt.Time) > evidenceFor:
		return "has said nothing since " + report.Status.ObservedAt.UTC().Format(time.RFC3339)
	}
	return report.Status.Problem
}

// fencedAt is why a node's report does not prove the fence; empty if it does.
func fencedAt(report *v1alpha1.NodeFence, app string, epoch int64) string {
	for _, a := range report.Status.Applications {
		switch {
		case a.Application != app:
			continue
		case a.Epoch < epoch:
			return "has not heard of the epoch yet"
		case a.Proven:
			return ""
		case a.Problem != "":
			return a.Problem
		}
		return unfinished(a)
	}
	return "has not heard of the epoch yet"
}

// unfinished says what of a fence is still to be done on a node.
func unfinished(a v1alpha1.FencedApplication) string {
	var all []string
	add := func(n int64, one, many string) {
		switch {
		case n == 1:
			all = append(all, "1 "+one)
		case n > 1:
			all = append(all, fmt.Sprintf("%d %s", n, many))
		}
	}
	add(int64(a.Running), "container still runs", "containers still run")
	add(int64(a.Open), "pod is not cut off", "pods are not cut off")
	if len(all) == 0 {
		return "runs nothing of it, and looks once more to be sure"
	}
	return strings.Join(all, ", ")
}

func ownedBy(report *v1alpha1.NodeFence, node *corev1.Node) bool {
	return slices.ContainsFunc(report.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == node.UID })
}

// fenceText is the level for people.
func (s *scope) fenceText() string {
	f := s.app.Status.Fence
	if f == nil {
		return string(v1alpha1.FenceAsked)
	}
	if f.Message != "" {
		return string(f.Level) + ": " + f.Message
	}
	return string(f.Level)
}

func (s *scope) measureFence() {
	name := s.app.VaultName()
	for _, level := range []v1alpha1.FenceLevel{v1alpha1.FenceProven, v1alpha1.FenceAsked} {
		if s.app.Status.Fence == nil {
			measure.FenceLevel.DeleteLabelValues(name, string(level))
			continue
		}
		is := 0.0
		if s.app.Status.Fence.Level == level {
			is = 1
		}
		measure.FenceLevel.WithLabelValues(name, string(level)).Set(is)
	}
}
