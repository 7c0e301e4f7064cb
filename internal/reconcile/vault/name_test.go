package vault

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/vault"
)

// TestASecondClusterOfTheNameLeavesItToTheFirst: neither its sign of life nor
// what the first one's objects say changes.
func TestASecondClusterOfTheNameLeavesItToTheFirst(t *testing.T) {
	for _, c := range []struct {
		bearer, reason, after string
	}{
		{"a", v1alpha1.ReasonNameTaken, "a"},
		{"b", v1alpha1.ReasonSucceeded, "b"},
		{"", v1alpha1.ReasonSucceeded, "b"}, // of a version that knew no clusters
	} {
		s := newSite(t)
		s.ClusterID = "b"
		if err := s.project.Heartbeat(t.Context(), vault.SiteStatus{Site: "west", Cluster: c.bearer, KubeVersion: "v1.30.0"}); err != nil {
			t.Fatal(err)
		}
		v := s.look()
		ready := meta.FindStatusCondition(v.Status.Conditions, v1alpha1.ConditionReady)
		sign, err := s.project.Site(t.Context(), "west")
		if err != nil || ready.Reason != c.reason || sign.Cluster != c.after || !meta.IsStatusConditionTrue(v.Status.Conditions, v1alpha1.ConditionReachable) {
			t.Errorf("bearer %q: %+v, sign %+v, %v", c.bearer, ready, sign, err)
		}
		if c.reason != v1alpha1.ReasonSucceeded {
			continue
		}
		var site v1alpha1.Site
		if err := s.Client.Get(t.Context(), client.ObjectKey{Name: "west"}, &site); err != nil || site.Status.ClusterID != "b" {
			t.Errorf("bearer %q: %+v, %v", c.bearer, site.Status, err)
		}
	}
}
