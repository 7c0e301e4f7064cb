package volume

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	kfs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/snapshot"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/volume/changes"
	"davit.dev/davit/internal/volume/suspect"
	"davit.dev/davit/internal/volume/tree"
)

// WriteOptions say what to write.
type WriteOptions struct {
	// Root is the directory whose tree is written. It is only read.
	Root string
	// Source labels the snapshot.
	Source Source
	// Previous is an earlier snapshot of the same source in this repository:
	// files equal to it in size and modification time are not read again.
	Previous *point.Snapshot
	// Cut is the instant at which the tree was cut from its volume. Zero
	// means that the tree is alive. Files changed less than two seconds
	// before it are read again by the next snapshot, whatever their times say.
	Cut time.Time
	// Progress is told how far the write has come, at most every 100 ms and
	// once at the end, never from two goroutines at once.
	Progress func(Progress)
	// Pace bounds what is read of the tree's files. Nil is no bound.
	Pace Pace
	// Changes is how large files are stored; nil: read as all others are. Its Before is
	// that of Previous; see Blocks. Only a tree that was cut may have one.
	Changes *changes.Plan
	// Issue is told about every entry that is not exactly in the snapshot,
	// never from two goroutines at once.
	Issue func(Issue)
}

// Write stores the tree at opts.Root and returns its snapshot. Entries that
// could not be read are counted in Snapshot.Errors and told to opts.Issue,
// with a nil error; an error means that there is no snapshot.
func (r *Repository) Write(ctx context.Context, opts WriteOptions) (point.Snapshot, error) {
	done, err := r.use()
	if err != nil {
		return point.Snapshot{}, err
	}
	defer done()
	snap, err := r.write(r.quiet(ctx), opts)
	if err != nil {
		return point.Snapshot{}, fmt.Errorf("write volume %s: %w", opts.Source, err)
	}
	return snap, nil
}

func (r *Repository) write(ctx context.Context, opts WriteOptions) (point.Snapshot, error) {
	switch {
	case r.opts.ReadOnly:
		return point.Snapshot{}, ErrReadOnly
	case opts.Source.Namespace == "" || opts.Source.Claim == "":
		return point.Snapshot{}, errors.New("source needs a namespace and a claim")
	}
	bad, err := suspect.List(ctx, r.opts.Store, r.opts.Prefix)
	if err != nil {
		return point.Snapshot{}, err
	}
	prev, err := r.previousTree(ctx, opts.Previous, bad)
	if err != nil {
		return point.Snapshot{}, err
	}
	var stored atomic.Int64
	mark := r.main.storage.ledger.mark()
	_, w, err := r.main.rep.NewDirectWriter(ctx, repo.WriteSessionOptions{
		Purpose:  "write " + opts.Source.String(),
		OnUpload: func(n int64) { stored.Add(n) },
	})
	if err != nil {
		return point.Snapshot{}, fmt.Errorf("start session: %w", err)
	}
	defer w.Close(context.WithoutCancel(ctx)) //nolint:errcheck // Flush returned what matters
	snap, err := r.writeSnapshot(ctx, w, opts, prev, bad)
	if opts.Changes.Retry(err) {
		snap, err = r.writeSnapshot(ctx, w, opts, prev, bad)
	}
	if err != nil {
		return point.Snapshot{}, err
	}
	if err := r.main.storage.commit(ctx); err != nil {
		return point.Snapshot{}, err
	}
	snap.NewBytes = stored.Load()
	snap.Inventories = r.main.storage.ledger.since(mark)
	return snap, nil
}

// previousTree finds the tree of an earlier snapshot, or nil if it is gone or damaged: then
// the pack of its root is bad, too, for what is as it was would be stored by its name alone.
func (r *Repository) previousTree(ctx context.Context, prev *point.Snapshot, bad map[string]bool) (*snapshot.DirEntry, error) {
	if prev == nil || prev.ID == "" {
		return nil, nil
	}
	root, err := r.findRoot(ctx, r.main, *prev)
	switch {
	case errors.Is(err, errLists):
		bad["no pack"] = true // so each content is looked for: whether the snapshot was deleted is not known
	case errors.Is(err, ErrNoSnapshot), errors.Is(err, ErrDamaged):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("load previous snapshot %s: %w", prev.ID, err)
	}
	top, _, err := tree.OpenRoot(ctx, r.main.rep, root)
	if err != nil && !IsOutage(err) {
		if c, _, direct := root.ContentID(); direct {
			if info, err := r.main.rep.ContentReader().ContentInfo(ctx, c); err == nil {
				bad[string(info.PackBlobID)] = true
			}
		}
		return nil, nil
	}
	return top, err
}

// ErrBlocks says that it cannot be read where the large files of a snapshot lay: the next one must take
// over nothing of it, as nobody knows which of them were stored by their storage's word.
var ErrBlocks = errors.New("where its large files lay cannot be read")

// Blocks reads where the large files of a snapshot lay on their device; nil where it does not say that.
func (r *Repository) Blocks(ctx context.Context, snap point.Snapshot) (*changes.Book, error) {
	done, err := r.use()
	if err != nil {
		return nil, err
	}
	defer done()
	ctx = r.quiet(ctx)
	root, err := r.findRoot(ctx, r.main, snap)
	var book *changes.Book
	if err == nil || errors.Is(err, errLists) { // then its root is known all the same, and its files are taken over
		book, err = tree.LoadBlocks(ctx, r.main.rep, root)
	}
	if err != nil && !IsOutage(err) {
		err = fmt.Errorf("%w: %w", ErrBlocks, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read blocks of snapshot %s: %w", snap.ID, err)
	}
	return book, nil
}

// writeSnapshot writes the tree, its extras and the manifest that names them,
// and flushes all of it.
func (r *Repository) writeSnapshot(ctx context.Context, w repo.DirectRepositoryWriter, opts WriteOptions, prev *snapshot.DirEntry, bad map[string]bool) (point.Snapshot, error) {
	start := r.opts.Now()
	meter := tree.NewMeter(opts.Progress, r.opts.Now)
	stored, err := tree.Write(ctx, w, prev, tree.WriteOptions{
		Root: opts.Root, Cut: opts.Cut, Start: start, Parallel: r.opts.Parallel, Meter: meter, Pace: opts.Pace, Issue: opts.Issue,
		Changes: opts.Changes, Damaged: bad, Outage: IsOutage,
	})
	if err != nil {
		return point.Snapshot{}, err
	}
	now := kfs.UTCTimestampFromTime(start)
	man := &snapshot.Manifest{
		Source:      snapshot.SourceInfo{Host: r.opts.Site, UserName: userName, Path: "/" + opts.Source.String()},
		Description: opts.Source.String(),
		StartTime:   now,
		EndTime:     kfs.UTCTimestampFromTime(r.opts.Now()),
		RootEntry: &snapshot.DirEntry{
			Name: opts.Source.Claim, Type: snapshot.EntryTypeDirectory, Permissions: 0o700,
			ModTime: now, ObjectID: stored.Root, DirSummary: stored.Summary,
		},
	}
	id, err := snapshot.SaveSnapshot(ctx, w, man)
	if err != nil {
		return point.Snapshot{}, fmt.Errorf("save snapshot: %w", err)
	}
	if err := w.Flush(ctx); err != nil {
		return point.Snapshot{}, fmt.Errorf("flush: %w", err)
	}
	meter.Last()
	return point.Snapshot{
		Repository: r.opts.Site, ID: string(id), RootID: stored.Root.String(),
		Files: stored.Files, Dirs: stored.Dirs, Bytes: stored.Bytes, Errors: meter.Errors.Load(),
	}, nil
}
