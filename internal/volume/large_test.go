package volume

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"davit.dev/davit/internal/volume/tree"
)

// large writes a file of random data in which one mebibyte comes three times.
func large(t *testing.T, path string, mebibytes int) {
	t.Helper()
	data := random(5, mebibytes<<20+123)
	for _, at := range []int{2, mebibytes / 2} {
		copy(data[at<<20:], data[:1<<20])
	}
	put(t, path, data)
}

// TestLargeFilesAreReadInSpans counts requests: contents that lie together come
// with one. Without reading ahead it is one for each.
func TestLargeFilesAreReadInSpans(t *testing.T) {
	s := newTestStore()
	r := openTest(t, s)
	root := t.TempDir()
	const mebibytes = 12
	large(t, root+"/large", mebibytes)
	snap := write(t, r, root)
	var gets atomic.Int64
	s.setHook(func(op, key string) error {
		if op == "get" && strings.HasPrefix(key, testPrefix+"p") {
			gets.Add(1)
		}
		return nil
	})
	check := func(target string, atLeast, atMost int64) {
		t.Helper()
		if diff := cmp.Diff(facts(t, root), facts(t, target)); diff != "" {
			t.Error("restored file differs")
		}
		if n := gets.Swap(0); n < atLeast || n > atMost {
			t.Errorf("%d requests, want %d to %d", n, atLeast, atMost)
		}
	}
	target := t.TempDir()
	if err := r.Read(t.Context(), snap, target, ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	check(target, mebibytes/8, mebibytes/2)
	root2, err := r.findRoot(t.Context(), r.main, snap)
	if err != nil {
		t.Fatal(err)
	}
	target = t.TempDir()
	err = tree.Read(t.Context(), r.main.rep, root2, target, tree.ReadOptions{Parallel: 4, Meter: tree.NewMeter(nil, r.opts.Now)})
	if err != nil {
		t.Fatal(err)
	}
	check(target, mebibytes-3, mebibytes+2)
}

// TestScatteredContentsComeFromHeldPacks restores a file of small contents that have
// others between them: not each of them is a request.
func TestScatteredContentsComeFromHeldPacks(t *testing.T) {
	s := newTestStore()
	r := openTest(t, s)
	const chunks, packed, mebibyte = 40, 128 << 10, 1 << 20
	all, some := make([]byte, chunks*mebibyte), make([]byte, chunks/2*mebibyte)
	for i := range chunks {
		copy(all[i*mebibyte:], random(uint64(i+1), packed))
		if i%2 == 0 {
			copy(some[i/2*mebibyte:], all[i*mebibyte:(i+1)*mebibyte])
		}
	}
	before, root, target := t.TempDir(), t.TempDir(), t.TempDir()
	put(t, before+"/all", all)
	put(t, root+"/some", some)
	write(t, r, before)
	snap := write(t, r, root)
	var gets atomic.Int64
	s.setHook(func(op, key string) error {
		if op == "get" && strings.HasPrefix(key, testPrefix+"p") {
			gets.Add(1)
		}
		return nil
	})
	if err := r.Read(t.Context(), snap, target, ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(facts(t, root), facts(t, target)); diff != "" || gets.Load() > chunks/4 {
		t.Errorf("restored file differs, or took %d requests: %s", gets.Load(), diff)
	}
}

// TestDamageInASpan restores from packs in which one byte is wrong, missing, or
// cannot be read.
func TestDamageInASpan(t *testing.T) {
	s := newTestStore()
	r := openTest(t, s)
	root := t.TempDir()
	put(t, root+"/large", random(6, 6<<20))
	snap := write(t, r, root)
	packs := s.keys(testPrefix + "p")
	pack := s.object(packs[0])
	flipped := bytes.Clone(pack)
	flipped[len(flipped)/2] ^= 1
	for name, data := range map[string][]byte{"flipped": flipped, "cut off": pack[:len(pack)/2], "gone": nil} {
		s.with(packs[0], data, func() {
			target := t.TempDir()
			if err := r.Read(t.Context(), snap, target, ReadOptions{}); err == nil {
				t.Errorf("%s: restored", name)
			}
			if _, err := os.Stat(target + "/" + markerName); err != nil {
				t.Errorf("%s: the target is not marked as unfinished: %v", name, err)
			}
		})
	}
	if err := r.Read(t.Context(), snap, t.TempDir(), ReadOptions{}); err != nil {
		t.Errorf("the whole pack: %v", err)
	}
}

// TestHolesAreNotRead stores and restores a file that is almost all hole: to
// read 16 GiB of zeros would take a minute.
func TestHolesAreNotRead(t *testing.T) {
	const size = 16 << 30
	r := openTest(t, newTestStore())
	root, target := t.TempDir(), t.TempDir()
	f, err := os.Create(root + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	pieces := map[int64][]byte{3<<20 + 5: random(1, 2<<20), 10 << 30: []byte("middle"), size - 3: []byte("end")}
	for at, data := range pieces {
		if _, err := f.WriteAt(data, at); err != nil {
			t.Fatal(err)
		}
	}
	if at, err := unix.Seek(int(f.Fd()), 5<<30, unix.SEEK_DATA); err != nil || at < 9<<30 {
		t.Skipf("this file system tells no holes: %d, %v", at, err)
	}
	snap := write(t, r, root)
	if snap.Bytes != size || snap.NewBytes > 4<<20 {
		t.Errorf("snapshot %+v", snap)
	}
	if err := r.Read(t.Context(), snap, target, ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	g, err := os.Open(target + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for at, data := range pieces {
		for _, from := range []int64{at - 4096, at} {
			got, want := make([]byte, len(data)), make([]byte, len(data))
			if _, err := g.ReadAt(got, from); err != nil {
				t.Fatal(err)
			}
			if _, err := f.ReadAt(want, from); err != nil || !bytes.Equal(got, want) {
				t.Errorf("other bytes at %d: %v", from, err)
			}
		}
	}
	var st syscall.Stat_t
	if err := syscall.Stat(target+"/sparse", &st); err != nil || st.Size != size || st.Blocks*512 > 4<<20 {
		t.Errorf("restored file of %d bytes takes %d, %v", st.Size, st.Blocks*512, err)
	}
}

// TestTargetWithAccessLists restores into directories whose default access
// lists would be passed on to what is made in them.
func TestTargetWithAccessLists(t *testing.T) {
	needRoot(t)
	r := openTest(t, newTestStore())
	root, target := t.TempDir(), t.TempDir()
	put(t, root+"/d/file", []byte("plain"))
	put(t, root+"/kept", []byte("plain"))
	snap := write(t, r, root)
	if err := r.Read(t.Context(), snap, target, ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "/d"} {
		err := unix.Setxattr(target+path, "system.posix_acl_default", accessList(1000, 7), 0)
		if errors.Is(err, unix.ENOTSUP) {
			t.Skip("this file system has no access lists")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Setxattr(target+"/kept", "user.stale", []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	put(t, target+"/d/probe", nil) // the harm: a new file gets more than its mode
	if len(xattrs(t, target+"/d/probe")) == 0 {
		t.Fatal("nothing is passed on here: this test shows nothing")
	}
	if err := os.Remove(target + "/d/file"); err != nil {
		t.Fatal(err)
	}
	if err := r.Read(t.Context(), snap, target, ReadOptions{DeleteExtra: true, Resume: true}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(facts(t, root), facts(t, target)); diff != "" {
		t.Errorf("restored tree (-want +got):\n%s", diff)
	}
}
