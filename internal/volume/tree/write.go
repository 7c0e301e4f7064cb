package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	kfs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotfs"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"davit.dev/davit/internal/volume/changes"
	"davit.dev/davit/internal/volume/rewriter"
)

// writer walks a directory tree in one goroutine and stores its files in
// several. A directory is stored by whoever finishes its last entry.
type writer struct {
	w      *rewriter.Writer
	opts   WriteOptions
	racy   time.Time // files changed after this cannot be told from changed ones later
	meter  *Meter
	extras extrasBook
	links  map[inode]string // first encoded path seen of files with several names

	zeros zeroObjects

	files, dirs, bytes atomic.Int64

	group *errgroup.Group
	ctx   context.Context //nolint:containedctx // of group, for one run
	root  *snapshot.DirEntry

	issues sync.Mutex // held while telling
}

type inode struct{ dev, ino uint64 }

// node is a directory that is being written.
type node struct {
	parent  *node
	dir     *dir
	path    string // relative to the root, as in the file system
	stored  string // path, encoded
	entry   *snapshot.DirEntry
	builder snapshotfs.DirManifestBuilder
	pending atomic.Int64 // entries under way, and the walker itself
}

const (
	racyWindow = 2 * time.Second
	partSize   = 64 << 20 // larger files are stored in parts, in parallel
	copyBuffer = 1 << 18

	partsAtOnce = 4 // of one large file
)

// WriteOptions say what to store.
type WriteOptions struct {
	// Root is the directory whose tree is stored. It is only read.
	Root string
	// Cut is the instant at which the tree was cut from its volume, and Start
	// the present one. A zero Cut means that the tree is alive.
	Cut, Start time.Time
	// Parallel is how many files are worked on at once.
	Parallel int
	// Meter counts what is done.
	Meter *Meter
	// Damaged are packs that are known to be damaged: what the repository has only
	// there is read and stored anew.
	Damaged map[string]bool
	// Outage tells errors of a store that gives no answer from those of what is
	// stored. A previous directory that is damaged is done without; nil: none is.
	Outage func(error) bool
	// Pace bounds what is read of the tree's files.
	Pace Pace
	// Changes is how large files are stored; nil: read as all others are.
	Changes *changes.Plan
	// Issue is told about every entry that is not exactly in the snapshot,
	// never from two goroutines at once. It may be nil.
	Issue func(Issue)
}

// Stored is what Write has stored. Nothing names its root yet.
type Stored struct {
	Root               object.ID
	Summary            *kfs.DirectorySummary
	Files, Dirs, Bytes int64
}

// Write stores the tree at opts.Root, and the root that names it and its
// extras. Files equal to those of prev, the tree of an earlier root, are not
// read again; prev may be nil. Entries that could not be read are counted by
// the meter and told to opts.Issue.
func Write(ctx context.Context, w repo.DirectRepositoryWriter, prev *snapshot.DirEntry, opts WriteOptions) (Stored, error) {
	a, err := rewriter.New(ctx, w, opts.Damaged)
	if err != nil {
		return Stored{}, fmt.Errorf("start writing: %w", err)
	}
	t := newWriter(a, opts)
	top, err := t.run(ctx, prev)
	if err != nil {
		return Stored{}, err
	}
	extras, err := t.writeBeside(ctx, extrasName, t.extras.write)
	if err != nil {
		return Stored{}, err
	}
	var b snapshotfs.DirManifestBuilder
	b.AddEntry(top)
	b.AddEntry(extras)
	if opts.Changes.Keeps() {
		blocks, err := t.writeBeside(ctx, blocksName, opts.Changes.Now.Write)
		if err != nil {
			return Stored{}, err
		}
		b.AddEntry(blocks)
	}
	dm := b.Build(kfs.UTCTimestampFromTime(opts.Start), "")
	rootID, err := snapshotfs.WriteDirManifest(ctx, a, "", dm, compressor)
	if err != nil {
		return Stored{}, fmt.Errorf("write root: %w", err)
	}
	return Stored{
		Root: rootID, Summary: dm.Summary,
		Files: t.files.Load(), Dirs: t.dirs.Load(), Bytes: t.bytes.Load(),
	}, nil
}

func newWriter(w *rewriter.Writer, opts WriteOptions) *writer {
	cut := opts.Cut
	if cut.IsZero() {
		cut = opts.Start
	}
	t := &writer{
		w: w, opts: opts, racy: cut.Add(-racyWindow), meter: opts.Meter,
		extras: extrasBook{missing: map[string]bool{}},
		links:  map[inode]string{},
	}
	t.group = &errgroup.Group{}
	t.group.SetLimit(opts.Parallel)
	return t
}

// run stores the tree and returns its root's entry.
func (t *writer) run(ctx context.Context, prev *snapshot.DirEntry) (*snapshot.DirEntry, error) {
	root, err := openRoot(t.opts.Root)
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.ctx = ctx
	var st unix.Stat_t
	if err := unix.Fstat(root.fd(), &st); err != nil {
		root.release()
		return nil, fmt.Errorf("stat root: %w", err)
	}
	top := &node{dir: root, entry: t.newEntry(treeName, "", snapshot.EntryTypeDirectory, st)}
	if err := t.keepXattrs("", t.opts.Root+"/."); err != nil {
		t.issue(Unreadable, "", "", err)
	}
	err = t.walk(top, prev, cancel)
	if err != nil {
		cancel(err)
	}
	if gerr := t.group.Wait(); gerr != nil {
		return nil, gerr
	}
	if err != nil {
		return nil, err
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	return t.root, nil
}

// newEntry makes the directory entry that kopia stores. A time that the next
// snapshot must not trust, or kopia cannot hold, is kept in the extras, and
// replaced here by one that no file will have.
func (t *writer) newEntry(name, stored string, kind snapshot.EntryType, st unix.Stat_t) *snapshot.DirEntry {
	at := timeOf(st.Mtim)
	shown := at
	if at.Year() < 1700 || at.Year() > 2200 {
		shown = time.Unix(0, 1)
	} else if kind == snapshot.EntryTypeFile && at.After(t.racy) {
		shown = at.Add(-time.Nanosecond)
	}
	if !shown.Equal(at) {
		t.extras.add(extra{Path: stored, Mtime: &mtime{st.Mtim.Sec, st.Mtim.Nsec}})
	}
	e := &snapshot.DirEntry{
		Name: name, Type: kind, Permissions: snapshot.Permissions(modeOf(st.Mode)),
		ModTime: kfs.UTCTimestampFromTime(shown), UserID: st.Uid, GroupID: st.Gid,
	}
	if kind == snapshot.EntryTypeFile {
		e.FileSize = st.Size
	}
	return e
}

// walk lists a directory, gives its files away and goes down its directories.
func (t *writer) walk(n *node, prev *snapshot.DirEntry, cancel context.CancelCauseFunc) error {
	n.pending.Store(1)
	t.dirs.Add(1)
	names, err := n.dir.names()
	if err != nil {
		if n.parent == nil {
			abandonWrite(n)
			return fmt.Errorf("list root: %w", err)
		}
		t.issue(Unreadable, n.path, "", fmt.Errorf("list directory: %w", err))
	}
	sort.Strings(names)
	before, err := t.before(prev)
	if err != nil {
		abandonWrite(n)
		return err
	}
	for _, name := range names {
		err := context.Cause(t.ctx)
		if err == nil {
			err = t.visit(n, name, before[encodeName(name)], cancel)
		}
		if err != nil {
			abandonWrite(n)
			return err
		}
	}
	return t.done(n)
}

// before reads the same directory of the previous snapshot.
func (t *writer) before(prev *snapshot.DirEntry) (map[string]*snapshot.DirEntry, error) {
	if prev == nil || prev.Type != snapshot.EntryTypeDirectory {
		return nil, nil
	}
	entries, err := ReadDir(t.ctx, t.w, prev.ObjectID)
	if err != nil && t.opts.Outage != nil && !t.opts.Outage(err) {
		t.w.Distrust(t.ctx, prev.ObjectID) // else the directory would be stored as it was, by its name alone
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read previous snapshot: %w", err)
	}
	m := make(map[string]*snapshot.DirEntry, len(entries))
	for _, e := range entries {
		m[e.Name] = e
	}
	return m, nil
}

// visit deals with one entry of a directory.
func (t *writer) visit(n *node, name string, prev *snapshot.DirEntry, cancel context.CancelCauseFunc) error {
	path, stored := Join(n.path, name), Join(n.stored, encodeName(name))
	st, err := n.dir.stat(name)
	if err != nil {
		t.unread(path, stored, err)
		return nil
	}
	if n.parent == nil && t.skipAtRoot(n, name, path) {
		return nil
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFREG || kind == unix.S_IFDIR || kind == unix.S_IFIFO {
		if err := t.keepXattrs(stored, n.dir.proc(name)); err != nil {
			t.unread(path, stored, err)
			return nil
		}
	}
	switch kind {
	case unix.S_IFDIR:
		return t.visitDir(n, name, path, stored, st, prev, cancel)
	case unix.S_IFREG:
		t.visitFile(n, name, path, stored, st, prev, cancel)
	case unix.S_IFLNK:
		return t.visitLink(n, name, path, stored, st)
	case unix.S_IFIFO:
		t.extras.add(extra{
			Path: stored, Fifo: true, Mode: unixMode(modeOf(st.Mode)), UID: st.Uid, GID: st.Gid,
			Mtime: &mtime{st.Mtim.Sec, st.Mtim.Nsec},
		})
	case unix.S_IFSOCK:
		t.issue(Skipped, path, "", errors.New("socket: its program makes a new one"))
	default:
		t.issue(Skipped, path, "", errors.New("device: not kept"))
	}
	return nil
}

// skipAtRoot says whether the entry belongs to the file system, or to an
// unfinished restore, and not to the tree.
func (t *writer) skipAtRoot(n *node, name, path string) bool {
	switch name {
	case markerName:
		t.issue(Skipped, path, "", errors.New("mark of an unfinished restore: the tree may not be whole"))
		return true
	case lostFound:
		d, err := n.dir.openDir(name)
		if err != nil {
			return false
		}
		defer d.release()
		names, err := d.names()
		return err == nil && len(names) == 0
	}
	return false
}

func (t *writer) keepXattrs(stored, path string) error {
	found, err := xattrs(path)
	if err == nil && found != nil {
		t.extras.add(extra{Path: stored, Xattr: found})
	}
	return err
}

func (t *writer) visitDir(n *node, name, path, stored string, st unix.Stat_t, prev *snapshot.DirEntry, cancel context.CancelCauseFunc) error {
	d, err := n.dir.openDir(name)
	if err != nil {
		t.unread(path, stored, err)
		return nil
	}
	n.pending.Add(1)
	child := &node{
		parent: n, dir: d, path: path, stored: stored,
		entry: t.newEntry(encodeName(name), stored, snapshot.EntryTypeDirectory, st),
	}
	return t.walk(child, prev, cancel)
}

func (t *writer) visitLink(n *node, name, path, stored string, st unix.Stat_t) error {
	target, err := n.dir.readlink(name)
	if err != nil {
		t.unread(path, stored, err)
		return nil
	}
	e := t.newEntry(encodeName(name), stored, snapshot.EntryTypeSymlink, st)
	w := t.w.NewObjectWriter(t.ctx, object.WriterOptions{MetadataCompressor: compressor})
	defer w.Close() //nolint:errcheck // Result returned what matters
	if _, err := io.WriteString(w, target); err != nil {
		return fmt.Errorf("store link %q: %w", path, err)
	}
	if e.ObjectID, err = w.Result(); err != nil {
		return fmt.Errorf("store link %q: %w", path, err)
	}
	e.FileSize = int64(len(target))
	n.builder.AddEntry(e)
	return nil
}

// aged tells whether a file has the size and the time that the previous snapshot has of it.
func aged(prev *snapshot.DirEntry, size int64, st unix.Stat_t) bool {
	return prev != nil && prev.Type == snapshot.EntryTypeFile && prev.FileSize == size && prev.ModTime == kfs.UTCTimestampFromTime(timeOf(st.Mtim))
}

func (t *writer) visitFile(n *node, name, path, stored string, st unix.Stat_t, prev *snapshot.DirEntry, cancel context.CancelCauseFunc) {
	if st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := t.links[id]; ok {
			t.extras.add(extra{Path: stored, Link: &first})
		} else {
			t.links[id] = stored
		}
	}
	e := t.newEntry(encodeName(name), stored, snapshot.EntryTypeFile, st)
	if aged(prev, e.FileSize, st) && !t.opts.Changes.Reads(stored) && t.w.Whole(t.ctx, prev.ObjectID) {
		e.ObjectID = prev.ObjectID
		t.meter.Reused.Add(1)
		t.meter.Bytes.Add(e.FileSize)
		t.finishFile(n, e)
		t.noteBlocks(n, name, stored, e.FileSize)
		return
	}
	n.pending.Add(1)
	n.dir.hold()
	t.group.Go(func() error {
		defer n.dir.release()
		err := t.storeFile(n, name, path, stored, e, st, prev)
		if err == nil {
			err = t.done(n)
		} else {
			abandonWrite(n)
		}
		if err != nil {
			cancel(err)
		}
		return err
	})
}

// abandonWrite counts off an entry after the write has failed: the directory's
// handle is given back, and nothing is stored.
func abandonWrite(n *node) {
	for ; n != nil && n.pending.Add(-1) == 0; n = n.parent {
		n.dir.release()
	}
}

func (t *writer) finishFile(n *node, e *snapshot.DirEntry) {
	n.builder.AddEntry(e)
	t.files.Add(1)
	t.bytes.Add(e.FileSize)
	t.meter.Files.Add(1)
	t.meter.Tick()
}

// storeFile stores one file's data. Only errors of the repository are
// returned; those of the file become issues.
func (t *writer) storeFile(n *node, name, path, stored string, e *snapshot.DirEntry, st unix.Stat_t, prev *snapshot.DirEntry) error {
	if err := context.Cause(t.ctx); err != nil {
		return err
	}
	f, err := n.dir.openRegular(name)
	if err != nil {
		t.unread(path, stored, err)
		return nil
	}
	defer f.Close() //nolint:errcheck // only read
	store := t.storeData
	if t.opts.Changes.Stores(e.FileSize) {
		store = func(f *os.File, path string, size int64) (object.ID, int64, error) {
			return t.storeChanges(f, path, stored, size, st, prev)
		}
	}
	id, size, err := store(f, path, e.FileSize)
	var broken *sourceError
	if errors.As(err, &broken) {
		t.unread(path, stored, broken.err)
		return nil
	}
	if err != nil {
		return err
	}
	var now unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &now); err != nil {
		t.unread(path, stored, err)
		return nil
	}
	if size != st.Size || now.Size != st.Size || now.Mtim != st.Mtim {
		t.issue(Changed, path, "", fmt.Errorf("while it was read: %d bytes at first, %d read", st.Size, size))
	}
	e.ObjectID, e.FileSize = id, size
	t.finishFile(n, e)
	return nil
}

// sourceError is an error of the tree that is read, not of the repository.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

var buffers = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, copyBuffer)) }}

func (t *writer) storePart(f *os.File, path string, offset, length int64) (object.ID, int64, error) {
	w := t.w.NewObjectWriter(t.ctx, object.WriterOptions{
		Description: "file", Compressor: compressor, MetadataCompressor: compressor,
	})
	defer w.Close() //nolint:errcheck // Result returned what matters
	shared := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(shared)
	buf := shared.Bytes()[:copyBuffer]
	var total int64
	for length < 0 || total < length {
		if err := context.Cause(t.ctx); err != nil {
			return object.EmptyID, 0, err
		}
		want := buf
		if length >= 0 {
			want = buf[:min(int64(len(buf)), length-total)]
		}
		n, err := f.ReadAt(want, offset+total)
		if n > 0 {
			if werr := t.opts.Pace.wait(t.ctx, n); werr != nil {
				return object.EmptyID, 0, werr
			}
			if _, werr := w.Write(want[:n]); werr != nil {
				return object.EmptyID, 0, fmt.Errorf("store %q: %w", path, werr)
			}
			total += int64(n)
			t.meter.Bytes.Add(int64(n))
			t.meter.Tick()
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return object.EmptyID, 0, &sourceError{err}
		}
	}
	id, err := w.Result()
	if err != nil {
		return object.EmptyID, 0, fmt.Errorf("store %q: %w", path, err)
	}
	return id, total, nil
}

// done counts off one entry of the directory and stores it after the last.
func (t *writer) done(n *node) error {
	for ; n != nil; n = n.parent {
		if n.pending.Add(-1) > 0 {
			return nil
		}
		n.dir.release()
		dm := n.builder.Build(n.entry.ModTime, "")
		id, err := snapshotfs.WriteDirManifest(t.ctx, t.w, n.path, dm, compressor)
		if err != nil {
			abandonWrite(n.parent)
			return fmt.Errorf("store directory %q: %w", n.path, err)
		}
		n.entry.ObjectID, n.entry.DirSummary = id, dm.Summary
		if n.parent == nil {
			t.root = n.entry
			return nil
		}
		n.parent.builder.AddEntry(n.entry)
	}
	return nil
}

// unread reports an entry that is not in the snapshot.
func (t *writer) unread(path, stored string, err error) {
	kind := Unreadable
	if errors.Is(err, unix.ENOENT) {
		kind = Vanished
	}
	t.issue(kind, path, stored, err)
}

// issue tells the caller about an entry; stored names it if it is missing.
func (t *writer) issue(kind IssueKind, path, stored string, err error) {
	if stored != "" {
		t.extras.miss(stored)
	}
	if kind == Unreadable {
		t.meter.Errors.Add(1)
	}
	if t.opts.Issue == nil {
		return
	}
	t.issues.Lock()
	defer t.issues.Unlock()
	t.opts.Issue(Issue{Kind: kind, Path: path, Err: err})
}
