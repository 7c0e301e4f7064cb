package protection

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/copies"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/volume"
)

// real is a rig whose two points hold a volume in a real repository, and a
// second copy of its vault.
type real struct {
	*rig
	blobs  []string // keys of the repository and its inventories
	ids    []string
	second *mem.Store
}

func newReal(t *testing.T) *real {
	t.Helper()
	r := &real{rig: newRig(t), second: mem.New(nil)}
	if _, err := vault.Init(t.Context(), r.store); err != nil {
		t.Fatal(err)
	}
	r.east = New(Options{Project: r.project, Site: "east", Now: func() time.Time { r.now = r.now.Add(time.Second); return r.now }})
	if _, err := r.east.ClaimFirst(t.Context(), "shop", "test"); err != nil {
		t.Fatal(err)
	}
	repo, err := volume.Open(t.Context(), VolumeOptions(r.project, "east"))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for i := range 2 {
		if err := os.WriteFile(filepath.Join(root, fmt.Sprint("file", i)), []byte(strings.Repeat(fmt.Sprint("line ", i), 3000)), 0o600); err != nil {
			t.Fatal(err)
		}
		snap, err := repo.Write(t.Context(), volume.WriteOptions{Root: root, Source: volume.Source{Namespace: "shop", Claim: "data"}})
		if err != nil {
			t.Fatal(err)
		}
		r.publish(fmt.Sprint("p", i), snap)
	}
	if err := repo.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := copies.New(copies.Options{First: r.project, Store: r.second, Volumes: VolumeOptions, Now: func() time.Time { return r.now }})
	if err := copies.Bootstrap(t.Context(), r.project, r.second); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Pass(t.Context(), []copies.App{{Name: "shop", Held: 1}}); err != nil {
		t.Fatal(err)
	}
	r.blobs = r.keys("volumes")
	return r
}

func (r *real) publish(id string, snap point.Snapshot) {
	r.t.Helper()
	w, err := r.project.NewWriter(r.t.Context(), "shop", id)
	if err != nil {
		r.t.Fatal(err)
	}
	r.now = r.now.Add(time.Minute)
	m := &point.Manifest{
		Site: "east", Epoch: 1, Trigger: "manual", Instant: r.now, CutBy: r.now, Consistency: point.Crash,
		Volumes: []point.Volume{{Namespace: "shop", Claim: "data", Consistency: point.Crash, Method: "snapshot", Snapshot: snap}},
	}
	if err := w.Publish(r.t.Context(), m, nil); err != nil {
		r.t.Fatal(err)
	}
	r.ids = append(r.ids, id)
}

// put stores bytes, or removes what is there.
func (r *real) put(key, data string) {
	r.t.Helper()
	if err := r.store.Put(r.t.Context(), key, strings.NewReader(data), int64(len(data))); err != nil {
		r.t.Fatal(err)
	}
}

// clean takes the verdicts off, so that each damage is judged anew.
func (r *real) clean() {
	r.t.Helper()
	for _, key := range r.keys("marks") {
		if err := r.store.Delete(r.t.Context(), key); err != nil {
			r.t.Fatal(err)
		}
	}
}

// TestEverySingleBlobIsCompared: each blob and inventory of a repository,
// changed in one byte wherever that is, cut, and missing, is found and mended
// from the second copy. The control is a verification that compares none: it
// does not see them all.
func TestEverySingleBlobIsCompared(t *testing.T) {
	r := newReal(t)
	from, err := vault.OpenProject(t.Context(), r.second, "default", r.key)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := r.east.Verify(t.Context(), "shop", "p1", VerifyOptions{Blobs: true})
	if err != nil || len(whole.BlobDamage) > 0 || !slices.Equal(whole.Sites, []string{"east"}) || whole.Blobs < 5 || whole.BlobBytes == 0 {
		t.Fatalf("a whole vault: %v %+v", err, whole)
	}
	unseen := 0
	for _, key := range r.blobs {
		good := read(t, r.store, key)
		flip := func(at int) string {
			bad := []byte(good)
			bad[at] ^= 0x10
			return string(bad)
		}
		for how, bad := range map[string]string{
			"first byte": flip(0), "a byte in the middle": flip(len(good) / 2), "last byte": flip(len(good) - 1), "cut": good[:len(good)-1], "longer": good + "x", "missing": "",
		} {
			r.clean()
			r.put(key, bad)
			if how == "missing" {
				if err := r.store.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
				if strings.Contains(key, "-inventory/") && !r.named(key) {
					r.put(key, good)
					continue // nobody knows of it any more: no point names it
				}
			}
			plain, err := r.east.Verify(t.Context(), "shop", "p1", VerifyOptions{})
			if err == nil && len(plain.BlobDamage) == 0 {
				unseen++
			}
			r.clean()
			found, err := r.east.Verify(t.Context(), "shop", "p1", VerifyOptions{Blobs: true})
			if err != nil && !errors.Is(err, ErrDamaged) || len(found.Damage)+len(found.BlobDamage) == 0 {
				t.Errorf("%s, %s: %v %+v", key, how, err, found)
			}
			mended, err := r.east.Repair(t.Context(), "shop", "p1", from, "second", found)
			if err != nil || read(t, r.store, key) != good {
				t.Errorf("%s, %s: not mended: %v %+v", key, how, err, mended)
				r.put(key, good)
			}
		}
	}
	if unseen == 0 {
		t.Error("every damage was seen without comparing blobs: the comparison proves nothing")
	}
}

// named tells whether a point of the vault says that it needs an inventory.
func (r *real) named(key string) bool {
	r.t.Helper()
	for _, id := range r.ids {
		m, err := r.project.Manifest(r.t.Context(), "shop", id)
		if err != nil {
			r.t.Fatal(err)
		}
		if slices.Contains(m.Volumes[0].Snapshot.Inventories, key) {
			return true
		}
	}
	return false
}

// TestSamplesOfBlobsReadAllInTurn: each sample reads a part of the packs, and
// all of them together every one; what is missing or cut no sample misses, nor
// what is known to be damaged.
func TestSamplesOfBlobsReadAllInTurn(t *testing.T) {
	r := newReal(t)
	for _, key := range r.blobs {
		if !strings.Contains(key, "/p") || strings.Contains(key, "-inventory/") {
			continue
		}
		good := read(t, r.store, key)
		seen := 0
		flipLast(t, r.store, key)
		for from := 0; from < 100; from += 20 {
			found, err := r.east.Verify(t.Context(), "shop", "p1", VerifyOptions{Blobs: true, Sample: 20, SampleFrom: from})
			if err != nil && !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			if len(found.BlobDamage) == 0 {
				continue
			}
			seen++
			again, _ := r.east.Verify(t.Context(), "shop", "p1", VerifyOptions{Blobs: true, Sample: 20, SampleFrom: from + 20})
			if len(again.BlobDamage) == 0 {
				t.Errorf("%s is known to be damaged, and the next sample did not see it", key)
			}
			if err := r.east.clear(t.Context(), found.Packs, []string{key}); err != nil {
				t.Fatal(err)
			}
		}
		if seen != 1 {
			t.Errorf("%s: %d of 5 samples read it", key, seen)
		}
		r.put(key, good[:len(good)-1])
		if found, _ := r.east.Verify(t.Context(), "shop", "p1", VerifyOptions{Blobs: true, Sample: 1}); len(found.Damage)+len(found.BlobDamage) == 0 {
			t.Errorf("%s is cut, and a sample did not see it", key)
		}
		r.put(key, good)
	}
}

// TestBlobsAreComparedOncePerSite: whoever reads several points says which
// repositories were compared.
func TestBlobsAreComparedOncePerSite(t *testing.T) {
	r := newReal(t)
	report, err := r.east.Verify(t.Context(), "shop", "p1", VerifyOptions{Blobs: true, NotOf: []string{"east"}})
	if err != nil || report.Blobs != 0 || len(report.Sites) != 0 {
		t.Errorf("%v %+v", err, report)
	}
}
