package protection

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/reading"
)

// restoring begins to read a point at another site.
func (r *rig) restoring(id string) *reading.Session {
	r.t.Helper()
	s, err := reading.Begin(r.t.Context(), reading.Work{Project: r.project, Application: "shop", Point: id, By: "restore r1", For: "Restore davit-system/copy", Site: "west"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(s.Leave)
	return s
}

// beingRead are three points, of which the first is being read, and is not the last good one.
func beingRead(t *testing.T) (*rig, []string, *reading.Session) {
	t.Helper()
	r := newRig(t)
	r.claim()
	var ids []string
	for range 3 {
		ids = append(ids, r.mustCapture().ID)
	}
	return r, ids, r.restoring(ids[0])
}

// TestWhatIsReadDoesNotExpire: it is left as it is, volumes and all, and goes with
// the next expiry after its reader.
func TestWhatIsReadDoesNotExpire(t *testing.T) {
	r, ids, session := beingRead(t)
	report := r.expire(1)
	if !slices.Equal(report.Deleted, ids[1:2]) || len(report.Read) != 1 || report.Read[0].Point != ids[0] {
		t.Errorf("deleted %v, left %+v", report.Deleted, report.Read)
	}
	good, _ := r.ids()
	if !slices.Equal(good, []string{ids[0], ids[2]}) {
		t.Errorf("offered are %v: a restore that is begun again finds its point no more", good)
	}
	m, err := r.project.Manifest(t.Context(), "shop", ids[0])
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(r.repo.deleted, m.Volumes[0].Snapshot.ID) {
		t.Error("the snapshot of a point that is read is gone")
	}
	if err := r.reclaim(); err != nil || !r.repo.data[m.Volumes[0].Snapshot.ID] {
		t.Errorf("maintenance took the snapshot of a point that is read: %v", err)
	}
	session.Done(t.Context())
	if report := r.expire(1); !slices.Equal(report.Deleted, ids[:1]) || len(report.Read) > 0 {
		t.Errorf("after the reader: deleted %v, left %+v", report.Deleted, report.Read)
	}
	if left := r.keys("reading"); len(left) > 0 {
		t.Errorf("notes are left: %v", left)
	}
}

// TestWhatIsReadIsNotDeleted unless a person insists. That is the control: the data
// of the reader is gone then.
func TestWhatIsReadIsNotDeleted(t *testing.T) {
	r, ids, _ := beingRead(t)
	m, err := r.project.Manifest(t.Context(), "shop", ids[0])
	if err != nil {
		t.Fatal(err)
	}
	_, asked := r.east.Deletable(t.Context(), "shop", ids[0], DeleteOptions{})
	err = r.east.Delete(t.Context(), "shop", ids[0], DeleteOptions{By: "person"})
	for _, err := range []error{asked, err} {
		if !errors.Is(err, reading.ErrRead) || !strings.Contains(err.Error(), "by restore r1 of Restore davit-system/copy at site west until ") {
			t.Errorf("refused with %v", err)
		}
	}
	if err := r.east.Delete(t.Context(), "shop", ids[0], DeleteOptions{By: "person", Read: true}); err != nil {
		t.Fatal(err)
	}
	if _, all := r.ids(); slices.Contains(all, ids[0]) || !slices.Contains(r.repo.deleted, m.Volumes[0].Snapshot.ID) {
		t.Errorf("control: it is still there, of %v", all)
	}
}

// TestWhatIsReadOutlivesItsDelay, and what a removal that died left is picked up by the next.
func TestWhatIsReadOutlivesItsDelay(t *testing.T) {
	r, ids := delayed(t)
	r.expire(1)
	session := r.restoring(ids[0]) // as one that began before it was deleted
	r.now = r.now.Add(2 * week)
	if gone, err := r.east.RemoveDeleted(t.Context(), "shop", 1); err != nil || !slices.Equal(gone, ids[1:2]) {
		t.Errorf("removed %v, %v", gone, err)
	}
	session.Done(t.Context())
	// A removal dies right after its word that parts may be gone.
	if err := r.project.Mark(t.Context(), "shop", ids[0], vault.Mark{Kind: vault.MarkDeleting, By: begunBy}); err != nil {
		t.Fatal(err)
	}
	if _, err := reading.Begin(t.Context(), reading.Work{Project: r.project, Application: "shop", Point: ids[0]}); !errors.Is(err, reading.ErrLeaving) {
		t.Errorf("a point of which parts may be gone is read: %v", err)
	}
	if gone, err := r.west.RemoveDeleted(t.Context(), "shop", 0); err == nil || len(gone) > 0 {
		t.Errorf("without the epoch: removed %v, %v", gone, err)
	}
	if gone, err := r.east.RemoveDeleted(t.Context(), "shop", 1); err != nil || !slices.Equal(gone, ids[:1]) {
		t.Errorf("removed %v, %v", gone, err)
	}
}

// TestARemovalThatCannotBegin leaves the point whole, and its claim for a while: the
// mark may arrive yet. A reader waits some seconds for it to stand back.
func TestARemovalThatCannotBegin(t *testing.T) {
	r, ids, session := beingRead(t)
	session.Done(t.Context())
	infos, _, err := r.east.Points(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	lost := &nth{Store: r.store, n: 2, before: func() error { return vault.ErrUnavailable }} // it may be there
	r.east.freeing = r.project.Over(func(vault.Store) vault.Store { return lost })
	if gone, err := r.east.remove(t.Context(), "shop", infos[0], removal{why: "retention", open: r.east.freeVolumes}); err == nil || gone {
		t.Fatalf("removed %v without a word: %v", gone, err)
	}
	if _, err := reading.Begin(t.Context(), reading.Work{Project: r.project, Application: "shop", Point: ids[0]}); !errors.Is(err, reading.ErrLeaving) {
		t.Errorf("a reader got in before the mark that may arrive yet: %v", err)
	}
	r.east = r.site("east")
	if gone := r.expire(1).Deleted; len(gone) != 2 {
		t.Errorf("the next expiry removed %v, want %v", gone, ids[:2])
	}
	if report := r.expire(1); len(report.Deleted) > 0 || len(report.Read) > 0 {
		t.Errorf("and then %+v", report)
	}
}

// TestARemovalThatWasPausedForLong between its claim and its word that parts may be gone:
// a reader that began meanwhile keeps the point until he has done, and after that it goes.
// The control is the same pause without a reader.
func TestARemovalThatWasPausedForLong(t *testing.T) {
	for _, read := range []bool{true, false} {
		r, ids, before := beingRead(t)
		before.Done(t.Context())
		infos, _, err := r.east.Points(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		m := infos[0].Manifest
		var session *reading.Session
		paused := &nth{Store: r.store, n: 2, before: func() error {
			r.ahead.Add(int64(4 * time.Hour)) // the store's clock: this process' own stood still
			if read {
				session = r.restoring(ids[0])
			}
			return nil
		}}
		r.east.freeing = r.project.Over(func(vault.Store) vault.Store { return paused })
		gone, err := r.east.remove(t.Context(), "shop", infos[0], removal{why: "retention", open: r.east.freeVolumes})
		if gone == read || errors.Is(err, reading.ErrRead) != read {
			t.Fatalf("read %v: removed %v: %v", read, gone, err)
		}
		if !read {
			continue
		}
		if _, err := r.project.Manifest(t.Context(), "shop", ids[0]); err != nil || slices.Contains(r.repo.deleted, m.Volumes[0].Snapshot.ID) {
			t.Errorf("parts of a point that is read are gone: %v", err)
		}
		r.east = r.site("east")
		if report := r.expire(1); !slices.Equal(report.Deleted, ids[1:2]) || len(report.Read) != 1 {
			t.Errorf("while it is read: %+v", report)
		}
		session.Done(t.Context())
		if report := r.expire(1); !slices.Equal(report.Deleted, ids[:1]) || !slices.Contains(r.repo.deleted, m.Volumes[0].Snapshot.ID) {
			t.Errorf("after the reader: %+v", report)
		}
	}
}
