package copies

import (
	"errors"
	"slices"
	"testing"

	"davit.dev/davit/internal/vault"
)

// TestCopyFollowsRotation rotates the keys of the first vault, removing a
// site: the copy opens for those who stay, old and new points are whole in it,
// and who was removed opens nothing new there either.
func TestCopyFollowsRotation(t *testing.T) {
	r := newRig(t)
	var err error
	if r.p, err = vault.OpenProject(t.Context(), r.first, "default", r.key); err != nil {
		t.Fatal(err)
	}
	site, err := vault.Admit(t.Context(), r.p)
	if err != nil {
		t.Fatal(err)
	}
	r.publish("p1", 1, true)
	r.pass(app())
	kept, err := site.Open(t.Context(), r.second) // he keeps what he has read
	if err != nil {
		t.Fatal(err)
	}
	if _, err = r.p.Rotate(t.Context(), vault.Rotation{Volumes: true, Remove: []vault.Recipient{site.Identity.Recipient()}}); err != nil {
		t.Fatal(err)
	}
	r.repo = nil // captures begin a new repository
	if m := r.publish("p2", 1, true); m.Volumes[0].Snapshot.Repository != "east_2" {
		t.Errorf("captured into repository %s, want east_2", m.Volumes[0].Snapshot.Repository)
	}
	r.pass(app())
	if got := r.whole(); !slices.Equal(got, []string{"p1", "p2"}) {
		t.Errorf("whole in the copy: %v", got)
	}
	if _, err := kept.Manifest(t.Context(), "shop", "p1"); err != nil {
		t.Errorf("the removed one, of a point from before: %v", err)
	}
	if _, err := kept.Manifest(t.Context(), "shop", "p2"); !errors.Is(err, vault.ErrKey) {
		t.Errorf("the removed one, of a new point: %v, want ErrKey", err)
	}
	if _, err := site.Open(t.Context(), r.second); !errors.Is(err, vault.ErrKey) {
		t.Errorf("the removed one opened the copy: %v", err)
	}
}
