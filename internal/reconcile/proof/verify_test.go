package proof

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

var noon = time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)

// site is a verifier, its cluster and its vault.
type site struct {
	*Verifier
	t       *testing.T
	store   *mem.Store
	project *vault.Project
	key     vault.Identity
	copied  *vault.Project // in the second copy, if there is one
	second  *mem.Store     // of that
	copyErr error          // of opening it
	opened  []string       // copies that were, by name
	err     error          // of opening the vault
	now     time.Time
	volumes *repository // of its points; nil for points without volumes
	real    bool        // its points have volumes in repositories of its vault
}

func (s *site) Reader(_ context.Context, name string) (*protection.Protector, error) {
	if name != "main" {
		return protection.New(protection.Options{Project: s.copied, Site: "east", Now: func() time.Time { return s.now }}), s.copyErr
	}
	opts := protection.Options{Project: s.project, Site: "east", Now: func() time.Time { return s.now }}
	if !s.real {
		opts.OpenVolumes = func(context.Context, string, bool) (protection.Repository, error) { return s.volumes, nil }
	}
	return protection.New(opts), s.err
}

func (s *site) Project(_ context.Context, name string) (*vault.Project, error) {
	if name == "main" {
		return s.project, s.err
	}
	return s.copied, s.err
}

func (s *site) Opened(_ context.Context, name string) (*vaults.Opened, error) {
	s.opened = append(s.opened, name)
	return &vaults.Opened{Project: s.copied, Store: s.second}, s.copyErr
}

func newSite(t *testing.T, spec v1alpha1.VerifyPolicy, more ...client.Object) *site {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, store: mem.New(time.Now), now: noon, key: key}
	if s.project, err = vault.CreateProject(t.Context(), s.store, "default", key.Recipient()); err != nil {
		t.Fatal(err)
	}
	app := &v1alpha1.Application{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "shop", CreationTimestamp: metav1.NewTime(noon.Add(-24 * time.Hour))},
		Spec:       v1alpha1.ApplicationSpec{Vault: "main", Policy: "shop"}, Status: v1alpha1.ApplicationStatus{Role: v1alpha1.RoleActive},
	}
	policy := &v1alpha1.ProtectionPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "shop"}, Spec: v1alpha1.ProtectionPolicySpec{Verify: &spec}}
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(append(more, app, policy)...).WithStatusSubresource(&v1alpha1.Application{}, &v1alpha1.RecoveryPoint{}).Build()
	s.Verifier = &Verifier{Client: c, Vaults: s, Events: record.NewFakeRecorder(100), Now: func() time.Time { return s.now }}
	return s
}

// publish puts a point with one object into the vault; the ids' order is that in time.
func (s *site) publish(id string, volumes ...point.Volume) {
	s.t.Helper()
	w, err := s.project.NewWriter(s.t.Context(), "shop", id)
	if err != nil {
		s.t.Fatal(err)
	}
	var n time.Duration
	_, _ = fmt.Sscanf(id, "p%d", &n)
	res := point.Resource{Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespaced: true}
	rw := w.Resource(res)
	if err := rw.Add(s.t.Context(), []byte(`{"kind":"ConfigMap"}`)); err != nil {
		s.t.Fatal(err)
	}
	if res, err = rw.Close(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	at := noon.Add(n*time.Minute - time.Hour)
	m := &point.Manifest{Site: "east", Epoch: 1, Trigger: "manual", Instant: at, CutBy: at, Consistency: point.Crash, Resources: []point.Resource{res}, Objects: 1, Volumes: volumes}
	if s.volumes != nil {
		m.Volumes = []point.Volume{{Namespace: "shop", Claim: "data", Consistency: point.Crash, Snapshot: point.Snapshot{Repository: "east", ID: id}}}
	}
	if err := w.Publish(s.t.Context(), m, nil); err != nil {
		s.t.Fatal(err)
	}
}

// damage changes the last byte of each of a point's packs.
func (s *site) damage(store vault.Store, id string) {
	s.t.Helper()
	for _, key := range s.keys(store, "projects/default/objects/shop/"+id+"/") {
		s.rot(store, key)
	}
}

// rot changes the last byte of an object.
func (s *site) rot(store vault.Store, key string) {
	s.t.Helper()
	body, err := store.Get(s.t.Context(), key, 0, -1)
	if err != nil {
		s.t.Fatal(err)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		s.t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := store.Put(s.t.Context(), key, strings.NewReader(string(data)), int64(len(data))); err != nil {
		s.t.Fatal(err)
	}
}

// look reconciles once and returns the status.
func (s *site) look() v1alpha1.VerificationStatus {
	s.t.Helper()
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop"}
	if _, err := s.Reconcile(s.t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
		s.t.Fatal(err)
	}
	var app v1alpha1.Application
	if err := s.Client.Get(s.t.Context(), key, &app); err != nil {
		s.t.Fatal(err)
	}
	return ptr.Deref(app.Status.Verification, v1alpha1.VerificationStatus{})
}

func (s *site) events() string {
	var all []string
	for e := s.Events.(*record.FakeRecorder); len(e.Events) > 0; {
		all = append(all, <-e.Events)
	}
	return strings.Join(all, "\n")
}

func hourly() v1alpha1.VerifyPolicy {
	return v1alpha1.VerifyPolicy{Every: &metav1.Duration{Duration: time.Hour}}
}

func TestNewestIsReadWhenDue(t *testing.T) {
	spec := hourly()
	spec.Newest = ptr.To[int32](2)
	s := newSite(t, spec)
	for _, id := range []string{"p1", "p2", "p3"} {
		s.publish(id)
	}
	got := s.look()
	if !slices.Equal(got.Points, []string{"p3", "p2"}) || got.How != v1alpha1.ProvenFull || !got.At.Time.Equal(noon) || !got.Next.Time.Equal(noon.Add(time.Hour)) || got.Bytes == 0 {
		t.Fatalf("status %+v", got)
	}
	s.now = noon.Add(59 * time.Minute)
	if got := s.look(); !got.At.Time.Equal(noon) {
		t.Errorf("read again before it was due: %+v", got)
	}
	s.now = noon.Add(61 * time.Minute)
	if got := s.look(); !got.At.Time.Equal(s.now) {
		t.Errorf("not read again: %+v", got)
	}
}

func TestDamageIsToldAndNotOffered(t *testing.T) {
	s := newSite(t, hourly())
	s.publish("p1")
	s.publish("p2")
	s.damage(s.store, "p2")
	if got := s.look(); !slices.Equal(got.Damaged, []string{"p2"}) {
		t.Errorf("status %+v", got)
	}
	if e := s.events(); !strings.Contains(e, "Warning Damaged recovery point p2") {
		t.Errorf("events %q", e)
	}
	s.now = noon.Add(2 * time.Hour) // now the newest that may be offered is the one before
	if got := s.look(); !slices.Equal(got.Points, []string{"p1"}) || len(got.Damaged) > 0 {
		t.Errorf("status %+v", got)
	}
}

// TestDamageIsRepairedFromACopy, and told no less than before.
func TestDamageIsRepairedFromACopy(t *testing.T) {
	s := twice(t)
	s.damage(s.store, "p1")
	if got := s.look(); !slices.Equal(got.Repaired, []string{"p1"}) || len(got.Damaged) > 0 {
		t.Errorf("status %+v", got)
	}
	if e := s.events(); !strings.Contains(e, "Warning Damaged recovery point p1") || !strings.Contains(e, "Warning Repaired recovery point p1") {
		t.Errorf("events %q", e)
	}
	s.now = noon.Add(2 * time.Hour)
	if got := s.look(); !slices.Equal(got.Points, []string{"p1"}) || len(got.Repaired)+len(got.Damaged) > 0 {
		t.Errorf("afterwards: %+v", got)
	}
}

func TestSamplesGoAround(t *testing.T) {
	spec := hourly()
	spec.Sample = ptr.To[int32](40)
	s := newSite(t, spec)
	s.publish("p1")
	for i, from := range []int32{40, 80, 20} {
		s.now = noon.Add(time.Duration(i) * 2 * time.Hour)
		if got := s.look(); got.SampleFrom != from || got.How != v1alpha1.ProvenSample {
			t.Errorf("run %d: %+v, want the next from %d", i, got, from)
		}
	}
}

func TestSilenceIsNoVerdict(t *testing.T) {
	s := newSite(t, hourly())
	s.publish("p1")
	s.err = vault.ErrUnavailable
	if got := s.look(); got.At != nil || got.Error == "" || !got.TriedAt.Time.Equal(noon) {
		t.Errorf("status %+v", got)
	}
	s.err = nil
	if got := s.look(); got.At != nil {
		t.Errorf("tried again at once: %+v", got)
	}
	s.now = noon.Add(retryAfter)
	if got := s.look(); got.At == nil || got.Error != "" || got.TriedAt != nil {
		t.Errorf("status %+v", got)
	}
}

// TestCapturesGoFirst, but not for ever.
func TestCapturesGoFirst(t *testing.T) {
	busy := &v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "now"}, Status: v1alpha1.RecoveryPointStatus{Phase: v1alpha1.PointCapturing}}
	s := newSite(t, hourly(), busy)
	s.publish("p1")
	for _, after := range []time.Duration{0, makeRoomFor - time.Second} {
		s.now = noon.Add(after)
		if got := s.look(); got.At != nil {
			t.Errorf("read after %s, beside a capture", after)
		}
	}
	s.now = noon.Add(2 * makeRoomFor)
	if got := s.look(); got.At == nil {
		t.Error("never read, as there is always a capture")
	}
}

func TestOnlyTheWriterVerifies(t *testing.T) {
	s := newSite(t, hourly())
	s.publish("p1")
	var app v1alpha1.Application
	if err := s.Client.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop"}, &app); err != nil {
		t.Fatal(err)
	}
	app.Status.Role = v1alpha1.RoleSuperseded
	if err := s.Client.Status().Update(t.Context(), &app); err != nil {
		t.Fatal(err)
	}
	if got := s.look(); got.At != nil {
		t.Errorf("status %+v", got)
	}
}

func TestDue(t *testing.T) {
	hour := &metav1.Duration{Duration: time.Hour}
	for name, test := range map[string]struct {
		every      *metav1.Duration
		cron       string
		last, want time.Time
	}{
		"first":           {hour, "", time.Time{}, noon},
		"after the pause": {hour, "", noon.Add(-30 * time.Minute), noon.Add(30 * time.Minute)},
		"missed":          {hour, "", noon.Add(-5 * time.Hour), noon},
		"next slot":       {nil, "0 13 * * *", noon.Add(-time.Hour), noon.Add(time.Hour)},
		"missed slot":     {nil, "0 11 * * *", noon.Add(-2 * time.Hour), noon.Add(-time.Hour)},
		"of the future":   {hour, "", noon.Add(24 * time.Hour), noon},
		"slot, future":    {nil, "0 13 * * *", noon.Add(240 * time.Hour), noon.Add(-23 * time.Hour)},
		"a clock's drift": {hour, "", noon.Add(time.Minute), noon.Add(time.Hour)},
		"first slot":      {nil, "0 13 * * *", time.Time{}, noon.Add(-23 * time.Hour)},
	} {
		got, err := due(test.every, test.cron, test.last, noon.Add(-24*time.Hour), noon)
		if err != nil || !got.Equal(test.want) {
			t.Errorf("%s: %s, %v; want %s", name, got, err, test.want)
		}
	}
	if _, err := due(nil, "every day", noon, noon, noon); err == nil {
		t.Error("a bad expression is taken")
	}
}

// TestATryOfTheFutureKeepsNoneWaiting, as of a clock that was ahead; one of a moment ago does.
func TestATryOfTheFutureKeepsNoneWaiting(t *testing.T) {
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).Build()
	for ago, waits := range map[time.Duration]bool{-24 * time.Hour: false, -time.Minute: true, time.Second: true, time.Hour: false} {
		got, err := wait(t.Context(), c, noon, noon, noon, attempts{last: metaTime(noon.Add(-ago))})
		if err != nil || (got > 0) != waits {
			t.Errorf("tried %s ago: waits %s, %v", ago, got, err)
		}
	}
}
