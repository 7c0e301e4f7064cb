package copies

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/volume"
)

var noon = time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)

// rig is a first vault, its second copy, and what is in the volumes.
type rig struct {
	t      *testing.T
	first  *mem.Store
	second *mem.Store
	key    vault.Identity
	p      *vault.Project
	repo   *volume.Repository
	data   string // the volume's directory
	// blobsOnly checks blobs and reads no snapshot, which costs as much again.
	blobsOnly bool
	now       time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, first: mem.New(nil), second: mem.New(nil), now: noon, data: t.TempDir()}
	var err error
	if r.key, err = vault.NewRecoveryKey(); err != nil {
		t.Fatal(err)
	}
	if _, err = vault.Init(t.Context(), r.first); err != nil {
		t.Fatal(err)
	}
	if r.p, err = vault.CreateProject(t.Context(), r.first, "default", r.key.Recipient()); err != nil {
		t.Fatal(err)
	}
	for _, app := range []string{"shop", "bank"} {
		if _, err = lease.New(r.p).Claim(t.Context(), app, 1, lease.Claim{Site: "east", Request: "r"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := Bootstrap(t.Context(), r.p, r.second); err != nil {
		t.Fatal(err)
	}
	return r
}

func options(p *vault.Project, site string) volume.Options {
	opts := volume.Options{
		Store: p.Store(), Prefix: p.VolumePrefix(site), Password: p.RepositoryKey(site), Site: site,
		Seal: p.Seal, Unseal: func(key string, sealed []byte) ([]byte, error) { return p.Unseal(key, sealed, 1<<26) },
	}
	if p.IsCopy() {
		opts.Indexes = Indexes(p, site)
	}
	return opts
}

// publish captures one more point: a ConfigMap and a volume of one file.
func (r *rig) publish(id string, epoch int64, withVolume bool) *point.Manifest {
	r.t.Helper()
	return r.publishOf("shop", id, epoch, withVolume)
}

func (r *rig) publishOf(app, id string, epoch int64, withVolume bool) *point.Manifest {
	r.t.Helper()
	ctx := r.t.Context()
	r.now = r.now.Add(time.Minute)
	w, err := r.p.NewWriter(ctx, app, id)
	if err != nil {
		r.t.Fatal(err)
	}
	rw := w.Resource(point.Resource{Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespaced: true})
	if err := rw.Add(ctx, []byte(`{"kind":"ConfigMap","of":"`+id+`"}`)); err != nil {
		r.t.Fatal(err)
	}
	res, err := rw.Close(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	m := &point.Manifest{Site: "east", Epoch: epoch, Trigger: "manual", Instant: r.now, CutBy: r.now, Consistency: point.Crash, Resources: []point.Resource{res}, Objects: 1}
	if withVolume {
		m.Volumes = []point.Volume{{Namespace: "shop", Claim: "data", Consistency: point.Crash, Method: "snapshot", Snapshot: r.snapshot(id)}}
	}
	if err := w.Publish(ctx, m, nil); err != nil {
		r.t.Fatal(err)
	}
	return m
}

func (r *rig) snapshot(id string) point.Snapshot {
	r.t.Helper()
	if r.repo == nil {
		var err error
		if r.repo, err = volume.Open(r.t.Context(), options(r.p, r.p.Repository("east"))); err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { _ = r.repo.Close(context.Background()) })
	}
	if err := os.WriteFile(filepath.Join(r.data, "file"), bytes.Repeat([]byte(id), 5000), 0o600); err != nil {
		r.t.Fatal(err)
	}
	snap, err := r.repo.Write(r.t.Context(), volume.WriteOptions{Root: r.data, Source: volume.Source{Namespace: "shop", Claim: "data"}})
	if err != nil {
		r.t.Fatal(err)
	}
	return snap
}

// copier copies from and into the stores as they are seen through wraps.
func (r *rig) copier(first, second vault.Store) *Copier {
	p := r.p.Over(func(vault.Store) vault.Store { return first })
	return New(Options{First: p, Store: second, Volumes: options, Now: func() time.Time { return r.now }})
}

func app() App { return App{Name: "shop", Held: 1} }

func (r *rig) pass(apps ...App) Report {
	r.t.Helper()
	report, err := r.copier(r.first, r.second).Pass(r.t.Context(), apps)
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// open opens the copy with nothing but its store and the recovery key.
func (r *rig) open() *vault.Project {
	r.t.Helper()
	p, err := vault.OpenProject(r.t.Context(), r.second, "default", r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// whole checks that all points of the copy are whole, and returns their ids.
func (r *rig) whole() []string {
	r.t.Helper()
	return r.wholeOf("shop")
}

func (r *rig) wholeOf(app string) []string {
	r.t.Helper()
	p := r.open()
	infos, err := p.Points(r.t.Context(), app)
	if err != nil {
		r.t.Fatal(err)
	}
	var ids []string
	for _, info := range infos {
		if info.Err != nil {
			r.t.Fatalf("%s: %v", info.ID, info.Err)
		}
		ids = append(ids, info.ID)
		if err := p.VerifyObjects(r.t.Context(), info.Manifest, nil); err != nil {
			r.t.Errorf("%s: %v", info.ID, err)
		}
		for _, v := range info.Manifest.Volumes {
			r.verifyVolume(p, v)
		}
	}
	return ids
}

func (r *rig) verifyVolume(p *vault.Project, v point.Volume) {
	r.t.Helper()
	opts := options(p, v.Snapshot.Repository)
	opts.ReadOnly = true
	repo, err := volume.Open(r.t.Context(), opts)
	if err != nil {
		r.t.Fatal(err)
	}
	defer repo.Close(context.Background()) //nolint:errcheck // only read
	if !r.blobsOnly {
		report, err := repo.Verify(r.t.Context(), v.Snapshot, volume.VerifyOptions{ReadAll: true})
		if err != nil || report.Err() != nil {
			r.t.Errorf("volume of the copy: %v, %v", err, report.Err())
		}
	}
	blobs, err := repo.VerifyBlobs(r.t.Context(), v.Snapshot.Inventories, volume.VerifyOptions{})
	if err != nil || blobs.Err() != nil {
		r.t.Errorf("blobs of the copy: %v, %v", err, blobs.Err())
	}
}

func TestCopyIsReadWithTheKeyAloneWhenTheFirstVaultIsGone(t *testing.T) {
	r := newRig(t)
	r.publish("p1", 1, true)
	r.publish("p2", 1, true)
	for _, revision := range []string{`{"a":1}`, `{"a":2}`} {
		if _, err := r.p.PutDocument(t.Context(), vault.Document{Application: "shop", Site: "east", Objects: []json.RawMessage{json.RawMessage(revision)}}); err != nil {
			t.Fatal(err)
		}
	}
	report := r.pass(app())
	if got := report.Apps["shop"]; got.Err != nil || got.Pending != 0 || !slices.Equal(got.Points, []string{"p1", "p2"}) || !got.Newest.Equal(r.now) {
		t.Fatalf("report %+v", got)
	}
	r.first = nil // gone: nothing below asks it
	if ids := r.whole(); !slices.Equal(ids, []string{"p1", "p2"}) {
		t.Errorf("the copy has %v", ids)
	}
	if err := r.open().VerifyMetadata(t.Context(), nil); err != nil { // as "davit verify" does
		t.Errorf("the copy's own documents: %v", err)
	}
	opts := options(r.open(), "east")
	opts.ReadOnly = true
	repo, err := volume.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close(context.Background()) //nolint:errcheck // only read
	m, err := r.open().Manifest(t.Context(), "shop", "p2")
	if err != nil {
		t.Fatal(err)
	}
	target := t.TempDir()
	if err := repo.Read(t.Context(), m.Volumes[0].Snapshot, target, volume.ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(target, "file")); err != nil || !bytes.Equal(data, bytes.Repeat([]byte("p2"), 5000)) {
		t.Errorf("restored %d bytes, %v", len(data), err)
	}
}

// TestNothingIsDecidedInACopy has its control in the first vault, where the
// same claim is taken.
func TestNothingIsDecidedInACopy(t *testing.T) {
	r := newRig(t)
	r.publish("p1", 1, false)
	r.pass(app())
	_ = r.second.List(t.Context(), "", func(o vault.ObjectInfo) error {
		if strings.Contains(o.Key, "/epochs/") || strings.Contains(o.Key, "/sites/") || o.Key == "davit.json" {
			t.Errorf("the copy holds %s", o.Key)
		}
		return nil
	})
	claim := lease.Claim{Site: "west", Request: "take"}
	copied := r.open()
	if !copied.IsCopy() || r.p.IsCopy() {
		t.Error("a copy is not told from a vault")
	}
	if _, err := lease.New(copied).Claim(t.Context(), "shop", 1, claim); !errors.Is(err, vault.ErrCopy) {
		t.Errorf("a claim in the copy: %v", err)
	}
	if _, err := copied.NewWriter(t.Context(), "shop", "p9"); !errors.Is(err, vault.ErrCopy) {
		t.Errorf("a capture into the copy: %v", err)
	}
	if err := copied.DeletePoint(t.Context(), "shop", "p1"); !errors.Is(err, vault.ErrCopy) {
		t.Errorf("a deletion in the copy: %v", err)
	}
	if _, err := vault.ReadMarker(t.Context(), r.second); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("older versions would take the copy for a vault: %v", err)
	}
	if _, err := lease.New(r.p).Claim(t.Context(), "shop", 2, claim); err != nil {
		t.Errorf("control: %v", err)
	}
}

func TestOnlyWhatIsNewIsCopied(t *testing.T) {
	r := newRig(t)
	r.publish("p1", 1, true)
	if r.pass(app()).Copied == 0 {
		t.Fatal("nothing was copied")
	}
	if report := r.pass(app()); report.Copied != 0 {
		t.Errorf("a pass without news copied %d objects", report.Copied)
	}
	if err := r.p.Mark(t.Context(), "shop", "p1", vault.Mark{Kind: vault.MarkPinned}); err != nil {
		t.Fatal(err)
	}
	if report := r.pass(app()); report.Copied != 1 {
		t.Errorf("after one mark %d objects were copied", report.Copied)
	}
}

// dying is a store whose process dies at the nth write: that one happens or
// not, and nothing after it.
type dying struct {
	vault.Store
	mu    sync.Mutex
	left  int
	after bool // the last write still happens
}

var errDied = errors.New("died")

func (d *dying) write(do func() error) error {
	d.mu.Lock()
	d.left--
	left := d.left
	d.mu.Unlock()
	if left > 0 || left == 0 && d.after {
		return do()
	}
	return errDied
}

func (d *dying) Put(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return d.write(func() error { return d.Store.Put(ctx, key, r, size) })
}

func (d *dying) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	return d.write(func() error { return d.Store.PutIfAbsent(ctx, key, r, size) })
}

func (d *dying) Delete(ctx context.Context, key string) error {
	return d.write(func() error { return d.Store.Delete(ctx, key) })
}

func (d *dying) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	d.mu.Lock()
	dead := d.left <= 0
	d.mu.Unlock()
	if dead {
		return nil, errDied
	}
	return d.Store.Get(ctx, key, offset, length)
}

// TestDeathAtEveryWrite: whatever the copy shows is whole at every instant, and
// the next pass finishes.
func TestDeathAtEveryWrite(t *testing.T) {
	r := newRig(t)
	r.blobsOnly = true
	r.publish("p1", 1, true)
	for n := 1; ; n++ {
		r.second = mem.New(nil)
		if err := Bootstrap(t.Context(), r.p, r.second); err != nil {
			t.Fatal(err)
		}
		d := &dying{Store: r.second, left: n, after: n%2 == 0}
		report, err := r.copier(r.first, d).Pass(t.Context(), []App{app()})
		r.whole()
		if err == nil && report.Apps["shop"].Err == nil {
			if n < 8 {
				t.Fatalf("a pass of %d writes tests nothing", n)
			}
			return
		}
		if got := r.pass(app()).Apps["shop"]; got.Err != nil || got.Pending != 0 {
			t.Fatalf("after death at write %d: %+v", n, got)
		}
		if ids := r.whole(); len(ids) != 1 {
			t.Fatalf("after death at write %d the copy has %v", n, ids)
		}
	}
}

// corrupt flips a bit in the middle of an object.
func corrupt(t *testing.T, store vault.Store, key string) {
	t.Helper()
	body, err := store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Clone(data)
	data[len(data)/2] ^= 1
	if err := store.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

func keys(t *testing.T, store vault.Store, prefix string) []string {
	t.Helper()
	var all []string
	err := store.List(t.Context(), prefix, func(o vault.ObjectInfo) error {
		all = append(all, o.Key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestDamageIsNotCopied: of each object that a point needs.
func TestDamageIsNotCopied(t *testing.T) {
	r := newRig(t)
	r.publish("p1", 1, true)
	for _, prefix := range []string{"projects/default/objects/", "projects/default/volumes/"} {
		for _, key := range keys(t, r.first, prefix) {
			t.Run(strings.ReplaceAll(key, "/", "_"), func(t *testing.T) {
				was := *r
				r := &was
				r.t, r.first, r.second = t, mem.New(nil), mem.New(nil)
				for _, key := range keys(t, was.p.Store(), "") {
					carry(t, was.p.Store(), r.first, key)
				}
				r.p = r.p.Over(func(vault.Store) vault.Store { return r.first })
				corrupt(t, r.first, key)
				if err := Bootstrap(t.Context(), r.p, r.second); err != nil {
					t.Fatal(err)
				}
				got := r.pass(app())
				if got.Apps["shop"].Err == nil || got.Apps["shop"].Pending != 1 || len(got.Damaged) == 0 {
					t.Errorf("report %+v", got)
				}
				if ids := r.whole(); len(ids) != 0 {
					t.Errorf("the copy shows %v", ids)
				}
			})
		}
	}
}

func carry(t *testing.T, from, to vault.Store, key string) {
	t.Helper()
	body, err := from.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

// TestRetentionIsTheCopysOwn: it keeps what the policy says, also of what the
// first vault lost.
func TestRetentionIsTheCopysOwn(t *testing.T) {
	r := newRig(t)
	rules := app()
	rules.Rules, rules.Expire = point.Retention{KeepLast: 3}, true
	for i := range 5 {
		r.publish(fmt.Sprintf("p%d", i), 1, false)
	}
	r.pass(app())
	if got := r.pass(rules).Apps["shop"]; !slices.Equal(got.Deleted, []string{"p1", "p0"}) {
		t.Errorf("deleted %v", got.Deleted)
	}
	for _, id := range []string{"p0", "p1"} {
		if err := r.p.DeletePoint(t.Context(), "shop", id); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"p2", "p3", "p4"} { // someone empties the first vault
		for _, key := range keys(t, r.first, "projects/default/") {
			if strings.Contains(key, id) {
				if err := r.first.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	r.pass(rules)
	if ids := r.whole(); !slices.Equal(ids, []string{"p2", "p3", "p4"}) {
		t.Errorf("the copy has %v", ids)
	}
	r.publish("p5", 1, false)
	r.pass(rules)
	if ids := r.whole(); !slices.Equal(ids, []string{"p3", "p4", "p5"}) {
		t.Errorf("the copy has %v", ids)
	}
	// What a person deletes goes from both.
	if err := r.p.Mark(t.Context(), "shop", "p5", vault.Mark{Kind: vault.MarkDeleting}); err != nil {
		t.Fatal(err)
	}
	r.pass(rules)
	if ids := r.whole(); !slices.Equal(ids, []string{"p3", "p4", "p5"}) { // it may be undeleted there
		t.Errorf("the copy has %v", ids)
	}
	if err := r.p.DeletePoint(t.Context(), "shop", "p5"); err != nil {
		t.Fatal(err)
	}
	r.pass(rules)
	if ids := r.whole(); !slices.Equal(ids, []string{"p3", "p4"}) {
		t.Errorf("the copy has %v", ids)
	}
}

// TestQuarantineReachesTheCopy, which has no epochs to decide it by.
func TestQuarantineReachesTheCopy(t *testing.T) {
	r := newRig(t)
	r.publish("p1", 1, false)
	r.publish("p2", 1, false)
	r.pass(app())
	if _, err := lease.New(r.p).Claim(t.Context(), "shop", 2, lease.Claim{Site: "west", Request: "take", Accepted: []string{"p1"}}); err != nil {
		t.Fatal(err)
	}
	r.publish("p3", 1, false) // too late
	west := app()
	west.Held = 2
	r.pass(west)
	infos, err := r.open().Points(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		if info.Point().Good() != (info.ID == "p1") {
			t.Errorf("%s: good %t", info.ID, info.Point().Good())
		}
	}
	if len(infos) != 2 {
		t.Errorf("the copy has %d points, want p1 and p2", len(infos))
	}
	if got := r.pass(app()).Apps["shop"]; !errors.Is(got.Err, lease.ErrSuperseded) {
		t.Errorf("a superseded site copies: %v", got.Err)
	}
}

// TestDamageOfTheFirstVaultIsNotTheCopys: the copy is offered when the first vault's
// bytes are damaged. What a person quarantines is quarantined everywhere.
func TestDamageOfTheFirstVaultIsNotTheCopys(t *testing.T) {
	r := newRig(t)
	r.publish("p1", 1, false)
	r.publish("p2", 1, false)
	r.pass(app())
	for id, by := range map[string]string{"p1": vault.ByVerification, "p2": "anna"} {
		if err := r.p.Mark(t.Context(), "shop", id, vault.Mark{Kind: vault.MarkQuarantined, At: r.now, By: by}); err != nil {
			t.Fatal(err)
		}
	}
	r.pass(app())
	infos, err := r.open().Points(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	if len(infos) != 2 {
		t.Errorf("the copy has %d points, want 2", len(infos))
	}
	for _, info := range infos {
		if info.Point().Good() != (info.ID == "p1") {
			t.Errorf("%s: good %t", info.ID, info.Point().Good())
		}
	}
}

// TestWhatTheFirstVaultLostStaysInTheCopy: a pack without a word, and a point
// whose snapshot is deleted with it.
func TestWhatTheFirstVaultLostStaysInTheCopy(t *testing.T) {
	r := newRig(t)
	m := r.publish("p1", 1, true)
	r.pass(app())
	prefix := "projects/default/volumes/east/"
	var pack string
	for _, key := range keys(t, r.first, prefix+"p") {
		pack = key
	}
	if err := r.first.Delete(t.Context(), pack); err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(2 * mirrorEvery)
	r.pass(app())
	if !slices.Contains(keys(t, r.second, prefix+"p"), pack) {
		t.Fatal("a pack that was lost was deleted from the copy")
	}
	carry(t, r.second, r.first, pack)
	in := volume.MaintainOptions{Guard: func(context.Context) error { return nil }, Full: true}
	if err := r.repo.Delete(t.Context(), m.Volumes[0].Snapshot); err != nil {
		t.Fatal(err)
	}
	if _, err := r.repo.Maintain(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	before := len(keys(t, r.second, prefix))
	if err := r.p.DeletePoint(t.Context(), "shop", "p1"); err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(2 * mirrorEvery)
	r.pass(app())
	if got := keys(t, r.second, prefix); len(got) < before {
		t.Errorf("while the copy has a point that the first vault lost, %d blobs became %d", before, len(got))
	}
	if ids := r.whole(); len(ids) != 1 {
		t.Errorf("the copy has %v", ids)
	}
}
