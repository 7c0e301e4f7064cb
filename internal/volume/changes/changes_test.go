package changes

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// TestADeltaForgetsNothing compares it with a plain list of bytes.
func TestADeltaForgetsNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		size := 1 + rnd.Int64N(300<<10)
		d, err := NewDelta(size)
		if err != nil {
			t.Fatal(err)
		}
		changed := make([]bool, size)
		for range rnd.IntN(4) {
			from := rnd.Int64N(size)
			n := 1 + rnd.Int64N(size)
			if err := d.Change(from, n); err != nil {
				t.Fatal(err)
			}
			for i := from; i < min(size, from+n); i++ {
				changed[i] = true
			}
		}
		for range 50 {
			from := rnd.Int64N(size)
			n := 1 + rnd.Int64N(size-from)
			if d.Same(from, n) && !all(changed[from:from+n], false) {
				t.Fatalf("size %d: %d bytes at %d are called the same", size, n, from)
			}
			if wide := d.Same(from, n); !wide && all(changed[max(0, from-leastGranule):min(size, from+n+leastGranule)], false) {
				t.Fatalf("size %d: %d bytes at %d are called changed", size, n, from)
			}
		}
		if d.Empty() != all(changed, false) {
			t.Fatal("empty, or not")
		}
	}
	huge, err := NewDelta(1 << 50)
	if err != nil || len(huge.bits) > mostGranules/64+1 {
		t.Fatalf("%d words, %v", len(huge.bits), err)
	}
	if err := huge.Change(1<<50-1, 1); err != nil || huge.Same(1<<50-1, 1) || !huge.Same(0, 1<<40) {
		t.Error("the end of a huge device", err)
	}
	for _, r := range [][2]int64{{-1, 1}, {0, 0}, {0, -1}, {1 << 50, 1}, {1, 1 << 50}} {
		if huge.Same(r[0], r[1]) {
			t.Errorf("%v is known", r)
		}
	}
}

func all(list []bool, want bool) bool {
	for _, b := range list {
		if b != want {
			return false
		}
	}
	return true
}

func TestABookIsReadAsItWasWritten(t *testing.T) {
	b := NewBook(Head{Driver: "d", Volume: "v", Snapshot: "s", Size: 5, FileSystem: "ext4", Since: 3})
	b.Add("a/b", []Mark{{1}, {}, {3}})
	b.Add("", nil)
	var buf bytes.Buffer
	if err := b.Write(&buf); err != nil {
		t.Fatal(err)
	}
	text := buf.String()
	got, err := ReadBook(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.Head, got.Head); diff != "" || !cmp.Equal(b.Of("a/b"), got.Of("a/b")) || got.Of("x") != nil {
		t.Error(diff, got.Of("a/b"))
	}
	for _, bad := range []string{"", "davit volume blocks 2\n{}", text[:len(text)-5], strings.Replace(text, "AQAA", "AQ==", 1)} {
		if b, err := ReadBook(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read: %+v", bad, b)
		}
	}
	var none *Book
	if none.Of("a") != nil {
		t.Error("no book has marks")
	}
}

func FuzzBook(f *testing.F) {
	f.Add([]byte("davit volume blocks 1\n{\"driver\":\"d\"}\n{\"path\":\"a\",\"marks\":\"AQAAAAAAAAAAAAAAAAAAAA==\"}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ReadBook(bytes.NewReader(data))
		if err == nil && b == nil {
			t.Error("neither a book nor an error")
		}
	})
}

func TestDevicesOnWhichPlacesAreOthersAreRefused(t *testing.T) {
	const mounts = "22 1 8:16 / /var/lib/kubelet/x rw shared:1 master:2 - ext4 /dev/sdb rw,stripe=4\n" +
		"23 1 8:32 / /y rw - xfs /dev/sdc rw,attr2\n24 1 8:48 / /z rw - ext4 /dev/sdd rw,data=journal\n" +
		"25 1 0:44 / /b rw - btrfs /dev/sde rw\n26 1 8:64 / /r rw - xfs /dev/sdf rw,rtdev=/dev/sdg\n"
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	size := file("2048\n")
	for name, c := range map[string]struct {
		sys    fstest.MapFS
		number string
		fits   bool
	}{
		"a disk":                                {fstest.MapFS{"dev/block/8:16/size": size}, "8:16", true},
		"a disk with XFS":                       {fstest.MapFS{"dev/block/8:32/size": size}, "8:32", true},
		"data in the journal":                   {fstest.MapFS{"dev/block/8:48/size": size}, "8:48", false},
		"another file system":                   {fstest.MapFS{"dev/block/0:44/size": size}, "0:44", false},
		"a realtime device":                     {fstest.MapFS{"dev/block/8:64/size": size}, "8:64", false},
		"not mounted":                           {fstest.MapFS{"dev/block/9:9/size": size}, "9:9", false},
		"no block device":                       {fstest.MapFS{}, "8:16", false},
		"no size":                               {fstest.MapFS{"dev/block/8:16/x": size}, "8:16", false},
		"a partition":                           {fstest.MapFS{"dev/block/8:16/size": size, "dev/block/8:16/partition": file("1")}, "8:16", false},
		"encrypted":                             {fstest.MapFS{"dev/block/8:16/size": size, "dev/block/8:16/dm/uuid": file("CRYPT-LUKS2-abc"), "dev/block/8:16/slaves/sda/x": size}, "8:16", false},
		"several ways to one disk":              {fstest.MapFS{"dev/block/8:16/size": size, "dev/block/8:16/dm/uuid": file("mpath-36001405"), "dev/block/8:16/slaves/sda/x": size}, "8:16", true},
		"made of others":                        {fstest.MapFS{"dev/block/8:16/size": size, "dev/block/8:16/slaves/sda/x": size}, "8:16", false},
		"a file's part":                         {fstest.MapFS{"dev/block/8:16/size": size, "dev/block/8:16/loop/offset": file("1048576\n")}, "8:16", false},
		"a file":                                {fstest.MapFS{"dev/block/8:16/size": size, "dev/block/8:16/loop/offset": file("0\n")}, "8:16", true},
		"data in the journal by its superblock": {fstest.MapFS{"dev/block/8:16/size": size, "dev/block/8:16/uevent": file("MAJOR=8\nDEVNAME=journal\n")}, "8:16", false},
		"no word of its journal":                {fstest.MapFS{"dev/block/8:16/size": size, "dev/block/8:16/uevent": file("DEVNAME=other\n")}, "8:16", false},
	} {
		proc := fstest.MapFS{"fs/ext4/sdb/options": file("rw\ndata=ordered\n"), "fs/ext4/journal/options": file("rw\ndata=journal\n")}
		if at := "dev/block/" + c.number + "/uevent"; c.sys[at] == nil && len(c.sys) > 0 {
			c.sys[at] = file("MAJOR=8\nDEVNAME=sdb\n")
		}
		d, err := deviceOf(c.sys, proc, mounts, c.number)
		if c.fits && (err != nil || d.Size != 1<<20) || !c.fits && err == nil {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		if err != nil && !errors.Is(err, ErrDevice) && name != "no size" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPlacesOfChunks takes extents apart as a file system may tell them.
func TestPlacesOfChunks(t *testing.T) {
	const size = 1 << 30
	delta, err := NewDelta(size)
	if err != nil {
		t.Fatal(err)
	}
	if err := delta.Change(100<<20, 4096); err != nil {
		t.Fatal(err)
	}
	look := func(extents ...extent) Places {
		l := newLook(4, size, delta)
		var end uint64
		for _, e := range extents {
			l.take(e, max(e.Logical, end), 4*Chunk)
			end = e.Logical + e.Length
		}
		return l.end()
	}
	one := look(extent{Logical: 0, Physical: 10 << 20, Length: 4 * Chunk})
	two := look(extent{Logical: 0, Physical: 10 << 20, Length: 4096}, extent{Logical: 4096, Physical: 10<<20 + 4096, Length: 4*Chunk - 4096, Flags: extentLast})
	if !cmp.Equal(one.Marks, two.Marks) || !one.Same(0) || !one.Same(3) {
		t.Error("what touches is one place")
	}
	moved := look(extent{Logical: 0, Physical: 11 << 20, Length: 4 * Chunk})
	if moved.Marks[0] == one.Marks[0] {
		t.Error("another place has the same mark")
	}
	if moved.Marks[0] != one.Marks[1] {
		t.Log("the second chunk of one file may lie where the first of another does; they are compared by path and number")
	}
	swapped := look(extent{Logical: 0, Physical: 20 << 20, Length: Chunk / 2}, extent{Logical: Chunk / 2, Physical: 10 << 20, Length: Chunk / 2})
	straight := look(extent{Logical: 0, Physical: 10 << 20, Length: Chunk / 2}, extent{Logical: Chunk / 2, Physical: 20 << 20, Length: Chunk / 2})
	if swapped.Marks[0] == straight.Marks[0] {
		t.Error("the order of places is not in the mark")
	}
	hole := look(extent{Logical: Chunk, Physical: 10 << 20, Length: Chunk})
	early := look(extent{Logical: Chunk, Physical: 10 << 20, Length: Chunk - 4096})
	if hole.Marks[0] == (Mark{}) || !hole.Same(0) || hole.Marks[1] == early.Marks[1] {
		t.Error("holes are places, too")
	}
	for _, flags := range []uint32{2, 4, 8, 0x80, 0x100, 0x200, 0x400, 0x800, 0x2000, 0x4000} {
		if p := look(extent{Logical: 0, Physical: 10 << 20, Length: Chunk + 1, Flags: flags}); p.Marks[0] != (Mark{}) || p.Marks[1] != (Mark{}) || p.Same(0) || !p.Same(2) {
			t.Errorf("an extent with flags %#x is clear", flags)
		}
	}
	if p := look(extent{Logical: 0, Physical: size - 4096, Length: 8192}); p.Same(0) || p.Marks[0] != (Mark{}) {
		t.Error("a place beyond the device is clear")
	}
	if p := look(extent{Logical: 0, Physical: 100<<20 - Chunk, Length: 2 * Chunk}); !p.Same(0) || p.Same(1) || p.Marks[1] == (Mark{}) {
		t.Error("what was changed is called the same")
	}
	if p := newLook(2, size, nil).end(); p.Same(0) || p.Marks[0] == (Mark{}) {
		t.Error("without a delta nothing is known")
	}
}

// TestAFileThatCannotBeOpenedStaysInTheBook: else it would be forgotten that it has to be read when all is.
func TestAFileThatCannotBeOpenedStaysInTheBook(t *testing.T) {
	before := NewBook(Head{})
	before.Add("db", []Mark{{1}, {2}})
	p := Plan{Now: NewBook(Head{Size: 1 << 30}), Before: before}
	p.Take(nil, "db", 2*Chunk+1)
	if marks := p.Now.Of("db"); !p.Now.Has("db") || !cmp.Equal(marks, make([]Mark, 2)) {
		t.Errorf("marks %v", marks)
	}
}
