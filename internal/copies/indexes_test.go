package copies

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume"
)

// TestVolumesOfAPointThatOnlyTheCopyHasAreRead, also after the first vault freed
// the indexes that knew them. The controls are the copy without what was kept of
// its indexes, and the indexes that the first vault has left.
func TestVolumesOfAPointThatOnlyTheCopyHasAreRead(t *testing.T) {
	r := newRig(t)
	old := r.publish("p1", 1, true).Volumes[0].Snapshot
	r.pass(app())
	then := r.indexes()
	if err := r.repo.Delete(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if err := r.p.DeletePoint(t.Context(), "shop", "p1"); err != nil {
		t.Fatal(err)
	}
	r.publish("p2", 1, true)
	r.pass(app())
	if ids := r.whole(); !slices.Equal(ids, []string{"p1", "p2"}) {
		t.Errorf("the copy has %v", ids)
	}
	r.reclaim(then...) // as maintenance does when newer ones stand for them
	r.publish("p3", 1, true)
	r.pass(app())
	read := func(indexes func(context.Context, string) ([]string, error), target string) error {
		opts := options(r.open(), "east")
		opts.ReadOnly, opts.Indexes = true, indexes
		repo, err := volume.Open(t.Context(), opts)
		if err != nil {
			return err
		}
		return errors.Join(repo.Read(t.Context(), old, target, volume.ReadOptions{}), repo.Close(t.Context()))
	}
	left := func(context.Context, string) ([]string, error) { return r.indexes(), nil }
	if err := read(left, t.TempDir()); err == nil {
		t.Error("control: the indexes of today know the data still")
	}
	copied, target := r.open(), t.TempDir()
	if err := read(Indexes(copied, "east"), target); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(target, "file")); err != nil || !bytes.Equal(data, bytes.Repeat([]byte("p1"), 5000)) {
		t.Errorf("restored %d bytes, %v", len(data), err)
	}
	if err := read(nil, t.TempDir()); !errors.Is(err, volume.ErrNoSnapshot) {
		t.Errorf("control: without the kept indexes: %v", err)
	}
	prefix := keptPrefix(copied, "east")
	if n := len(keys(t, r.second, prefix)); n == 0 {
		t.Error("no indexes were kept")
	}
	if err := r.copier(r.first, r.second).in.DeletePoint(t.Context(), "shop", "p1"); err != nil {
		t.Fatal(err)
	}
	r.publish("p4", 1, true)
	r.pass(app())
	if more := keys(t, r.second, prefix); len(more) != 0 {
		t.Errorf("nothing needs %v any more", more)
	}
}

// unreadable is a store in which one object cannot be read.
type unreadable struct {
	vault.Store
	key string
	err error
}

func (u unreadable) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if key == u.key {
		return nil, u.err
	}
	return u.Store.Get(ctx, key, offset, length)
}

// TestIndexesWaitForWhatCannotBeRead: while nobody can say which snapshots only
// the copy has, none of the newer indexes come, which forget them. A manifest
// that is damaged for good keeps nothing from being copied.
func TestIndexesWaitForWhatCannotBeRead(t *testing.T) {
	r := newRig(t)
	old := r.publish("p1", 1, true).Volumes[0].Snapshot
	r.pass(app())
	if err := r.repo.Delete(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if err := r.p.DeletePoint(t.Context(), "shop", "p1"); err != nil {
		t.Fatal(err)
	}
	r.publish("p2", 1, true)
	indexes := func() []string { return keys(t, r.second, r.p.VolumePrefix("east")+volume.IndexPrefix) }
	before := indexes()
	second := unreadable{r.second, "projects/default/manifests/shop/p1", vault.ErrUnavailable}
	if _, err := r.copier(r.first, second).Pass(t.Context(), []App{app()}); !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("a pass that cannot read a manifest of the copy: %v", err)
	}
	if after := indexes(); !slices.Equal(after, before) {
		t.Errorf("the copy has indexes %v, had %v", after, before)
	}
	second.err = vault.ErrDamaged
	report, err := r.copier(r.first, second).Pass(t.Context(), []App{app()})
	if got := report.Apps["shop"]; err != nil || got.Err != nil || got.Pending > 0 {
		t.Errorf("a damaged manifest: %+v, %v", got, err)
	}
	if after := indexes(); slices.Equal(after, before) {
		t.Error("control: nothing came")
	}
}

// indexes are the index blobs that the first vault has.
func (r *rig) indexes() []string {
	r.t.Helper()
	prefix := r.p.VolumePrefix("east")
	var names []string
	for _, key := range keys(r.t, r.first, prefix+volume.IndexPrefix) {
		names = append(names, key[len(prefix):])
	}
	return names
}

// FuzzKept: what was kept in a copy is outside data.
func FuzzKept(f *testing.F) {
	for _, seed := range []string{`{"formatVersion":1,"blobs":["xn0_a"]}`, `{"formatVersion":2,"blobs":["xn0_a"]}`, `{"formatVersion":1}`, `{"formatVersion":1,"blobs":["p1"]}`, ``} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		blobs, err := parseKept(plain)
		if (err == nil) != (len(blobs) > 0) || err != nil && !errors.Is(err, vault.ErrDamaged) {
			t.Errorf("%q: %v, %v", plain, blobs, err)
		}
		for _, id := range blobs {
			if id[:1] != volume.IndexPrefix {
				t.Errorf("%q is no index blob", id)
			}
		}
	})
}
