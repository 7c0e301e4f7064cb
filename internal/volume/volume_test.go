package volume

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume/tree"
	"davit.dev/davit/internal/volume/volumetest"
)

func TestMain(m *testing.M) {
	volumetest.CheapKeys()
	if root := os.Getenv("DAVIT_TEST_UNREADABLE"); root != "" {
		os.Exit(writeUnreadable(root))
	}
	// Restores sync their whole file system: on a busy disk that is others'
	// data, too. Benchmarks stay on disk.
	benchmarks := strings.Contains(strings.Join(os.Args, " "), "-test.bench=")
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() && os.Getenv("TMPDIR") == "" && !benchmarks {
		_ = os.Setenv("TMPDIR", "/dev/shm")
	}
	var ignore []goleak.Option
	if os.Getenv("DAVIT_BENCH_S3") != "" { // connections kept open for the next request
		ignore = append(ignore, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
	}
	goleak.VerifyTestMain(m, ignore...)
}

var source = Source{Namespace: "shop", Claim: "data"}

func write(t testing.TB, r *Repository, root string, change ...func(*WriteOptions)) point.Snapshot {
	t.Helper()
	o := WriteOptions{Root: root, Source: source}
	for _, c := range change {
		c(&o)
	}
	snap, err := r.Write(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func put(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = src.Read(b)
	return b
}

// fact is what a test compares of one entry.
type fact struct {
	Mode, UID, GID uint32
	Nlink          uint64
	Mtime          int64
	Link           string
	Data           string
	Xattr          map[string][]byte
}

// facts describes a tree.
func facts(t testing.TB, root string) map[string]fact {
	t.Helper()
	all := map[string]fact{}
	describe(t, all, openAt(t, unix.AT_FDCWD, root), "")
	return all
}

// openAt goes down one step: paths may be longer than a system call takes.
func openAt(t testing.TB, at int, name string) int {
	t.Helper()
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// entriesOf names what is in a directory, and the directory itself as ".".
func entriesOf(t testing.TB, fd int) []string {
	t.Helper()
	d := os.NewFile(uintptr(openAt(t, fd, ".")), "directory")
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	return append(names, ".")
}

// describe gathers the facts below an open directory, and closes it.
func describe(t testing.TB, all map[string]fact, fd int, path string) {
	t.Helper()
	defer unix.Close(fd)
	for _, name := range entriesOf(t, fd) {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
		f := fact{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Mtime: st.Mtim.Nano()}
		at, proc := tree.Join(path, name), fmt.Sprintf("/proc/self/fd/%d/%s", fd, name)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			if name != "." {
				describe(t, all, openAt(t, fd, name), at)
				continue
			}
		case unix.S_IFLNK:
			f.Link, _ = os.Readlink(proc)
		case unix.S_IFREG:
			b, err := os.ReadFile(proc)
			if err != nil {
				t.Fatal(err)
			}
			f.Data, f.Nlink = string(b), st.Nlink
		}
		f.Xattr = xattrs(t, proc)
		all[at] = f
	}
}

// xattrs reads every extended attribute but the labels of security modules.
func xattrs(t testing.TB, path string) map[string][]byte {
	t.Helper()
	list, value := make([]byte, 64<<10), make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for name := range strings.SplitSeq(string(list[:max(n, 0)]), "\x00") {
		if name == "" || name == "security.selinux" {
			continue
		}
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = bytes.Clone(value[:n])
	}
	return all
}

// uglyTree makes a tree of everything that has ever broken a backup.
func uglyTree(t testing.TB, root string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put(t, root+"/empty", nil)
	put(t, root+"/plain.txt", []byte("hello"))
	put(t, root+"/zeros", make([]byte, 300_000))
	put(t, root+"/ends in zeros", append([]byte("x"), make([]byte, 70_000)...))
	put(t, root+"/big", random(1, 5<<20+17))
	put(t, root+"/"+strings.Repeat("n", 255), []byte("long name"))
	put(t, root+"/not\xff\xfeutf8", []byte("bytes"))
	put(t, root+"/"+encodedName+"trap", []byte("looks encoded"))
	put(t, root+"/a\nb\t\"'\\ <&>\u2028", []byte("controls"))
	put(t, root+"/dir.kopia-entry/x.kopia-entry", []byte("not a placeholder"))
	put(t, root+"/\xfe dir/file\xff", []byte("nested bytes"))
	must(os.Mkdir(root+"/empty dir", 0o700))
	must(os.MkdirAll(root+"/lost+found", 0o700))
	put(t, root+"/sub/lost+found/kept", []byte("not at the root"))
	sparse, err := os.Create(root + "/sparse")
	must(err)
	_, err = sparse.WriteAt([]byte("end"), 8<<20)
	must(err)
	must(sparse.Close())
	must(os.Symlink("plain.txt", root+"/link"))
	must(os.Symlink("/nowhere/\xff", root+"/dangling\xff"))
	must(os.Link(root+"/big", root+"/sub/big again"))
	must(os.Link(root+"/big", root+"/zz big"))
	must(unix.Mkfifo(root+"/pipe\xff", 0o640))
	must(os.Chown(root+"/plain.txt", 1234, 5678))
	must(os.Lchown(root+"/link", 99, 98))
	put(t, root+"/setuid", []byte("#!"))
	must(unix.Chmod(root+"/setuid", 0o6751))
	must(unix.Chmod(root+"/empty dir", 0o1777))
	must(unix.Chmod(root+"/plain.txt", 0))
	if err := unix.Setxattr(root+"/big", "user.note", []byte("kept\x00bytes"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	accessLists(t, root)
	deepTree(t, root)
	old := time.Date(1969, 7, 20, 20, 17, 40, 123456789, time.UTC)
	must(os.Chtimes(root+"/empty", old, old))
	for _, p := range []string{"/sub", "/plain.txt", "/empty dir", ""} {
		at := time.Date(2001, 2, 3, 4, 5, 6, 987654321, time.UTC)
		must(os.Chtimes(root+p, at, at))
	}
}

// accessLists gives a file and a directory POSIX access lists, and a file a
// capability, where the file system and the machine allow it.
func accessLists(t testing.TB, root string) {
	t.Helper()
	put(t, root+"/listed/inherits", []byte("by default"))
	put(t, root+"/capable", []byte("#!"))
	for _, x := range []struct {
		path, name string
		value      []byte
	}{
		{"/sub/big again", "system.posix_acl_access", accessList(1000, 4)},
		{"/listed", "system.posix_acl_access", accessList(1001, 5)},
		{"/listed", "system.posix_acl_default", accessList(1002, 7)},
		{"/capable", "security.capability", []byte("\x00\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")},
	} {
		if err := unix.Setxattr(root+x.path, x.name, x.value, 0); err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			t.Fatalf("set %s: %v", x.name, err)
		}
	}
}

// accessList is a POSIX access list in the kernel's form that gives one more
// user some rights.
func accessList(uid, rights uint32) []byte {
	list := binary.LittleEndian.AppendUint32(nil, 2) // version
	for _, e := range [][3]uint32{{1, 6, 1<<32 - 1}, {2, rights, uid}, {4, 4, 1<<32 - 1}, {0x10, 7, 1<<32 - 1}, {0x20, 0, 1<<32 - 1}} {
		list = binary.LittleEndian.AppendUint16(list, uint16(e[0]))
		list = binary.LittleEndian.AppendUint16(list, uint16(e[1]))
		list = binary.LittleEndian.AppendUint32(list, e[2])
	}
	return list
}

// deepTree goes below the longest path a system call takes.
func deepTree(t testing.TB, root string) {
	t.Helper()
	fd := openAt(t, unix.AT_FDCWD, root)
	for range 40 {
		name := strings.Repeat("d", 200)
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next := openAt(t, fd, name)
		_ = unix.Close(fd)
		fd = next
	}
	put(t, fmt.Sprintf("/proc/self/fd/%d/bottom", fd), []byte("deep"))
	_ = unix.Close(fd)
}

// Names that mean something in a tree.
const (
	encodedName = "%davit-name:"
	markerName  = ".davit-restore-unfinished"
)

func TestRoundTripOfAnUglyTree(t *testing.T) {
	needRoot(t)
	r := openTest(t, newTestStore())
	root, target := t.TempDir(), t.TempDir()
	uglyTree(t, root)
	snap := write(t, r, root)
	if snap.Errors != 0 || snap.Files == 0 || snap.Repository != "east" || len(snap.Inventories) == 0 || snap.NewBytes == 0 {
		t.Errorf("snapshot = %+v", snap)
	}
	if err := r.Read(t.Context(), snap, target, ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	want := facts(t, root)
	delete(want, "lost+found/.")
	if diff := cmp.Diff(want, facts(t, target)); diff != "" {
		t.Errorf("restored tree (-want +got):\n%s", diff)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(target+"/sparse", &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("sparse file takes %d bytes, %v", st.Blocks*512, err)
	}
	checkClean(t, r, snap)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to change owners")
	}
}

func checkClean(t *testing.T, r *Repository, snap point.Snapshot) {
	t.Helper()
	for _, all := range []bool{false, true} {
		rep, err := r.Verify(t.Context(), snap, VerifyOptions{ReadAll: all})
		if err != nil || rep.Err() != nil || rep.Files != snap.Files {
			t.Errorf("verify(%v) = %+v, %v", all, rep, err)
		}
	}
	rep, err := r.VerifyBlobs(t.Context(), snap.Inventories, VerifyOptions{})
	if err != nil || rep.Err() != nil || len(rep.Unlisted) > 0 || rep.Blobs == 0 {
		t.Errorf("verify blobs = %+v, %v", rep, err)
	}
}

func TestSpecialFilesAreReported(t *testing.T) {
	needRoot(t)
	r := openTest(t, newTestStore())
	root := t.TempDir()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: root + "/sock"}); err != nil {
		t.Fatal(err)
	}
	want := 1
	if unix.Mknod(root+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) == nil {
		want++
	}
	put(t, root+"/file", []byte("x"))
	var issues []Issue
	snap := write(t, r, root, func(o *WriteOptions) { o.Issue = func(i Issue) { issues = append(issues, i) } })
	if snap.Errors != 0 || snap.Files != 1 || len(issues) != want || issues[0].Kind != Skipped {
		t.Errorf("snapshot %+v, issues %v", snap, issues)
	}
}

func TestFilesThatVanishAndChange(t *testing.T) {
	r := openTest(t, newTestStore(), func(o *Options) { o.Parallel = 1 })
	root, target := t.TempDir(), t.TempDir()
	put(t, root+"/a", random(1, 4<<20))
	put(t, root+"/b", []byte("short life"))
	if err := os.Link(root+"/b", root+"/c"); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	kinds := map[string]IssueKind{}
	snap := write(t, r, root, func(o *WriteOptions) {
		o.Progress = func(Progress) {
			once.Do(func() {
				_ = os.Remove(root + "/b")
				f, _ := os.OpenFile(root+"/a", os.O_APPEND|os.O_WRONLY, 0)
				_, _ = f.WriteString("more")
				_ = f.Close()
			})
		}
		o.Issue = func(i Issue) { kinds[i.Path] = i.Kind }
	})
	if diff := cmp.Diff(map[string]IssueKind{"a": Changed, "b": Vanished}, kinds); diff != "" || snap.Errors != 0 {
		t.Errorf("issues (-want +got):\n%s\n%+v", diff, snap)
	}
	if err := r.Read(t.Context(), snap, target, ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(target + "/c"); string(b) != "short life" {
		t.Errorf("the other name of a vanished file: %q, %v", b, err)
	}
}

// TestUnreadableEntriesAreCounted runs itself again as a user who may not
// read everything.
func TestUnreadableEntriesAreCounted(t *testing.T) {
	needRoot(t)
	root, err := os.MkdirTemp("", "davit-unreadable-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	put(t, root+"/ok", []byte("x"))
	put(t, root+"/secret", []byte("x"))
	put(t, root+"/closed/file", []byte("x"))
	_ = os.Chmod(root, 0o755)
	_ = os.Chmod(root+"/secret", 0)
	_ = os.Chmod(root+"/closed", 0)
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	copyOf := filepath.Join(root, "..", filepath.Base(root)+".test")
	if err := os.WriteFile(copyOf, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(copyOf)
	cmd := exec.CommandContext(t.Context(), copyOf)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "DAVIT_TEST_UNREADABLE="+root, "TMPDIR=/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "errors=2 files=1 [closed secret]") {
		t.Errorf("%v: %s", err, out)
	}
}

func writeUnreadable(root string) int {
	ctx := context.Background()
	r, err := Open(ctx, Options{Store: newTestStore(), Prefix: testPrefix, Password: testPassword, Site: "east"})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer r.Close(ctx)
	found := map[string]bool{}
	snap, err := r.Write(ctx, WriteOptions{Root: root, Source: source, Issue: func(i Issue) {
		found[i.Path] = i.Kind == Unreadable && i.Err != nil
	}})
	fmt.Printf("errors=%d files=%d ", snap.Errors, snap.Files)
	if found["closed"] && found["secret"] && err == nil {
		fmt.Println("[closed secret]")
	}
	return 0
}

func TestIncrementalReadsOnlyWhatChanged(t *testing.T) {
	r := openTest(t, newTestStore())
	root, target := t.TempDir(), t.TempDir()
	old := time.Now().Add(-time.Hour)
	for i := range 20 {
		p := fmt.Sprintf("%s/d%d/f", root, i)
		put(t, p, random(uint64(i), 10_000))
		if err := os.Chtimes(p, old, old); err != nil {
			t.Fatal(err)
		}
	}
	first := write(t, r, root)
	put(t, root+"/d3/f", random(99, 10_000))
	put(t, root+"/d3/new", []byte("new"))
	if err := os.Remove(root + "/d4/f"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root+"/d5/f", 0o600); err != nil {
		t.Fatal(err)
	}
	var last Progress
	second := write(t, r, root, func(o *WriteOptions) {
		o.Previous = &first
		o.Progress = func(p Progress) { last = p }
	})
	if last.Reused != 18 || last.Files != 20 || second.Files != 20 || second.NewBytes > 30_000 {
		t.Errorf("progress %+v, snapshot %+v", last, second)
	}
	if err := r.Read(t.Context(), second, target, ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(facts(t, root), facts(t, target)); diff != "" {
		t.Error(diff)
	}
}

// TestRacyFilesAreReadAgain changes a file without changing size or time: the
// file system's clock may be that coarse.
func TestRacyFilesAreReadAgain(t *testing.T) {
	r := openTest(t, newTestStore())
	root := t.TempDir()
	put(t, root+"/f", []byte("one"))
	at := time.Now()
	_ = os.Chtimes(root+"/f", at, at)
	first := write(t, r, root, func(o *WriteOptions) { o.Cut = at })
	put(t, root+"/f", []byte("two"))
	_ = os.Chtimes(root+"/f", at, at)
	second := write(t, r, root, func(o *WriteOptions) { o.Cut, o.Previous = at, &first })
	target := t.TempDir()
	if err := r.Read(t.Context(), second, target, ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(target + "/f")
	st, err := os.Stat(target + "/f")
	if string(b) != "two" || err != nil || !st.ModTime().Equal(at) {
		t.Errorf("restored %q of %v, %v", b, st.ModTime(), err)
	}
}

func TestReadIntoAFilledTarget(t *testing.T) {
	r := openTest(t, newTestStore())
	root, target, outside := t.TempDir(), t.TempDir(), t.TempDir()
	put(t, root+"/dir/file", []byte("right"))
	put(t, root+"/file", []byte("right"))
	_ = os.Symlink("file", root+"/link")
	snap := write(t, r, root)
	_ = os.Symlink(outside, target+"/dir") // would lead the restore astray
	put(t, target+"/file/was/a/directory", []byte("wrong"))
	put(t, target+"/link", []byte("wrong"))
	put(t, target+"/extra/deep/file", []byte("extra"))
	_ = os.Mkdir(target+"/lost+found", 0o700)
	if err := r.Read(t.Context(), snap, target, ReadOptions{DeleteExtra: true, Resume: true}); err != nil {
		t.Fatal(err)
	}
	got := facts(t, target)
	delete(got, "lost+found/.")
	if diff := cmp.Diff(facts(t, root), got); diff != "" {
		t.Error(diff)
	}
	if e, _ := os.ReadDir(outside); len(e) > 0 {
		t.Errorf("the restore wrote outside of its target: %v", e)
	}
}

func smallRepo(t *testing.T, s *testStore) (*Repository, point.Snapshot) {
	t.Helper()
	r := openTest(t, s)
	root := t.TempDir()
	put(t, root+"/a", random(1, 40_000))
	put(t, root+"/d/b", random(2, 3<<20))
	first := write(t, r, root)
	put(t, root+"/d/c", random(3, 50_000))
	return r, write(t, r, root, func(o *WriteOptions) { o.Previous = &first })
}

func TestEveryDamageIsFoundAndNamed(t *testing.T) {
	s := newTestStore()
	r, snap := smallRepo(t, s)
	checkClean(t, r, snap)
	expect := func(key, what string) {
		t.Helper()
		rep, err := r.VerifyBlobs(t.Context(), snap.Inventories, VerifyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range rep.Damaged {
			if d.Blob == key || testPrefix+d.Blob == key {
				return
			}
		}
		t.Errorf("%s of %s not found: %+v", what, key, rep)
	}
	for _, key := range s.keys("projects/") {
		data := s.object(key)
		n := len(data)
		for _, at := range []int{0, 1, 20, n / 3, n / 2, n - 20, n - 1} {
			bad := bytes.Clone(data)
			bad[min(max(at, 0), n-1)] ^= 0x10
			s.with(key, bad, func() { expect(key, fmt.Sprintf("flipped byte %d of %d", at, n)) })
		}
		s.with(key, data[:n-1], func() { expect(key, "cut end") })
		s.with(key, []byte{}, func() { expect(key, "emptiness") })
		s.with(key, append(bytes.Clone(data), 0), func() { expect(key, "added byte") })
		if strings.HasPrefix(key, testPrefix) || cmp.Equal(key, snap.Inventories[0]) {
			s.with(key, nil, func() { expect(key, "loss") })
		}
	}
	checkClean(t, r, snap)
}

func TestVerifyNamesTheFileInADamagedPack(t *testing.T) {
	s := newTestStore()
	r, snap := smallRepo(t, s)
	for _, key := range s.keys(testPrefix + "p") {
		data := s.object(key)
		if len(data) < 1<<20 {
			continue
		}
		bad := bytes.Clone(data)
		bad[len(bad)/2] ^= 1
		for name, damaged := range map[string][]byte{"flipped": bad, "missing": nil, "cut": data[:100]} {
			s.with(key, damaged, func() {
				rep, err := r.Verify(t.Context(), snap, VerifyOptions{ReadAll: true})
				if err != nil || rep.Err() == nil || !errors.Is(rep.Err(), ErrDamaged) || !strings.Contains(rep.Err().Error(), "d/b") {
					t.Errorf("%s: %+v, %v", name, rep, err)
				}
				err = r.Read(t.Context(), snap, t.TempDir(), ReadOptions{})
				if err == nil {
					t.Errorf("%s: restored without an error", name)
				}
			})
		}
	}
}

// TestVerifyBesideAWriter has another process store the contents of a snapshot once more,
// in packs of its own, after a verification has listed what is there.
func TestVerifyBesideAWriter(t *testing.T) {
	s := newTestStore()
	r := openTest(t, s)
	late := openTest(t, s, func(o *Options) { o.Now = func() time.Time { return time.Now().Add(time.Minute) } })
	root := t.TempDir()
	put(t, root+"/a", random(1, 3<<20))
	snap := write(t, r, root)
	packs := len(s.keys(testPrefix + "p"))
	var listed, written atomic.Bool
	s.setHook(func(op, key string) error {
		switch {
		case op == "list" && key == testPrefix:
			listed.Store(true)
		case op == "list" && listed.Load() && strings.HasPrefix(key, testPrefix+"x") && written.CompareAndSwap(false, true):
			_, err := late.Write(t.Context(), WriteOptions{Root: root, Source: source})
			return err
		}
		return nil
	})
	rep, err := r.Verify(t.Context(), snap, VerifyOptions{ReadAll: true})
	if err != nil || rep.Err() != nil || rep.Bytes != 3<<20 || rep.Read < rep.Bytes {
		t.Errorf("report %+v, %v", rep, err)
	}
	if len(s.keys(testPrefix+"p")) == packs {
		t.Error("nothing was stored meanwhile, so nothing was tested")
	}
}

// TestMergeKeepsInventoriesOfAClockThatIsAhead: a point names them, and would find a merged
// inventory only before them.
func TestMergeKeepsInventoriesOfAClockThatIsAhead(t *testing.T) {
	s := newTestStore()
	ahead := openTest(t, s, func(o *Options) { o.Now = func() time.Time { return time.Now().Add(time.Hour) } })
	root := t.TempDir()
	put(t, root+"/a", random(1, 1000))
	early := write(t, ahead, root)
	r := openTest(t, s)
	var snap point.Snapshot
	for i := uint64(2); len(s.keys(inventoryPrefix(testPrefix))) < mergeAbove; i++ {
		put(t, root+"/a", random(i, 1000))
		snap = write(t, r, root)
	}
	report, err := r.Maintain(t.Context(), MaintainOptions{Guard: func(context.Context) error { return nil }})
	if err != nil || report.InventoriesMerged == 0 {
		t.Fatalf("maintained: %+v, %v", report, err)
	}
	for what, of := range map[string]point.Snapshot{"ahead": early, "right": snap} {
		rep, err := r.VerifyBlobs(t.Context(), of.Inventories, VerifyOptions{})
		if err != nil || rep.Err() != nil {
			t.Errorf("inventories of a clock that is %s: %v, %v", what, rep.Err(), err)
		}
	}
}

func TestBlobsWithoutInventoryAreUnlisted(t *testing.T) {
	s := newTestStore()
	r, snap := smallRepo(t, s)
	s.objects[testPrefix+"p0123456789abcdef"] = []byte("left by a crash")
	rep, err := r.VerifyBlobs(t.Context(), nil, VerifyOptions{})
	if err != nil || rep.Err() != nil || !cmp.Equal(rep.Unlisted, []string{"p0123456789abcdef"}) {
		t.Errorf("report %+v, %v", rep, err)
	}
	// All inventories gone: what the snapshot needs is damage.
	for _, k := range s.keys(inventoryPrefix(testPrefix)) {
		delete(s.objects, k)
	}
	rep, err = r.Verify(t.Context(), snap, VerifyOptions{})
	if err != nil || !strings.Contains(fmt.Sprint(rep.Err()), "in no inventory") {
		t.Errorf("report %+v, %v", rep, err)
	}
}

func TestSealedInventories(t *testing.T) {
	s := newTestStore()
	r := openTest(t, s, func(o *Options) {
		o.Seal = func(key string, plain []byte) ([]byte, error) { return append([]byte(key+"|"), plain...), nil }
		o.Unseal = func(key string, sealed []byte) ([]byte, error) {
			plain, ok := bytes.CutPrefix(sealed, []byte(key+"|"))
			if !ok {
				return nil, errors.New("not mine")
			}
			return plain, nil
		}
	})
	root := t.TempDir()
	put(t, root+"/a", []byte("x"))
	snap := write(t, r, root)
	checkClean(t, r, snap)
	moved := s.object(snap.Inventories[0])
	s.with(snap.Inventories[len(snap.Inventories)-1], moved, func() {
		rep, err := r.VerifyBlobs(t.Context(), nil, VerifyOptions{})
		if err != nil || rep.Err() == nil {
			t.Errorf("a moved inventory passes: %+v, %v", rep, err)
		}
	})
}

// TestWriteSurvivesEveryFailedPut fails each write to the store in turn, once
// with and once without effect, and then tries again.
func TestWriteSurvivesEveryFailedPut(t *testing.T) {
	root, target := t.TempDir(), t.TempDir()
	put(t, root+"/a", random(1, 100_000))
	put(t, root+"/d/b", random(2, 3<<20))
	for k := int64(1); ; k++ {
		s := newTestStore()
		r := openTest(t, s)
		var puts atomic.Int64
		s.setHook(func(op, key string) error {
			if op == "put" && puts.Add(1) == k {
				return fmt.Errorf("put %s: 503: %w", key, vault.ErrUnavailable)
			}
			return nil
		})
		_, err := r.Write(t.Context(), WriteOptions{Root: root, Source: source})
		if puts.Load() < k {
			if err != nil || k < 5 {
				t.Errorf("%d puts, %v", k-1, err)
			}
			return
		}
		if !errors.Is(err, vault.ErrUnavailable) {
			t.Errorf("put %d failed, and Write returned %v", k, err)
		}
		snap := write(t, r, root)
		rep, err := r.VerifyBlobs(t.Context(), snap.Inventories, VerifyOptions{})
		if err != nil || rep.Err() != nil {
			t.Errorf("after failed put %d: %+v, %v", k, rep, err)
		}
		if err := r.Read(t.Context(), snap, target, ReadOptions{DeleteExtra: true}); err != nil {
			t.Errorf("after failed put %d: %v", k, err)
		}
		if diff := cmp.Diff(facts(t, root), facts(t, target)); diff != "" {
			t.Errorf("after failed put %d: %s", k, diff)
		}
	}
}

func TestCanceledWriteAndRead(t *testing.T) {
	s := newTestStore()
	r := openTest(t, s)
	root, target := t.TempDir(), t.TempDir()
	for i := range 60 {
		put(t, fmt.Sprintf("%s/d%d/f%d", root, i%7, i), random(uint64(i), 100_000))
	}
	put(t, root+"/huge", random(7, 12<<20))
	ctx, cancel := context.WithCancel(t.Context())
	s.setHook(func(op, key string) error {
		if op == "put" && strings.HasPrefix(key, testPrefix+"p") {
			cancel()
		}
		return nil
	})
	if _, err := r.Write(ctx, WriteOptions{Root: root, Source: source}); !errors.Is(err, context.Canceled) {
		t.Fatalf("canceled write: %v", err)
	}
	s.setHook(nil)
	snap := write(t, r, root)
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	var gets atomic.Int64
	s.setHook(func(op, key string) error {
		if op == "get" && strings.HasPrefix(key, testPrefix+"p") && gets.Add(1) == 5 {
			cancel()
		}
		return nil
	})
	if err := r.Read(ctx, snap, target, ReadOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("canceled read: %v", err)
	}
	s.setHook(nil)
	if _, err := os.Stat(target + "/" + markerName); err != nil {
		t.Errorf("an unfinished restore is not marked: %v", err)
	}
	var last Progress
	err := r.Read(t.Context(), snap, target, ReadOptions{Resume: true, DeleteExtra: true, Progress: func(p Progress) { last = p }})
	if err != nil || last.Files != snap.Files || last.Bytes != snap.Bytes {
		t.Fatalf("resumed read: %v, %+v", err, last)
	}
	if diff := cmp.Diff(facts(t, root), facts(t, target)); diff != "" {
		t.Error(diff)
	}
	if err := r.Read(t.Context(), snap, target, ReadOptions{Resume: true, Progress: func(p Progress) { last = p }}); err != nil || last.Reused != 0 {
		t.Errorf("a restore over what is there: %v, %+v", err, last)
	}
}

// A volume that is rolled back in place holds files of its own. One whose size
// and time are the snapshot's is written all the same, also by a second try.
func TestFilesOfOthersAreNotTrusted(t *testing.T) {
	for _, tries := range []int{1, 2} {
		r := openTest(t, newTestStore())
		root, target := t.TempDir(), t.TempDir()
		put(t, root+"/f", []byte("right"))
		snap := write(t, r, root)
		st, _ := os.Stat(root + "/f")
		put(t, target+"/f", []byte("wrong"))
		_ = os.Chtimes(target+"/f", st.ModTime(), st.ModTime())
		for n := range tries {
			ctx, cancel := context.WithCancel(t.Context())
			if n < tries-1 {
				cancel() // dies after it left its mark
			}
			err := r.Read(ctx, snap, target, ReadOptions{Resume: true, DeleteExtra: true})
			cancel()
			if n == tries-1 && err != nil {
				t.Fatal(err)
			}
		}
		if b, _ := os.ReadFile(target + "/f"); string(b) != "right" {
			t.Errorf("%d tries restored %q", tries, b)
		}
	}
}

func TestACrashOfTheMachineIsNotTrusted(t *testing.T) {
	r := openTest(t, newTestStore())
	root, target := t.TempDir(), t.TempDir()
	put(t, root+"/f", []byte("right"))
	snap := write(t, r, root)
	st, _ := os.Stat(root + "/f")
	put(t, target+"/f", make([]byte, 5)) // its data was lost, its time was not
	_ = os.Chtimes(target+"/f", st.ModTime(), st.ModTime())
	put(t, target+"/"+markerName, []byte("boot another\n"))
	if err := r.Read(t.Context(), snap, target, ReadOptions{Resume: true}); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(target + "/f"); string(b) != "right" {
		t.Errorf("restored %q", b)
	}
}

func TestManyOpenAndWriteAtOnce(t *testing.T) {
	s := newTestStore()
	var wg sync.WaitGroup
	repos := make([]*Repository, 4)
	snaps := make([]point.Snapshot, 8)
	for i := range repos {
		wg.Go(func() { repos[i] = openTest(t, s, func(o *Options) { o.CacheDir = t.TempDir() }) })
	}
	wg.Wait()
	roots := make([]string, len(snaps))
	for i := range snaps {
		roots[i] = t.TempDir()
		put(t, roots[i]+"/same", random(1, 200_000))
		put(t, roots[i]+"/own", random(uint64(i+10), 200_000))
		wg.Go(func() {
			snaps[i] = write(t, repos[i%len(repos)], roots[i], func(o *WriteOptions) { o.Source.Claim = fmt.Sprint("c", i) })
		})
	}
	wg.Wait()
	for i := range snaps {
		target := t.TempDir()
		if err := repos[(i+1)%len(repos)].Read(t.Context(), snaps[i], target, ReadOptions{}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(facts(t, roots[i]), facts(t, target)); diff != "" {
			t.Error(diff)
		}
	}
	checkClean(t, repos[0], snaps[7])
	if snapshots, _ := statsOf(t, repos[1]); snapshots != 8 {
		t.Errorf("%d snapshots", snapshots)
	}
}

// statsOf counts the snapshots of a repository, and the bytes that it takes.
func statsOf(t *testing.T, r *Repository) (snapshots int, bytes int64) {
	t.Helper()
	list, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sizes, err := r.blobSizes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range sizes {
		bytes += n
	}
	return len(list), bytes
}

// TestMaintenanceFreesSpace lets days pass in a minute.
func TestMaintenanceFreesSpace(t *testing.T) {
	s := newTestStore()
	var skew atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	s.now = now
	r := openTest(t, s, func(o *Options) { o.Now = now })
	root := t.TempDir()
	var snaps []point.Snapshot
	for i := range 6 {
		put(t, root+"/f", random(uint64(i), 500_000))
		snaps = append(snaps, write(t, r, root))
	}
	for _, snap := range snaps[:5] {
		if err := r.Delete(t.Context(), snap); err != nil {
			t.Fatal(err)
		}
	}
	var written, freed int64
	last := snaps[5]
	for i := range 24 { // packs that are not full are rewritten before anything in them is freed
		put(t, root+"/f", random(uint64(100+i), 500_000))
		next := write(t, r, root)
		if err := r.Delete(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		last = next
		written += next.NewBytes
		skew.Add(int64(26 * time.Hour))
		rep, err := r.Maintain(t.Context(), MaintainOptions{Full: true, Guard: func(context.Context) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		freed += rep.BytesDeleted
	}
	checkClean(t, r, last)
	if snapshots, left := statsOf(t, r); snapshots != 1 || freed < written/2 || left > written/2 {
		t.Errorf("%d written, %d freed, %d bytes and %d snapshots left", written, freed, left, snapshots)
	}
	if n := len(s.keys(inventoryPrefix(testPrefix))); n > mergeAbove {
		t.Errorf("%d inventories left", n)
	}
	if err := r.Delete(t.Context(), snaps[0]); err != nil {
		t.Errorf("deleting twice: %v", err)
	}
	if err := r.Read(t.Context(), snaps[0], t.TempDir(), ReadOptions{}); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("reading a deleted snapshot: %v", err)
	}
}

func TestASupersededSiteMaintainsNothing(t *testing.T) {
	s := newTestStore()
	r, snap := smallRepo(t, s)
	superseded := errors.New("superseded")
	for allowed := range int64(12) {
		var asked atomic.Int64
		before := s.keys("")
		s.setHook(func(op, key string) error {
			if (op == "put" || op == "delete") && strings.HasPrefix(key, testPrefix) && asked.Load() > allowed {
				t.Errorf("%s %s after the guard had said no", op, key)
			}
			return nil
		})
		_, err := r.Maintain(t.Context(), MaintainOptions{Full: true, Guard: func(context.Context) error {
			if asked.Add(1) > allowed {
				return superseded
			}
			return nil
		}})
		s.setHook(nil)
		if asked.Load() <= allowed {
			break
		}
		if !errors.Is(err, superseded) {
			t.Errorf("after %d: %v", allowed, err)
		}
		if allowed == 0 && !cmp.Equal(before, s.keys("")) {
			t.Error("something changed without the guard's leave")
		}
	}
	checkClean(t, r, snap)
}

func TestOpenErrors(t *testing.T) {
	s := newTestStore()
	base := Options{Store: s, Prefix: testPrefix, Password: testPassword, Site: "east"}
	open := func(change func(*Options)) error {
		o := base
		change(&o)
		r, err := Open(t.Context(), o)
		if err == nil {
			_ = r.Close(t.Context())
		}
		return err
	}
	if err := open(func(o *Options) { o.ReadOnly = true }); !errors.Is(err, ErrNoRepository) {
		t.Errorf("read-only and missing: %v", err)
	}
	for name, change := range map[string]func(*Options){
		"no store":      func(o *Options) { o.Store = nil },
		"no slash":      func(o *Options) { o.Prefix = "a" },
		"inventory":     func(o *Options) { o.Prefix = "a-inventory/" },
		"short":         func(o *Options) { o.Password = []byte("short") },
		"no site":       func(o *Options) { o.Site = "" },
		"half a sealer": func(o *Options) { o.Seal = func(string, []byte) ([]byte, error) { return nil, nil } },
	} {
		if open(change) == nil {
			t.Errorf("%s: no error", name)
		}
	}
	r := openTest(t, s)
	if err := open(func(o *Options) { o.Password = []byte("another password") }); !errors.Is(err, ErrPassword) {
		t.Errorf("wrong password: %v", err)
	}
	ro := openTest(t, s, func(o *Options) { o.ReadOnly = true })
	_, err := ro.Write(t.Context(), WriteOptions{Root: t.TempDir(), Source: source})
	if !errors.Is(err, ErrReadOnly) {
		t.Errorf("write to a read-only repository: %v", err)
	}
	if _, err := r.Write(t.Context(), WriteOptions{Root: "/does/not/exist", Source: source}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing root: %v", err)
	}
	down := fmt.Errorf("down: %w", vault.ErrUnavailable)
	s.setHook(func(string, string) error { return down })
	if err := open(func(*Options) {}); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("store down: %v", err)
	}
	if _, err := r.Verify(t.Context(), point.Snapshot{ID: "x"}, VerifyOptions{}); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("verify with the store down: %v", err)
	}
	s.setHook(nil)
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := r.Delete(t.Context(), point.Snapshot{}); !errors.Is(err, ErrClosed) {
		t.Errorf("use after close: %v", err)
	}
}

func TestNothingIsLeftOnTheMachine(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Setenv("HOME", tmp+"/home")
	s := newTestStore()
	r, err := Open(t.Context(), Options{Store: s, Prefix: testPrefix, Password: testPassword, Site: "east"})
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(tmp, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			b, _ := os.ReadFile(p)
			if bytes.Contains(b, testPassword) || bytes.Contains(b, []byte("303132333435")) {
				t.Errorf("%s holds the password", p)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	empty := true
	registry.Range(func(any, any) bool { empty = false; return false })
	if !empty {
		t.Error("the registry still knows a store")
	}
}

func TestFullTarget(t *testing.T) {
	needRoot(t)
	target := t.TempDir()
	if err := unix.Mount("tmpfs", target, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("needs mount: %v", err)
	}
	defer unix.Unmount(target, 0) //nolint:errcheck // the test's own
	r := openTest(t, newTestStore())
	root := t.TempDir()
	put(t, root+"/f", random(1, 4<<20))
	snap := write(t, r, root)
	if err := r.Read(t.Context(), snap, target, ReadOptions{}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("full disk: %v", err)
	}
}

func TestDiskCache(t *testing.T) {
	s := newTestStore()
	dir := t.TempDir()
	cached := func(o *Options) { o.CacheDir, o.CacheLimit = dir, 1<<20 }
	root := t.TempDir()
	put(t, root+"/d/a", random(1, 10_000))
	r := openTest(t, s, cached)
	snap := write(t, r, root)
	read := func(r *Repository) {
		t.Helper()
		target := t.TempDir()
		if err := r.Read(t.Context(), snap, target, ReadOptions{}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(facts(t, root), facts(t, target)); diff != "" {
			t.Error(diff)
		}
	}
	read(openTest(t, s, cached))
	read(openTest(t, s, cached))
	kept, _ := os.ReadDir(dir)
	if len(kept) == 0 {
		t.Fatal("nothing is kept")
	}
	for _, e := range kept { // a cache that rots is only slow
		if err := os.WriteFile(filepath.Join(dir, e.Name()), []byte("rot"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read(openTest(t, s, cached))
}

func FuzzDecodeInventory(f *testing.F) {
	good, _ := encodeInventory([]record{{Op: opPut, Blob: "p1", Size: 3, SHA256: "ab", Time: 1}})
	f.Add(good)
	f.Add([]byte(inventoryHeader))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, err := decodeInventory(data)
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("error of another kind: %v", err)
		}
		for _, r := range records {
			if r.Blob == "" {
				t.Error("a record without a blob")
			}
		}
	})
}
