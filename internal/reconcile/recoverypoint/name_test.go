package recoverypoint

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/vault"
)

// TestTheOtherClusterOfANameIsNamed: "superseded by site east" says nothing to
// whoever is at site east. Without a second cluster nothing is said of names.
func TestTheOtherClusterOfANameIsNamed(t *testing.T) {
	for bearer, named := range map[string]bool{"uid-1": true, "uid-2": false} {
		s := newSite(t, request("p1", ""))
		s.protector = protection.New(protection.Options{Project: s.project, Site: "east", ClusterID: "uid-2", Cluster: s.cluster})
		claim := lease.Claim{Site: "east", Cluster: "uid-1", Request: "r"}
		if _, err := lease.New(s.project).Claim(t.Context(), "shop", 1, claim); err != nil {
			t.Fatal(err)
		}
		if err := s.project.Heartbeat(t.Context(), vault.SiteStatus{Site: "east", Cluster: bearer}); err != nil {
			t.Fatal(err)
		}
		s.reconcile("p1")
		got := s.all()["p1"]
		c := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady)
		if c == nil || c.Reason != v1alpha1.ReasonSuperseded || !strings.Contains(c.Message, "site east (cluster uid-1)") || strings.Contains(c.Message, "give this cluster a name of its own") != named {
			t.Errorf("the name is borne by %s: %+v", bearer, c)
		}
	}
}
