package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotmaintenance"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume/suspect"
)

// MaintainOptions say what maintenance may do.
type MaintainOptions struct {
	// Guard is asked before maintenance and before every change it makes. It
	// must hold a lease, so that one process maintains at a time, and check
	// the epoch. It must not be nil.
	Guard Guard
	// Full also rewrites sparse packs and frees the space of deleted
	// snapshots, in two or more runs at least a day apart.
	Full bool
}

// MaintainReport is what maintenance did.
type MaintainReport struct {
	BlobsDeleted      int64
	BytesDeleted      int64
	InventoriesMerged int
}

// Listed is one snapshot as the repository itself knows it.
type Listed struct {
	ID     string
	Source string // namespace/claim
	Start  time.Time
}

// Delete forgets the snapshot. Its space is freed by Maintain later. A
// snapshot that is not there is no error.
func (r *Repository) Delete(ctx context.Context, snap point.Snapshot) error {
	done, err := r.use()
	if err != nil {
		return err
	}
	defer done()
	if err := r.delete(r.quiet(ctx), snap); err != nil {
		return fmt.Errorf("delete volume snapshot %s: %w", snap.ID, err)
	}
	return nil
}

func (r *Repository) delete(ctx context.Context, snap point.Snapshot) error {
	if r.opts.ReadOnly {
		return ErrReadOnly
	}
	if err := r.main.rep.Refresh(ctx); err != nil {
		return fmt.Errorf("refresh index: %w", err)
	}
	_, err := snapshot.LoadSnapshot(ctx, r.main.rep, manifest.ID(snap.ID))
	if errors.Is(err, snapshot.ErrSnapshotNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load snapshot: %w", err)
	}
	err = repo.WriteSession(ctx, r.main.rep, repo.WriteSessionOptions{Purpose: "delete"},
		func(ctx context.Context, w repo.RepositoryWriter) error {
			return w.DeleteManifest(ctx, manifest.ID(snap.ID))
		})
	if err != nil {
		return err
	}
	return r.main.storage.commit(ctx)
}

// List names every snapshot in the repository, oldest first: also those whose
// recovery point was never published, so that the caller can delete them.
func (r *Repository) List(ctx context.Context) ([]Listed, error) {
	done, err := r.use()
	if err != nil {
		return nil, err
	}
	defer done()
	ctx = r.quiet(ctx)
	if err := r.main.rep.Refresh(ctx); err != nil {
		return nil, fmt.Errorf("list volume snapshots: refresh index: %w", err)
	}
	ids, err := snapshot.ListSnapshotManifests(ctx, r.main.rep, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("list volume snapshots: %w", err)
	}
	mans, err := snapshot.LoadSnapshots(ctx, r.main.rep, ids)
	if err != nil {
		return nil, fmt.Errorf("list volume snapshots: %w", err)
	}
	list := make([]Listed, 0, len(mans))
	for _, m := range mans {
		list = append(list, Listed{ID: string(m.ID), Source: m.Description, Start: m.StartTime.ToTime()})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Start.Before(list[j].Start) })
	return list, nil
}

// Maintain compacts indexes, merges inventories and, when full, frees space.
// It keeps to kopia's full safety margins, so writers may run meanwhile.
func (r *Repository) Maintain(ctx context.Context, opts MaintainOptions) (MaintainReport, error) {
	done, err := r.use()
	if err != nil {
		return MaintainReport{}, err
	}
	defer done()
	report, err := r.maintain(r.quiet(ctx), opts)
	if err != nil {
		return report, fmt.Errorf("maintain volume repository %s: %w", r.opts.Prefix, err)
	}
	return report, nil
}

func (r *Repository) maintain(ctx context.Context, opts MaintainOptions) (MaintainReport, error) {
	if r.opts.ReadOnly {
		return MaintainReport{}, ErrReadOnly
	}
	if opts.Guard == nil {
		return MaintainReport{}, errors.New("no guard given")
	}
	if err := opts.Guard(ctx); err != nil {
		return MaintainReport{}, err
	}
	// An instance of its own: its deletes are guarded, and its view is fresh.
	in, err := r.openInstance(ctx, instanceOptions{guard: opts.Guard})
	if err != nil {
		return MaintainReport{}, err
	}
	defer in.close(ctx) //nolint:errcheck // commit returned what matters
	mode := maintenance.ModeQuick
	if opts.Full {
		mode = maintenance.ModeFull
	}
	err = repo.DirectWriteSession(ctx, in.rep, repo.WriteSessionOptions{Purpose: "maintain"},
		func(ctx context.Context, w repo.DirectRepositoryWriter) error {
			return snapshotmaintenance.Run(ctx, w, mode, true, maintenance.SafetyFull)
		})
	if err = errors.Join(err, in.storage.refused()); err != nil {
		return MaintainReport{}, err
	}
	if err := in.storage.commit(ctx); err != nil {
		return MaintainReport{}, err
	}
	report := MaintainReport{BlobsDeleted: in.storage.deleted, BytesDeleted: in.storage.freed}
	if report.InventoriesMerged, err = r.mergeInventories(ctx, opts.Guard); err == nil {
		err = r.forgetRemoved(ctx, opts.Guard)
	}
	return report, err
}

// forgetRemoved takes back that packs were noted as damaged which were removed since, as
// nothing needs them.
func (r *Repository) forgetRemoved(ctx context.Context, guard Guard) error {
	noted, err := suspect.List(ctx, r.opts.Store, r.opts.Prefix)
	if err != nil || len(noted) == 0 {
		return err
	}
	sizes, err := r.blobSizes(ctx)
	if err != nil {
		return err
	}
	inv, err := r.loadInventory(ctx)
	if err != nil {
		return err
	}
	var removed []string
	for id := range noted {
		if _, there := sizes[id]; !there && inv.blobs[id] != nil && inv.blobs[id].deleted {
			removed = append(removed, id)
		}
	}
	if err := guard(ctx); err != nil {
		return err
	}
	return suspect.Clear(ctx, r.opts.Store, r.opts.Prefix, removed)
}

const (
	mergedSuffix = "-merged"
	mergeAbove   = 16             // fewer inventories are left alone
	forgetAfter  = 48 * time.Hour // longer than any write or verification
)

// mergeInventories writes one inventory that says what all present ones say,
// and then deletes those. A crash in between leaves both, which is the same.
func (r *Repository) mergeInventories(ctx context.Context, guard Guard) (int, error) {
	inv, err := r.loadInventory(ctx)
	if err != nil || len(inv.keys) < mergeAbove || len(inv.damaged) > 0 {
		return 0, err // a damaged inventory is kept as it is, for people to see
	}
	sizes, err := r.blobSizes(ctx)
	if err != nil {
		return 0, err
	}
	now := r.opts.Now()
	data, err := encodeInventory(mergedRecords(inv, sizes, now.Add(-forgetAfter).Unix()))
	if err != nil {
		return 0, err
	}
	key := inventoryPrefix(r.opts.Prefix) + newSession(now) + mergedSuffix
	if r.opts.Seal != nil {
		if data, err = r.opts.Seal(key, data); err != nil {
			return 0, fmt.Errorf("seal inventory %s: %w", key, err)
		}
	}
	if err := guard(ctx); err != nil {
		return 0, err
	}
	if err := r.opts.Store.PutIfAbsent(ctx, key, bytes.NewReader(data), int64(len(data))); err != nil {
		return 0, fmt.Errorf("write inventory %s: %w", key, err)
	}
	merged := 0
	for _, old := range inv.keys {
		if old > key { // of a process whose clock is ahead: who misses it would take it for lost
			continue
		}
		if err := guard(ctx); err != nil {
			return merged, err
		}
		if err := r.opts.Store.Delete(ctx, old); err != nil && !errors.Is(err, vault.ErrDenied) {
			return merged, fmt.Errorf("delete inventory %s: %w", old, err)
		}
		merged++
	}
	return merged, nil
}

// mergedRecords says in few records what an inventory says. Blobs that were
// deleted, or announced and never stored, long ago are left out.
func mergedRecords(inv *inventory, sizes map[string]int64, old int64) []record {
	ids := make([]string, 0, len(inv.blobs))
	for id := range inv.blobs {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	var records []record
	for _, id := range ids {
		e := inv.blobs[id]
		_, there := sizes[id]
		if !there && (e.deleted || !e.present) && e.newest < old {
			continue
		}
		op := opWill
		if e.present {
			op = opPut
		}
		prints := make([]print, 0, len(e.prints))
		for p := range e.prints {
			prints = append(prints, p)
		}
		sort.Slice(prints, func(i, j int) bool { return strings.Compare(prints[i].SHA256, prints[j].SHA256) < 0 })
		for _, p := range prints {
			records = append(records, record{Op: op, Blob: id, Size: p.Size, SHA256: p.SHA256, Time: e.newest})
		}
		if e.deleted {
			records = append(records, record{Op: opDelete, Blob: id, Time: e.newest})
		}
	}
	return records
}
