package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/reconcile/measure"
	"davit.dev/davit/internal/reconcile/project"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fault"
	"davit.dev/davit/internal/vault/listed"
	"davit.dev/davit/internal/vault/mem"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// site is the reconciler of the site west, its cluster and its vault.
type site struct {
	*Reconciler
	t       *testing.T
	store   *mem.Store
	project *vault.Project
	listing *vault.Project
	err     error // of opening the vault
	dropped []string
}

func (s *site) Opened(context.Context, string) (*vaults.Opened, error) {
	return &vaults.Opened{Project: s.project, Listing: s.listing, VaultID: "id"}, s.err
}

func (s *site) Drop(name string) { s.dropped = append(s.dropped, name) }

func newSite(t *testing.T, objects ...client.Object) *site {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, store: mem.New(func() time.Time { return noon })}
	if s.project, err = vault.CreateProject(t.Context(), s.store, "default", key.Recipient()); err != nil {
		t.Fatal(err)
	}
	s.listing = s.project.Over(func(below vault.Store) vault.Store { return listed.New(below, 1<<20) })
	objects = append(objects, &v1alpha1.Vault{ObjectMeta: metav1.ObjectMeta{Name: "main"}})
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.Vault{}, &v1alpha1.Site{}, &v1alpha1.RecoveryPoint{}).Build()
	s.Reconciler = &Reconciler{
		Client: c, Vaults: s, Events: record.NewFakeRecorder(100), Site: "west",
		KubeVersion: func(context.Context) (string, error) { return "v1.34.4", nil }, Now: func() time.Time { return noon },
	}
	return s
}

// publish puts a point of the site east into the vault.
func (s *site) publish(id string, epoch int64) {
	s.t.Helper()
	s.publishAs("shop", id, epoch)
}

func (s *site) publishAs(app, id string, epoch int64) {
	s.t.Helper()
	w, err := s.project.NewWriter(s.t.Context(), app, id)
	if err != nil {
		s.t.Fatal(err)
	}
	m := &point.Manifest{
		Site: "east", Epoch: epoch, Trigger: "schedule", Instant: noon, CutBy: noon,
		Consistency: point.Crash, Namespaces: []string{"shop"},
	}
	if err := w.Publish(s.t.Context(), m, nil); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) mark(id string, kind vault.MarkKind, by string) {
	s.t.Helper()
	if err := s.project.Mark(s.t.Context(), "shop", id, vault.Mark{Kind: kind, Site: "east", By: by, Note: "told"}); err != nil {
		s.t.Fatal(err)
	}
}

// look reconciles once and returns the Vault.
func (s *site) look() v1alpha1.Vault {
	s.t.Helper()
	if _, err := s.Reconcile(s.t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "main"}}); err != nil {
		s.t.Fatal(err)
	}
	var v v1alpha1.Vault
	if err := s.Client.Get(s.t.Context(), client.ObjectKey{Name: "main"}, &v); err != nil {
		s.t.Fatal(err)
	}
	return v
}

// shown returns the RecoveryPoint objects, by namespace/name.
func (s *site) shown() map[string]v1alpha1.RecoveryPoint {
	s.t.Helper()
	var list v1alpha1.RecoveryPointList
	if err := s.Client.List(s.t.Context(), &list); err != nil {
		s.t.Fatal(err)
	}
	all := map[string]v1alpha1.RecoveryPoint{}
	for _, rp := range list.Items {
		all[rp.Namespace+"/"+rp.Name] = rp
	}
	return all
}

func TestConditionsSayWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		err              error
		reason           string
		reachable, ready bool
	}{
		"fine":       {nil, v1alpha1.ReasonSucceeded, true, true},
		"denied":     {fmt.Errorf("get: %w", vault.ErrDenied), v1alpha1.ReasonVaultDenied, true, false},
		"no answer":  {fmt.Errorf("get: %w", vault.ErrUnavailable), v1alpha1.ReasonVaultUnavailable, false, false},
		"anything":   {errors.New("no route to host"), v1alpha1.ReasonVaultUnavailable, false, false},
		"wrong key":  {fmt.Errorf("open: %w", vault.ErrKey), v1alpha1.ReasonWrongKey, true, false},
		"damaged":    {fmt.Errorf("open: %w", vault.ErrDamaged), v1alpha1.ReasonDamaged, true, false},
		"not usable": {fmt.Errorf("%w: its Secret is missing", vaults.ErrNotUsable), v1alpha1.ReasonInvalid, true, false},
	} {
		s := newSite(t)
		s.err = test.err
		v := s.look()
		reachable := meta.FindStatusCondition(v.Status.Conditions, v1alpha1.ConditionReachable)
		ready := meta.FindStatusCondition(v.Status.Conditions, v1alpha1.ConditionReady)
		if ready.Reason != test.reason || (ready.Status == metav1.ConditionTrue) != test.ready || (reachable.Status == metav1.ConditionTrue) != test.reachable {
			t.Errorf("%s: ready %+v, reachable %+v", name, ready, reachable)
		}
		if v.Status.LastChecked == nil || test.ready != (v.Status.VaultID == "id") {
			t.Errorf("%s: status %+v", name, v.Status)
		}
	}
}

// TestAVaultIsCheckedWhileItIsShown: a projection waits for as long as the vault does that
// it reads, and the checks do not wait for that. One of a vault that answers goes on.
func TestAVaultIsCheckedWhileItIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := errors.New("the vault does not answer")
		looks, ended := 0, make(chan error, 1)
		go func() {
			ended <- meanwhile(t.Context(), func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			}, func(context.Context) error {
				if looks++; looks == 10 {
					return silent
				}
				return nil
			})
		}()
		if err := <-ended; !errors.Is(err, silent) || looks != 10 {
			t.Errorf("after %d looks: %v", looks, err)
		}
		done := errors.New("done")
		if err := meanwhile(t.Context(), func(context.Context) error {
			<-time.After(3*checkEvery + time.Second)
			return done
		}, func(context.Context) error { return nil }); !errors.Is(err, done) {
			t.Errorf("work that ends by itself: %v", err)
		}
	})
}

// TestClocksApart is told once, and only beyond what is safe.
func TestClocksApart(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(measure.VaultSkew)
	for name, test := range map[string]struct {
		skew time.Duration
		says string
	}{
		"together": {0, ""},
		"a little": {-20 * time.Second, ""},
		"ahead":    {5 * time.Minute, "5m0s ahead"},
		"behind":   {-2 * time.Hour, "2h0m0s behind"},
	} {
		s := newSite(t)
		skewed := fault.New(s.store, 1, fault.Faults{Skew: test.skew})
		s.project = s.project.Over(func(vault.Store) vault.Store { return skewed })
		s.look()
		v := s.look()
		if v.Status.ClockSkew == nil || v.Status.ClockSkew.Duration != test.skew {
			t.Errorf("%s: status says %v", name, v.Status.ClockSkew)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		if got := families[0].GetMetric()[0].GetGauge().GetValue(); got != test.skew.Seconds() {
			t.Errorf("%s: metric says %v s", name, got)
		}
		told := 0
		for len(s.Events.(*record.FakeRecorder).Events) > 0 {
			if e := <-s.Events.(*record.FakeRecorder).Events; strings.Contains(e, v1alpha1.ReasonClockSkew) {
				told++
				if test.says == "" || !strings.Contains(e, test.says) {
					t.Errorf("%s: event %q", name, e)
				}
			}
		}
		if want := map[bool]int{true: 1}[test.says != ""]; told != want {
			t.Errorf("%s: told %d times, want %d", name, told, want)
		}
	}
}

func TestVaultThatIsGoneIsDropped(t *testing.T) {
	s := newSite(t)
	if _, err := s.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "gone"}}); err != nil || !slices.Equal(s.dropped, []string{"gone"}) {
		t.Errorf("dropped %q, %v", s.dropped, err)
	}
}

func TestSitesAreShown(t *testing.T) {
	s := newSite(t)
	if err := s.project.Heartbeat(t.Context(), vault.SiteStatus{Site: "east", Time: noon, KubeVersion: "v1.33.0"}); err != nil {
		t.Fatal(err)
	}
	s.look()
	var v v1alpha1.Vault
	if err := s.Client.Get(t.Context(), client.ObjectKey{Name: "main"}, &v); err != nil {
		t.Fatal(err)
	}
	if at, err := time.Parse(time.RFC3339, v.Annotations[project.AnnotationShown]); err != nil || !at.Equal(s.Now().UTC().Truncate(time.Second)) {
		t.Errorf("its points are shown as of %q, %v", v.Annotations[project.AnnotationShown], err)
	}
	for name, local := range map[string]bool{"east": false, "west": true} {
		var got v1alpha1.Site
		if err := s.Client.Get(t.Context(), client.ObjectKey{Name: name}, &got); err != nil || got.Status.Local != local || got.Status.LastSeen == nil {
			t.Errorf("%s: %+v, %v", name, got.Status, err)
		}
	}
}

func TestPointsAreShownWhereTheApplicationIs(t *testing.T) {
	app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"}, Spec: v1alpha1.ApplicationSpec{Vault: "main"}}
	other := app.DeepCopy()
	other.Spec.Vault = "another"
	for name, test := range map[string]struct {
		objects         []client.Object
		namespace, name string
	}{
		"application is here":           {[]client.Object{app}, "shop", "db"},
		"nobody has it":                 {nil, v1alpha1.SystemNamespace, "shop.db"},
		"its namesake of another vault": {[]client.Object{other}, v1alpha1.SystemNamespace, "shop.db"},
	} {
		s := newSite(t, test.objects...)
		s.publishAs("shop.db", "shop-1", 1)
		s.look()
		s.look() // again: nothing changes
		rp, ok := s.shown()[test.namespace+"/shop-1"]
		if !ok || len(s.shown()) != 1 || rp.Spec.Application != test.name || rp.Spec.Trigger != v1alpha1.TriggerSchedule || rp.Annotations[project.AnnotationFromVault] != "true" {
			t.Fatalf("%s: %+v", name, s.shown())
		}
		if st := rp.Status; st.Phase != v1alpha1.PointAvailable || st.Site != "east" || st.Epoch != 1 || !meta.IsStatusConditionTrue(st.Conditions, v1alpha1.ConditionReady) {
			t.Errorf("%s: status %+v", name, st)
		}
	}
}

func TestPhasesFollowTheVault(t *testing.T) {
	s := newSite(t)
	for _, id := range []string{"good", "verified", "bad", "leaving", "late"} {
		s.publish(id, 1)
	}
	s.mark("verified", vault.MarkVerified, "verify")
	s.mark("bad", vault.MarkQuarantined, "verify")
	s.mark("leaving", vault.MarkDeleting, "")
	for n, claim := range []lease.Claim{{Site: "east", Request: "a"}, {Site: "west", Request: "b", Accepted: []string{"good", "verified", "bad", "leaving"}}} {
		if _, err := lease.New(s.project).Claim(t.Context(), "shop", int64(n+1), claim); err != nil {
			t.Fatal(err)
		}
	}
	s.look()
	for id, want := range map[string]v1alpha1.PointPhase{
		"good": v1alpha1.PointAvailable, "verified": v1alpha1.PointAvailable, "bad": v1alpha1.PointQuarantined,
		"leaving": v1alpha1.PointDeleting, "late": v1alpha1.PointQuarantined,
	} {
		rp := s.shown()[v1alpha1.SystemNamespace+"/"+id]
		if rp.Status.Phase != want {
			t.Errorf("%s is %q, want %q", id, rp.Status.Phase, want)
		}
		if verified := meta.IsStatusConditionTrue(rp.Status.Conditions, v1alpha1.ConditionVerified); verified != (id == "verified") {
			t.Errorf("%s: verified is %v", id, verified)
		}
	}
}

func TestPointsThatAreGoneAreHidden(t *testing.T) {
	failed := &v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "failed", Labels: map[string]string{project.LabelVault: "main"}}}
	failed.Status.Phase = v1alpha1.PointFailed
	s := newSite(t, failed)
	s.publish("shop-1", 1)
	s.publish("shop-2", 1)
	s.look()
	if err := s.project.DeletePoint(t.Context(), "shop", "shop-1"); err != nil {
		t.Fatal(err)
	}
	s.err = vault.ErrUnavailable
	s.look()
	if len(s.shown()) != 3 {
		t.Errorf("silence of the vault removed objects: %v", s.shown())
	}
	s.err = nil
	s.look()
	shown := s.shown()
	if _, still := shown[v1alpha1.SystemNamespace+"/shop-1"]; still || len(shown) != 2 {
		t.Errorf("shown: %v", shown)
	}
}

func TestPinsGoBothWays(t *testing.T) {
	s := newSite(t)
	s.publish("shop-1", 1)
	s.look()
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop-1"}
	inVault := func() bool {
		infos, err := s.project.Points(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		return infos[0].Pinned()
	}
	var rp v1alpha1.RecoveryPoint
	if err := s.Client.Get(t.Context(), key, &rp); err != nil {
		t.Fatal(err)
	}
	rp.Spec.Pinned = true
	if err := s.Client.Update(t.Context(), &rp); err != nil {
		t.Fatal(err)
	}
	s.look()
	if !inVault() {
		t.Error("a pin set on the object did not reach the vault")
	}
	s.mark("shop-1", vault.MarkUnpinned, "east")
	s.look()
	if err := s.Client.Get(t.Context(), key, &rp); err != nil || rp.Spec.Pinned || inVault() {
		t.Errorf("unpinned at another site: object %v, vault %v, %v", rp.Spec.Pinned, inVault(), err)
	}
}
