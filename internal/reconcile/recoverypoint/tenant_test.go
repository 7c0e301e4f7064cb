package recoverypoint

import (
	"testing"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/reconcile/project"
)

// TestATenantsLabelDeletesNothingOfOthers: whoever may write RecoveryPoints in
// a namespace labels one as a point of shop, which is not that namespace's.
func TestATenantsLabelDeletesNothingOfOthers(t *testing.T) {
	for _, c := range []struct {
		namespace string
		left      int
	}{
		{"guest", 2},
		{v1alpha1.SystemNamespace, 1}, // the control: shop's own
	} {
		rp := request("p1", v1alpha1.PointAvailable)
		rp.Namespace = c.namespace
		rp.Annotations = map[string]string{project.AnnotationDelete: "last-good"}
		s := newSite(t, rp)
		s.claim("east")
		s.publish("p1")
		s.publish("p2")
		if _, err := s.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(rp)}); err != nil {
			t.Fatal(err)
		}
		if got := s.inVault(); got != c.left {
			t.Errorf("asked for in %s: %d points of shop left, want %d", c.namespace, got, c.left)
		}
	}
}
