package protection

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/listed"
)

// claimAlso makes east the writer of another application.
func (r *rig) claimAlso(app string) {
	r.t.Helper()
	if _, err := r.east.ClaimFirst(r.t.Context(), app, "test"); err != nil {
		r.t.Fatal(err)
	}
	other := application()
	other.Name = app
	_, err := r.east.Capture(r.t.Context(), CaptureRequest{Application: other, Trigger: "manual", Held: 1})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) reclaim() error {
	r.t.Helper()
	before := r.repo.maintain
	_, err := r.east.Reclaim(r.t.Context(), true)
	if (err == nil) != (r.repo.maintain > before) {
		r.t.Errorf("Reclaim returned %v after %d maintenances", err, r.repo.maintain-before)
	}
	return err
}

// TestReclaimGoesOnBesideASupersededApplication: one application that runs
// elsewhere now must not stop the space of all others from being freed, and
// what the other site needs stays.
func TestReclaimGoesOnBesideASupersededApplication(t *testing.T) {
	r := newRig(t)
	r.claim()
	needed := r.mustCapture()
	r.claimAlso("bank")
	r.takeOver()
	if err := r.reclaim(); err != nil {
		t.Fatalf("with one of two applications superseded: %v", err)
	}
	if !r.repo.data[needed.Volumes[0].Snapshot.ID] {
		t.Error("the data of a point that the other site may restore is gone")
	}
	claim := lease.Claim{Site: "west", Request: "bank"}
	if _, err := lease.New(r.project).Claim(t.Context(), "bank", 2, claim); err != nil {
		t.Fatal(err)
	}
	r.east = r.site("east") // forgets the guard's answer
	if err := r.reclaim(); !errors.Is(err, lease.ErrSuperseded) {
		t.Errorf("with all applications superseded: %v, want ErrSuperseded", err)
	}
}

// TestReclaimSparesWhatAPointNeeds: a snapshot that points of another site's
// application need is not listed, as after an index blob was lost.
func TestReclaimSparesWhatAPointNeeds(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(r *rig, id string)
		allowed bool
	}{
		"needed":   {func(*rig, string) {}, false},
		"pinned":   {func(r *rig, id string) { r.mark(id, vault.MarkPinned) }, false},
		"deleting": {func(r *rig, id string) { r.mark(id, vault.MarkDeleting) }, true},
		"deleted": {func(r *rig, id string) {
			if err := r.project.DeletePoint(r.t.Context(), "shop", id); err != nil {
				r.t.Fatal(err)
			}
		}, true},
	} {
		r := newRig(t)
		r.claim()
		m := r.mustCapture()
		r.claimAlso("bank")
		r.takeOver()
		snapshot := m.Volumes[0].Snapshot.ID
		r.repo.data = map[string]bool{snapshot: true}
		r.repo.lost = map[string]bool{snapshot: true}
		test.prepare(r, m.ID)
		err := r.reclaim()
		if test.allowed != (err == nil) || !test.allowed && (!errors.Is(err, ErrUnaccounted) || !strings.Contains(err.Error(), m.ID)) {
			t.Errorf("%s: %v", name, err)
		}
		if test.allowed == r.repo.data[snapshot] {
			t.Errorf("%s: data is there: %v", name, r.repo.data[snapshot])
		}
		// The harm, without the check: what was there could have been mended.
		if r.repo.collect(); r.repo.data[snapshot] {
			t.Errorf("%s: maintenance keeps it anyway: this test shows nothing", name)
		}
	}
}

func (r *rig) mark(id string, kind vault.MarkKind) {
	r.t.Helper()
	if err := r.project.Mark(r.t.Context(), "shop", id, vault.Mark{Kind: kind, Site: "west"}); err != nil {
		r.t.Fatal(err)
	}
}

// TestReclaimOfAStandby: a site that never protected anything has nothing that
// it could be superseded for.
func TestReclaimOfAStandby(t *testing.T) {
	r := newRig(t)
	r.claim()
	if s, err := r.west.Standing(t.Context(), "shop"); err != nil || s.Role != v1alpha1.RoleStandby {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, err := r.west.Reclaim(t.Context(), true); err != nil || r.repo.maintain != 1 {
		t.Errorf("reclaim: %v after %d maintenances", err, r.repo.maintain)
	}
}

// counted counts the manifests that are read.
type counted struct {
	vault.Store
	manifests *atomic.Int64
}

func (c counted) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if strings.Contains(key, "/manifests/") {
		c.manifests.Add(1)
	}
	return c.Store.Get(ctx, key, offset, length)
}

// TestExpireReadsManifestsOnce: retention runs after each capture, and must not
// read all points again each time.
func TestExpireReadsManifestsOnce(t *testing.T) {
	for name, test := range map[string]struct {
		over func(vault.Store) vault.Store
		want int64
	}{
		"remembered": {func(s vault.Store) vault.Store { return listed.New(s, 1<<20) }, 5},
		"as it was":  {func(s vault.Store) vault.Store { return s }, 4 + 5},
	} {
		r := newRig(t)
		r.claim()
		for range 4 {
			r.mustCapture()
		}
		var reads atomic.Int64
		p := New(Options{
			Project: r.project, Site: "east", Now: time.Now,
			Listing: r.project.Over(func(s vault.Store) vault.Store { return test.over(counted{s, &reads}) }),
		})
		for range 2 {
			if report, err := p.Expire(t.Context(), "shop", point.Retention{KeepLast: 48}, 1, r.now, 0); err != nil || len(report.Deleted) > 0 {
				t.Fatalf("%+v, %v", report, err)
			}
			if reads.Load() == 4 {
				r.mustCapture()
			}
		}
		if reads.Load() != test.want {
			t.Errorf("%s: %d manifests read, want %d", name, reads.Load(), test.want)
		}
	}
}
