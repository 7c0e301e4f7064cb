package tree

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"davit.dev/davit/internal/volume/sealed"
)

// reader restores a tree. One goroutine walks the stored directories;
// files are written by several, small ones in the order in which their packs
// hold them.
type reader struct {
	rep    repo.DirectRepository
	opts   ReadOptions
	extras map[string]extra
	below  map[string][]extra // pipes by encoded directory path
	meter  *Meter
	opener *sealed.Opener

	ctx   context.Context //nolint:containedctx // of group, for one run
	group *errgroup.Group

	batch []smallFile
	dirs  int // in batch, to bound open directories
	links []hardLink
	hole  int // zero runs this long become holes
}

// readNode is a directory that is being restored. Its attributes are set
// after its last entry, because making entries changes its time.
type readNode struct {
	parent  *readNode
	dir     *dir
	name    string
	stored  string
	entry   *snapshot.DirEntry
	pending atomic.Int64
}

type smallFile struct {
	node   *readNode
	name   string
	stored string
	entry  *snapshot.DirEntry
	chunk  Chunk
	pack   string
	offset uint32
}

type hardLink struct {
	stored string
	entry  *snapshot.DirEntry
	target string
}

const (
	batchFiles = 16384
	batchDirs  = 256

	// Runs of zeros this long, in bytes and aligned, become holes. Each hole costs
	// an extent: in a database's file, where half of many pages is zeros, holes
	// of a block each make the restore several times slower, and every later read
	// of the file too. So only a target that is too small for the zeros gets them.
	fineHole   = 4 << 10
	coarseHole = 64 << 10
)

// ReadOptions say how to restore a tree.
type ReadOptions struct {
	// Parallel is how many files, or parts of one, are worked on at once.
	Parallel int
	// Meter counts what is done.
	Meter *Meter
	// Pace bounds what is written to the target, and read of files that are there.
	Pace Pace
	// Stream reads a part of a pack. Nil means that each content is asked for by itself.
	Stream func(ctx context.Context, pack string, offset, length int64) (io.ReadCloser, error)
	// DeleteExtra removes what the target holds and the snapshot does not; an
	// empty lost+found in the target's root stays.
	DeleteExtra bool
	// Resume keeps files that are complete and equal to the snapshot's in size
	// and modification time, unless the machine went down since.
	Resume bool
}

// Read restores the tree of a snapshot's root into the directory target. All
// of it is on stable storage when Read returns nil; until then a file named
// .davit-restore-unfinished marks the target. Of files that are there already only
// what differs from the stored ones is fetched and written.
func Read(ctx context.Context, rep repo.DirectRepository, rootID object.ID, target string, opts ReadOptions) error {
	top, extrasEntry, err := OpenRoot(ctx, rep, rootID)
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
	if err := dropXattrs(root.proc("."), nil); err != nil {
		return fmt.Errorf("prepare target: %w", err)
	}
	t := newReader(rep, opts, extras)
	t.hole = holeFor(root.proc("."), t.meter.TotalBytes.Load())
	if err := t.run(ctx, root, top); err != nil {
		return err
	}
	t.meter.Last()
	return unmark(root, t, top)
}

// holeFor chooses the shortest hole worth making in a target that has yet to take
// so many bytes, zeros included. A sixteenth more is for what the file system
// itself needs.
func holeFor(target string, bytes int64) int {
	var fs unix.Statfs_t
	if err := unix.Statfs(target, &fs); err != nil {
		return fineHole // slow at worst
	}
	free := int64(fs.Bavail) * fs.Bsize //nolint:gosec // no file system has 2^63 bytes
	if free/17*16 < bytes {
		return fineHole
	}
	return coarseHole
}

func newReader(rep repo.DirectRepository, opts ReadOptions, extras map[string]extra) *reader {
	t := &reader{
		rep: rep, opts: opts, extras: extras, meter: opts.Meter,
		below: map[string][]extra{}, opener: sealed.NewOpener(rep.ContentReader().ContentFormat()),
	}
	for _, e := range extras {
		if e.Fifo {
			d := ""
			if i := strings.LastIndexByte(e.Path, '/'); i >= 0 {
				d = e.Path[:i]
			}
			t.below[d] = append(t.below[d], e)
		}
	}
	return t
}

func (t *reader) run(ctx context.Context, root *dir, top *snapshot.DirEntry) error {
	t.group, t.ctx = errgroup.WithContext(ctx)
	t.group.SetLimit(t.opts.Parallel)
	err := t.walk(&readNode{dir: root.hold(), entry: top})
	t.flush()
	if gerr := t.group.Wait(); gerr != nil {
		return gerr // the cause: the walk then fails with the context's error
	}
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return t.makeLinks(root)
}

// walk makes a directory's entries: directories, links and pipes itself,
// files by giving them away.
func (t *reader) walk(n *readNode) error {
	n.pending.Store(1)
	t.dirs++
	if err := t.fill(n); err != nil {
		abandonRead(n)
		return err
	}
	return t.done(n)
}

// abandonRead counts off an entry that failed: the directory's handle is given
// back, its attributes stay as they are.
func abandonRead(n *readNode) {
	for ; n != nil && n.pending.Add(-1) == 0; n = n.parent {
		n.dir.release()
	}
}

func (t *reader) fill(n *readNode) error {
	entries, err := ReadDir(t.ctx, t.rep, n.entry.ObjectID)
	if err != nil {
		return err
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name < entries[j].Name })
	if t.opts.DeleteExtra {
		if err := t.deleteExtra(n, entries); err != nil {
			return err
		}
	}
	for _, p := range t.below[n.stored] {
		if err := t.makePipe(n, p); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		if err := t.restore(n, e); err != nil {
			return fmt.Errorf("restore %q: %w", Join(n.stored, e.Name), err)
		}
	}
	return nil
}

func (t *reader) restore(n *readNode, e *snapshot.DirEntry) error {
	name, err := decodeName(e.Name)
	if err != nil {
		return err
	}
	stored := Join(n.stored, e.Name)
	switch e.Type {
	case snapshot.EntryTypeDirectory:
		return t.restoreDir(n, name, stored, e)
	case snapshot.EntryTypeSymlink:
		return t.restoreSymlink(n, name, stored, e)
	case snapshot.EntryTypeFile:
		if x, ok := t.extras[stored]; ok && x.Link != nil {
			t.links = append(t.links, hardLink{stored: stored, entry: e, target: *x.Link})
			return nil
		}
		return t.restoreFile(n, name, stored, e)
	default:
		return fmt.Errorf("%w: entry of type %q", ErrDamaged, e.Type)
	}
}

// deleteExtra removes entries that the snapshot does not have, or has as
// something else than a directory where the target has one.
func (t *reader) deleteExtra(n *readNode, entries []*snapshot.DirEntry) error {
	keep := map[string]bool{}
	for _, e := range entries {
		keep[e.Name] = true
	}
	for _, p := range t.below[n.stored] {
		keep[p.Path[strings.LastIndexByte(p.Path, '/')+1:]] = true
	}
	names, err := n.dir.names()
	if err != nil {
		return fmt.Errorf("list %q: %w", n.stored, err)
	}
	for _, name := range names {
		if keep[encodeName(name)] || (n.parent == nil && (name == markerName || isEmptyLostFound(n.dir, name))) {
			continue
		}
		if err := n.dir.removeAll(name); err != nil {
			return err
		}
	}
	return nil
}

func isEmptyLostFound(d *dir, name string) bool {
	if name != lostFound {
		return false
	}
	lf, err := d.openDir(name)
	if err != nil {
		return false
	}
	defer lf.release()
	names, err := lf.names()
	return err == nil && len(names) == 0
}

func (t *reader) restoreDir(n *readNode, name, stored string, e *snapshot.DirEntry) error {
	err := unix.Mkdirat(n.dir.fd(), name, 0o700)
	if errors.Is(err, unix.EEXIST) {
		if st, serr := n.dir.stat(name); serr == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = dropXattrs(n.dir.proc(name), nil)
		} else if err = n.dir.removeAll(name); err == nil {
			err = unix.Mkdirat(n.dir.fd(), name, 0o700)
		}
	}
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	d, err := n.dir.openDir(name)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	n.pending.Add(1)
	return t.walk(&readNode{parent: n, dir: d, name: name, stored: stored, entry: e})
}

func (t *reader) restoreSymlink(n *readNode, name, stored string, e *snapshot.DirEntry) error {
	rd, err := t.rep.OpenObject(t.ctx, e.ObjectID)
	if err != nil {
		return fmt.Errorf("open link: %w", err)
	}
	var target bytes.Buffer
	_, err = target.ReadFrom(rd)
	_ = rd.Close() // only read
	if err != nil {
		return fmt.Errorf("read link: %w", err)
	}
	if now, err := n.dir.readlink(name); err != nil || now != target.String() {
		if err := n.dir.removeAll(name); err != nil {
			return err
		}
		if err := unix.Symlinkat(target.String(), n.dir.fd(), name); err != nil {
			return fmt.Errorf("make link: %w", err)
		}
	}
	return t.setAttributes(n.dir, name, stored, e)
}

func (t *reader) makePipe(n *readNode, p extra) error {
	name, err := decodeName(p.Path[strings.LastIndexByte(p.Path, '/')+1:])
	if err != nil {
		return err
	}
	if err := n.dir.removeAll(name); err != nil {
		return err
	}
	if err := unix.Mknodat(n.dir.fd(), name, unix.S_IFIFO|0o600, 0); err != nil {
		return fmt.Errorf("make pipe %q: %w", p.Path, err)
	}
	e := &snapshot.DirEntry{Type: snapshot.EntryTypeFile, UserID: p.UID, GroupID: p.GID, Permissions: snapshot.Permissions(modeOf(p.Mode))}
	return t.setAttributes(n.dir, name, p.Path, e)
}

// restoreFile gives a file away, unless it is there.
func (t *reader) restoreFile(n *readNode, name, stored string, e *snapshot.DirEntry) error {
	if t.opts.Resume && t.same(n, name, stored, e) {
		t.meter.Reused.Add(1)
		t.meter.Files.Add(1)
		t.meter.Bytes.Add(e.FileSize)
		t.meter.Tick()
		if err := dropXattrs(n.dir.proc(name), t.extras[stored].Xattr); err != nil {
			return err
		}
		return t.setAttributes(n.dir, name, stored, e)
	}
	cr := t.rep.ContentReader()
	chunks, err := Chunks(t.ctx, cr, e)
	if err != nil {
		return err
	}
	if t.there(n, name) {
		n.pending.Add(1)
		return t.restoreOver(n, name, stored, e, chunks)
	}
	if len(chunks) != 1 {
		n.pending.Add(1)
		return t.restoreLarge(n, name, stored, e, chunks)
	}
	info, err := cr.ContentInfo(t.ctx, chunks[0].ID)
	if err != nil {
		return fmt.Errorf("find content %s: %w", chunks[0].ID, err)
	}
	n.pending.Add(1)
	t.batch = append(t.batch, smallFile{n, name, stored, e, chunks[0], string(info.PackBlobID), info.PackOffset})
	if len(t.batch) >= batchFiles || t.dirs >= batchDirs {
		t.flush()
	}
	return nil
}

// same says whether the target already has the file, complete.
func (t *reader) same(n *readNode, name, stored string, e *snapshot.DirEntry) bool {
	st, err := n.dir.stat(name)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 && st.Size == e.FileSize &&
		timeOf(st.Mtim).Equal(t.mtime(stored, e))
}

func (t *reader) mtime(stored string, e *snapshot.DirEntry) time.Time {
	if x, ok := t.extras[stored]; ok && x.Mtime != nil {
		return x.Mtime.time()
	}
	return e.ModTime.ToTime()
}

// flush writes the batch of small files, in the order of their packs, and in
// runs that keep each worker in one pack.
func (t *reader) flush() {
	batch := t.batch
	t.batch, t.dirs = nil, 0
	slices.SortFunc(batch, func(a, b smallFile) int {
		return cmp.Or(cmp.Compare(a.pack, b.pack), cmp.Compare(a.offset, b.offset))
	})
	const run = 32
	for len(batch) > 0 {
		part := batch[:min(run, len(batch))]
		batch = batch[len(part):]
		t.group.Go(func() error {
			var failed error
			for _, f := range part {
				err := t.restoreSmall(f)
				if err == nil {
					err = t.done(f.node)
				} else {
					abandonRead(f.node)
				}
				if err != nil && failed == nil {
					failed = fmt.Errorf("restore %q: %w", f.stored, err)
				}
			}
			return failed
		})
	}
}

func (t *reader) restoreSmall(f smallFile) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	data, err := f.chunk.load(t.ctx, t.rep.ContentReader())
	if err != nil {
		return err
	}
	if err := t.opts.Pace.wait(t.ctx, len(data)); err != nil {
		return err
	}
	file, err := createFile(f.node.dir, f.name)
	if err != nil {
		return err
	}
	err = writeSparse(file, data, 0, t.hole)
	if err == nil {
		err = t.finishFile(file, f.stored, f.entry, len(data) == 0 || !bytes.Equal(data[len(data)-1:], []byte{0}))
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	t.meter.Fetched.Add(int64(len(data)))
	t.meter.Bytes.Add(int64(len(data)))
	t.meter.Files.Add(1)
	t.meter.Tick()
	return nil
}

// createFile makes a new, empty file in place of whatever has the name.
func createFile(d *dir, name string) (*os.File, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL
	f, err := d.openFile(name, flags, 0o600)
	if errors.Is(err, unix.EEXIST) {
		if err := d.removeAll(name); err != nil {
			return nil, err
		}
		f, err = d.openFile(name, flags, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("create file: %w", err)
	}
	return f, nil
}

var zeros [coarseHole]byte

// writeSparse writes data at an offset of a new file, leaving holes for
// aligned runs of at least hole zeros.
func writeSparse(f io.WriterAt, data []byte, offset int64, hole int) error {
	for i := 0; i < len(data); {
		j := i
		for j < len(data) && isZero(data[j:min(j+hole, len(data))]) {
			j = min(j+hole, len(data))
		}
		i = j
		for j < len(data) && !isZero(data[j:min(j+hole, len(data))]) {
			j = min(j+hole, len(data))
		}
		if j == i {
			break
		}
		if _, err := f.WriteAt(data[i:j], offset+int64(i)); err != nil {
			return fmt.Errorf("write file: %w", err)
		}
		i = j
	}
	return nil
}

// isBlank tells whether all of a chunk becomes a hole.
func isBlank(data []byte) bool {
	for run := range slices.Chunk(data, coarseHole) {
		if !isZero(run) {
			return false
		}
	}
	return true
}

func isZero(b []byte) bool { return b[0] == 0 && bytes.Equal(b, zeros[:len(b)]) }

// finishFile sets a written file's size, owner, mode, attributes and, last of
// all, its time, which says that the file is complete.
func (t *reader) finishFile(f *os.File, stored string, e *snapshot.DirEntry, sized bool) error {
	if !sized {
		if err := f.Truncate(e.FileSize); err != nil {
			return fmt.Errorf("size file: %w", err)
		}
	}
	fd := int(f.Fd())
	if err := unix.Fchown(fd, int(e.UserID), int(e.GroupID)); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	if err := unix.Fchmod(fd, unixMode(os.FileMode(e.Permissions))); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	for name, value := range t.extras[stored].Xattr {
		if err := unix.Fsetxattr(fd, name, value, 0); err != nil {
			return fmt.Errorf("set attribute %s: %w", name, err)
		}
	}
	if err := futimens(fd, t.mtime(stored, e)); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// setAttributes does the same for an entry by name: of any type.
func (t *reader) setAttributes(d *dir, name, stored string, e *snapshot.DirEntry) error {
	if err := unix.Fchownat(d.fd(), name, int(e.UserID), int(e.GroupID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set owner of %q: %w", stored, err)
	}
	if e.Type != snapshot.EntryTypeSymlink {
		if err := d.chmod(name, unixMode(os.FileMode(e.Permissions))); err != nil {
			return fmt.Errorf("set mode of %q: %w", stored, err)
		}
		for key, value := range t.extras[stored].Xattr {
			if err := unix.Lsetxattr(d.proc(name), key, value, 0); err != nil {
				return fmt.Errorf("set attribute %s of %q: %w", key, stored, err)
			}
		}
	}
	ts := times(t.mtime(stored, e))
	if err := unix.UtimesNanoAt(d.fd(), name, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time of %q: %w", stored, err)
	}
	return nil
}

// done counts off one entry of the directory, and finishes it after the last.
func (t *reader) done(n *readNode) error {
	for ; n != nil; n = n.parent {
		if n.pending.Add(-1) > 0 {
			return nil
		}
		n.dir.release()
		if n.parent == nil {
			return nil // the root is finished after everything else
		}
		if err := t.setAttributes(n.parent.dir, n.name, n.stored, n.entry); err != nil {
			abandonRead(n.parent)
			return err
		}
	}
	return nil
}

// makeLinks makes the further names of files, once all files are there.
func (t *reader) makeLinks(root *dir) error {
	for _, l := range t.links {
		if err := t.makeLink(root, l); err != nil {
			return fmt.Errorf("restore %q as a link to %q: %w", l.stored, l.target, err)
		}
	}
	return nil
}

func (t *reader) makeLink(root *dir, l hardLink) error {
	from, fromName, err := descend(root, l.target)
	if err != nil {
		return err
	}
	defer from.release()
	to, toName, err := descend(root, l.stored)
	if err != nil {
		return err
	}
	defer to.release()
	var st unix.Stat_t
	if err := unix.Fstat(to.fd(), &st); err != nil {
		return err
	}
	if err := to.removeAll(toName); err != nil {
		return err
	}
	if err := unix.Linkat(from.fd(), fromName, to.fd(), toName, 0); err != nil {
		return err
	}
	t.meter.Files.Add(1)
	t.meter.Bytes.Add(l.entry.FileSize)
	return futimens(to.fd(), timeOf(st.Mtim)) // the directory was finished before
}

// descend opens the directory of a stored path and returns the last name.
func descend(root *dir, stored string) (*dir, string, error) {
	names, err := decodePath(stored)
	if err != nil {
		return nil, "", err
	}
	d := root.hold()
	for _, name := range names[:len(names)-1] {
		next, err := d.openDir(name)
		d.release()
		if err != nil {
			return nil, "", err
		}
		d = next
	}
	return d, names[len(names)-1], nil
}
