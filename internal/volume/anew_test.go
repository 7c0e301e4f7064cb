package volume

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume/suspect"
)

// TestWhatADamagedPackHasIsStoredAnew: once a verification has found a pack
// damaged and that is noted, the next snapshot refers to nothing in it, whether its
// files are taken over, read again, or as large as to have an index; it verifies and restores. The
// control: without the note it is as damaged as the one before.
func TestWhatADamagedPackHasIsStoredAnew(t *testing.T) {
	for _, hurt := range []string{"flipped", "missing"} {
		for _, kind := range []string{"p", "q"} {
			if hurt == "missing" && kind == "q" { // takes the lists of all snapshots with it: nothing is written then
				continue
			}
			for _, noted := range []bool{true, false} {
				for _, takenOver := range []bool{true, false} {
					t.Run(fmt.Sprintf("%s %s noted=%t previous=%t", hurt, kind, noted, takenOver), func(t *testing.T) {
						storesAnew(t, hurt, kind, noted, takenOver)
					})
				}
			}
		}
	}
}

func storesAnew(t *testing.T, hurt, kind string, noted, takenOver bool) {
	s := newTestStore()
	root := t.TempDir()
	for i := range 8 { // the same content in several files, stored at once
		put(t, fmt.Sprintf("%s/d%d/same", root, i), random(7, 300_000))
		put(t, fmt.Sprintf("%s/d%d/own", root, i), random(uint64(100+i), 90_000))
	}
	put(t, root+"/large", random(8, 5<<20))
	first := write(t, openTest(t, s), root)
	for _, key := range s.keys(testPrefix + kind) {
		damage(t, s, key, hurt)
	}
	r := openTest(t, s) // the process that captures holds nothing of it in memory
	found, err := r.Verify(t.Context(), first, VerifyOptions{ReadAll: true})
	if err != nil || found.Err() == nil {
		t.Fatalf("the damage is not found: %+v, %v", found, err)
	}
	var packs []string
	for _, d := range found.Damaged {
		packs = append(packs, d.Blob)
	}
	blobs, err := r.VerifyBlobs(t.Context(), nil, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range blobs.Damaged { // a directory that cannot be read names no pack
		packs = append(packs, d.Blob)
	}
	if noted {
		if err := suspect.Note(t.Context(), s, testPrefix, packs); err != nil {
			t.Fatal(err)
		}
	}
	var second point.Snapshot
	for range 2 { // and the one after it, too
		second = write(t, r, root, func(o *WriteOptions) {
			if takenOver {
				o.Previous = &first
			}
		})
	}
	report, err := r.Verify(t.Context(), second, VerifyOptions{ReadAll: true})
	if whole := noted || kind == "q" && takenOver; err != nil || (report.Err() == nil) != whole { // of directories the write finds it itself
		t.Fatalf("the next snapshot: %v, %v", report.Err(), err)
	}
	if !noted {
		return
	}
	target := t.TempDir()
	if err := r.Read(t.Context(), second, target, ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	want, got := facts(t, root), facts(t, target)
	if len(want) != len(got) {
		t.Errorf("restored %d entries of %d", len(got), len(want))
	}
	for _, name := range []string{"large", "d3/same", "d5/own"} {
		a, _ := os.ReadFile(root + "/" + name)
		if b, err := os.ReadFile(target + "/" + name); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: %v, or not what it was", name, err)
		}
	}
	if kind == "p" { // the index names the good contents now
		if report, err := r.Verify(t.Context(), first, VerifyOptions{ReadAll: true}); err != nil || report.Err() != nil {
			t.Errorf("the first snapshot has the same contents: %v, %v", report.Err(), err)
		}
	}
}

func damage(t *testing.T, s *testStore, key, hurt string) {
	t.Helper()
	if hurt == "missing" {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		return
	}
	bad := bytes.Clone(s.object(key))
	for i := 0; i < len(bad); i += 64 { // of each content something, but not of the snapshot's own entry, the last of a q pack
		if strings.HasPrefix(key, testPrefix+"q") && i > 2500 {
			break
		}
		bad[i] ^= 1
	}
	if err := s.Put(t.Context(), key, strings.NewReader(string(bad)), int64(len(bad))); err != nil {
		t.Fatal(err)
	}
}

// TestARootThatCannotBeReadIsStoredAnew, as any other directory of the last snapshot, before anybody
// noted its pack: it is damaged where only the root is.
func TestARootThatCannotBeReadIsStoredAnew(t *testing.T) {
	s := newTestStore()
	root := t.TempDir()
	put(t, root+"/d/own", random(1, 9_000))
	r := openTest(t, s)
	first := write(t, r, root)
	id, err := object.ParseID(first.RootID)
	if err != nil {
		t.Fatal(err)
	}
	c, _, _ := id.ContentID()
	info, err := r.main.rep.ContentReader().ContentInfo(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	key := testPrefix + string(info.PackBlobID)
	bad := bytes.Clone(s.object(key))
	for i := range 3000 { // the directories, but not the entry of the snapshot, the last
		if i%32 == 0 && i < int(info.PackOffset+info.PackedLength) {
			bad[i] ^= 1
		}
	}
	if err := s.Put(t.Context(), key, strings.NewReader(string(bad)), int64(len(bad))); err != nil {
		t.Fatal(err)
	}
	r = openTest(t, s)
	second := write(t, r, root, func(o *WriteOptions) { o.Previous = &first })
	report, err := r.Verify(t.Context(), second, VerifyOptions{ReadAll: true})
	if err != nil || report.Err() != nil {
		t.Errorf("the next snapshot: %v, %v", report.Err(), err)
	}
}

// TestNothingIsDeletedThatIsNotWritten: kopia writes an index each ten minutes, also between a
// content's deletion and its writing. A process that dies then would leave contents deleted that
// older snapshots need: maintenance brings such back, and fails where it cannot read them.
func TestNothingIsDeletedThatIsNotWritten(t *testing.T) {
	s := newTestStore()
	var passed atomic.Int64
	clock := func() time.Time { return time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC).Add(time.Duration(passed.Load())) }
	s.now = clock
	root := t.TempDir()
	put(t, root+"/own", random(1, 90_000))
	first := write(t, openTest(t, s, func(o *Options) { o.Now = clock }), root)
	for _, key := range s.keys(testPrefix + "p") {
		damage(t, s, key, "flipped")
		if err := suspect.Note(t.Context(), s, testPrefix, []string{strings.TrimPrefix(key, testPrefix)}); err != nil {
			t.Fatal(err)
		}
	}
	r := openTest(t, s, func(o *Options) { o.Now = clock })
	indexes := len(s.keys(testPrefix + IndexPrefix))
	s.setHook(func(op, _ string) error { // it dies when it has written an index
		if op == "put" && len(s.keys(testPrefix+IndexPrefix)) > indexes {
			return vault.ErrUnavailable
		}
		return nil
	})
	_, err := r.Write(t.Context(), WriteOptions{Root: root, Source: source, Previous: &first, Pace: func(context.Context, int) error {
		passed.Store(int64(11 * time.Minute))
		return nil
	}})
	s.setHook(nil)
	if err == nil {
		t.Log("it did not die")
	}
	again := openTest(t, s, func(o *Options) { o.Now = clock })
	err = again.main.rep.ContentReader().IterateContents(t.Context(), content.IterateOptions{IncludeDeleted: true}, func(info content.Info) error {
		if info.Deleted {
			t.Errorf("content %s of pack %s is deleted", info.ContentID, info.PackBlobID)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestOnlyPacksAreNoted, once each, and cleared when they are whole again.
func TestOnlyPacksAreNoted(t *testing.T) {
	s := newTestStore()
	for range 2 {
		if err := suspect.Note(t.Context(), s, testPrefix, []string{"p12", "q34", "xn0_56", "", "projects/shop/volumes/east-inventory/1"}); err != nil {
			t.Fatal(err)
		}
	}
	if keys := s.keys("projects/"); !slices.Equal(keys, []string{"projects/shop/suspects/east/p12", "projects/shop/suspects/east/q34"}) {
		t.Errorf("noted %q", keys)
	}
	for range 2 {
		if err := suspect.Clear(t.Context(), s, testPrefix, []string{"p12", "xn0_56"}); err != nil {
			t.Fatal(err)
		}
	}
	left, err := suspect.List(t.Context(), s, testPrefix)
	if err != nil || len(left) != 1 || !left["q34"] {
		t.Errorf("left: %v, %v", left, err)
	}
	s.setHook(func(string, string) error { return vault.ErrUnavailable })
	if _, err := suspect.List(t.Context(), s, testPrefix); err == nil {
		t.Error("a vault that gives no answer names no suspect")
	}
}
