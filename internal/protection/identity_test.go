package protection

import (
	"errors"
	"testing"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/vault"
)

// named is a protector of one of several clusters under the name east.
func (r *rig) named(id string) *Protector {
	p := r.site("east")
	p.opts.ClusterID = id
	return p
}

// TestTwoClustersOfAName: only the one that claimed holds the epoch.
func TestTwoClustersOfAName(t *testing.T) {
	for _, c := range []struct {
		name, first, second string
		role                v1alpha1.Role // of the second
	}{
		{"each with its id", "a", "b", v1alpha1.RoleStandby},
		{"without ids", "", "", v1alpha1.RoleActive}, // the harm: both capture
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			first, second := r.named(c.first), r.named(c.second)
			if s, err := first.ClaimFirst(t.Context(), "shop", "test"); err != nil || s.Role != v1alpha1.RoleActive {
				t.Fatalf("%+v, %v", s, err)
			}
			s, err := second.ClaimFirst(t.Context(), "shop", "test")
			if err != nil || s.Role != c.role {
				t.Errorf("second: %+v, %v; want %s", s, err, c.role)
			}
		})
	}
}

// TestUnderAnothersNameNothingIsWritten: the displaced cluster still holds its
// epoch, and the newcomer has none.
func TestUnderAnothersNameNothingIsWritten(t *testing.T) {
	r := newRig(t)
	old, replacement := r.named("a"), r.named("b")
	if _, err := old.ClaimFirst(t.Context(), "shop", "test"); err != nil {
		t.Fatal(err)
	}
	request := CaptureRequest{Application: application(), Trigger: "manual", Held: 1}
	if _, err := old.Capture(t.Context(), request); err != nil { // while the name is its own
		t.Fatal(err)
	}
	if err := lease.Beat(t.Context(), r.project, vault.SiteStatus{Site: "east", Cluster: "b"}); err != nil {
		t.Fatal(err)
	}
	before := len(r.keys("manifests"))
	if _, err := old.Capture(t.Context(), request); !errors.Is(err, lease.ErrNameTaken) || len(r.keys("manifests")) != before {
		t.Errorf("capture under another's name: %v", err)
	}
	if s, err := old.ClaimFirst(t.Context(), "other", "test"); !errors.Is(err, lease.ErrNameTaken) || s.Role != v1alpha1.RoleStandby || len(r.keys("epochs/other")) > 0 {
		t.Errorf("first claim under another's name: %+v, %v", s, err)
	}
	if _, err := old.Reclaim(t.Context(), false); !errors.Is(err, lease.ErrNameTaken) || r.repo.maintain != 0 {
		t.Errorf("reclaim under another's name: %v, %d", err, r.repo.maintain)
	}
	if _, err := replacement.Reclaim(t.Context(), false); err != nil || r.repo.maintain != 1 {
		t.Errorf("reclaim under its own: %v, %d", err, r.repo.maintain)
	}
	if s, err := old.Standing(t.Context(), "shop"); err != nil || s.Role != v1alpha1.RoleActive {
		t.Errorf("standing: %+v, %v; a name alone fences nothing", s, err)
	}
	next := lease.Claim{Site: "east", Cluster: "b", Request: "take-over", At: time.Unix(0, 0)}
	if _, err := lease.New(r.project).Claim(t.Context(), "shop", 2, next); err != nil {
		t.Fatal(err)
	}
	s, err := old.Standing(t.Context(), "shop")
	if err != nil || s.Role != v1alpha1.RoleSuperseded || old.Holder(s) != "another cluster (b) under this site's name east" {
		t.Errorf("standing of the replaced cluster: %+v, %v", s, err)
	}
}
