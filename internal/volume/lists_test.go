package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume/suspect"
)

// twoVolumes are written one after the other; each has a q pack of its own, which holds its
// directories, and the entry by which the repository lists its snapshot.
func twoVolumes(t *testing.T, s *testStore) (roots [2]string, snaps [2]point.Snapshot, packs [2]string) {
	t.Helper()
	r := openTest(t, s)
	for i, claim := range []string{"a", "b"} {
		before := s.keys(testPrefix + "q")
		roots[i] = t.TempDir()
		put(t, roots[i]+"/d/own", random(uint64(i), 90_000))
		snaps[i] = write(t, r, roots[i], func(o *WriteOptions) { o.Source.Claim = claim })
		for _, key := range s.keys(testPrefix + "q") {
			if !strings.Contains(strings.Join(before, " "), key) {
				packs[i] = key
			}
		}
	}
	return roots, snaps, packs
}

func flipAll(t *testing.T, s *testStore, key string) {
	t.Helper()
	bad := bytes.Clone(s.object(key))
	for i := 0; i < len(bad); i += 16 {
		bad[i] ^= 1
	}
	if err := s.Put(t.Context(), key, strings.NewReader(string(bad)), int64(len(bad))); err != nil {
		t.Fatal(err)
	}
}

// TestADamagedListStopsNoOtherVolume: the entry of one snapshot is damaged or gone, so that the
// repository's list of snapshots cannot be read. The other volumes' snapshots are read, and new
// ones of either are written, as fast as ever; only nothing is removed. A vault that gives no answer is no damage.
func TestADamagedListStopsNoOtherVolume(t *testing.T) {
	for _, hurt := range []string{"flipped", "missing"} {
		t.Run(hurt, func(t *testing.T) {
			s := newTestStore()
			var skew atomic.Int64
			s.now = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
			roots, snaps, packs := twoVolumes(t, s)
			whole := s.object(packs[0])
			if hurt == "flipped" {
				flipAll(t, s, packs[0])
			} else {
				damage(t, s, packs[0], hurt)
			}
			r := openTest(t, s, func(o *Options) { o.Now = s.now })
			readsAs(t, r, roots[1], snaps[1])
			found, err := r.Verify(t.Context(), snaps[1], VerifyOptions{ReadAll: true})
			if err != nil || found.Err() != nil || found.Lists == nil {
				t.Errorf("the other volume: %v, %v, lists: %v", found.Err(), err, found.Lists)
			}
			if found, err = r.Verify(t.Context(), snaps[0], VerifyOptions{ReadAll: true}); err != nil || found.Err() == nil {
				t.Errorf("the volume itself: %v, %v", found.Err(), err)
			}
			for i, claim := range []string{"a", "b"} {
				next := write(t, r, roots[i], func(o *WriteOptions) { o.Source.Claim, o.Previous = claim, &snaps[i] })
				readsAs(t, r, roots[i], next)
				if found, err := r.Verify(t.Context(), next, VerifyOptions{ReadAll: true}); err != nil || found.Err() != nil {
					t.Errorf("the next of %s: %v, %v", claim, found.Err(), err)
				}
			}
			if removed, err := daysLater(t, r, s, &skew); err == nil || len(removed) > 0 {
				t.Errorf("removes what no snapshot needs, without knowing which there are: %q, %v", removed, err)
			}
			if hurt == "flipped" { // put back, all is as it was
				if err := s.Put(t.Context(), packs[0], bytes.NewReader(whole), int64(len(whole))); err != nil {
					t.Fatal(err)
				}
				if list, err := openTest(t, s).List(t.Context()); err != nil || len(list) != 4 {
					t.Errorf("%d snapshots, %v", len(list), err)
				}
			}
		})
	}
	s := newTestStore()
	_, snaps, packs := twoVolumes(t, s)
	r := openTest(t, s)
	s.setHook(func(op, key string) error {
		if key == packs[0] {
			return vault.ErrUnavailable
		}
		return nil
	})
	if err := r.Read(t.Context(), snaps[1], t.TempDir(), ReadOptions{}); !IsOutage(err) {
		t.Errorf("a vault that gives no answer: %v", err)
	}
}

// daysLater are the packs that maintenance has removed after so many days that it would remove those of
// snapshots which are not there.
func daysLater(t *testing.T, r *Repository, s *testStore, skew *atomic.Int64) (removed []string, err error) {
	t.Helper()
	packs := append(s.keys(testPrefix+"p"), s.keys(testPrefix+"q")...)
	for range 8 {
		skew.Add(int64(26 * time.Hour))
		_, one := r.Maintain(t.Context(), MaintainOptions{Full: true, Guard: func(context.Context) error { return nil }})
		err = errors.Join(err, one)
	}
	left := append(s.keys(testPrefix+"p"), s.keys(testPrefix+"q")...)
	return slices.DeleteFunc(packs, func(key string) bool { return slices.Contains(left, key) }), err
}

// TestDaysLaterPacksAreRemoved is the control of the one above: those of snapshots that nobody knows any more.
func TestDaysLaterPacksAreRemoved(t *testing.T) {
	s := newTestStore()
	var skew atomic.Int64
	s.now = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	_, snaps, _ := twoVolumes(t, s)
	r := openTest(t, s, func(o *Options) { o.Now = s.now })
	for _, snap := range snaps {
		if err := r.Delete(t.Context(), snap); err != nil {
			t.Fatal(err)
		}
	}
	removed, err := daysLater(t, r, s, &skew)
	for _, kind := range []string{"p", "q"} {
		if err != nil || !slices.ContainsFunc(removed, func(key string) bool { return strings.HasPrefix(key, testPrefix+kind) }) {
			t.Errorf("no %s pack is removed: %q, %v", kind, removed, err)
		}
	}
}

func readsAs(t *testing.T, r *Repository, root string, snap point.Snapshot) {
	t.Helper()
	target := t.TempDir()
	if err := r.Read(t.Context(), snap, target, ReadOptions{}); err != nil {
		t.Error(err)
		return
	}
	if diff := cmp.Diff(facts(t, root), facts(t, target)); diff != "" {
		t.Error(diff)
	}
}

// TestASampleNamesThePacksOfWhatItReads: directories and extras are read whole in a sample, too.
// A damaged pack of theirs that is not named is not noted, and the next snapshot refers to it again.
func TestASampleNamesThePacksOfWhatItReads(t *testing.T) {
	s := newTestStore()
	_, snaps, packs := twoVolumes(t, s)
	damage(t, s, packs[0], "flipped")
	r := openTest(t, s)
	named := func(how VerifyOptions) bool {
		found, err := r.Verify(t.Context(), snaps[0], how)
		if err != nil || found.Err() == nil {
			t.Fatalf("%+v, %v", found, err)
		}
		for _, d := range found.Damaged {
			if d.Blob == strings.TrimPrefix(packs[0], testPrefix) {
				return true
			}
		}
		return false
	}
	for from := range 100 {
		if !named(VerifyOptions{ReadAll: true, Sample: 1, SampleFrom: from}) {
			t.Fatalf("from %d percent on the pack is not named", from)
		}
	}
}

// TestWhatIsWholeIsSuspectNoMore: a pack that is found as it was written, or that
// maintenance removed, is noted no longer. One that is damaged or missing stays so.
func TestWhatIsWholeIsSuspectNoMore(t *testing.T) {
	s := newTestStore()
	var skew atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	s.now = now
	r := openTest(t, s, func(o *Options) { o.Now = now })
	root := t.TempDir()
	put(t, root+"/f", random(1, 500_000))
	first := write(t, r, root)
	pack := strings.TrimPrefix(s.keys(testPrefix + "p")[0], testPrefix)
	if err := suspect.Note(t.Context(), s, testPrefix, []string{pack, "p0"}); err != nil {
		t.Fatal(err)
	}
	found, err := r.VerifyBlobs(t.Context(), nil, VerifyOptions{Sample: 1, SampleFrom: 50})
	if err != nil || cmp.Diff(found.Whole, []string{pack}) != "" {
		t.Errorf("whole: %q, %v", found.Whole, err)
	}
	good := s.object(testPrefix + pack)
	for _, hurt := range []string{"flipped", "missing"} {
		damage(t, s, testPrefix+pack, hurt)
		if found, err := r.VerifyBlobs(t.Context(), nil, VerifyOptions{}); err != nil || len(found.Whole) > 0 || len(found.Damaged) == 0 {
			t.Errorf("%s, and whole: %q, %v", hurt, found.Whole, err)
		}
	}
	if err := s.Put(t.Context(), testPrefix+pack, bytes.NewReader(good), int64(len(good))); err != nil {
		t.Fatal(err)
	}
	for i := range 30 { // the next ones store it anew, until nothing needs the pack
		put(t, root+"/g", random(uint64(100+i), 500_000))
		next := write(t, r, root)
		if err := r.Delete(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		first = next
		skew.Add(int64(26 * time.Hour))
		if _, err := r.Maintain(t.Context(), MaintainOptions{Full: true, Guard: func(context.Context) error { return nil }}); err != nil {
			t.Fatal(err)
		}
		_, there := s.objects[testPrefix+pack]
		noted, err := suspect.List(t.Context(), s, testPrefix)
		if err != nil || noted[pack] != there || !noted["p0"] {
			t.Fatalf("after %d runs: there %t, noted %v, %v", i, there, noted, err)
		}
		if !there {
			return
		}
	}
	t.Error("maintenance never removed it: this proves nothing")
}

// TestAPackThatIsNotedIsReadLast: what was read at the start of a verification of hours says nothing, at its end, of
// what somebody found damaged meanwhile.
func TestAPackThatIsNotedIsReadLast(t *testing.T) {
	s := newTestStore()
	twoVolumes(t, s)
	pack := s.keys(testPrefix + "p")[0]
	if err := suspect.Note(t.Context(), s, testPrefix, []string{strings.TrimPrefix(pack, testPrefix)}); err != nil {
		t.Fatal(err)
	}
	r := openTest(t, s, func(o *Options) { o.Parallel = 1 })
	var mu sync.Mutex
	var read []string
	s.setHook(func(op, key string) error {
		mu.Lock()
		defer mu.Unlock()
		if op == "get" && !slices.Contains(read, key) {
			read = append(read, key)
		}
		return nil
	})
	found, err := r.VerifyBlobs(t.Context(), nil, VerifyOptions{})
	if err != nil || len(found.Whole) != 1 {
		t.Fatalf("whole: %q, %v", found.Whole, err)
	}
	mu.Lock()
	defer mu.Unlock()
	at := slices.Index(read, pack)
	for _, key := range append(s.keys(testPrefix+"p"), s.keys(testPrefix+"q")...) {
		if other := slices.Index(read, key); other < 0 || other > at {
			t.Errorf("%s is read after %s: %q", key, pack, read)
		}
	}
}

// TestWhatCannotBeReadStaysSuspect: a pack was damaged before its SHA-256 was taken, as in the
// memory of whoever wrote it. It is as it was written, and no content of it can be read: it stays noted
// until what was in it is stored anew.
func TestWhatCannotBeReadStaysSuspect(t *testing.T) {
	s := newTestStore()
	root := t.TempDir()
	put(t, root+"/f", random(1, 500_000))
	snap := write(t, openTest(t, s), root)
	key := s.keys(testPrefix + "p")[0]
	flipAll(t, s, key)
	pack, sum := strings.TrimPrefix(key, testPrefix), sha256.Sum256(s.object(key))
	as, err := encodeInventory([]record{{Op: opPut, Blob: pack, Size: int64(len(s.object(key))), SHA256: hex.EncodeToString(sum[:]), Time: time.Now().Unix()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), inventoryPrefix(testPrefix)+newSession(time.Now()), bytes.NewReader(as), int64(len(as))); err != nil {
		t.Fatal(err)
	}
	if err := suspect.Note(t.Context(), s, testPrefix, []string{pack}); err != nil {
		t.Fatal(err)
	}
	r := openTest(t, s)
	if found, err := r.Verify(t.Context(), snap, VerifyOptions{ReadAll: true}); err != nil || found.Err() == nil {
		t.Fatalf("it can be read: this proves nothing: %v", err)
	}
	for _, anew := range []bool{false, true} {
		if anew {
			next := write(t, r, root, func(o *WriteOptions) { o.Previous = &snap })
			readsAs(t, r, root, next)
		}
		found, err := r.VerifyBlobs(t.Context(), nil, VerifyOptions{})
		if err != nil || found.Err() != nil || (len(found.Whole) > 0) != anew {
			t.Errorf("stored anew %t: whole %q, %v, %v", anew, found.Whole, found.Err(), err)
		}
	}
}
