package history_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/history"
	"davit.dev/davit/internal/vault/mem"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

const manifest = "projects/default/manifests/shop/shop-1"

// bucket keeps former versions beside what a store shows. Each write takes a
// second.
type bucket struct {
	vault.Store
	mu       sync.Mutex
	now      time.Time
	versions map[string][]stored // oldest first
	ordinary bool                // keeps none
	locked   map[string]bool     // keys whose former versions stay
	appeared []string            // deleted keys that were there again after a version went
	lives    int                 // changes until whoever makes them dies; negative: none does
	owner    bool                // these credentials may destroy versions
	settable bool                // they may change what the bucket keeps
}

type stored struct {
	history.Version
	data []byte
}

func newBucket() *bucket {
	return &bucket{Store: mem.New(nil), now: noon, versions: map[string][]stored{}, lives: -1}
}

var errDied = errors.New("killed")

// lived is errDied for every change after those that are left.
func (b *bucket) lived() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lives == 0 {
		return errDied
	}
	b.lives--
	return nil
}

func (b *bucket) add(key string, data []byte, marker bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(time.Second)
	if b.ordinary {
		return
	}
	all := b.versions[key]
	if marker && (len(all) == 0 || all[len(all)-1].Marker) {
		return
	}
	for i := range all {
		all[i].Latest = false
	}
	v := history.Version{
		Key: key, ID: fmt.Sprint(b.now.Unix()), Size: int64(len(data)), ETag: fmt.Sprintf("%q", data), Modified: b.now, Latest: true, Marker: marker,
	}
	b.versions[key] = append(all, stored{v, data})
}

func (b *bucket) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if err := b.lived(); err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	if err == nil {
		err = b.Store.Put(ctx, key, bytes.NewReader(data), size)
	}
	if err == nil {
		b.add(key, data, false)
	}
	return err
}

func (b *bucket) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if err := b.lived(); err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	if err == nil {
		err = b.Store.PutIfAbsent(ctx, key, bytes.NewReader(data), size)
	}
	if err == nil {
		b.add(key, data, false)
	}
	return err
}

func (b *bucket) Delete(ctx context.Context, key string) error {
	err := b.Store.Delete(ctx, key)
	if err == nil {
		b.add(key, nil, true)
	}
	return err
}

func (b *bucket) KeepsVersions(context.Context) (bool, error) { return !b.ordinary, nil }

func (b *bucket) ListVersions(_ context.Context, prefix string, fn func(history.Version) error) error {
	b.mu.Lock()
	var all []history.Version
	for _, key := range slices.Sorted(maps.Keys(b.versions)) {
		for _, v := range slices.Backward(b.versions[key]) {
			if strings.HasPrefix(key, prefix) {
				all = append(all, v.Version)
			}
		}
	}
	b.mu.Unlock()
	for _, v := range all {
		if err := fn(v); err != nil {
			return err
		}
	}
	return nil
}

func (b *bucket) GetVersion(_ context.Context, key, id string, _, _ int64) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, v := range b.versions[key] {
		if v.ID == id && !v.Marker {
			return io.NopCloser(bytes.NewReader(v.data)), nil
		}
	}
	return nil, vault.ErrNotFound
}

func (b *bucket) DeleteVersion(_ context.Context, key, id string) error {
	if err := b.lived(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.owner {
		return vault.ErrDenied
	}
	if i := slices.IndexFunc(b.versions[key], func(v stored) bool { return v.ID == id }); i >= 0 && b.locked[key] && !b.versions[key][i].Marker {
		return vault.ErrDenied
	}
	left := slices.DeleteFunc(b.versions[key], func(v stored) bool { return v.ID == id })
	b.versions[key] = left
	if len(left) == 0 {
		delete(b.versions, key)
	} else if last := &left[len(left)-1]; !last.Latest { // it shows now
		last.Latest = true
		if !last.Marker {
			b.appeared = append(b.appeared, key)
		}
	}
	return nil
}

func (b *bucket) setting() error {
	if b.settable {
		return nil
	}
	return vault.ErrDenied
}

func (b *bucket) SetVersions(context.Context) error   { return b.setting() }
func (b *bucket) RewritePolicy(context.Context) error { return b.setting() }

// TestProve lets only a store pass that refuses to destroy.
func TestProve(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*bucket)
		safe   bool
	}{
		"a site's":          {func(*bucket) {}, true},
		"the owner's":       {func(b *bucket) { b.owner = true }, false},
		"no versions":       {func(b *bucket) { b.ordinary = true }, false},
		"may change policy": {func(b *bucket) { b.settable = true }, false},
	} {
		b := newBucket()
		c.change(b)
		said, err := history.Prove(t.Context(), b)
		if c.safe != (err == nil) || !c.safe && !errors.Is(err, history.ErrDestroys) {
			t.Errorf("%s: %q, %v", name, said, err)
		}
	}
	if _, err := history.Prove(t.Context(), mem.New(nil)); !errors.Is(err, history.ErrDestroys) {
		t.Errorf("a store without versions: %v", err)
	}
}

// site is a vault with a point, an epoch and a sign of life.
func site(t *testing.T, store vault.Store) (*vault.Project, vault.Identity) {
	t.Helper()
	if _, err := vault.Init(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), store, "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	publish(t, p, "shop-1")
	if err := p.Heartbeat(t.Context(), vault.SiteStatus{Site: "east", Cluster: "a"}); err != nil {
		t.Fatal(err)
	}
	return p, key
}

func publish(t *testing.T, p *vault.Project, id string) {
	t.Helper()
	w, err := p.NewWriter(t.Context(), "shop", id)
	if err != nil {
		t.Fatal(err)
	}
	r := w.Resource(point.Resource{Version: "v1", Kind: "Secret", Resource: "secrets", Namespaced: true})
	if err := r.Add(t.Context(), []byte(`{"kind":"Secret"}`)); err != nil {
		t.Fatal(err)
	}
	res, err := r.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := &point.Manifest{Site: "east", Epoch: 1, Trigger: "manual", Instant: noon, CutBy: noon, Consistency: point.Crash, Namespaces: []string{"shop"}, Resources: []point.Resource{res}}
	if err := w.Publish(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
}

// attack overwrites every second object and deletes all others.
func attack(t *testing.T, b *bucket) {
	t.Helper()
	var keys []string
	err := b.List(t.Context(), "", func(o vault.ObjectInfo) error {
		keys = append(keys, o.Key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		if i%2 == 0 {
			err = b.Put(t.Context(), key, strings.NewReader("rubbish"), 7)
		} else {
			err = b.Delete(t.Context(), key)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func whole(t *testing.T, b *bucket, key vault.Identity, id string) error {
	t.Helper()
	p, err := vault.OpenProject(t.Context(), b, "default", key)
	if err != nil {
		return err
	}
	m, err := p.Manifest(t.Context(), "shop", id)
	if err != nil {
		return err
	}
	return p.VerifyObjects(t.Context(), m, nil)
}

func TestRevert(t *testing.T) {
	b := newBucket()
	p, key := site(t, b)
	run := "projects/default/running/move"
	if err := b.Put(t.Context(), run, strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	before := b.now
	attack(t, b)
	if err := b.Delete(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	if err := whole(t, b, key, "shop-1"); err == nil {
		t.Fatal("the attack did no harm: it proves nothing")
	}
	how := history.Reverting{To: before, Project: "default", Key: key, DryRun: true}
	dry, err := history.Revert(t.Context(), b, how)
	if err != nil || dry.Points != 1 || dry.Deleted == 0 || dry.Overwritten == 0 || !dry.FirstOverwritten.After(before) {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	if err := whole(t, b, key, "shop-1"); err == nil {
		t.Error("a dry run changed something")
	}
	how.DryRun = false
	report, err := history.Revert(t.Context(), b, how)
	if err != nil || report != dry {
		t.Errorf("Revert = %+v, %v, want %+v", report, err, dry)
	}
	if err := whole(t, b, key, "shop-1"); err != nil {
		t.Error(err)
	}
	if _, err := p.Site(t.Context(), "east"); err != nil {
		t.Errorf("the sign of life that somebody overwrote: %v", err)
	}
	if _, err := b.Stat(t.Context(), run); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("a run that is over came back: %v", err)
	}
	if again, err := history.Revert(t.Context(), b, how); err != nil || again.Deleted+again.Overwritten != 0 {
		t.Errorf("Revert again = %+v, %v", again, err)
	}
}

// TestRevertKilled at every write: a point that is shown is whole, and given again the
// command ends what it began.
func TestRevertKilled(t *testing.T) {
	for lives := 0; ; lives++ {
		b := newBucket()
		_, key := site(t, b)
		how := history.Reverting{To: b.now, Project: "default", Key: key}
		attack(t, b)
		if err := b.Delete(t.Context(), manifest); err != nil {
			t.Fatal(err)
		}
		b.lives = lives
		_, err := history.Revert(t.Context(), b, how)
		if err != nil && !errors.Is(err, errDied) {
			t.Fatal(err)
		}
		if _, hidden := b.Stat(t.Context(), manifest); hidden == nil {
			if harm := whole(t, b, key, "shop-1"); harm != nil {
				t.Errorf("killed after %d writes it shows a point that is not whole: %v", lives, harm)
			}
		}
		b.lives = -1
		if _, again := history.Revert(t.Context(), b, how); again != nil {
			t.Fatal(again)
		}
		if harm := whole(t, b, key, "shop-1"); harm != nil {
			t.Errorf("killed after %d writes and given again: %v", lives, harm)
		}
		if err == nil {
			if lives < 3 {
				t.Fatalf("it wrote %d times: it proves nothing", lives)
			}
			return
		}
	}
}

// TestReclaimKilled at every deletion: nothing that was deleted is there again, and
// given again the command ends what it began.
func TestReclaimKilled(t *testing.T) {
	for lives := 0; ; lives++ {
		b := newBucket()
		p, key := site(t, b)
		publish(t, p, "shop-2")
		if err := p.DeletePoint(t.Context(), "shop", "shop-1"); err != nil {
			t.Fatal(err)
		}
		b.owner, b.lives = true, lives
		_, err := history.Reclaim(t.Context(), b, b.now.Add(time.Hour), false)
		if err != nil && !errors.Is(err, errDied) {
			t.Fatal(err)
		}
		b.lives = -1
		if _, again := history.Reclaim(t.Context(), b, b.now.Add(time.Hour), false); again != nil {
			t.Fatal(again)
		}
		if len(b.appeared) > 0 {
			t.Errorf("killed after %d deletions: %v were there again", lives, b.appeared)
		}
		for object := range b.versions {
			if strings.Contains(object, "shop-1") {
				t.Errorf("killed after %d deletions: %s is still there", lives, object)
			}
		}
		if harm := whole(t, b, key, "shop-2"); harm != nil {
			t.Error(harm)
		}
		if err == nil {
			if lives < 3 {
				t.Fatalf("it deleted %d versions: it proves nothing", lives)
			}
			return
		}
	}
}

// TestRevertKeepsWhatIsNew leaves alone what came since, a genuine sign of life
// included.
func TestRevertKeepsWhatIsNew(t *testing.T) {
	b := newBucket()
	p, key := site(t, b)
	before := b.now
	if err := p.Heartbeat(t.Context(), vault.SiteStatus{Site: "east", Cluster: "b"}); err != nil {
		t.Fatal(err)
	}
	publish(t, p, "shop-2")
	report, err := history.Revert(t.Context(), b, history.Reverting{To: before, Project: "default", Key: key})
	if err != nil || report.Deleted+report.Overwritten != 0 || report.Since == 0 {
		t.Errorf("Revert = %+v, %v", report, err)
	}
	if s, err := p.Site(t.Context(), "east"); err != nil || s.Cluster != "b" {
		t.Errorf("sign of life %+v, %v", s, err)
	}
	if err := whole(t, b, key, "shop-2"); err != nil {
		t.Error(err)
	}
}

// TestRevertKeepsAClaim: where somebody deleted an epoch and a site claimed the
// number anew, that is what all sites go by; where nobody did, it comes back.
func TestRevertKeepsAClaim(t *testing.T) {
	b := newBucket()
	p, key := site(t, b)
	claim := func(n int64, site string) {
		t.Helper()
		if err := p.WriteEpoch(t.Context(), "shop", n, site); err != nil {
			t.Fatal(err)
		}
	}
	claim(1, "east")
	claim(2, "west")
	claim(3, "east")
	before := b.now
	for n := range 3 {
		if err := b.Delete(t.Context(), fmt.Sprintf("projects/default/epochs/shop/%020d", n+1)); err != nil {
			t.Fatal(err)
		}
	}
	claim(1, "north")
	if err := b.Put(t.Context(), fmt.Sprintf("projects/default/epochs/shop/%020d", 2), strings.NewReader("rubbish"), 7); err != nil {
		t.Fatal(err)
	}
	if r, err := history.Revert(t.Context(), b, history.Reverting{To: before, Project: "default", Key: key}); err != nil || r.Deleted != 1 || r.Overwritten != 1 {
		t.Errorf("Revert = %+v, %v", r, err)
	}
	for i, want := range []string{"north", "west", "east"} {
		var got string
		if err := p.ReadEpoch(t.Context(), "shop", int64(i+1), &got); err != nil || got != want {
			t.Errorf("epoch %d is %s's, %v, want %s's", i+1, got, err, want)
		}
	}
}

// TestRevertKeepsALaterClaim: a site claimed an epoch after the time to go back to, and
// somebody deleted it or wrote over it. Without it two sites would be active.
func TestRevertKeepsALaterClaim(t *testing.T) {
	for name, harm := range map[string]func(b *bucket, key string) error{
		"deleted": func(b *bucket, key string) error { return b.Delete(t.Context(), key) },
		"overwritten": func(b *bucket, key string) error {
			return b.Put(t.Context(), key, strings.NewReader("rubbish"), 7)
		},
	} {
		b := newBucket()
		p, key := site(t, b)
		if err := p.WriteEpoch(t.Context(), "shop", 1, "east"); err != nil {
			t.Fatal(err)
		}
		before := b.now
		if err := p.WriteEpoch(t.Context(), "shop", 2, "west"); err != nil {
			t.Fatal(err)
		}
		if err := harm(b, fmt.Sprintf("projects/default/epochs/shop/%020d", 2)); err != nil {
			t.Fatal(err)
		}
		if r, err := history.Revert(t.Context(), b, history.Reverting{To: before, Project: "default", Key: key}); err != nil || r.Deleted+r.Overwritten != 1 {
			t.Errorf("%s: Revert = %+v, %v", name, r, err)
		}
		var got string
		if err := p.ReadEpoch(t.Context(), "shop", 2, &got); err != nil || got != "west" {
			t.Errorf("%s: epoch 2 is %q's, %v", name, got, err)
		}
	}
}

// TestReclaimKeepsWhatNobodyDeletes: a mark on an epoch is somebody's.
func TestReclaimKeepsWhatNobodyDeletes(t *testing.T) {
	b := newBucket()
	b.owner = true
	p, _ := site(t, b)
	if err := p.WriteEpoch(t.Context(), "shop", 1, "east"); err != nil {
		t.Fatal(err)
	}
	epoch := fmt.Sprintf("projects/default/epochs/shop/%020d", 1)
	if err := b.Delete(t.Context(), epoch); err != nil {
		t.Fatal(err)
	}
	if r, err := history.Reclaim(t.Context(), b, b.now.Add(time.Hour), false); err != nil || r.Overwritten != 1 || len(b.versions[epoch]) != 2 {
		t.Errorf("Reclaim = %+v, %v; %d versions are left", r, err, len(b.versions[epoch]))
	}
}

// TestRevertRefuses: a time before the vault was there, another key, and a
// store that keeps nothing change nothing.
func TestRevertRefuses(t *testing.T) {
	b := newBucket()
	_, key := site(t, b)
	other, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	at := b.now
	attack(t, b)
	state := fmt.Sprint(b.versions)
	for name, how := range map[string]history.Reverting{
		"too early":   {To: noon, Project: "default", Key: key},
		"another key": {To: at, Project: "default", Key: other},
		"no project":  {To: at, Project: "nobody", Key: key},
	} {
		if _, err := history.Revert(t.Context(), b, how); err == nil {
			t.Errorf("%s was not refused", name)
		}
	}
	if fmt.Sprint(b.versions) != state {
		t.Error("a refused call changed something")
	}
	if _, err := history.Revert(t.Context(), mem.New(nil), history.Reverting{To: at, Project: "default", Key: key}); err == nil {
		t.Error("a store without versions was not refused")
	}
}

func TestReclaim(t *testing.T) {
	b := newBucket()
	p, key := site(t, b)
	publish(t, p, "shop-2")
	if err := p.DeletePoint(t.Context(), "shop", "shop-1"); err != nil {
		t.Fatal(err)
	}
	middle := b.now
	if _, err := history.Reclaim(t.Context(), b, middle.Add(time.Second), false); !errors.Is(err, vault.ErrDenied) {
		t.Errorf("a site's credentials: %v", err)
	}
	b.owner = true
	if r, err := history.Reclaim(t.Context(), b, noon, false); err != nil || r.Versions != 0 {
		t.Errorf("what was hidden a moment ago: %+v, %v", r, err)
	}
	b.locked = map[string]bool{manifest: true}
	if r, err := history.Reclaim(t.Context(), b, middle.Add(time.Second), false); err != nil || r.Refused != 1 || r.Versions == 0 {
		t.Errorf("with a locked version: %+v, %v", r, err)
	}
	if len(b.versions[manifest]) != 2 {
		t.Errorf("%d versions of the locked manifest are left, want it and its mark", len(b.versions[manifest]))
	}
	b.locked = nil
	report, err := history.Reclaim(t.Context(), b, middle.Add(time.Second), false)
	if err != nil || report.Points != 1 || report.Versions == 0 || report.Overwritten != 0 {
		t.Errorf("Reclaim = %+v, %v", report, err)
	}
	for key := range b.versions {
		if strings.Contains(key, "shop-1") {
			t.Errorf("%s is still there", key)
		}
	}
	if len(b.appeared) > 0 {
		t.Errorf("deleted objects were there again: %v", b.appeared)
	}
	if err := whole(t, b, key, "shop-2"); err != nil {
		t.Error(err)
	}
	// What somebody overwrote stays, until it is known what is right.
	before := b.now
	attack(t, b)
	if r, err := history.Reclaim(t.Context(), b, before, false); err != nil || r.Versions != 0 {
		t.Errorf("after the attack: %+v, %v", r, err)
	}
	if r, err := history.Reclaim(t.Context(), b, before.Add(2*time.Second), true); err != nil || r.Overwritten == 0 {
		t.Errorf("what was overwritten is not told: %+v, %v", r, err)
	}
	if _, err := history.Revert(t.Context(), b, history.Reverting{To: before, Project: "default", Key: key}); err != nil {
		t.Fatal(err)
	}
	if err := whole(t, b, key, "shop-2"); err != nil {
		t.Error(err)
	}
}
