package freezer

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
)

// TestFlush: what nodes get ready to freeze they have flushed. Nothing is frozen, and no
// order is left.
func TestFlush(t *testing.T) {
	for name, test := range map[string]struct {
		objects []client.Object
		ends    bool
		want    bool
	}{
		"in use on two nodes": {objects: []client.Object{pod("a", "east-1", corev1.PodRunning, "a"), pod("b", "east-2", corev1.PodRunning, "b")}, want: true},
		"one in no use":       {objects: []client.Object{pod("a", "east-1", corev1.PodRunning, "a"), pod("b", "east-1", corev1.PodSucceeded, "b")}},
		"refused":             {objects: []client.Object{pod("a", "east-1", corev1.PodRunning, "a", "b")}, ends: true},
		"no node process":     {objects: []client.Object{pod("a", "east-1", corev1.PodRunning, "a", "b"), process("east-2", corev1.ConditionTrue, time.Unix(1, 0))}},
	} {
		t.Run(name, func(t *testing.T) {
			f, n := rig(t, func(n *nodes) { n.refuses = test.ends }, test.objects...)
			if got := f.Flush(t.Context(), request(plansOf("a", "b"))); got != test.want {
				t.Errorf("flushed: %v, want %v", got, test.want)
			}
			if slices.ContainsFunc(n.noted(), func(call string) bool { return !strings.HasPrefix(call, string(v1alpha1.OrderArm)+" ") }) {
				t.Errorf("nodes were told to %v", n.noted())
			}
			if left(t, f) > 0 {
				t.Error("an order is left")
			}
		})
	}
}
