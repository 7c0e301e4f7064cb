package protection

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
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
	report, err := r.east.Expire(r.t.Context(), "shop", point.Retention{KeepLast: keep}, 1, r.now, 0)
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

// TestDeletedPointsGoWithoutCaptures: when the delay is over, or was made
// shorter, and only then; a superseded site removes nothing.
func TestDeletedPointsGoWithoutCaptures(t *testing.T) {
	r, ids := delayed(t)
	remove := func(want ...string) {
		t.Helper()
		if gone, err := r.east.RemoveDeleted(t.Context(), "shop", 1); err != nil || !slices.Equal(gone, want) {
			t.Errorf("removed %v, want %v: %v", gone, want, err)
		}
	}
	for _, id := range ids[:2] {
		if err := r.east.Delete(t.Context(), "shop", id, DeleteOptions{By: "person"}); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	if err := r.east.Undelete(t.Context(), "shop", ids[1], "person"); err != nil {
		t.Fatal(err)
	}
	r.east.opts.DeletionDelay = time.Second // somebody shortens it
	if gone, err := r.east.RemoveDeleted(t.Context(), "shop", 0); err == nil || len(gone) > 0 {
		t.Errorf("without the epoch: removed %v, %v", gone, err)
	}
	remove(ids[0])
	if good, all := r.ids(); !slices.Equal(all, ids[1:]) || !slices.Equal(good, ids[1:]) {
		t.Errorf("offered %v of %v", good, all)
	}
	remove()
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
	if _, err := r.east.remove(t.Context(), "shop", late, removal{why: "retention", open: r.east.freeVolumes}); err != nil {
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
	if _, err := r.east.remove(t.Context(), "shop", late, removal{why: "retention", open: r.east.freeVolumes}); err != nil {
		t.Fatal(err)
	}
	if _, all := r.ids(); slices.Contains(all, ids[0]) {
		t.Error("control: the removal looked although it does not")
	}
}

// TestPinAgainstRemoval: a removal goes by a list that may be old. A point that was
// pinned since keeps its data, and is offered; whoever pins it too late is told, and
// the removal ends. The control are the two that are pinned as late as can be.
func TestPinAgainstRemoval(t *testing.T) {
	for name, test := range map[string]struct {
		delay time.Duration
		at    int // the deleting mark of the removal right before which the pin comes; 0: before all
		stays bool
	}{
		"before, no delay":          {0, 0, true},
		"before its word, no delay": {0, 1, true},
		"too late, no delay":        {0, 2, false},
		"before the delay":          {week, 0, true},
		"after the delay":           {week, 1, true},
		"too late, after the delay": {week, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, ids := delayed(t)
			r.east.opts.DeletionDelay = test.delay
			if test.delay > 0 && test.at > 0 {
				r.expire(2)
				r.now = r.now.Add(week + time.Minute)
			}
			infos, _, err := r.east.Points(t.Context(), "shop")
			if err != nil {
				t.Fatal(err)
			}
			var told error
			pin := func() error {
				told = Pin(t.Context(), r.project, "shop", ids[0], vault.Mark{Site: "west", By: "person"})
				return nil
			}
			if test.at == 0 {
				_ = pin()
			}
			r.east.freeing = r.project.Over(func(s vault.Store) vault.Store { return &nth{Store: s, n: test.at, before: pin} })
			gone, err := r.east.remove(t.Context(), "shop", infos[0], removal{why: "retention", open: r.east.freeVolumes})
			snapshot := infos[0].Manifest.Volumes[0].Snapshot.ID
			if !test.stays {
				if !gone || err != nil || !errors.Is(told, ErrRemoved) || !slices.Contains(r.repo.deleted, snapshot) {
					t.Errorf("removed %v: %v; who pinned it was told %v", gone, err, told)
				}
				return
			}
			if gone || !errors.Is(err, vault.ErrPinned) || slices.Contains(r.repo.deleted, snapshot) {
				t.Fatalf("removed %v, snapshots %v: %v", gone, r.repo.deleted, err)
			}
			good, all := r.ids()
			if !slices.Contains(all, ids[0]) || (test.delay == 0 || test.at == 0) && !slices.Contains(good, ids[0]) {
				t.Errorf("offered are %v of %v, want %s", good, all, ids[0])
			}
			r.east = r.site("east")
			r.expire(1)
			if _, all := r.ids(); !slices.Contains(all, ids[0]) {
				t.Error("the next expiry removed a pinned point")
			}
		})
	}
}

// nth is a store in which something happens before the nth deleting mark is written.
type nth struct {
	vault.Store
	n      int
	before func() error
}

func (s *nth) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if strings.Contains(key, "/"+string(vault.MarkDeleting)+"-") {
		if s.n--; s.n == 0 {
			if err := s.before(); err != nil {
				return err
			}
		}
	}
	return s.Store.PutIfAbsent(ctx, key, r, size)
}

// raced is a store in which something happens right before an undeletion is
// written. From then on it may be dead: it deletes nothing.
type raced struct {
	vault.Store
	before func()
	dies   bool
}

var errDied = errors.New("died")

func (s *raced) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if strings.Contains(key, "/"+string(vault.MarkUndeleted)+"-") {
		s.before()
	}
	return s.Store.PutIfAbsent(ctx, key, r, size)
}

func (s *raced) Delete(ctx context.Context, key string) error {
	if s.dies {
		return errDied
	}
	return s.Store.Delete(ctx, key)
}

// TestAGuttedPointIsNeverOfferedAgain: a removal has deleted snapshots and
// dies, while a person undeletes, who is told or dies too.
func TestAGuttedPointIsNeverOfferedAgain(t *testing.T) {
	for name, test := range map[string]struct {
		dies  bool
		delay time.Duration
		marks []string // left of the undeletion
	}{
		"told":                      {false, week, nil},
		"dies before it looks back": {true, week, []string{"person"}},
		"no delay":                  {false, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r, ids := delayed(t)
			r.expire(2)
			r.now = r.now.Add(week + time.Minute)
			r.east.opts.DeletionDelay, r.repo.onDelete = test.delay, errDied
			remove := func() {
				_, err := r.east.Expire(t.Context(), "shop", point.Retention{KeepLast: 2}, 1, r.now, 0)
				if !errors.Is(err, errDied) || len(r.repo.deleted) == 0 {
					t.Fatalf("the removal did not begin: %v", err)
				}
			}
			r.west.opts.Project = r.project.Over(func(s vault.Store) vault.Store {
				return &raced{Store: s, before: remove, dies: test.dies}
			})
			if err := r.west.Undelete(t.Context(), "shop", ids[0], "person"); !errors.Is(err, ErrRemoved) {
				t.Errorf("undeleted: %v", err)
			}
			if got := r.undeletions(ids[0]); !slices.Equal(got, test.marks) {
				t.Errorf("left of the undeletion: %v, want %v", got, test.marks)
			}
			for range 3 { // while the repository is still in trouble
				r.now = r.now.Add(2 * week)
				remove()
				if good, _ := r.ids(); slices.Contains(good, ids[0]) {
					t.Fatal("a point is offered whose snapshots are gone")
				}
			}
			r.repo.onDelete = nil
			r.expire(2)
			if _, all := r.ids(); slices.Contains(all, ids[0]) {
				t.Error("the removal was not finished")
			}
		})
	}
}

func (r *rig) undeletions(id string) (by []string) {
	r.t.Helper()
	marks, err := r.project.Marks(r.t.Context(), "shop", id)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, m := range marks {
		if m.Kind == vault.MarkUndeleted {
			by = append(by, m.By)
		}
	}
	return by
}

// TestClockThatJumpsRemovesNothing: a site's clock that is set a year forward makes no
// point old, and no deletion delay pass. The control: when the vault's clock says so too,
// they go.
func TestClockThatJumpsRemovesNothing(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, vaults := range []time.Duration{0, year} {
		r, ids := delayed(t)
		r.ahead.Store(int64(time.Until(r.now)))
		if err := r.east.Delete(t.Context(), "shop", ids[0], DeleteOptions{By: "slip of the pen"}); err != nil {
			t.Fatal(err)
		}
		r.now = r.now.Add(year)
		r.ahead.Add(int64(vaults))
		gone, err := r.east.RemoveDeleted(t.Context(), "shop", 1)
		if err != nil || (len(gone) == 0) != (vaults == 0) {
			t.Errorf("the vault's clock %s ahead: removed %v, %v", vaults, gone, err)
		}
		r.east.opts.DeletionDelay = 0
		report, err := r.east.Expire(t.Context(), "shop", point.Retention{MaxAge: 30 * 24 * time.Hour}, 1, r.now, 0)
		if err != nil || slices.Contains(report.Deleted, ids[1]) != (vaults > 0) || slices.Contains(report.Deleted, ids[2]) {
			t.Errorf("the vault's clock %s ahead: %v expired, %v", vaults, report.Deleted, err)
		}
	}
}

// TestManyExpire: however many points expire at once, their repository is opened once, and
// the application's next capture does not wait for all of them.
func TestManyExpire(t *testing.T) {
	r := newRig(t)
	r.claim()
	for range 40 {
		r.mustCapture()
	}
	opened, closed := 0, 0
	r.east.freeVolumes = func(context.Context, string, bool) (Repository, error) {
		opened++
		return closing{r.repo, &closed}, nil
	}
	const second = time.Second // by the rig's clock, each look at it takes one
	report, err := r.east.Expire(t.Context(), "shop", point.Retention{KeepLast: 1}, 1, r.now, 30*second)
	if err != nil || len(report.Deleted) == 0 || report.Left == 0 || len(report.Deleted)+report.Left != 39 || opened != 1 || closed != 1 {
		t.Errorf("%d deleted, %d left, opened %d times and closed %d times, %v", len(report.Deleted), report.Left, opened, closed, err)
	}
	if good, _ := r.ids(); len(good) != 1+report.Left {
		t.Errorf("%d points are there, and %d were left", len(good), report.Left)
	}
	report, err = r.east.Expire(t.Context(), "shop", point.Retention{KeepLast: 1}, 1, r.now, 0)
	if good, _ := r.ids(); err != nil || report.Left != 0 || len(good) != 1 || opened != 2 || closed != 2 {
		t.Errorf("without a limit %d points are there, %+v, opened %d times and closed %d times, %v", len(good), report, opened, closed, err)
	}
}

// closing counts how often it is closed.
type closing struct {
	Repository
	closed *int
}

// Close counts.
func (c closing) Close(ctx context.Context) error {
	*c.closed++
	return c.Repository.Close(ctx)
}
