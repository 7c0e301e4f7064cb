package lifting_test

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/fence/lifting"
)

// TestWhoKeepsAFence: whoever says so, for whatever reason, and said so lately.
func TestWhoKeepsAFence(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	says := func(node string, ago time.Duration, app, reason string) v1alpha1.NodeFence {
		at := metav1.NewTime(now.Add(-ago))
		return v1alpha1.NodeFence{
			ObjectMeta: metav1.ObjectMeta{Name: node},
			Status:     v1alpha1.NodeFenceStatus{ObservedAt: &at, Applications: []v1alpha1.FencedApplication{{Application: app, Reason: reason}}},
		}
	}
	got := lifting.Keepers([]v1alpha1.NodeFence{
		says("two", 0, "shop", "lease over"), says("one", 20*time.Second, "shop", "superseded"),
		says("silent", 2*time.Minute, "shop", "superseded"), says("another's", 0, "bank", "superseded"),
		{},
	}, "shop", now)
	want := []string{"node one has not lifted its fence yet (superseded)", "node two has not lifted its fence yet (lease over)"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
