package application

import (
	"fmt"
	"strings"
	"testing"

	"davit.dev/davit/api/v1alpha1"
)

// TestEpochsThatGoBackChangeNoRole: somebody deletes epochs, or puts an older state of
// the vault back. Who was superseded does not become the writer, who writes is not told
// to stop, and nothing is claimed in the gap.
func TestEpochsThatGoBackChangeNoRole(t *testing.T) {
	for name, c := range map[string]struct {
		claims  []string
		deleted int // of the newest
		want    v1alpha1.Role
		damaged bool
	}{
		"superseded, by an epoch that is gone": {[]string{"east", "west"}, 1, v1alpha1.RoleSuperseded, true},
		"superseded, and all are gone":         {[]string{"east", "west"}, 2, v1alpha1.RoleSuperseded, true},
		"active, and its epoch is gone":        {[]string{"west", "east"}, 1, v1alpha1.RoleActive, true},
		"active, and all are gone":             {[]string{"west", "east"}, 2, v1alpha1.RoleActive, false},
		"active, as before":                    {[]string{"east", "west", "east", "east"}, 1, v1alpha1.RoleActive, false},
		"standby, and all are gone":            {[]string{"west"}, 1, v1alpha1.RoleStandby, false},
		"negative control: nothing is deleted": {[]string{"east", "west"}, 0, v1alpha1.RoleSuperseded, false},
	} {
		app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}})
		s := newSite(t, "", app, web("shop"))
		s.claim("shop", c.claims...)
		if got := s.reconcile(app); got.Status.Role != c.want || got.Status.Epoch != int64(len(c.claims)) {
			t.Fatalf("%s: at first %s, epoch %d", name, got.Status.Role, got.Status.Epoch)
		}
		for n := len(c.claims); n > len(c.claims)-c.deleted; n-- {
			if err := s.project.Store().Delete(t.Context(), fmt.Sprintf("%sepochs/shop/%020d", s.project.Root(), n)); err != nil {
				t.Fatal(err)
			}
		}
		got := s.reconcile(app)
		why := ""
		for _, condition := range got.Status.Conditions {
			if condition.Type == v1alpha1.ConditionReady && condition.Reason == v1alpha1.ReasonDamaged {
				why = condition.Message
			}
		}
		if damaged := strings.Contains(why, fmt.Sprintf("and %d, of site", len(c.claims))); got.Status.Role != c.want || damaged != c.damaged {
			t.Errorf("%s: %s, epoch %d: %q", name, got.Status.Role, got.Status.Epoch, why)
		}
		left, err := s.project.EpochNumbers(t.Context(), "shop")
		if most := len(c.claims) - c.deleted; err != nil || len(left) > most && c.want != v1alpha1.RoleActive {
			t.Errorf("%s: epochs %v, %v", name, left, err)
		}
	}
}
