package volume

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/volume/changes"
	"davit.dev/davit/internal/volume/suspect"
)

// disk is a volume on storage with snapshots: an image file with a file system
// that is mounted. What was changed between two snapshots is found by reading both.
type disk struct {
	t           *testing.T
	kind        string
	dir, volume string
	cuts        int
	mounts      []string
	deltas      map[string]*changes.Delta // known by the names of two cuts
}

const diskBytes = 320 << 20 // no XFS is smaller

func newDisk(t *testing.T, kind string, options ...string) *disk {
	t.Helper()
	needRoot(t)
	if _, err := exec.LookPath("mkfs." + kind); err != nil {
		if os.Getenv("DAVIT_CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("/var/tmp", "davit-disk-") // of several GiB if it were in memory
	if err != nil {
		t.Fatal(err)
	}
	d := &disk{t: t, kind: kind, dir: dir, volume: filepath.Join(dir, "volume"), deltas: map[string]*changes.Delta{}}
	t.Cleanup(func() {
		for _, at := range d.mounts {
			_ = exec.Command("umount", at).Run()
		}
		_ = os.RemoveAll(dir)
	})
	store := filepath.Join(dir, "store") // what the volume's storage is on
	d.run("truncate", "-s", fmt.Sprint(2*diskBytes), store)
	d.run("mkfs.ext4", "-q", store)
	d.mount("ext4", store, d.store())
	d.run("truncate", "-s", fmt.Sprint(diskBytes), d.image())
	d.run("mkfs."+kind, append([]string{"-q"}, append(options, d.image())...)...)
	d.mount(kind, d.image(), d.volume)
	return d
}

func (d *disk) store() string { return filepath.Join(d.dir, "storage") }

func (d *disk) image() string { return filepath.Join(d.store(), "image") }

func (d *disk) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

func (d *disk) mount(kind, image, at string) {
	d.t.Helper()
	if err := os.Mkdir(at, 0o755); err != nil {
		d.t.Fatal(err)
	}
	options := "loop,noatime"
	if kind == "xfs" {
		options += ",nouuid"
	}
	d.run("mount", "-o", options, image, at)
	d.mounts = append([]string{at}, d.mounts...)
}

// cut is a snapshot of the disk as it is now, after a flush or as a crash would leave it, mounted.
type cut struct {
	name, image, dir string
	settled          time.Time // all that was written before is in it
}

func (d *disk) cut(flush bool) cut {
	d.t.Helper()
	d.cuts++
	c := cut{name: fmt.Sprintf("snap-%d", d.cuts)}
	c.image, c.dir = filepath.Join(d.dir, c.name), filepath.Join(d.dir, c.name+".dir")
	still := d.store() // nothing reaches the image, and nobody flushes what is above it
	c.settled = time.Now().Add(-5 * time.Minute)
	if flush {
		still, c.settled = d.volume, time.Now()
	}
	d.run("fsfreeze", "-f", still)
	out, err := exec.Command("cp", "--sparse=always", d.image(), c.image).CombinedOutput()
	d.run("fsfreeze", "-u", still)
	if err != nil {
		d.t.Fatalf("cut: %v: %s", err, out)
	}
	d.run("cp", "--sparse=always", c.image, c.image+".clone")
	d.mount(d.kind, c.image+".clone", c.dir)
	return c
}

// delta reads two snapshots and tells what differs.
func (d *disk) delta(a, b cut) *changes.Delta {
	d.t.Helper()
	name := a.name + b.name
	if known := d.deltas[name]; known != nil {
		return known
	}
	delta, err := changes.NewDelta(diskBytes)
	if err != nil {
		d.t.Fatal(err)
	}
	before, err := os.ReadFile(a.image)
	if err != nil {
		d.t.Fatal(err)
	}
	after, err := os.ReadFile(b.image)
	if err != nil {
		d.t.Fatal(err)
	}
	for at := 0; at < len(after); at += 4096 {
		if !bytes.Equal(before[at:at+4096], after[at:at+4096]) {
			if err := delta.Change(int64(at), 4096); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	d.deltas[name] = delta
	return delta
}

// backup stores a cut; with the one before it, by what was changed since.
type backup struct {
	cut  cut
	snap point.Snapshot
	plan *changes.Plan
}

func (d *disk) backup(r *Repository, c cut, before *backup, change ...func(*changes.Plan)) backup {
	d.t.Helper()
	at, err := changes.DeviceOf(c.dir)
	if err != nil || at.Size != diskBytes || at.FileSystem != d.kind {
		d.t.Fatalf("device %+v, %v", at, err)
	}
	b := backup{cut: c, plan: &changes.Plan{Now: changes.NewBook(changes.Head{Snapshot: c.name, Size: at.Size, FileSystem: at.FileSystem})}}
	o := WriteOptions{Root: c.dir, Source: source, Changes: b.plan, Cut: c.settled}
	if before != nil {
		o.Previous = &before.snap
		if b.plan.Before, err = r.Blocks(d.t.Context(), before.snap); err != nil {
			d.t.Fatal(err)
		}
		if b.plan.Before == nil || b.plan.Before.Snapshot != before.cut.name {
			d.t.Fatalf("blocks of %+v, want %s", b.plan.Before, before.cut.name)
		}
		b.plan.Delta = d.delta(before.cut, c)
	}
	for _, f := range change {
		f(b.plan)
	}
	if b.snap, err = r.Write(d.t.Context(), o); err != nil {
		d.t.Fatal(err)
	}
	return b
}

// whole tells whether a backup holds what its cut does.
func (b backup) whole(t *testing.T, r *Repository) bool {
	t.Helper()
	target := t.TempDir()
	if err := r.Read(t.Context(), b.snap, target, ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	want := facts(t, b.cut.dir)
	delete(want, "lost+found/.")
	got := facts(t, target)
	same := len(got) == len(want)
	for path, is := range want {
		if has := got[path]; !cmp.Equal(has, is) {
			same = false
			t.Logf("%s: %s differs in the MiB at %v", b.cut.name, path, differing(is.Data, has.Data))
		}
	}
	return same
}

// differing are the chunks in which two files do: how may be of many MiB.
func differing(a, b string) (at []int) {
	for i := 0; i<<20 < max(len(a), len(b)); i++ {
		from := i << 20
		if a[min(from, len(a)):min(from+1<<20, len(a))] != b[min(from, len(b)):min(from+1<<20, len(b))] {
			at = append(at, i)
		}
	}
	return at
}

// scribble changes part of a file in place.
func scribble(t *testing.T, path string, seed uint64, offset, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(random(seed, n), int64(offset)); err != nil {
		t.Fatal(err)
	}
}

// TestOnlyWhatTheStorageCallsChangedIsRead: of a database's file of which one percent is
// changed, little more is read. The control is the same without the storage's word.
func TestOnlyWhatTheStorageCallsChangedIsRead(t *testing.T) {
	const size = 96 << 20
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			r, d := openTest(t, newTestStore()), newDisk(t, kind)
			file := d.volume + "/db"
			put(t, file, random(1, size))
			first := d.backup(r, d.cut(true), nil)
			for i := range 2 {
				scribble(t, file, uint64(10+i), i*(60<<20)+12345, 1<<20)
			}
			second := d.backup(r, d.cut(true), &first)
			if read := size - second.plan.Unread(); read > 32<<20 || second.plan.Lie() != "" {
				t.Errorf("%d MiB were read of %d; lie: %q", read>>20, size>>20, second.plan.Lie())
			}
			control := d.backup(r, second.cut, &first, func(p *changes.Plan) { p.Delta = nil })
			if control.plan.Unread() != 0 || control.snap.RootID == "" {
				t.Errorf("without the storage's word %d bytes were not read", control.plan.Unread())
			}
			for _, b := range []backup{first, second, control} {
				if !b.whole(t, r) {
					t.Errorf("%s is not what was cut", b.cut.name)
				}
				checkClean(t, r, b.snap)
			}
		})
	}
}

// TestWhateverIsDoneToFilesABackupHoldsIt does much to a volume's files, between backups that
// go by what the storage says.
func TestWhateverIsDoneToFilesABackupHoldsIt(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprint(kind, seed), func(t *testing.T) {
				r, d := openTest(t, newTestStore()), newDisk(t, kind)
				w := &scribbler{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), dir: d.volume}
				for range 4 {
					w.make()
				}
				last := d.backup(r, d.cut(true), nil)
				var unread int64
				for round := range 6 {
					for range 5 {
						w.step()
					}
					next := d.backup(r, d.cut(w.rnd.IntN(2) == 0), &last, func(p *changes.Plan) { p.All = round == 4 })
					if lie := next.plan.Lie(); lie != "" {
						t.Fatalf("round %d: an honest storage is called a liar: %s", round, lie)
					}
					if !next.whole(t, r) {
						t.Fatalf("round %d: the backup is not what was cut: %v", round, w.log)
					}
					unread += next.plan.Unread()
					last = next
				}
				if unread == 0 {
					t.Error("nothing was taken over in all of it")
				}
			})
		}
	}
}

type scribbler struct {
	t    *testing.T
	rnd  *rand.Rand
	dir  string
	made int
	log  []string
}

func (w *scribbler) make() {
	w.made++
	name := fmt.Sprintf("f%d", w.made)
	put(w.t, filepath.Join(w.dir, name), random(w.rnd.Uint64(), 8<<20+w.rnd.IntN(12<<20)))
	w.log = append(w.log, "make "+name)
}

func (w *scribbler) step() {
	names, err := os.ReadDir(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	var files []string
	for _, n := range names {
		if n.Type().IsRegular() {
			files = append(files, n.Name())
		}
	}
	if len(files) < 3 {
		w.make()
		return
	}
	name, other := files[w.rnd.IntN(len(files))], files[w.rnd.IntN(len(files))]
	path := filepath.Join(w.dir, name)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		w.t.Fatal(err)
	}
	at, n := w.rnd.Int64N(max(st.Size(), 1)), 1+w.rnd.Int64N(2<<20)
	what := []string{"write", "write", "write", "copy over itself", "truncate", "extend", "punch", "set aside", "rename", "remove", "swap halves"}[w.rnd.IntN(11)]
	w.log = append(w.log, fmt.Sprintf("%s %s at %d, %d (%s)", what, name, at, n, other))
	switch what {
	case "write":
		_, err = f.WriteAt(random(w.rnd.Uint64(), int(n)), at)
	case "copy over itself":
		var data []byte
		if data, err = os.ReadFile(path); err == nil {
			err = os.WriteFile(path, data, 0o644)
		}
	case "truncate":
		err = f.Truncate(at)
	case "extend":
		err = f.Truncate(min(st.Size()+n, 24<<20))
	case "punch":
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n)
	case "set aside":
		err = unix.Fallocate(int(f.Fd()), 0, at, n)
	case "rename":
		err = os.Rename(path, filepath.Join(w.dir, other))
	case "remove":
		err = os.Remove(path)
	case "swap halves":
		var data []byte
		if data, err = os.ReadFile(path); err == nil {
			half := len(data) / 2
			_, err = f.WriteAt(append(bytes.Clone(data[half:]), data[:half]...), 0)
		}
	}
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		w.t.Fatalf("%s: %v", what, err)
	}
}

// TestAStorageThatLiesIsFound: one that forgets what was changed is found when all is read, and
// most likely before; what is stored is right from then on. The control is what such a
// lie does where nobody looks.
func TestAStorageThatLiesIsFound(t *testing.T) {
	const size = 40 << 20
	r, d := openTest(t, newTestStore()), newDisk(t, "ext4")
	file := d.volume + "/db"
	put(t, file, random(1, size))
	first := d.backup(r, d.cut(true), nil)
	scribble(t, file, 2, 30<<20, 1<<20)
	c := d.cut(true)
	forget := func(p *changes.Plan) { // but for the first MiB of the device
		p.Delta, _ = changes.NewDelta(diskBytes)
		_ = p.Delta.Change(0, 1<<20)
	}
	found := 0
	for range 12 {
		b := d.backup(r, c, &first, forget)
		if b.plan.Lie() == "" && b.whole(t, r) {
			t.Error("the lie did no harm: this shows nothing")
		}
		if b.plan.Lie() != "" {
			found++
			if !b.whole(t, r) || b.plan.Unread() != 0 {
				t.Errorf("after the lie was found %d bytes were not read", b.plan.Unread())
			}
		}
	}
	if found == 12 {
		t.Error("the sample found it each time: it is no sample")
	}
	t.Logf("a sample found the lie in %d of 12 backups", found)
	all := d.backup(r, c, &first, forget, func(p *changes.Plan) { p.All = true })
	if !strings.Contains(all.plan.Lie(), `"db", the MiB at 30`) || !all.whole(t, r) {
		t.Errorf("all was read, and the lie is %q", all.plan.Lie())
	}
	if book, err := r.Blocks(t.Context(), all.snap); book != nil || err != nil {
		t.Errorf("places are kept although the storage lies: %v, %v", book, err)
	}
	empty := func(p *changes.Plan) { p.Delta, _ = changes.NewDelta(diskBytes) }
	nothing := d.backup(r, c, &first, empty)
	if nothing.plan.Unread() != 0 || !nothing.whole(t, r) {
		t.Error("nothing was changed, it said, and was believed")
	}
	// Nor is it believed of a file whose time was set back: what is old of it would be taken over later.
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(file, old, old); err != nil {
		t.Fatal(err)
	}
	aged := d.backup(r, d.cut(true), nil)
	scribble(t, file, 5, 20<<20, 1<<20)
	if err := os.Chtimes(file, old, old); err != nil {
		t.Fatal(err)
	}
	stale := d.backup(r, d.cut(true), &aged, empty)
	if stale.whole(t, r) {
		t.Fatal("the file was read: this shows nothing")
	}
	scribble(t, file, 6, 9<<20, 1<<20)
	if last := d.backup(r, d.cut(true), &stale); !last.whole(t, r) {
		t.Errorf("what is old was taken over: %d bytes were not read", last.plan.Unread())
	}
}

// TestWhatAFileJournalsIsRead: data that lies in the journal is in its place on no snapshot.
func TestWhatAFileJournalsIsRead(t *testing.T) {
	r, d := openTest(t, newTestStore()), newDisk(t, "ext4")
	put(t, d.volume+"/db", nil)
	d.run("umount", d.volume)                                                    // chattr would need a capability that containers rarely have
	d.run("debugfs", "-w", "-R", "set_inode_field /db flags 0x84000", d.image()) // extents and EXT4_JOURNAL_DATA_FL
	d.run("mount", d.image(), d.volume)
	if err := os.WriteFile(d.volume+"/db", random(1, 16<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	first := d.backup(r, d.cut(true), nil)
	scribble(t, d.volume+"/db", 2, 5<<20, 4096)
	second := d.backup(r, d.cut(true), &first)
	if second.plan.Unread() != 0 || !second.whole(t, r) {
		t.Errorf("%d bytes of a file with a journal were not read", second.plan.Unread())
	}
}

// TestAFileSystemThatJournalsDataIsRefused, however it came to do that.
func TestAFileSystemThatJournalsDataIsRefused(t *testing.T) {
	for _, mounted := range []bool{true, false} {
		d := newDisk(t, "ext4")
		if _, err := changes.DeviceOf(d.volume); err != nil {
			t.Fatal(err)
		}
		d.run("umount", d.volume)
		options := "loop"
		if mounted {
			options += ",data=journal"
		} else {
			d.run("tune2fs", "-o", "journal_data", d.image())
		}
		d.run("mount", "-o", options, d.image(), d.volume)
		if _, err := changes.DeviceOf(d.volume); !errors.Is(err, changes.ErrDevice) || !strings.Contains(err.Error(), "data=journal") {
			t.Errorf("by the mount's options %t: %v", mounted, err)
		}
	}
}

// TestAFileThatIsTakenOverByItsTimeIsTrustedNoFurther: whoever sets a file's time back has it taken
// over with old data; when its time changes again all of it is read, whatever the storage says.
func TestAFileThatIsTakenOverByItsTimeIsTrustedNoFurther(t *testing.T) {
	r, d := openTest(t, newTestStore()), newDisk(t, "ext4")
	file, old := d.volume+"/db", time.Now().Add(-time.Hour).Truncate(time.Second)
	put(t, file, random(1, 40<<20))
	back := func() {
		t.Helper()
		if err := os.Chtimes(file, old, old); err != nil {
			t.Fatal(err)
		}
	}
	back()
	first := d.backup(r, d.cut(true), nil)
	scribble(t, file, 2, 5<<20, 1<<20)
	back()
	second := d.backup(r, d.cut(true), &first)
	if second.whole(t, r) {
		t.Fatal("the file was read: this shows nothing")
	}
	scribble(t, file, 3, 9<<20, 1<<20)
	third := d.backup(r, d.cut(true), &second)
	if !third.whole(t, r) || third.plan.Unread() == 0 {
		t.Errorf("what was stale is still so; %d bytes were not read; lie %q", third.plan.Unread(), third.plan.Lie())
	}
}

// TestAFileThatNobodyTouchesAgainIsComparedToo: what was stored of it by a wrong word would else be taken
// over by its time for good. All of it is read where all is, where a lie about another file is found, and
// where the storage's word is not taken any more.
func TestAFileThatNobodyTouchesAgainIsComparedToo(t *testing.T) {
	r, d := openTest(t, newTestStore()), newDisk(t, "ext4")
	put(t, d.volume+"/once", random(1, 40<<20))
	put(t, d.volume+"/often", random(2, 40<<20))
	aged := func(hours int) { // a time that is old enough to be believed
		t.Helper()
		at := time.Now().Add(-time.Duration(hours) * time.Hour)
		if err := os.Chtimes(d.volume+"/once", at, at); err != nil {
			t.Fatal(err)
		}
	}
	aged(2)
	first := d.backup(r, d.cut(true), nil)
	scribble(t, d.volume+"/once", 3, 5<<20, 1<<20)
	aged(1)
	forget := func(p *changes.Plan) {
		p.Delta, _ = changes.NewDelta(diskBytes)
		_ = p.Delta.Change(0, 1<<20)
	}
	c := d.cut(true)
	stale := d.backup(r, c, &first, forget)
	for stale.plan.Lie() != "" { // the sample found it
		stale = d.backup(r, c, &first, forget)
	}
	scribble(t, d.volume+"/often", 4, 9<<20, 1<<20)
	c = d.cut(true)
	if next := d.backup(r, c, &stale, forget); next.plan.Lie() == "" && next.whole(t, r) {
		t.Error("what is stale is not: this shows nothing")
	}
	for name, change := range map[string]func(*changes.Plan){
		"all is read":            func(p *changes.Plan) { p.All = true },
		"the option is off":      func(p *changes.Plan) { p.Delta, p.All, p.Last = nil, true, true },
		"there is no answer":     func(p *changes.Plan) { p.Delta, p.All = nil, true },
		"a lie is found of both": func(p *changes.Plan) { forget(p); p.All = true },
	} {
		b := d.backup(r, c, &stale, change)
		if !b.whole(t, r) || !strings.Contains(b.plan.Lie(), "the MiB at") {
			t.Errorf("%s: what is stale is still so; lie %q", name, b.plan.Lie())
		}
	}
	found := false
	for range 60 {
		b := d.backup(r, c, &stale, forget)
		if found = b.plan.Lie() != ""; found {
			if !b.whole(t, r) {
				t.Errorf("a lie was found (%s), and what is stale is still so", b.plan.Lie())
			}
			break
		}
	}
	if !found {
		t.Error("the sample found nothing")
	}
}

// TestDamagedChunksAreReadAgain: what is taken over must be there.
func TestDamagedChunksAreReadAgain(t *testing.T) {
	s := newTestStore()
	r, d := openTest(t, s), newDisk(t, "ext4")
	put(t, d.volume+"/db", random(1, 64<<20))
	first := d.backup(r, d.cut(true), nil)
	lost := s.keys(testPrefix + "p")[0]
	err := errors.Join(s.Delete(t.Context(), lost), suspect.Note(t.Context(), s, testPrefix, []string{strings.TrimPrefix(lost, testPrefix)}))
	if err != nil {
		t.Fatal(err)
	}
	scribble(t, d.volume+"/db", 2, 5<<20, 4096)
	second := d.backup(r, d.cut(true), &first)
	if second.plan.Unread() == 0 || !second.whole(t, r) {
		t.Errorf("%d bytes were taken over", second.plan.Unread())
	}
}
