package node

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/tracker"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/volume"
	"davit.dev/davit/internal/volume/changes"
	"davit.dev/davit/internal/volume/volumetest"
)

// fakeDriver answers what it is told to.
type fakeDriver struct {
	delta func() (*changes.Delta, error)
	none  error // it does not say that it can be asked
	asked []tracker.Question
}

func (d *fakeDriver) Offers(context.Context, string) error { return d.none }

func (d *fakeDriver) Delta(_ context.Context, q tracker.Question) (*changes.Delta, error) {
	d.asked = append(d.asked, q)
	return d.delta()
}

const deviceSize = 1 << 30

// refusing is a vault that takes no packs any more.
type refusing struct {
	vault.Store
	refuse atomic.Bool
}

func (s *refusing) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if s.refuse.Load() && strings.ContainsAny(filepath.Base(key)[:1], "pq") {
		return vault.ErrUnavailable
	}
	return s.Store.Put(ctx, key, r, size)
}

func (s *refusing) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if s.refuse.Load() && strings.ContainsAny(filepath.Base(key)[:1], "pq") {
		return vault.ErrUnavailable
	}
	return s.Store.PutIfAbsent(ctx, key, r, size)
}

// blockTest stores a directory again and again.
type blockTest struct {
	t      *testing.T
	store  *refusing
	repo   *volume.Repository
	dir    string
	driver *fakeDriver
	device changes.Device
	err    error
	warned []string
	n      int
	found  string // by the process before
	last   *point.Snapshot
	of     v1alpha1.VolumeBlocks // without names of snapshots: they are counted
}

func newBlockTest(t *testing.T) *blockTest {
	t.Helper()
	volumetest.CheapKeys()
	store := &refusing{Store: mem.New(nil)}
	repo, err := volume.Open(t.Context(), volume.Options{
		Store: store, Prefix: volume.Prefix("shop", "east"), Password: make([]byte, 32), Site: "east",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = repo.Close(context.Background()) })
	b := &blockTest{t: t, store: store, repo: repo, dir: t.TempDir(), device: changes.Device{Size: deviceSize, FileSystem: "ext4"}}
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
		now: func() time.Time { return testNow.Add(time.Duration(b.n) * time.Hour) }, warn: func(s string) { b.warned = append(b.warned, s) }, found: b.found,
	}
	plan, out, err := r.plan(b.t.Context(), b.repo, &of, b.dir, b.last)
	if err != nil {
		b.t.Fatal(err)
	}
	snap, err := b.repo.Write(b.t.Context(), volume.WriteOptions{Root: b.dir, Source: volume.Source{Namespace: "shop", Claim: "data"}, Previous: b.last, Changes: plan})
	if err != nil {
		b.t.Fatal(err)
	}
	snap.Blocks = r.settle(plan, out)
	b.last = &snap
	return snap.Blocks
}

// backupAndAlter stores the directory, changes a byte of its file, whose size and time stay, and returns what it holds then.
func (b *blockTest) backupAndAlter() []byte {
	b.t.Helper()
	old := testNow.Add(-time.Hour)
	file := filepath.Join(b.dir, "db")
	if err := os.Chtimes(file, old, old); err != nil {
		b.t.Fatal(err)
	}
	b.backup()
	data, err := os.ReadFile(file)
	if err != nil {
		b.t.Fatal(err)
	}
	data[5<<20]++
	if err := errors.Join(os.WriteFile(file, data, 0o600), os.Chtimes(file, old, old)); err != nil {
		b.t.Fatal(err)
	}
	return data
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
	if err != nil || book.Since != 1 || !b.last.Blocks.Compared.Equal(testNow.Add(11*time.Hour)) {
		t.Errorf("book %+v, %v; compared %s", book.Head, err, b.last.Blocks.Compared)
	}
}

// TestWithoutAnAnswerNothingIsCompared: what is found later may be in points of long ago. All is read
// all the same when it is time, and a file that was stored wrong and not touched since is found by its time.
func TestWithoutAnAnswerNothingIsCompared(t *testing.T) {
	b := newBlockTest(t)
	old := testNow.Add(-time.Hour)
	aged := func() {
		t.Helper()
		if err := os.Chtimes(filepath.Join(b.dir, "db"), old, old); err != nil {
			t.Fatal(err)
		}
	}
	aged()
	for range readAllAfter + 1 {
		b.backup()
	}
	b.driver.delta = func() (*changes.Delta, error) { return nil, errors.New("no answer") }
	b.expect("the tenth without an answer", b.backup(), "no answer", false, true)
	book, err := b.repo.Blocks(t.Context(), *b.last)
	if err != nil || book.Since != 0 || !b.last.Blocks.Compared.Equal(testNow.Add(time.Hour)) {
		t.Errorf("book %+v, %v; compared %s", book.Head, err, b.last.Blocks.Compared)
	}
	b.expect("the next", b.backup(), "no snapshot was kept", true, false)
	for range readAllAfter - 1 {
		b.backup()
	}
	f, err := os.OpenFile(filepath.Join(b.dir, "db"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("changed"), 5<<20); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	aged() // as if it had been stored wrong before
	got := b.backup()
	since := "points since " + testNow.Add(time.Hour).Format(time.RFC3339)
	if !strings.Contains(got.Distrusted, `"db", the MiB at 5, which was stored wrong before`) || !strings.Contains(got.Distrusted, since) || got.Base {
		t.Errorf("%+v", got)
	}
	if len(b.warned) == 0 || !strings.Contains(b.warned[len(b.warned)-1], "disk.example.com LIES") {
		t.Errorf("warned %q", b.warned)
	}
	got = b.backup()
	if !strings.Contains(got.Distrusted, since) {
		t.Errorf("the next says %+v", got)
	}
}

// TestACutIsKeptOnlyForWhoAnswers.
func TestACutIsKeptOnlyForWhoAnswers(t *testing.T) {
	b := newBlockTest(t)
	b.driver.none = tracker.ErrNoService
	b.expect("nobody is there", b.backup(), "does not tell", false, true)
	b.expect("nor now", b.backup(), "does not tell", false, true)
	if len(b.driver.asked) > 0 {
		t.Error("it was asked without a cut that was kept")
	}
	b.driver.none = nil
	b.expect("there it is", b.backup(), "no snapshot was kept", true, false)
	b.expect("and asked", b.backup(), "", true, false)
}

// TestWhatNobodyKnowsOfIsReadWhole: where the book cannot be read, a file may have been stored by a wrong word
// and never be touched again.
func TestWhatNobodyKnowsOfIsReadWhole(t *testing.T) {
	for _, on := range []bool{true, false} {
		b := newBlockTest(t)
		b.backup()
		b.last.RootID = "k" + strings.Repeat("0", 32)
		r := &blockReader{ask: b.driver, find: func(string) (changes.Device, error) { return b.device, nil }, now: func() time.Time { return testNow }, warn: func(s string) { b.warned = append(b.warned, s) }}
		of := &b.of
		if !on {
			of = nil
		}
		plan, _, err := r.plan(t.Context(), b.repo, of, b.dir, b.last)
		if err != nil || !r.anew || len(b.warned) != 1 || (plan != nil) != on {
			t.Errorf("option on %t: %+v, %v; anew %t, warned %q", on, plan, err, r.anew, b.warned)
		}
	}
}

// TestALieIsToldThoughNothingIsStored: the vault is lost after the storage was found to lie. The task says so, from
// the next beat on and in the end.
func TestALieIsToldThoughNothingIsStored(t *testing.T) {
	b := newBlockTest(t)
	b.backupAndAlter()
	text, err := json.Marshal(b.last)
	if err != nil {
		t.Fatal(err)
	}
	c := &carrier{ask: b.driver, now: func() time.Time { return testNow }}
	since := `"db", the MiB at 5, which was stored wrong before if nobody set the file's time back: points since ` + testNow.Add(time.Hour).Format(time.RFC3339)
	for _, of := range []*v1alpha1.VolumeBlocks{&b.of, nil} { // nil: the option was switched off
		task := &v1alpha1.VolumeTask{Spec: v1alpha1.VolumeTaskSpec{Source: "shop/shop/data", Snapshot: string(text), Blocks: of}}
		r := newReport(nil, task, func() time.Time { return testNow })
		b.store.refuse.Store(true)
		err = c.store(t.Context(), b.repo, task.Spec, b.last, b.dir, r)
		if !errors.Is(err, changes.ErrLied) {
			t.Fatalf("nothing was stored: %v", err)
		}
		status := v1alpha1.VolumeTaskStatus{Distrusted: r.lie}
		r.conclude(&status, err)
		if status.Phase != v1alpha1.TaskFailed || !strings.HasPrefix(status.Distrusted, since) {
			t.Errorf("%+v", status)
		}
		b.store.refuse.Store(false)
		r = newReport(nil, task, func() time.Time { return testNow })
		if err := c.store(t.Context(), b.repo, task.Spec, b.last, b.dir, r); err != nil {
			t.Fatal(err)
		}
		var snap point.Snapshot
		if err := json.Unmarshal([]byte(r.snapshot), &snap); err != nil || snap.Blocks == nil || !strings.HasPrefix(snap.Blocks.Distrusted, since) {
			t.Errorf("stored is %s, %v", r.snapshot, err)
		}
	}
}

// TestAnotherProcessGoesByWhatTheFirstFound: the node process ended while it read again after a lie. The next one
// takes up the task, and asks nobody, also where it finds nothing itself.
func TestAnotherProcessGoesByWhatTheFirstFound(t *testing.T) {
	b := newBlockTest(t)
	b.backup()
	file := filepath.Join(b.dir, "db")
	touched := testNow.Add(time.Hour) // else nothing of it would be compared
	if err := os.Chtimes(file, touched, touched); err != nil {
		t.Fatal(err)
	}
	c := &carrier{ask: b.driver, now: func() time.Time { return testNow }}
	for _, of := range []*v1alpha1.VolumeBlocks{&b.of, nil} {
		for _, found := range []string{"", "what was found"} {
			task := &v1alpha1.VolumeTask{
				Spec:   v1alpha1.VolumeTaskSpec{Source: "shop/shop/data", Blocks: of},
				Status: v1alpha1.VolumeTaskStatus{Distrusted: found},
			}
			r := newReport(nil, task, func() time.Time { return testNow })
			if err := c.store(t.Context(), b.repo, task.Spec, b.last, b.dir, r); err != nil {
				t.Fatal(err)
			}
			var snap point.Snapshot
			if err := json.Unmarshal([]byte(r.snapshot), &snap); err != nil {
				t.Fatal(err)
			}
			told := snap.Blocks != nil && snap.Blocks.Distrusted == "what was found" && snap.Blocks.Compared.Equal(b.last.Blocks.Compared) && !snap.Blocks.Base
			if told != (found != "") || r.lie != found || found != "" && (len(r.warnings) != 1 || !strings.Contains(r.warnings[0], "disk.example.com LIES")) {
				t.Errorf("option on %t, found %q: %+v, warned %q", of != nil, found, snap.Blocks, r.warnings)
			}
		}
	}
	b.found = "what was found"
	if got := b.backup(); got.Distrusted != b.found || len(b.driver.asked) > 0 {
		t.Errorf("asked %d times: %+v", len(b.driver.asked), got)
	}
}

// TestNothingIsComparedOfALiveVolume: a file that is written while it is read may have its old time yet, and become
// shorter, and neither is a lie. So nothing is taken over of a snapshot that was made by a driver's word. The control: a
// snapshot that was not is built upon.
func TestNothingIsComparedOfALiveVolume(t *testing.T) {
	b := newBlockTest(t)
	data := b.backupAndAlter()
	c := &carrier{ask: b.driver, now: func() time.Time { return testNow }}
	var snap point.Snapshot
	for _, built := range []bool{false, true} {
		before := *b.last
		if built {
			before = snap.Distrusting("db, long ago")
		}
		task := &v1alpha1.VolumeTask{Spec: v1alpha1.VolumeTaskSpec{Source: "shop/shop/data", Live: true}}
		r := newReport(nil, task, func() time.Time { return testNow })
		if err := c.store(t.Context(), b.repo, task.Spec, &before, b.dir, r); err != nil {
			t.Fatal(err)
		}
		if r.lie != "" || len(r.warnings) > 0 || (r.progress.Reused == 1) != built {
			t.Errorf("built upon %t: %+v, found %q, warned %q", built, r.progress, r.lie, r.warnings)
		}
		snap = point.Snapshot{}
		if err := json.Unmarshal([]byte(r.snapshot), &snap); err != nil || snap.Blocks != nil {
			t.Errorf("stored is %s, %v", r.snapshot, err)
		}
	}
	out := t.TempDir()
	if err := b.repo.Read(t.Context(), snap, out, volume.ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(out, "db")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("stored is what was before: %v", err)
	}
}

// TestPointsAreDatedByOneClock: since when points may hold old data is told by the clock that dates them, not the node's.
func TestPointsAreDatedByOneClock(t *testing.T) {
	b := newBlockTest(t)
	ahead := func() time.Time { return testNow.Add(24 * time.Hour) }
	cut := metav1.NewMicroTime(testNow.Add(-time.Minute))
	for _, at := range []*metav1.MicroTime{&cut, nil} { // nil: an agent of an earlier version
		task := &v1alpha1.VolumeTask{Spec: v1alpha1.VolumeTaskSpec{Source: "shop/shop/data", Blocks: &b.of, Cut: at}}
		r := newReport(nil, task, ahead)
		if err := (&carrier{ask: b.driver, now: ahead}).store(t.Context(), b.repo, task.Spec, nil, b.dir, r); err != nil {
			t.Fatal(err)
		}
		var snap point.Snapshot
		want := ahead()
		if at != nil {
			want = at.Time
		}
		if err := json.Unmarshal([]byte(r.snapshot), &snap); err != nil || !snap.Blocks.Compared.Equal(want) {
			t.Errorf("compared %s, want %s: %v", snap.Blocks.Compared, want, err)
		}
	}
}

// TestAPointThatIsGoneIsNoDamage: the newest point was deleted, or the repository is a new one.
func TestAPointThatIsGoneIsNoDamage(t *testing.T) {
	b := newBlockTest(t)
	b.backup()
	b.last.ID, b.last.RootID = strings.Repeat("0", 32), ""
	got := b.backup()
	b.expect("without the point before", got, "no point before", true, false)
}

// TestAFileOfAnotherVolumeAccusesNobody: one that has the size and time of the volume's before, and holds something
// else, is read, and that is all.
func TestAFileOfAnotherVolumeAccusesNobody(t *testing.T) {
	for _, other := range []bool{true, false} {
		b := newBlockTest(t)
		data := b.backupAndAlter()
		if b.device.Size, b.of.Capacity = 2*deviceSize, 2*deviceSize; other { // all is read in any case
			b.of.Volume = "vol-2"
		}
		if got := b.backup(); (got.Distrusted == "") != other {
			t.Errorf("another volume %t: %+v", other, got)
		}
		out := t.TempDir()
		if err := b.repo.Read(t.Context(), *b.last, out, volume.ReadOptions{}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(out, "db")); err != nil || !bytes.Equal(got, data) {
			t.Errorf("another volume %t: stored is what was before: %v", other, err)
		}
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
		}, "no answer", false, true},
		"no service": {func(b *blockTest) {
			b.driver.delta = func() (*changes.Delta, error) { return nil, tracker.ErrNoService }
		}, "does not tell", false, true},
		"an answer of another size": {func(b *blockTest) {
			b.driver.delta = func() (*changes.Delta, error) { return changes.NewDelta(2 * deviceSize) }
		}, "makes no sense", false, true},
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
	b.last = &point.Snapshot{Blocks: &point.Blocks{Distrusted: "on the Application"}} // there is no point before
	got := b.backup()
	b.expect("without a point before", got, "not taken any more", false, true)
	if got.Distrusted != "on the Application" || len(b.warned) != 1 || !strings.Contains(b.warned[0], "changedBlocks Never") {
		t.Errorf("%+v, %q", got, b.warned)
	}
	b.last.Blocks = nil // a point without the option
	b.expect("trusted again", b.backup(), "no point before", true, false)
	b.expect("and asked", b.backup(), "", true, false)
}
