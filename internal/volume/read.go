package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kopia/kopia/repo/blob"
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
	// Pace bounds what is written to the target, and read of files that are there.
	// Nil is no bound.
	Pace Pace
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
	in, done, err := r.reading(ctx, snap)
	if err != nil {
		return err
	}
	defer done()
	rootID, err := r.findRoot(ctx, in, snap)
	if err != nil && !errors.Is(err, errLists) {
		return err
	}
	meter := tree.NewMeter(opts.Progress, r.opts.Now)
	meter.TotalFiles.Store(snap.Files)
	meter.TotalBytes.Store(snap.Bytes)
	return tree.Read(ctx, in.rep, rootID, target, tree.ReadOptions{
		Parallel: r.writers, Stream: in.storage.stream, Meter: meter, Pace: opts.Pace, DeleteExtra: opts.DeleteExtra, Resume: opts.Resume,
	})
}

// reading is the instance by which a snapshot is read.
func (r *Repository) reading(ctx context.Context, snap point.Snapshot) (in *instance, done func(), err error) {
	indexes, err := r.indexesOf(ctx, snap)
	if err != nil || indexes == nil {
		return r.main, func() {}, err
	}
	in, err = r.openInstance(ctx, instanceOptions{readOnly: true, indexes: indexes})
	return in, func() { _ = in.close(ctx) }, err // a read-only instance loses nothing
}

// indexesOf are the index blobs that were kept for a snapshot, or nil.
func (r *Repository) indexesOf(ctx context.Context, snap point.Snapshot) (map[blob.ID]bool, error) {
	if r.opts.Indexes == nil {
		return nil, nil
	}
	names, err := r.opts.Indexes(ctx, snap.ID)
	if err != nil || names == nil {
		return nil, err
	}
	indexes := map[blob.ID]bool{}
	for _, name := range names {
		indexes[blob.ID(name)] = true
	}
	return indexes, nil
}

// isIndex tells whether a blob says where contents are.
func isIndex(id blob.ID) bool { return strings.HasPrefix(string(id), IndexPrefix) }

// IndexPrefix begins the names of index blobs, of whatever kind.
const IndexPrefix = "x"

// errLists says that the repository's list of its snapshots is damaged.
var errLists = fmt.Errorf("%w: the list of the repository's snapshots cannot be read", ErrDamaged)

// findRoot refreshes the index and finds the snapshot's root. Where indexes
// were kept for it, the snapshot may have been deleted before they were: the
// point knows the root. So it does where the entry of any snapshot is damaged: then the
// root comes with errLists.
func (r *Repository) findRoot(ctx context.Context, in *instance, snap point.Snapshot) (object.ID, error) {
	if err := in.rep.Refresh(ctx); err != nil {
		return object.EmptyID, fmt.Errorf("refresh index: %w", err)
	}
	man, err := snapshot.LoadSnapshot(ctx, in.rep, manifest.ID(snap.ID))
	if errors.Is(err, snapshot.ErrSnapshotNotFound) {
		if in.storage.indexes != nil && snap.RootID != "" {
			return object.ParseID(snap.RootID)
		}
		return object.EmptyID, ErrNoSnapshot
	}
	if err != nil {
		if known, none := object.ParseID(snap.RootID); none == nil && !IsOutage(err) {
			r.log.Warn("the list of snapshots of a volume repository is damaged", "repository", r.opts.Prefix, "error", err)
			return known, fmt.Errorf("%w: %w", errLists, err)
		}
		return object.EmptyID, fmt.Errorf("load snapshot: %w", err)
	}
	id := man.RootObjectID()
	if snap.RootID != "" && id.String() != snap.RootID {
		return object.EmptyID, fmt.Errorf("%w: root is %s, and was %s when written", ErrDamaged, id, snap.RootID)
	}
	return id, nil
}
