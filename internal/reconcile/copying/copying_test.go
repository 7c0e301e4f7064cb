package copying

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/copies"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/reconcile/project"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

var noon = time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)

// site is a reconciler, its cluster and both vaults.
type site struct {
	*Reconciler
	t             *testing.T
	first, second *vaults.Opened
	silent        string // the vault that does not answer
}

func (s *site) Opened(_ context.Context, name string) (*vaults.Opened, error) {
	switch name {
	case s.silent:
		return nil, vault.ErrUnavailable
	case "main":
		return s.first, nil
	}
	return s.second, nil
}

func newSite(t *testing.T, role v1alpha1.Role) *site {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	first, second := mem.New(nil), mem.New(nil)
	if _, err := vault.Init(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), first, "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lease.New(p).Claim(t.Context(), "shop", 1, lease.Claim{Site: "east", Request: "r"}); err != nil {
		t.Fatal(err)
	}
	if err := copies.Bootstrap(t.Context(), p, second); err != nil {
		t.Fatal(err)
	}
	copied, err := vault.OpenProject(t.Context(), second, "default", key)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, first: &vaults.Opened{Project: p, Listing: p, Store: first}, second: &vaults.Opened{Project: copied, Listing: copied, Store: second}}
	app := &v1alpha1.Application{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "shop"},
		Spec:       v1alpha1.ApplicationSpec{Vault: "main"}, Status: v1alpha1.ApplicationStatus{Role: role, HeldEpoch: 1},
	}
	vaults := []client.Object{
		&v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "main"}},
		&v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "second"}, Spec: v1alpha1.VaultSpec{CopyOf: "main"}},
	}
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(append(vaults, app)...).
		WithStatusSubresource(&v1alpha1.Vault{}, &v1alpha1.RecoveryPoint{}).Build()
	s.Reconciler = &Reconciler{Client: c, Vaults: s, Events: record.NewFakeRecorder(100), Now: func() time.Time { return noon }}
	return s
}

func (s *site) publish(id string) {
	s.t.Helper()
	ctx := s.t.Context()
	w, err := s.first.Project.NewWriter(ctx, "shop", id)
	if err != nil {
		s.t.Fatal(err)
	}
	rw := w.Resource(point.Resource{Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespaced: true})
	if err := rw.Add(ctx, []byte(`{}`)); err != nil {
		s.t.Fatal(err)
	}
	res, err := rw.Close(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	at := noon.Add(-10 * time.Minute)
	m := &point.Manifest{Site: "east", Epoch: 1, Trigger: "manual", Instant: at, CutBy: at, Consistency: point.Crash, Resources: []point.Resource{res}, Objects: 1}
	if err := w.Publish(ctx, m, nil); err != nil {
		s.t.Fatal(err)
	}
	rp := &v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: id}, Spec: v1alpha1.RecoveryPointSpec{Application: "shop"}}
	project.Label(rp, "main", "shop")
	if err := s.Client.Create(ctx, rp); err != nil {
		s.t.Fatal(err)
	}
}

// look reconciles once and returns the copy's status.
func (s *site) look() v1alpha1.CopyStatus {
	s.t.Helper()
	if _, err := s.Reconcile(s.t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "second"}}); err != nil {
		s.t.Fatal(err)
	}
	var v v1alpha1.Vault
	if err := s.Client.Get(s.t.Context(), client.ObjectKey{Name: "second"}, &v); err != nil || v.Status.Copy == nil {
		s.t.Fatalf("%+v, %v", v.Status, err)
	}
	return *v.Status.Copy
}

func (s *site) copiesOf(id string) []string {
	s.t.Helper()
	var rp v1alpha1.RecoveryPoint
	if err := s.Client.Get(s.t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: id}, &rp); err != nil {
		s.t.Fatal(err)
	}
	return rp.Status.Copies
}

func (s *site) events() string {
	var all []string
	for e := s.Events.(*record.FakeRecorder); len(e.Events) > 0; {
		all = append(all, <-e.Events)
	}
	return strings.Join(all, "\n")
}

func TestPointsAreCopiedAndShown(t *testing.T) {
	s := newSite(t, v1alpha1.RoleActive)
	s.publish("p1")
	got := s.look()
	if got.Error != "" || got.Pending != 0 || len(got.Applications) != 1 || got.Applications[0].Points != 1 || got.Objects == 0 {
		t.Errorf("status %+v", got)
	}
	if c := s.copiesOf("p1"); !slices.Equal(c, []string{"second"}) {
		t.Errorf("copies %v", c)
	}
	if again := s.look(); again.Objects != got.Objects || again.Error != "" {
		t.Errorf("again %+v", again)
	}
}

// TestOnlyTheWriterCopies; the others look.
func TestOnlyTheWriterCopies(t *testing.T) {
	s := newSite(t, v1alpha1.RoleStandby)
	s.publish("p1")
	if got := s.look(); got.Pending != 1 || got.Objects != 0 || !got.PendingSince.Time.Equal(noon.Add(-10*time.Minute)) {
		t.Errorf("status %+v", got)
	}
	if c := s.copiesOf("p1"); len(c) != 0 {
		t.Errorf("copies %v", c)
	}
}

func TestSilenceIsToldOnceAndForgottenOnce(t *testing.T) {
	for _, silent := range []string{"main", "second"} {
		s := newSite(t, v1alpha1.RoleActive)
		s.publish("p1")
		s.look()
		s.events()
		s.silent = silent
		for range 3 {
			if got := s.look(); got.Error == "" || len(got.Applications) != 1 {
				t.Errorf("%s silent: status %+v", silent, got)
			}
		}
		if e := s.events(); strings.Count(e, "CopyFailed") != 1 {
			t.Errorf("events %q", e)
		}
		if c := s.copiesOf("p1"); !slices.Equal(c, []string{"second"}) {
			t.Errorf("while %s is silent, the point has copies %v", silent, c)
		}
		s.silent = ""
		if got := s.look(); got.Error != "" {
			t.Errorf("status %+v", got)
		}
		if e := s.events(); !strings.Contains(e, "CopyResumed") {
			t.Errorf("events %q", e)
		}
	}
}

func TestDamageInTheFirstVaultIsTold(t *testing.T) {
	s := newSite(t, v1alpha1.RoleActive)
	s.publish("p1")
	s.publish("p2")
	key := "projects/default/objects/shop/p1/00000001"
	body, err := s.first.Store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	bad := string(data[:len(data)-1]) + string(data[len(data)-1]^1)
	if err := s.first.Store.Put(t.Context(), key, strings.NewReader(bad), int64(len(bad))); err != nil {
		t.Fatal(err)
	}
	got := s.look()
	if len(got.Damaged) != 1 || !strings.Contains(got.Damaged[0], key) || got.Pending != 1 || got.Applications[0].Points != 1 {
		t.Errorf("status %+v", got)
	}
	if e := s.events(); !strings.Contains(e, "Warning Damaged not copied") {
		t.Errorf("events %q", e)
	}
}

// slow is a store that answers nothing until its caller's time is up.
type slow struct{ vault.Store }

func (slow) List(ctx context.Context, prefix string, _ func(vault.ObjectInfo) error) error {
	<-ctx.Done()
	return fmt.Errorf("list %s: %w", prefix, errors.Join(vault.ErrUnavailable, ctx.Err()))
}

// TestASlowCopyHoldsNothingElseUp: the workers of other copies go on, and
// nothing that captures calls this package at all.
func TestASlowCopyHoldsNothingElseUp(t *testing.T) {
	s := newSite(t, v1alpha1.RoleActive)
	s.publish("p1")
	third := &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "stuck"}, Spec: v1alpha1.VaultSpec{CopyOf: "main"}}
	if err := s.Client.Create(t.Context(), third); err != nil {
		t.Fatal(err)
	}
	stuck := *s.second
	stuck.Store = slow{stuck.Store}
	s.Vaults = both{s, &stuck}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = s.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKey{Name: "stuck"}})
	}()
	if got := s.look(); got.Error != "" || got.Applications[0].Points != 1 {
		t.Errorf("status %+v", got)
	}
	cancel()
	<-done
}

type both struct {
	*site
	stuck *vaults.Opened
}

func (b both) Opened(ctx context.Context, name string) (*vaults.Opened, error) {
	if name == "stuck" {
		return b.stuck, nil
	}
	return b.site.Opened(ctx, name)
}

func TestTheFirstVaultsDeletionDelayReachesItsCopies(t *testing.T) {
	s := newSite(t, v1alpha1.RoleActive)
	s.publish("p1")
	for _, delay := range []time.Duration{0, time.Hour} {
		s.first.Object.Spec.DeletionDelay = &metav1.Duration{Duration: delay}
		copied := &v1alpha1.Vault{Spec: v1alpha1.VaultSpec{CopyOf: "main"}}
		apps, err := s.apps(t.Context(), copied, s.first)
		if err != nil || len(apps) != 1 || apps[0].DeletionDelay != delay {
			t.Errorf("%v, %+v, want a delay of %v", err, apps, delay)
		}
	}
}
