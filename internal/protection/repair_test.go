package protection

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"davit.dev/davit/internal/copies"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// twice is a rig whose vault has a second copy of its one point.
func twice(t *testing.T) (r *rig, second *mem.Store, id string) {
	t.Helper()
	r, second = newRig(t), mem.New(nil)
	if _, err := vault.Init(t.Context(), r.store); err != nil {
		t.Fatal(err)
	}
	if _, err := r.east.ClaimFirst(t.Context(), "shop", "test"); err != nil {
		t.Fatal(err)
	}
	id = r.mustCapture().ID
	if err := copies.Bootstrap(t.Context(), r.project, second); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"objects/", "manifests/"} {
		err := r.store.List(t.Context(), r.project.Root()+kind, func(o vault.ObjectInfo) error {
			return second.Put(t.Context(), o.Key, strings.NewReader(read(t, r.store, o.Key)), o.Size)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return r, second, id
}

func read(t *testing.T, store vault.Store, key string) string {
	t.Helper()
	body, err := store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func flipLast(t *testing.T, store vault.Store, key string) {
	t.Helper()
	data := []byte(read(t, store, key))
	data[len(data)-1] ^= 1
	if err := store.Put(t.Context(), key, strings.NewReader(string(data)), int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

func offered(t *testing.T, r *rig) bool {
	t.Helper()
	_, points, err := r.east.Points(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	_, ok := point.Newest(points, r.now)
	return ok
}

// TestRepairedPointIsOfferedAgain; one that is damaged in the copy too is not.
func TestRepairedPointIsOfferedAgain(t *testing.T) {
	for _, both := range []bool{false, true} {
		r, second, id := twice(t)
		key := r.project.Root() + "objects/shop/" + id + "/00000001"
		flipLast(t, r.store, key)
		if both {
			flipLast(t, second, key)
		}
		found, err := r.east.Verify(t.Context(), "shop", id, VerifyOptions{})
		if !errors.Is(err, ErrDamaged) || offered(t, r) {
			t.Fatalf("verify: %v", err)
		}
		from, err := vault.OpenProject(t.Context(), second, "default", r.key)
		if err != nil {
			t.Fatal(err)
		}
		damaged := read(t, r.store, key)
		report, err := r.east.Repair(t.Context(), "shop", id, from, "second", found)
		if both {
			if !errors.Is(err, ErrNotRepaired) || len(report.Left) != 1 || offered(t, r) || read(t, r.store, key) != damaged {
				t.Errorf("damaged in both: %v, %+v, offered %t", err, report, offered(t, r))
			}
			continue
		}
		if err != nil || len(report.Repaired) != 1 || !offered(t, r) {
			t.Errorf("%v, %+v, offered %t", err, report, offered(t, r))
		}
		flipLast(t, r.store, key) // a repair says nothing of damage after it
		if _, err := r.east.Verify(t.Context(), "shop", id, VerifyOptions{}); !errors.Is(err, ErrDamaged) || offered(t, r) {
			t.Errorf("damaged again: %v, offered %t", err, offered(t, r))
		}
	}
}

// TestOnlyACopyOfThisVaultRepairs.
func TestOnlyACopyOfThisVaultRepairs(t *testing.T) {
	r, _, id := twice(t)
	if _, err := r.east.Repair(t.Context(), "shop", id, r.project, "main", VerifyReport{}); !errors.Is(err, vault.ErrKey) {
		t.Errorf("repaired from itself: %v", err)
	}
}

// TestDamagedPacksAreNotedUntilTheyAreWhole, so that no capture refers to them; in a
// second copy nothing is noted, nothing is written there.
func TestDamagedPacksAreNotedUntilTheyAreWhole(t *testing.T) {
	r := newRig(t)
	r.claim()
	m := r.mustCapture()
	r.repo.damaged = true
	found, err := r.east.Verify(t.Context(), "shop", m.ID, VerifyOptions{})
	noted := r.keys("suspects")
	if !errors.Is(err, ErrDamaged) || len(noted) != 1 || !strings.HasSuffix(noted[0], "/suspects/east/p1") {
		t.Fatalf("%v, noted %q", err, noted)
	}
	r.repo.damaged, r.repo.whole = false, []string{"p1"} // somebody else put it back
	for _, blobs := range []bool{false, true} {
		if _, err := r.east.Verify(t.Context(), "shop", m.ID, VerifyOptions{Blobs: blobs}); err != nil || len(r.keys("suspects")) == 0 != blobs {
			t.Errorf("whole, and looked at %t: %v, noted %q", blobs, err, r.keys("suspects"))
		}
	}
	r.repo.damaged, r.repo.whole = true, nil
	if found, err = r.east.Verify(t.Context(), "shop", m.ID, VerifyOptions{}); !errors.Is(err, ErrDamaged) || len(r.keys("suspects")) != 1 {
		t.Fatalf("%v, noted %q", err, r.keys("suspects"))
	}
	for _, repaired := range [][]string{nil, {r.project.VolumePrefix("east") + "p1"}} {
		if err := r.east.clear(t.Context(), found.Packs, repaired); err != nil || len(r.keys("suspects")) != 1-len(repaired) {
			t.Errorf("repaired %q: %v, %q", repaired, err, r.keys("suspects"))
		}
	}
	r.repo.damaged = false
	if _, err := r.east.Verify(t.Context(), "shop", m.ID, VerifyOptions{}); err != nil || len(r.keys("suspects")) != 0 {
		t.Errorf("whole: %v, noted %q", err, r.keys("suspects"))
	}
}

// TestADamagedListIsNoDamageOfThePoint, which is offered; and it is told, for a repair.
func TestADamagedListIsNoDamageOfThePoint(t *testing.T) {
	r := newRig(t)
	r.claim()
	m := r.mustCapture()
	r.repo.lists = errors.New("the list cannot be read")
	found, err := r.east.Verify(t.Context(), "shop", m.ID, VerifyOptions{})
	if err != nil || len(found.Damage) > 0 || len(found.BlobDamage) != 1 || !strings.Contains(found.BlobDamage[0], "the list cannot be read") || !offered(t, r) {
		t.Errorf("%+v, %v, offered %t", found, err, offered(t, r))
	}
}

// unnoted takes no note of damaged packs.
type unnoted struct{ vault.Store }

func (u unnoted) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if strings.Contains(key, "/suspects/") {
		return vault.ErrUnavailable
	}
	return u.Store.PutIfAbsent(ctx, key, r, size)
}

// TestDamageIsToldThoughItsPacksCannotBeNoted: a repair goes by the verdict.
func TestDamageIsToldThoughItsPacksCannotBeNoted(t *testing.T) {
	r := newRig(t)
	r.project = r.project.Over(func(s vault.Store) vault.Store { return unnoted{s} })
	r.east = r.site("east")
	r.claim()
	m := r.mustCapture()
	r.repo.damaged = true
	found, err := r.east.Verify(t.Context(), "shop", m.ID, VerifyOptions{})
	if !errors.Is(err, ErrDamaged) || len(found.Packs) == 0 || len(r.keys("suspects")) != 0 {
		t.Errorf("%v, packs %q, noted %q", err, found.Packs, r.keys("suspects"))
	}
}

// noting counts what is put under a prefix.
type noting struct {
	vault.Store
	notes atomic.Int64
}

func (n *noting) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if strings.Contains(key, "/reading/") {
		n.notes.Add(1)
	}
	return n.Store.Put(ctx, key, r, size)
}

// TestARepairNotesWhatItReads in the copy, so that its retention leaves the point, and no longer than it reads.
// A copy that has the point no more mends what it can, as its bytes are compared.
func TestARepairNotesWhatItReads(t *testing.T) {
	for _, leaving := range []bool{false, true} {
		r, second, id := twice(t)
		flipLast(t, r.store, r.project.Root()+"objects/shop/"+id+"/00000001")
		found, err := r.east.Verify(t.Context(), "shop", id, VerifyOptions{})
		if !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		if leaving {
			if err := second.Delete(t.Context(), r.project.Root()+"manifests/shop/"+id); err != nil {
				t.Fatal(err)
			}
		}
		store := &noting{Store: second}
		from, err := vault.OpenProject(t.Context(), store, "default", r.key)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.east.Repair(t.Context(), "shop", id, from, "second", found)
		if err != nil || store.notes.Load() == 0 {
			t.Errorf("leaving %t: %v, %d notes", leaving, err, store.notes.Load())
		}
		left := 0
		if err := second.List(t.Context(), r.project.Root()+"reading/", func(vault.ObjectInfo) error { left++; return nil }); err != nil || left > 0 {
			t.Errorf("leaving %t: %d notes are left, %v", leaving, left, err)
		}
	}
}
