package protection

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/reserve"
	"davit.dev/davit/internal/volume"
)

// TestExpiryWorksInAFullVault: deleting takes writes, for which there is a
// reserve. The control is the same vault without one.
func TestExpiryWorksInAFullVault(t *testing.T) {
	for _, reserved := range []bool{true, false} {
		r := newRig(t)
		room := fault.NewBounded(r.store, 1<<40)
		r.project = r.project.Over(func(vault.Store) vault.Store { return room })
		r.east = r.site("east")
		if _, err := r.east.ClaimFirst(t.Context(), "shop", "test"); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			r.mustCapture()
		}
		if reserved {
			if err := r.east.FillReserve(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		used, err := room.Used(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		room.Resize(used)
		if _, err := r.capture(); !errors.Is(err, vault.ErrFull) {
			t.Fatalf("a capture into a full vault: %v", err)
		}
		report, err := r.east.Expire(t.Context(), "shop", point.Retention{KeepLast: 2}, 1, r.now, 0)
		if !reserved {
			if !errors.Is(err, vault.ErrFull) || len(report.Deleted) > 0 {
				t.Errorf("control: without a reserve %v, %v", report.Deleted, err)
			}
			continue
		}
		if err != nil || len(report.Deleted) != 3 || report.Kept != 2 {
			t.Errorf("deleted %v, kept %d, %v", report.Deleted, report.Kept, err)
		}
		if _, err := r.capture(); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		if err := r.east.FillReserve(t.Context()); err != nil {
			t.Errorf("the reserve where there is no room for it: %v", err)
		}
		room.Resize(1 << 40)
		if err := r.east.FillReserve(t.Context()); err != nil {
			t.Error(err)
		}
		if now, err := room.Used(t.Context()); err != nil || now < reserve.Pieces*reserve.PieceSize {
			t.Errorf("the reserve was not laid down again: %d bytes, %v", now, err)
		}
	}
}

// TestVolumesAreDeletedInAFullVault: a snapshot goes by writing that it is gone.
func TestVolumesAreDeletedInAFullVault(t *testing.T) {
	r := newRig(t)
	room := fault.NewBounded(r.store, 1<<40)
	p := r.project.Over(func(vault.Store) vault.Store { return room })
	repo, err := volume.Open(t.Context(), VolumeOptions(p, "east"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	snap, err := repo.Write(t.Context(), volume.WriteOptions{Root: dir, Source: volume.Source{Namespace: "shop", Claim: "data"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	east := New(Options{Project: p, Site: "east", Now: time.Now})
	if err := east.FillReserve(t.Context()); err != nil {
		t.Fatal(err)
	}
	used, err := room.Used(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	room.Resize(used)
	m := &point.Manifest{Volumes: []point.Volume{{Namespace: "shop", Claim: "data", Snapshot: snap}}}
	if err := east.forgetVolumes(t.Context(), m, east.freeVolumes); err != nil {
		t.Error(err)
	}
	err = east.withVolumes(t.Context(), "east", true, func(repo Repository) error {
		list, err := repo.List(context.Background())
		if len(list) != 0 {
			t.Errorf("it still lists %v", list)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
