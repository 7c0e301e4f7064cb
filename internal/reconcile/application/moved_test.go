package application

import (
	"testing"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/protection"
)

// TestAMovedSiteStopsWhatItRan: it held the application in a lost vault, came over to the
// promoted one, where others hold it, and noted that. The control: a site that noted nothing
// takes itself for a standby, and what it ran runs on.
func TestAMovedSiteStopsWhatItRan(t *testing.T) {
	for noted, want := range map[bool]struct {
		role     v1alpha1.Role
		replicas int32
	}{true: {v1alpha1.RoleSuperseded, 0}, false: {v1alpha1.RoleStandby, 2}} {
		app := shop("shop", v1alpha1.ApplicationSpec{})
		app.Status = v1alpha1.ApplicationStatus{Role: v1alpha1.RoleActive, Epoch: 1, HeldEpoch: 1} // of the lost vault
		s := newSite(t, "cloud", app, web("shop"))
		s.Vaults = access{s.project, protection.New(protection.Options{Project: s.project, Site: "east", ClusterID: "e", VaultDomain: "hall", SiteDomain: "cloud"})}
		s.claim(app.VaultName(), "west", "west-2")
		if noted {
			m := lease.Moved{Application: app.VaultName(), Site: "east", Cluster: "e", Lost: "lost", Request: "promotion-1", Held: 1, Seen: 1, At: time.Now()}
			if err := lease.Note(t.Context(), s.project, m); err != nil {
				t.Fatal(err)
			}
		}
		got := s.reconcile(app)
		if n := s.replicas("shop"); got.Status.Role != want.role || n != want.replicas || (got.Status.Fence != nil) != noted || (got.Status.HeldEpoch == 1) != noted {
			t.Errorf("noted %v: %d replicas, %+v", noted, n, got.Status)
		}
	}
}
