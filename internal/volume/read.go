package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/volume/tree"
)

// ReadOptions say how to restore a tree.
type ReadOptions struct {
	// Progress is told how far the restore has come, at most every 100 ms
	// and once at the end, never from two goroutines at once.
	Progress func(Progress)
	// DeleteExtra removes what the target holds and the snapshot does not; an
	// empty lost+found in the target's root stays.
	DeleteExtra bool
	// Resume keeps files that are complete and equal to the snapshot's in
	// size and modification time, as an earlier, interrupted Read left them.
	// After a crash of the whole machine nothing is kept: see the format page.
	Resume bool
}

// Read restores the snapshot's tree into the directory target, which must
// exist and takes on the mode, owner and time of the snapshot's root. All of
// it is on stable storage when Read returns nil. A full disk is ErrNoSpace;
// an owner, mode, time or attribute that cannot be set is an error. After any
// error, the same call with Resume continues; until one succeeds, a file named
// .davit-restore-unfinished marks the target.
func (r *Repository) Read(ctx context.Context, snap point.Snapshot, target string, opts ReadOptions) error {
	done, err := r.use()
	if err != nil {
		return err
	}
	defer done()
	if err := r.read(r.quiet(ctx), snap, target, opts); err != nil {
		return fmt.Errorf("restore volume snapshot %s to %s: %w", snap.ID, target, tree.NoSpace(err))
	}
	return nil
}

func (r *Repository) read(ctx context.Context, snap point.Snapshot, target string, opts ReadOptions) error {
	rep := r.main.rep
	rootID, err := r.findRoot(ctx, rep, snap)
	if err != nil {
		return err
	}
	meter := tree.NewMeter(opts.Progress, r.opts.Now)
	meter.TotalFiles.Store(snap.Files)
	meter.TotalBytes.Store(snap.Bytes)
	return tree.Read(ctx, rep, rootID, target, tree.ReadOptions{
		Parallel: r.opts.Parallel, ReadAhead: r.main.storage.readAhead, Meter: meter, DeleteExtra: opts.DeleteExtra, Resume: opts.Resume,
	})
}

// findRoot refreshes the index and finds the snapshot's root.
func (r *Repository) findRoot(ctx context.Context, rep repo.Repository, snap point.Snapshot) (object.ID, error) {
	if err := rep.Refresh(ctx); err != nil {
		return object.EmptyID, fmt.Errorf("refresh index: %w", err)
	}
	man, err := snapshot.LoadSnapshot(ctx, rep, manifest.ID(snap.ID))
	if errors.Is(err, snapshot.ErrSnapshotNotFound) {
		return object.EmptyID, ErrNoSnapshot
	}
	if err != nil {
		return object.EmptyID, fmt.Errorf("load snapshot: %w", err)
	}
	id := man.RootObjectID()
	if snap.RootID != "" && id.String() != snap.RootID {
		return object.EmptyID, fmt.Errorf("%w: root is %s, and was %s when written", ErrDamaged, id, snap.RootID)
	}
	return id, nil
}
