package mover

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
)

// vigil watches whether one node is lost. A node that is not ready for a moment,
// as while its kubelet is restarted, is not.
type vigil struct {
	m     *Mover
	since time.Time // when it was first seen not ready; zero: it is well
}

// lost says why the node does nothing any more, by what the cluster knows of
// it. It is empty while the node is well, for as long as grace lasts, and where
// whoever asks may not know.
func (v *vigil) lost(ctx context.Context, node string) string {
	why := v.m.nodeTrouble(ctx, node)
	now := v.m.opts.Now()
	switch {
	case why == "":
		v.since = time.Time{}
		return ""
	case v.since.IsZero():
		v.since = now
	}
	if now.Sub(v.since) < v.m.opts.NodeGrace {
		return ""
	}
	return why
}

// orElsewhere adds to the error of a lost node whether another could do its
// work: one whose node process is ready.
func (m *Mover) orElsewhere(ctx context.Context, lost string, err error) error {
	var pods corev1.PodList
	if m.system.List(ctx, &pods, client.InNamespace(v1alpha1.SystemNamespace), client.MatchingLabels{NodeAppLabel: NodeAppName}) != nil {
		return err
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Spec.NodeName != lost && podReady(p) && m.nodeTrouble(ctx, p.Spec.NodeName) == "" {
			return fmt.Errorf("%w: %w", ErrElsewhere, err)
		}
	}
	return err
}

// nodeTrouble is why a node is not ready now, or empty.
func (m *Mover) nodeTrouble(ctx context.Context, name string) string {
	if name == "" {
		return ""
	}
	var node corev1.Node
	err := m.system.Get(ctx, client.ObjectKey{Name: name}, &node)
	if apierrors.IsNotFound(err) {
		return "node " + name + " is no node of the cluster any more"
	}
	if err != nil {
		return ""
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
			return fmt.Sprintf("node %s is lost: not ready since %s: %s: %s", name, c.LastTransitionTime.UTC().Format(time.RFC3339), c.Reason, c.Message)
		}
	}
	return ""
}
