package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/tracker"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/volume"
	"davit.dev/davit/internal/volume/changes"
	"davit.dev/davit/internal/volume/volumetest"
)

// fakeDriver answers what it is told to.
type fakeDriver struct {
	delta func() (*changes.Delta, error)
	asked []tracker.Question
}

func (d *fakeDriver) Delta(_ context.Context, q tracker.Question) (*changes.Delta, error) {
	d.asked = append(d.asked, q)
	return d.delta()
}

const deviceSize = 1 << 30

// blockTest stores a directory again and again.
type blockTest struct {
	t      *testing.T
	repo   *volume.Repository
	dir    string
	driver *fakeDriver
	device changes.Device
	err    error
	warned []string
	n      int
	last   *point.Snapshot
	of     v1alpha1.VolumeBlocks // without names of snapshots: they are counted
}

func newBlockTest(t *testing.T) *blockTest {
	t.Helper()
	volumetest.CheapKeys()
	repo, err := volume.Open(t.Context(), volume.Options{
		Store: mem.New(nil), Prefix: volume.Prefix("shop", "east"), Password: make([]byte, 32), Site: "east",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = repo.Close(context.Background()) })
	b := &blockTest{t: t, repo: repo, dir: t.TempDir(), device: changes.Device{Size: deviceSize, FileSystem: "ext4"}}
	b.of = v1alpha1.VolumeBlocks{Driver: "disk.example.com", Volume: "vol-1", Capacity: deviceSize}
	b.driver = &fakeDriver{delta: func() (*changes.Delta, error) {
		d, err := changes.NewDelta(deviceSize)
		if err == nil {
			err = d.Change(0, 4096)
		}
		return d, err
	}}
	data := make([]byte, 9<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	if err := os.WriteFile(filepath.Join(b.dir, "db"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

// backup stores the directory, as snapshot snap-<n>, and returns what is said of its blocks.
func (b *blockTest) backup() *point.Blocks {
	b.t.Helper()
	b.n++
	b.warned = nil
	of := b.of
	of.Snapshot, of.Name = cmp.Or(of.Snapshot, fmt.Sprintf("snap-%d", b.n)), fmt.Sprintf("davit-%d", b.n)
	r := &blockReader{
		ask: b.driver, find: func(string) (changes.Device, error) { return b.device, b.err },
		now: func() time.Time { return testNow.Add(time.Duration(b.n) * time.Hour) }, warn: func(s string) { b.warned = append(b.warned, s) },
	}
	plan, out, err := r.plan(b.t.Context(), b.repo, &of, b.dir, b.last)
	if err != nil {
		b.t.Fatal(err)
	}
	snap, err := b.repo.Write(b.t.Context(), volume.WriteOptions{Root: b.dir, Source: volume.Source{Namespace: "shop", Claim: "data"}, Previous: b.last, Changes: plan})
	if err != nil {
		b.t.Fatal(err)
	}
	r.settle(plan, out)
	snap.Blocks = out
	b.last = &snap
	return out
}

func (b *blockTest) expect(what string, got *point.Blocks, reason string, base, warned bool) {
	b.t.Helper()
	if !strings.Contains(got.Reason, reason) || (reason == "") != (got.Reason == "") || got.Base != base || (len(b.warned) > 0) != warned {
		b.t.Errorf("%s: %+v, warned %q", what, got, b.warned)
	}
}

// TestADriverIsAskedFromTheSecondPointOn, about the snapshot that the point before was made of; every
// tenth point reads all.
func TestADriverIsAskedFromTheSecondPointOn(t *testing.T) {
	b := newBlockTest(t)
	b.expect("the first", b.backup(), "no point before", true, false)
	for i := range readAllAfter {
		b.expect(fmt.Sprint("point ", i+2), b.backup(), "", true, false)
		q := tracker.Question{Driver: "disk.example.com", Base: fmt.Sprintf("snap-%d", b.n-1), Namespace: v1alpha1.SystemNamespace, Target: fmt.Sprintf("davit-%d", b.n)}
		if got := b.driver.asked[len(b.driver.asked)-1]; got != q {
			t.Fatalf("asked %+v, want %+v", got, q)
		}
	}
	b.expect("the eleventh", b.backup(), "read all, and compare", true, false)
	b.expect("the twelfth", b.backup(), "", true, false)
	book, err := b.repo.Blocks(t.Context(), *b.last)
	if err != nil || book.Since != 1 || !book.Whole.Equal(testNow.Add(11*time.Hour)) {
		t.Errorf("book %+v, %v", book.Head, err)
	}
}

// TestWhatIsNotClearIsRead.
func TestWhatIsNotClearIsRead(t *testing.T) {
	for name, c := range map[string]struct {
		change       func(*blockTest)
		reason       string
		base, warned bool
	}{
		"another volume":             {func(b *blockTest) { b.of.Volume = "vol-2" }, "another volume", true, false},
		"another driver":             {func(b *blockTest) { b.of.Driver = "x" }, "another volume", true, false},
		"the same snapshot":          {func(b *blockTest) { b.of.Snapshot = "snap-1" }, "of which snapshot", true, false},
		"a device of another size":   {func(b *blockTest) { b.device.Size++ }, "bytes, the volume", false, true},
		"a volume that has grown":    {func(b *blockTest) { b.device.Size, b.of.Capacity = 2*deviceSize, 2*deviceSize }, "another size", true, false},
		"a device that does not do":  {func(b *blockTest) { b.err = changes.ErrDevice }, "places of the volume", false, true},
		"an agent that knows better": {func(b *blockTest) { b.of.Refused = "the volume grows" }, "the volume grows", false, true},
		"no answer": {func(b *blockTest) {
			b.driver.delta = func() (*changes.Delta, error) { return nil, errors.New("no answer") }
		}, "no answer", true, true},
		"no service": {func(b *blockTest) {
			b.driver.delta = func() (*changes.Delta, error) { return nil, tracker.ErrNoService }
		}, "does not tell", false, true},
		"an answer of another size": {func(b *blockTest) {
			b.driver.delta = func() (*changes.Delta, error) { return changes.NewDelta(2 * deviceSize) }
		}, "makes no sense", true, true},
		"a point without places": {func(b *blockTest) {
			snap, err := b.repo.Write(b.t.Context(), volume.WriteOptions{Root: b.dir, Source: volume.Source{Namespace: "shop", Claim: "data"}})
			if err != nil {
				b.t.Fatal(err)
			}
			b.last = &snap
		}, "no point before", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBlockTest(t)
			b.backup()
			c.change(b)
			got := b.backup()
			b.expect(name, got, c.reason, c.base, c.warned)
			if got.Unread != 0 {
				t.Errorf("%d bytes were not read", got.Unread)
			}
		})
	}
}

// TestADriverThatLiedIsNotAskedAgain until a point was made without the option.
func TestADriverThatLiedIsNotAskedAgain(t *testing.T) {
	b := newBlockTest(t)
	b.backup()
	b.last.Blocks.Distrusted = `"db", the MiB at 5`
	asked := len(b.driver.asked)
	for range 3 {
		got := b.backup()
		b.expect("after the lie", got, "not taken any more", false, true)
		if got.Distrusted != `"db", the MiB at 5` || !strings.Contains(b.warned[0], "changedBlocks Never") {
			t.Errorf("%+v, %q", got, b.warned)
		}
	}
	if len(b.driver.asked) != asked {
		t.Error("it was asked all the same")
	}
	b.last.Blocks = nil // a point without the option
	b.expect("trusted again", b.backup(), "no point before", true, false)
	b.expect("and asked", b.backup(), "", true, false)
}
