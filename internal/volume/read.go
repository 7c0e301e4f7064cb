package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sys/unix"

	"davit.dev/davit/internal/point"
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

// Names in a volume's root that are not the application's.
const (
	markerName = ".davit-restore-unfinished"
	lostFound  = "lost+found"
)

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
		return fmt.Errorf("restore volume snapshot %s to %s: %w", snap.ID, target, noSpace(err))
	}
	return nil
}

func (r *Repository) read(ctx context.Context, snap point.Snapshot, target string, opts ReadOptions) error {
	rep := r.main.rep
	rootID, err := r.findRoot(ctx, rep, snap)
	if err != nil {
		return err
	}
	tree, extrasEntry, err := openSnapshotRoot(ctx, rep, rootID)
	if err != nil {
		return err
	}
	extras, err := loadExtras(ctx, rep, extrasEntry)
	if err != nil {
		return err
	}
	root, err := openRoot(target)
	if err != nil {
		return fmt.Errorf("open target: %w", err)
	}
	defer root.release()
	trust, err := markUnfinished(root, rootID.String())
	if err != nil {
		return err
	}
	opts.Resume = opts.Resume && trust
	t := r.newTreeReader(opts, extras)
	t.meter.totalFiles.Store(snap.Files)
	t.meter.totalBytes.Store(snap.Bytes)
	if err := t.run(ctx, root, tree); err != nil {
		return err
	}
	t.meter.last()
	return unmark(root, t, tree)
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

func loadExtras(ctx context.Context, rep repo.Repository, e *snapshot.DirEntry) (map[string]extra, error) {
	rd, err := rep.OpenObject(ctx, e.ObjectID)
	if err != nil {
		return nil, fmt.Errorf("open extras: %w", err)
	}
	defer rd.Close() //nolint:errcheck // only read
	return readExtras(rd)
}

// markUnfinished leaves a mark in the target that names the machine's boot.
// It says whether files already there can be trusted: those that a Read wrote
// before a crash of the machine may look whole and have lost their data.
func markUnfinished(root *dir, snapshotRoot string) (bool, error) {
	boot, err := bootID()
	if err != nil {
		return false, err
	}
	trust := true
	if f, err := root.openFile(markerName, unix.O_RDONLY, 0); err == nil {
		old, rerr := io.ReadAll(io.LimitReader(f, 4096))
		_ = f.Close() // only read
		if rerr != nil {
			return false, fmt.Errorf("read mark: %w", rerr)
		}
		trust = strings.Contains(string(old), "boot "+boot+"\n")
		if !trust { // nothing written under it may be trusted by a later try either
			return false, nil
		}
	}
	f, err := root.openFile(markerName, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o600)
	if err != nil {
		return false, fmt.Errorf("mark target: %w", err)
	}
	_, err = fmt.Fprintf(f, "davit is restoring %s here\nboot %s\n", snapshotRoot, boot)
	if serr := f.Sync(); err == nil {
		err = serr
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return false, fmt.Errorf("mark target: %w", err)
	}
	return trust, root.file.Sync()
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("identify boot: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// unmark makes all that was written durable, and then takes the mark away.
func unmark(root *dir, t *treeReader, tree *snapshot.DirEntry) error {
	if err := syncfs(root); err != nil {
		return err
	}
	if err := root.removeAll(markerName); err != nil {
		return err
	}
	if err := t.setAttributes(root, ".", "", tree); err != nil {
		return err
	}
	return syncfs(root)
}

func syncfs(root *dir) error {
	if err := unix.Syncfs(root.fd()); err != nil {
		return fmt.Errorf("sync target: %w", err)
	}
	return nil
}

// contents reads single contents; it is what kopia's object reader needs.
type contents struct{ content.Reader }

// PrefetchContents does nothing: packs are fetched whole where it pays.
func (contents) PrefetchContents(context.Context, []content.ID, string) []content.ID { return nil }

// chunk is one content of a file.
type chunk struct {
	id     content.ID
	offset int64 // in the file
	length int64
}

// chunksOf lists a file's contents in order.
func chunksOf(ctx context.Context, cr content.Reader, e *snapshot.DirEntry) ([]chunk, error) {
	index, indirect := e.ObjectID.IndexObjectID()
	if !indirect {
		id, compressed, _ := e.ObjectID.ContentID()
		if compressed {
			return nil, fmt.Errorf("%w: object compressed in an unknown way", ErrDamaged)
		}
		return []chunk{{id, 0, e.FileSize}}, nil
	}
	entries, err := object.LoadIndexObject(ctx, contents{cr}, index)
	if err != nil {
		return nil, fmt.Errorf("read index of contents: %w", err)
	}
	var list []chunk
	var at int64
	for _, ie := range entries {
		id, compressed, ok := ie.Object.ContentID()
		if !ok || compressed || ie.Start != at || ie.Length <= 0 {
			return nil, fmt.Errorf("%w: malformed index of contents", ErrDamaged)
		}
		list = append(list, chunk{id, ie.Start, ie.Length})
		at += ie.Length
	}
	if at != e.FileSize {
		return nil, fmt.Errorf("%w: contents have %d bytes, the file %d", ErrDamaged, at, e.FileSize)
	}
	return list, nil
}

// load reads a chunk; its hash is checked by kopia, its length here.
func (c chunk) load(ctx context.Context, cr content.Reader) ([]byte, error) {
	data, err := cr.GetContent(ctx, c.id)
	if err != nil {
		return nil, fmt.Errorf("read content %s: %w", c.id, err)
	}
	if int64(len(data)) != c.length {
		return nil, fmt.Errorf("read content %s: %w: %d bytes, want %d", c.id, ErrDamaged, len(data), c.length)
	}
	return data, nil
}
