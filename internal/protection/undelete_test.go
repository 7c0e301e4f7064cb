package protection

import (
	"errors"
	"slices"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
)

const week = 7 * 24 * time.Hour

// delayed is a rig whose points stay for a week after they were deleted.
func delayed(t *testing.T) (*rig, []string) {
	t.Helper()
	r := newRig(t)
	r.east.opts.DeletionDelay, r.west.opts.DeletionDelay = week, week
	if _, err := r.east.ClaimFirst(t.Context(), "shop", "test"); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for range 3 {
		ids = append(ids, r.mustCapture().ID)
	}
	return r, ids
}

func (r *rig) expire(keep int) ExpireReport {
	r.t.Helper()
	report, err := r.east.Expire(r.t.Context(), "shop", point.Retention{KeepLast: keep}, 1, r.now)
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// ids are the points of the vault: those that may be offered, and all.
func (r *rig) ids() (good, all []string) {
	r.t.Helper()
	infos, points, err := r.east.Points(r.t.Context(), "shop")
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range infos {
		all = append(all, infos[i].ID)
		if points[i].Good() {
			good = append(good, infos[i].ID)
		}
	}
	return good, all
}

func TestDeletedPointsWaitAndGo(t *testing.T) {
	r, ids := delayed(t)
	if got := r.expire(1); len(got.Deleted) > 0 {
		t.Errorf("deleted %v", got.Deleted)
	}
	if good, all := r.ids(); !slices.Equal(good, ids[2:]) || !slices.Equal(all, ids) || len(r.repo.deleted) > 0 {
		t.Errorf("offered %v of %v, snapshots deleted %v", good, all, r.repo.deleted)
	}
	r.expire(1)
	if _, all := r.ids(); len(all) != 3 {
		t.Errorf("before the delay is over, there are %v", all)
	}
	r.now = r.now.Add(week + time.Minute)
	if got := r.expire(1); len(got.Deleted) != 2 {
		t.Errorf("deleted %v", got.Deleted)
	}
	if _, all := r.ids(); !slices.Equal(all, ids[2:]) {
		t.Errorf("after it there are %v", all)
	}
}

func TestUndeletedPointsAreOfferedAgain(t *testing.T) {
	r, ids := delayed(t)
	if err := r.east.Delete(t.Context(), "shop", ids[0], DeleteOptions{By: "slip of the pen"}); err != nil {
		t.Fatal(err)
	}
	if good, _ := r.ids(); slices.Contains(good, ids[0]) {
		t.Error("a deleted point is offered")
	}
	if err := r.west.Undelete(t.Context(), "shop", ids[0], "person"); err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(2 * week)
	r.expire(3)
	if good, _ := r.ids(); !slices.Equal(good, ids) {
		t.Errorf("offered %v", good)
	}
	// It can be deleted once more, and then the delay begins anew.
	if err := r.east.Delete(t.Context(), "shop", ids[0], DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.expire(3)
	if good, all := r.ids(); slices.Contains(good, ids[0]) || !slices.Contains(all, ids[0]) {
		t.Errorf("offered %v of %v", good, all)
	}
}

// TestUndeleteAgainstRemoval: whoever comes second sees the other. The control
// is a removal that does not look again.
func TestUndeleteAgainstRemoval(t *testing.T) {
	r, ids := delayed(t)
	r.expire(1)
	r.now = r.now.Add(week + time.Minute)
	infos, _, err := r.east.Points(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	late := infos[0] // as the remover read it, before somebody undeletes the point
	if err := r.west.Undelete(t.Context(), "shop", ids[0], "person"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.east.remove(t.Context(), "shop", late, "retention"); err != nil {
		t.Fatal(err)
	}
	if good, _ := r.ids(); !slices.Contains(good, ids[0]) {
		t.Error("an undeleted point was removed")
	}
	// The other way round: the removal has said its word.
	final := vault.Mark{Kind: vault.MarkDeleting, At: r.now, By: finalBy}
	if err := r.project.Mark(t.Context(), "shop", ids[1], final); err != nil {
		t.Fatal(err)
	}
	if err := r.west.Undelete(t.Context(), "shop", ids[1], "person"); !errors.Is(err, ErrRemoved) {
		t.Errorf("undeleted although it is being removed: %v", err)
	}
	r.east.opts.DeletionDelay = 0 // the control
	if _, err := r.east.remove(t.Context(), "shop", late, "retention"); err != nil {
		t.Fatal(err)
	}
	if _, all := r.ids(); slices.Contains(all, ids[0]) {
		t.Error("control: the removal looked although it does not")
	}
}
