package protection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/volume"
)

// tiny is a cluster with one namespace, ConfigMaps and one claim.
type tiny struct {
	maps   int
	onList func() // called once, in the middle of a capture
	repo   *repo
	errs   int64 // of every volume read
	once   sync.Once
}

var tinyKinds = []capture.Kind{
	{Version: "v1", Kind: "Namespace", Resource: "namespaces", Verbs: []string{"get", "list", "create"}},
	{Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespaced: true, Verbs: []string{"get", "list", "create"}},
	{Version: "v1", Kind: "PersistentVolumeClaim", Resource: "persistentvolumeclaims", Namespaced: true, Verbs: []string{"get", "list", "create"}},
}

func (c *tiny) Catalog(context.Context) (capture.Catalog, error) {
	return capture.Catalog{Kinds: tinyKinds}, nil
}
func (c *tiny) Version(context.Context) (string, error)  { return "v1.34.0", nil }
func (c *tiny) Revision(context.Context) (string, error) { return "7", nil }

func (c *tiny) List(_ context.Context, q capture.Query, page func([]unstructured.Unstructured) error) (capture.Listed, error) {
	var objects []unstructured.Unstructured
	add := func(name string, more map[string]any) {
		o := unstructured.Unstructured{Object: map[string]any{"kind": q.Kind.Kind, "apiVersion": "v1"}}
		for key, value := range more {
			o.Object[key] = value
		}
		o.SetName(name)
		o.SetNamespace(q.Namespace)
		objects = append(objects, o)
	}
	switch q.Kind.Resource {
	case "namespaces":
		add("shop", nil)
	case "configmaps":
		if c.onList != nil {
			c.once.Do(c.onList)
		}
		for i := range c.maps {
			add(fmt.Sprintf("c%d", i), nil)
		}
	case "persistentvolumeclaims":
		add("data", map[string]any{"spec": map[string]any{"volumeName": "pv"}, "status": map[string]any{"phase": "Bound"}})
	}
	return capture.Listed{}, page(objects)
}

func (c *tiny) Plan(_ context.Context, claim capture.Claim, _ capture.VolumeOptions) (capture.VolumePlan, error) {
	return capture.VolumePlan{Method: capture.MethodSnapshot}, nil
}

func (c *tiny) Cut(context.Context, capture.VolumePlan) (capture.Cut, error) {
	return capture.Cut{}, nil
}

func (c *tiny) Read(_ context.Context, cut capture.Cut, previous *point.Snapshot, _ func(capture.VolumeProgress)) (capture.VolumeRead, error) {
	id := cut.Plan.Options.Point
	if previous != nil {
		id += " after " + previous.ID
	}
	c.repo.mu.Lock()
	c.repo.held = append(c.repo.held, id)
	c.repo.mu.Unlock()
	return capture.VolumeRead{Snapshot: point.Snapshot{Repository: "east", ID: id, Bytes: 5, NewBytes: 2, Errors: c.errs}}, nil
}
func (c *tiny) Release(context.Context, capture.VolumePlan) error { return nil }

// repo is a volume repository that only remembers.
type repo struct {
	mu       sync.Mutex
	deleted  []string
	damaged  bool
	lists    error
	whole    []string
	maintain int
	lost     map[string]bool // snapshots that it does not list any more
	data     map[string]bool // of which snapshots it has data
	held     []string        // snapshots written
	asked    volume.VerifyOptions
	onVerify func() // called in the middle of a verification
	onDelete error  // what a deletion ends with, after the snapshot is gone
}

// List lists what was written and neither deleted nor lost.
func (r *repo) List(context.Context) ([]volume.Listed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []volume.Listed
	for _, id := range r.held {
		if !slices.Contains(r.deleted, id) && !r.lost[id] {
			list = append(list, volume.Listed{ID: id})
		}
	}
	return list, nil
}

// collect removes the data of what is not listed, as maintenance does in days.
func (r *repo) collect() {
	list, _ := r.List(context.Background()) // never fails
	r.data = map[string]bool{}
	for _, l := range list {
		r.data[l.ID] = true
	}
}

func (r *repo) Verify(_ context.Context, snap point.Snapshot, opts volume.VerifyOptions) (volume.VerifyReport, error) {
	report := volume.VerifyReport{Bytes: snap.Bytes, Read: 1, Lists: r.lists}
	r.asked = opts
	if r.onVerify != nil {
		r.onVerify()
	}
	if r.damaged {
		report.Damaged = []volume.Damage{{Path: "base/1", Blob: "p1", Err: volume.ErrDamaged}}
	}
	return report, nil
}

func (r *repo) VerifyBlobs(context.Context, []string, volume.VerifyOptions) (volume.VerifyReport, error) {
	return volume.VerifyReport{Whole: r.whole}, nil
}

func (r *repo) Delete(_ context.Context, snap point.Snapshot) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deleted = append(r.deleted, snap.ID)
	return r.onDelete
}

func (r *repo) Maintain(ctx context.Context, opts volume.MaintainOptions) (volume.MaintainReport, error) {
	r.maintain++
	err := opts.Guard(ctx)
	if err == nil {
		r.collect()
	}
	return volume.MaintainReport{}, err
}
func (r *repo) Close(context.Context) error { return nil }

// rig is a vault and the protectors of two sites.
type rig struct {
	ahead      atomic.Int64 // how far the store's clock is ahead, in nanoseconds
	t          *testing.T
	store      *mem.Store
	key        vault.Identity
	project    *vault.Project
	cluster    *tiny
	repo       *repo
	east, west *Protector
	now        time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, cluster: &tiny{maps: 3}, repo: &repo{}, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	r.cluster.repo = r.repo
	r.store = mem.New(r.clock)
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	r.key = key
	if r.project, err = vault.CreateProject(t.Context(), r.store, "default", key.Recipient()); err != nil {
		t.Fatal(err)
	}
	r.east, r.west = r.site("east"), r.site("west")
	return r
}

// clock is the vault's time.
func (r *rig) clock() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }

func (r *rig) site(name string) *Protector {
	var mu sync.Mutex
	return New(Options{
		Project: r.project, Site: name, Cluster: r.cluster, Volumes: r.cluster,
		OpenVolumes: func(context.Context, string, bool) (Repository, error) { return r.repo, nil },
		Now: func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			r.now = r.now.Add(time.Second)
			return r.now
		},
	})
}

func application() v1alpha1.Application {
	return v1alpha1.Application{
		ObjectMeta: metav1.ObjectMeta{Name: "shop", Namespace: v1alpha1.SystemNamespace},
		Spec:       v1alpha1.ApplicationSpec{Vault: "v", Namespaces: []string{"shop"}},
	}
}

// capture captures once at east with epoch 1.
func (r *rig) capture() (*point.Manifest, error) {
	return r.east.Capture(r.t.Context(), CaptureRequest{Application: application(), Trigger: "manual", Held: 1})
}

func (r *rig) mustCapture() *point.Manifest {
	r.t.Helper()
	m, err := r.capture()
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

func (r *rig) claim() {
	r.t.Helper()
	if s, err := r.east.ClaimFirst(r.t.Context(), "shop", "test"); err != nil || s.Role != v1alpha1.RoleActive || s.Held != 1 {
		r.t.Fatalf("ClaimFirst = %+v, %v", s, err)
	}
}

// takeOver makes west the writer.
func (r *rig) takeOver() {
	r.t.Helper()
	_, points, err := r.west.Points(context.Background(), "shop")
	if err != nil {
		r.t.Fatal(err)
	}
	claim := lease.Claim{Site: "west", Request: "take-over", Accepted: point.Accepted(points, nil)}
	if _, err := lease.New(r.project).Claim(context.Background(), "shop", 2, claim); err != nil {
		r.t.Fatal(err)
	}
}

// keys returns what the vault holds under a kind of the project's objects.
func (r *rig) keys(kind string) []string {
	r.t.Helper()
	var keys []string
	err := r.store.List(context.Background(), "projects/default/"+kind+"/", func(o vault.ObjectInfo) error {
		keys = append(keys, o.Key)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return keys
}

// TestCaptureTellsWhenItsObjectsAreWritten: when the first begins, and when all are.
func TestCaptureTellsWhenItsObjectsAreWritten(t *testing.T) {
	r := newRig(t)
	r.claim()
	var told []bool
	m, err := r.east.Capture(t.Context(), CaptureRequest{
		Application: application(), Trigger: "manual", Held: 1, Objects: func(writing bool) { told = append(told, writing) },
	})
	if err != nil || len(m.Resources) < 2 || !slices.Equal(told, []bool{true, false}) {
		t.Errorf("told %v of %d kinds, %v", told, len(m.Resources), err)
	}
}

func TestCapturePublishesAWholePoint(t *testing.T) {
	r := newRig(t)
	r.claim()
	m := r.mustCapture()
	got, err := r.project.Manifest(t.Context(), "shop", m.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got.Objects != 5 || got.Epoch != 1 || got.Site != "east" || got.Consistency != point.Crash || len(got.Volumes) != 1 || got.StoredBytes <= 2 {
		t.Errorf("manifest = %+v", got)
	}
	var names []string
	for _, res := range got.Resources {
		err := r.project.ReadResource(t.Context(), res, func(object []byte) error {
			var o unstructured.Unstructured
			if err := json.Unmarshal(object, &o.Object); err != nil {
				return err
			}
			names = append(names, res.Resource+"/"+o.GetName())
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if want := []string{"configmaps/c0", "configmaps/c1", "configmaps/c2", "namespaces/shop", "persistentvolumeclaims/data"}; !slices.Equal(names, want) {
		t.Errorf("read back %q, want %q", names, want)
	}
	second := r.mustCapture()
	if want := second.ID + " after " + m.ID; second.Volumes[0].Snapshot.ID != want {
		t.Errorf("second snapshot is %q, want %q", second.Volumes[0].Snapshot.ID, want)
	}
}

// TestNothingIsTakenOverFromAnUnsettledPoint: versions that did not flush a volume before
// they cut it may have stored old data under a file's new time. What they stored is read
// anew, once.
func TestNothingIsTakenOverFromAnUnsettledPoint(t *testing.T) {
	r := newRig(t)
	r.claim()
	old := r.mustCapture()
	if !old.Volumes[0].Settled {
		t.Fatal("a volume that was captured now is not settled")
	}
	old.Volumes[0].Settled = false // as if an old version had made it, and this process began after it
	r.east.remember(old)
	second := r.mustCapture()
	if second.Volumes[0].Snapshot.ID != second.ID {
		t.Errorf("second snapshot is %q: it took files over from a point that is not settled", second.Volumes[0].Snapshot.ID)
	}
	third := r.mustCapture()
	if want := third.ID + " after " + second.ID; third.Volumes[0].Snapshot.ID != want {
		t.Errorf("third snapshot is %q, want %q", third.Volumes[0].Snapshot.ID, want)
	}
}

func TestSupersededMidwayPublishesNothing(t *testing.T) {
	r := newRig(t)
	r.claim()
	r.cluster.onList = r.takeOver
	_, err := r.capture()
	if !errors.Is(err, lease.ErrSuperseded) {
		t.Fatalf("err = %v, want ErrSuperseded", err)
	}
	if left := append(r.keys("manifests"), r.keys("objects")...); len(left) > 0 {
		t.Errorf("left in the vault: %q", left)
	}
	if _, err := r.capture(); !errors.Is(err, lease.ErrSuperseded) {
		t.Errorf("next capture: err = %v, want ErrSuperseded", err)
	}
}

// losing loses the answer to the first put of a manifest, and then calls lost.
type losing struct {
	vault.Store
	lost func()
	once sync.Once
}

func (l *losing) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	err := l.Store.PutIfAbsent(ctx, key, r, size)
	if err == nil && strings.Contains(key, "/manifests/") {
		l.once.Do(func() { err = vault.ErrUnavailable; l.lost() })
	}
	return err
}

// TestSupersededAfterALostAnswerTakesNothingBack loses the answer to the
// manifest's put. West sees the point, accepts it and takes over, before east
// looks again: the point is the newest that west can restore.
func TestSupersededAfterALostAnswerTakesNothingBack(t *testing.T) {
	r := newRig(t)
	r.claim()
	store := &losing{Store: r.store, lost: r.takeOver}
	project, err := vault.OpenProject(t.Context(), store, "default", r.key)
	if err != nil {
		t.Fatal(err)
	}
	opts := r.east.opts
	opts.Project = project
	m, err := New(opts).Capture(t.Context(), CaptureRequest{Application: application(), Trigger: "manual", Held: 1})
	if err != nil {
		t.Errorf("capture = %v; the point was published while east held the epoch", err)
	}
	_, points, err := r.west.Points(t.Context(), "shop")
	if err != nil || len(points) != 1 || !points[0].Good() {
		t.Fatalf("points = %+v, %v: the superseded site took back the point that west accepted", points, err)
	}
	if err := r.project.VerifyObjects(t.Context(), m, nil); err != nil {
		t.Error(err)
	}
}

// TestWithoutGuardAStaleSitePublishes is the negative control: the same
// take-over, and a publication that does not ask the guard, makes a point
// visible. Only quarantine by epoch still catches it.
func TestWithoutGuardAStaleSitePublishes(t *testing.T) {
	r := newRig(t)
	r.claim()
	r.cluster.onList = r.takeOver
	app := application()
	spec, err := specOf(&app)
	if err != nil {
		t.Fatal(err)
	}
	spec.ID = "shop-stale"
	w, err := r.project.NewWriter(t.Context(), "shop", spec.ID)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := r.east.fill(t.Context(), w, spec, CaptureRequest{Held: 1}, r.now)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Publish(t.Context(), m, nil); err != nil {
		t.Fatalf("without the guard: %v; then the guard test proves nothing", err)
	}
	_, points, err := r.west.Points(t.Context(), "shop")
	if err != nil || len(points) != 1 || !points[0].Quarantined {
		t.Errorf("points = %+v, %v: want the stale one, quarantined", points, err)
	}
}

func TestHalfRestoredApplicationIsNotCaptured(t *testing.T) {
	r := newRig(t)
	r.claim()
	app := application()
	app.Annotations = map[string]string{v1alpha1.AnnotationRestoring: "r1"}
	_, err := r.east.Capture(t.Context(), CaptureRequest{Application: app, Held: 1})
	if !errors.Is(err, ErrRestoring) || len(r.keys("objects")) > 0 {
		t.Errorf("err = %v, want ErrRestoring; vault %q", err, r.keys("objects"))
	}
	r.mustCapture() // without the mark
}

func TestFailedCaptureLeavesNothing(t *testing.T) {
	r := newRig(t)
	r.claim()
	r.cluster.errs = 1
	if _, err := r.capture(); err == nil || !strings.Contains(err.Error(), "could not be read") {
		t.Fatalf("err = %v", err)
	}
	if left := append(r.keys("manifests"), r.keys("objects")...); len(left) > 0 {
		t.Errorf("left in the vault: %q", left)
	}
	if left, err := r.repo.List(t.Context()); err != nil || len(r.repo.held) != 1 || len(left) > 0 {
		t.Errorf("of the volume snapshots %q, %v are left, %v", r.repo.held, left, err)
	}
}

// A RecoveryPoint object that was removed and made anew, as when it is kept in git, asks
// for a capture under the name of a point that is in the vault.
func TestACaptureUnderTheNameOfAPointLeavesThatAlone(t *testing.T) {
	r := newRig(t)
	r.claim()
	m := r.mustCapture()
	before := append(r.keys("manifests"), r.keys("objects")...)
	_, err := r.east.Capture(t.Context(), CaptureRequest{Application: application(), Trigger: "manual", Held: 1, PointID: m.ID})
	if !errors.Is(err, vault.ErrExists) {
		t.Errorf("err = %v, want ErrExists", err)
	}
	if left := append(r.keys("manifests"), r.keys("objects")...); !slices.Equal(left, before) {
		t.Errorf("the vault holds %q, and held %q", left, before)
	}
	if _, err := r.east.Verify(t.Context(), "shop", m.ID, VerifyOptions{}); err != nil {
		t.Error(err)
	}
}

func TestCapturesDoNotOverlap(t *testing.T) {
	r := newRig(t)
	r.claim()
	var inner error
	r.cluster.onList = func() { _, inner = r.capture() }
	r.mustCapture()
	if !errors.Is(inner, ErrBusy) {
		t.Errorf("second capture: %v, want ErrBusy", inner)
	}
	r.mustCapture() // free again
}

func TestStanding(t *testing.T) {
	r := newRig(t)
	check := func(p *Protector, want v1alpha1.Role, held int64) {
		t.Helper()
		s, err := p.Standing(t.Context(), "shop")
		if err != nil || s.Role != want || s.Held != held {
			t.Errorf("standing = %+v, %v; want %s with %d", s, err, want, held)
		}
	}
	check(r.east, v1alpha1.RoleStandby, 0)
	r.claim()
	r.claim() // again
	check(r.east, v1alpha1.RoleActive, 1)
	if s, err := r.west.ClaimFirst(t.Context(), "shop", "test"); err != nil || s.Role != v1alpha1.RoleStandby {
		t.Errorf("west's ClaimFirst = %+v, %v", s, err)
	}
	r.takeOver()
	check(r.east, v1alpha1.RoleSuperseded, 1)
	check(r.west, v1alpha1.RoleActive, 2)
}

// TestStandingOfAMovedSite: it held the application in a lost vault, and did not go on
// with it here. Else it would take itself for a standby, stop nothing, and prove nothing.
func TestStandingOfAMovedSite(t *testing.T) {
	r := newRig(t)
	r.claim()
	west := New(Options{Project: r.project, Site: "west", ClusterID: "w"})
	check := func(when string, want v1alpha1.Role, held int64) {
		t.Helper()
		s, err := west.Standing(t.Context(), "shop")
		if err != nil || s.Role != want || s.Held != held {
			t.Errorf("%s: %+v, %v; want %s with %d", when, s, err, want, held)
		}
	}
	check("it never held it", v1alpha1.RoleStandby, 0)
	m := lease.Moved{Application: "shop", Site: "west", Cluster: "w", Lost: "lost", Request: "promotion-1", Held: 7, Seen: 8, At: time.Now()}
	if err := lease.Note(t.Context(), r.project, m); err != nil {
		t.Fatal(err)
	}
	check("numbers that went back", v1alpha1.RoleSuperseded, 0)
	for n := int64(2); n < 10; n++ {
		c := lease.Claim{Site: "east", Cluster: r.east.Identity().Cluster, Request: fmt.Sprint("again-", n)}
		if _, err := lease.New(r.project).Claim(t.Context(), "shop", n, c); err != nil {
			t.Fatal(err)
		}
	}
	check("it came over", v1alpha1.RoleSuperseded, 7)
	if _, err := lease.New(r.project).Claim(t.Context(), "shop", 10, lease.Claim{Site: "west", Cluster: "w", Request: "take-over"}); err != nil {
		t.Fatal(err)
	}
	if s, err := west.Standing(t.Context(), "shop"); err != nil || s.Role != v1alpha1.RoleActive || s.Held != s.Current.Number {
		t.Errorf("it took it over: %+v, %v", s, err)
	}
}

func TestExpireKeepsWhatItMust(t *testing.T) {
	r := newRig(t)
	r.claim()
	var ids []string
	for range 4 {
		ids = append(ids, r.mustCapture().ID)
	}
	if err := r.project.Mark(t.Context(), "shop", ids[0], vault.Mark{Kind: vault.MarkPinned}); err != nil {
		t.Fatal(err)
	}
	report, err := r.east.Expire(t.Context(), "shop", point.Retention{KeepLast: 1}, 1, r.now, 0)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(report.Deleted)
	if !slices.Equal(report.Deleted, ids[1:3]) || report.Kept != 2 || len(r.keys("manifests")) != 2 || len(r.repo.deleted) != 2 {
		t.Errorf("report %+v of %q, snapshots deleted %q", report, ids, r.repo.deleted)
	}
	r.takeOver()
	_, err = r.east.Expire(t.Context(), "shop", point.Retention{MaxAge: 1}, 1, r.now.Add(time.Hour), 0)
	if len(r.keys("manifests")) != 2 {
		t.Errorf("a superseded site deleted points: %v", err)
	}
}

func TestSupersededSiteExpiresNothing(t *testing.T) {
	r := newRig(t)
	r.claim()
	r.mustCapture()
	r.mustCapture()
	r.takeOver()
	if _, err := r.east.Expire(t.Context(), "shop", point.Retention{KeepLast: 1}, 1, r.now, 0); !errors.Is(err, lease.ErrSuperseded) {
		t.Errorf("err = %v, want ErrSuperseded", err)
	}
	if _, err := r.east.Reclaim(t.Context(), false); !errors.Is(err, lease.ErrSuperseded) || r.repo.maintain != 0 {
		t.Errorf("reclaim: %v after %d maintenances, want ErrSuperseded and none", err, r.repo.maintain)
	}
	if _, err := r.west.Reclaim(t.Context(), false); err != nil || r.repo.maintain != 1 {
		t.Errorf("the active site's reclaim: %v", err)
	}
}

func TestDelete(t *testing.T) {
	r := newRig(t)
	r.claim()
	first, last := r.mustCapture(), r.mustCapture()
	if err := r.east.Delete(t.Context(), "shop", last.ID, DeleteOptions{}); !errors.Is(err, ErrLastGood) {
		t.Errorf("last good one: %v", err)
	}
	if err := r.east.Delete(t.Context(), "shop", "shop-none", DeleteOptions{}); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("unknown one: %v", err)
	}
	if err := r.east.Delete(t.Context(), "shop", first.ID, DeleteOptions{By: "test"}); err != nil {
		t.Fatal(err)
	}
	if len(r.keys("manifests")) != 1 || !slices.Equal(r.repo.deleted, []string{first.ID}) {
		t.Errorf("manifests %q, snapshots deleted %q", r.keys("manifests"), r.repo.deleted)
	}
	if err := r.project.Mark(t.Context(), "shop", last.ID, vault.Mark{Kind: vault.MarkPinned}); err != nil {
		t.Fatal(err)
	}
	if err := r.east.Delete(t.Context(), "shop", last.ID, DeleteOptions{LastGood: true}); !errors.Is(err, vault.ErrPinned) {
		t.Errorf("pinned one: %v", err)
	}
}

func TestVerify(t *testing.T) {
	r := newRig(t)
	r.claim()
	m := r.mustCapture()
	var last VerifyProgress
	report, err := r.east.Verify(t.Context(), "shop", m.ID, VerifyOptions{Progress: func(p VerifyProgress) { last = p }})
	if err != nil || report.Bytes == 0 || last.Packs != last.PacksTotal || last.Volumes != 1 {
		t.Fatalf("Verify = %+v, %v, progress %+v", report, err, last)
	}
	_, points, err := r.east.Points(t.Context(), "shop")
	if err != nil || points[0].Verified.IsZero() || !points[0].Good() {
		t.Errorf("points = %+v, %v: want a verified one", points, err)
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	for name, hurt := range map[string]func(*rig){
		"flipped byte in a pack": func(r *rig) { r.damage(r.keys("objects")[0]) },
		"missing pack":           func(r *rig) { _ = r.store.Delete(context.Background(), r.keys("objects")[0]) },
		"damaged manifest":       func(r *rig) { r.damage(r.keys("manifests")[0]) },
		"damaged volume":         func(r *rig) { r.repo.damaged = true },
	} {
		r := newRig(t)
		r.claim()
		m := r.mustCapture()
		hurt(r)
		report, err := r.east.Verify(t.Context(), "shop", m.ID, VerifyOptions{})
		if !errors.Is(err, ErrDamaged) || len(report.Damage) == 0 {
			t.Errorf("%s: Verify = %+v, %v; want ErrDamaged", name, report, err)
		}
		_, points, err := r.east.Points(t.Context(), "shop")
		if err != nil || points[0].Good() || !points[0].Verified.IsZero() {
			t.Errorf("%s: points = %+v, %v; want it offered no more", name, points, err)
		}
	}
}

func (r *rig) damage(key string) {
	r.t.Helper()
	body, err := r.store.Get(context.Background(), key, 0, -1)
	if err != nil {
		r.t.Fatal(err)
	}
	defer body.Close()
	data := make([]byte, 0, 4096)
	buf := make([]byte, 4096)
	for {
		n, err := body.Read(buf)
		data = append(data, buf[:n]...)
		if err != nil {
			break
		}
	}
	data[len(data)-1] ^= 1
	if err := r.store.Put(context.Background(), key, strings.NewReader(string(data)), int64(len(data))); err != nil {
		r.t.Fatal(err)
	}
}

func TestPreflight(t *testing.T) {
	change := func(fn func(*v1alpha1.Application)) *v1alpha1.Application {
		app := application()
		fn(&app)
		return &app
	}
	hook := v1alpha1.Hook{Name: "h", PodSelector: &metav1.LabelSelector{}, Before: []string{"true"}}
	for _, tt := range []struct {
		name string
		app  *v1alpha1.Application
		want error
	}{
		{"good", change(func(*v1alpha1.Application) {}), nil},
		{"good hook", change(func(a *v1alpha1.Application) { a.Spec.Hooks = []v1alpha1.Hook{hook} }), nil},
		{"no namespaces", change(func(a *v1alpha1.Application) { a.Spec.Namespaces = nil }), ErrInvalid},
		{"a tenant's own", change(func(a *v1alpha1.Application) { a.Namespace = "shop" }), nil},
		{"a tenant's reach", change(func(a *v1alpha1.Application) { a.Namespace = "tenant" }), ErrInvalid},
		{"bad filter", change(func(a *v1alpha1.Application) { a.Spec.IncludeKinds = []string{"A"} }), ErrInvalid},
		{"bad selector", change(func(a *v1alpha1.Application) {
			a.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a b": "c"}}
		}), ErrInvalid},
		{"good hold", change(func(a *v1alpha1.Application) {
			a.Spec.Hooks = []v1alpha1.Hook{{Name: "h", PodSelector: &metav1.LabelSelector{}, Hold: &v1alpha1.HookHold{Command: []string{"x"}}}}
		}), nil},
		{"hold without a command", change(func(a *v1alpha1.Application) {
			a.Spec.Hooks = []v1alpha1.Hook{{Name: "h", PodSelector: &metav1.LabelSelector{}, Hold: &v1alpha1.HookHold{}}}
		}), ErrInvalid},
		{"hold whose marker is never seen", change(func(a *v1alpha1.Application) {
			a.Spec.Hooks = []v1alpha1.Hook{{Name: "h", PodSelector: &metav1.LabelSelector{}, Hold: &v1alpha1.HookHold{Command: []string{"x"}, Marker: " held"}}}
		}), ErrInvalid},
		{"hold for an hour", change(func(a *v1alpha1.Application) {
			a.Spec.Hooks = []v1alpha1.Hook{{Name: "h", PodSelector: &metav1.LabelSelector{}, Hold: &v1alpha1.HookHold{Command: []string{"x"}, Limit: &metav1.Duration{Duration: time.Hour}}}}
		}), ErrInvalid},
		{"empty hook", change(func(a *v1alpha1.Application) { a.Spec.Hooks = []v1alpha1.Hook{{Name: "h"}} }), ErrInvalid},
	} {
		if err := newRig(t).east.Preflight(tt.app); !errors.Is(err, tt.want) {
			t.Errorf("%s: Preflight = %v, want %v", tt.name, err, tt.want)
		}
	}
	r := newRig(t)
	r.east.opts.VaultDomain, r.east.opts.SiteDomain = "hall-1", "hall-1"
	r.claim()
	if _, err := r.capture(); !errors.Is(err, ErrFailureDomain) {
		t.Errorf("vault beside the site: %v, want ErrFailureDomain", err)
	}
}

func TestRules(t *testing.T) {
	day := &metav1.Duration{Duration: 24 * time.Hour}
	for _, tt := range []struct {
		in   v1alpha1.Retention
		want point.Retention
	}{
		{v1alpha1.Retention{}, point.Retention{KeepLast: 48}},
		{v1alpha1.Retention{Last: ptr.To[int32](3)}, point.Retention{KeepLast: 3}},
		{v1alpha1.Retention{MaxAge: day}, point.Retention{MaxAge: 24 * time.Hour}},
		{v1alpha1.Retention{Daily: ptr.To[int32](7), Yearly: ptr.To[int32](2)}, point.Retention{Daily: 7, Yearly: 2}},
		{v1alpha1.Retention{Hourly: ptr.To[int32](1), Weekly: ptr.To[int32](2), Monthly: ptr.To[int32](3)}, point.Retention{Hourly: 1, Weekly: 2, Monthly: 3}},
	} {
		if got := Rules(v1alpha1.ProtectionPolicySpec{Retention: tt.in}); got != tt.want {
			t.Errorf("Rules(%+v) = %+v, want %+v", tt.in, got, tt.want)
		}
	}
	zoned := Rules(v1alpha1.ProtectionPolicySpec{Schedule: v1alpha1.Schedule{TimeZone: "Asia/Tokyo"}})
	if zoned.Zone == nil || zoned.Zone.String() != "Asia/Tokyo" {
		t.Errorf("the zone of the rules is %v", zoned.Zone)
	}
}
