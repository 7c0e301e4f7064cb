package recoverypoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/reconcile/project"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/vault/reading"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// empty is a cluster with nothing in it but the application's namespace, if that.
type empty struct {
	asked bool
	hangs bool // until whoever asks gives up
	named string
}

func (e *empty) Catalog(ctx context.Context) (capture.Catalog, error) {
	e.asked = true
	if e.hangs {
		<-ctx.Done()
		return capture.Catalog{}, ctx.Err()
	}
	return capture.Catalog{}, nil
}
func (*empty) Version(context.Context) (string, error)  { return "v1.34.4", nil }
func (*empty) Revision(context.Context) (string, error) { return "1", nil }
func (e *empty) List(_ context.Context, q capture.Query, page func([]unstructured.Unstructured) error) (capture.Listed, error) {
	if e.named == "" || q.Kind.Resource != "namespaces" {
		return capture.Listed{}, nil
	}
	u := unstructured.Unstructured{}
	u.SetAPIVersion("v1")
	u.SetKind("Namespace")
	u.SetName(e.named)
	return capture.Listed{Revision: "1"}, page([]unstructured.Unstructured{u})
}

// site is the reconciler of the site east, its cluster and its vault.
type site struct {
	*Reconciler
	t         *testing.T
	project   *vault.Project
	protector *protection.Protector
	cluster   *empty
	events    *record.FakeRecorder
}

// access opens the one vault, whatever its name.
type access struct{ s *site }

func (a access) Protector(context.Context, string) (*protection.Protector, error) {
	return a.s.protector, nil
}
func (a access) Project(context.Context, string) (*vault.Project, error) { return a.s.project, nil }

func newSite(t *testing.T, objects ...client.Object) *site {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, cluster: &empty{}, events: record.NewFakeRecorder(100)}
	if s.project, err = vault.CreateProject(t.Context(), mem.New(time.Now), "default", key.Recipient()); err != nil {
		t.Fatal(err)
	}
	s.protector = protection.New(protection.Options{Project: s.project, Site: "east", Cluster: s.cluster})
	objects = append(objects, &v1alpha1.Application{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "shop"},
		Spec:       v1alpha1.ApplicationSpec{Vault: "main", Namespaces: []string{"shop"}},
	})
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(objects...).WithStatusSubresource(&v1alpha1.RecoveryPoint{}).Build()
	s.Reconciler = &Reconciler{
		Client: c, Reader: c, Vaults: access{s}, Events: s.events, Site: "east",
		Now: func() time.Time { return noon }, mine: map[client.ObjectKey]bool{}, turns: newTurns(concurrent, lengthy, time.Now),
	}
	return s
}

func request(id string, phase v1alpha1.PointPhase) *v1alpha1.RecoveryPoint {
	return &v1alpha1.RecoveryPoint{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.SystemNamespace, Name: id, UID: types.UID(id),
			Labels: map[string]string{project.LabelVault: "main", v1alpha1.LabelApplication: "shop"},
		},
		Spec:   v1alpha1.RecoveryPointSpec{Application: "shop"},
		Status: v1alpha1.RecoveryPointStatus{Phase: phase},
	}
}

// TestALongFailureIsSaid: the API server refuses a condition of more than 32 KiB, and a capture
// whose end cannot be written is taken for one that was interrupted, and made again for ever.
func TestALongFailureIsSaid(t *testing.T) {
	s := newSite(t, request("p1", ""))
	s.Client = interceptor.NewClient(s.Client.(client.WithWatch), interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			if rp, is := o.(*v1alpha1.RecoveryPoint); is {
				for _, cond := range rp.Status.Conditions {
					if len(cond.Message) > 32<<10 {
						return apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind("RecoveryPoint").GroupKind(), rp.Name, nil)
					}
				}
			}
			return c.SubResource(sub).Patch(ctx, o, patch, opts...)
		},
	})
	var app v1alpha1.Application
	if err := s.Reader.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop"}, &app); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		app.Spec.Namespaces = append(app.Spec.Namespaces, fmt.Sprintf("missing-%d", i))
	}
	if err := s.Client.Update(t.Context(), &app); err != nil {
		t.Fatal(err)
	}
	s.reconcile("p1")
	c := meta.FindStatusCondition(s.all()["p1"].Status.Conditions, v1alpha1.ConditionReady)
	if c == nil || c.Reason != v1alpha1.ReasonCaptureFailed || !strings.Contains(c.Message, "namespace missing-0 does not exist") {
		t.Errorf("Ready is %+v", c)
	}
}

// claim writes the next epochs, one for each site.
func (s *site) claim(sites ...string) {
	s.t.Helper()
	for i, name := range sites {
		if _, err := lease.New(s.project).Claim(s.t.Context(), "shop", int64(i+1), lease.Claim{Site: name, Request: name}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// publish puts a point into the vault.
func (s *site) publish(id string) {
	s.t.Helper()
	w, err := s.project.NewWriter(s.t.Context(), "shop", id)
	if err != nil {
		s.t.Fatal(err)
	}
	m := &point.Manifest{Site: "east", Epoch: 1, Instant: noon, CutBy: noon, Consistency: point.Crash, Namespaces: []string{"shop"}}
	if err := w.Publish(s.t.Context(), m, nil); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) reconcile(id string) {
	s.t.Helper()
	if _, err := s.Reconcile(s.t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: id}}); err != nil {
		s.t.Fatal(err)
	}
}

// all returns the objects by name.
func (s *site) all() map[string]v1alpha1.RecoveryPoint {
	s.t.Helper()
	var list v1alpha1.RecoveryPointList
	if err := s.Client.List(s.t.Context(), &list); err != nil {
		s.t.Fatal(err)
	}
	out := map[string]v1alpha1.RecoveryPoint{}
	for _, rp := range list.Items {
		out[rp.Name] = rp
	}
	return out
}

func (s *site) inVault() int {
	s.t.Helper()
	infos, err := s.project.Points(s.t.Context(), "shop")
	if err != nil {
		s.t.Fatal(err)
	}
	return len(infos)
}

func reason(rp v1alpha1.RecoveryPoint) string {
	if c := meta.FindStatusCondition(rp.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return c.Reason
	}
	return ""
}

// TestOnlyTheHolderCaptures is the check and its negative control: the same
// request, by the same site, with and without the epoch.
func TestOnlyTheHolderCaptures(t *testing.T) {
	for name, test := range map[string]struct {
		epochs []string
		asked  bool
		reason string
	}{
		"holds it":      {[]string{"east"}, true, ""},
		"never claimed": {nil, true, ""},
		"superseded":    {[]string{"east", "west"}, false, v1alpha1.ReasonSuperseded},
		"never held it": {[]string{"west"}, false, v1alpha1.ReasonSuperseded},
		"took it back":  {[]string{"east", "west", "east"}, true, ""},
	} {
		s := newSite(t, request("p1", ""))
		s.claim(test.epochs...)
		s.reconcile("p1")
		got := s.all()["p1"]
		if s.cluster.asked != test.asked {
			t.Errorf("%s: read the cluster: %v; %s", name, s.cluster.asked, reason(got))
		}
		if test.reason != "" && (got.Status.Phase != v1alpha1.PointFailed || reason(got) != test.reason || s.inVault() != 0) {
			t.Errorf("%s: %+v, %d points in the vault", name, got.Status, s.inVault())
		}
	}
}

// lagging is a cache that has not seen an Application yet, or what it was changed to.
type lagging struct {
	client.Client
	has *v1alpha1.Application
}

func (l lagging) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	app, is := o.(*v1alpha1.Application)
	switch {
	case !is:
		return l.Client.Get(ctx, key, o, opts...)
	case l.has == nil:
		return apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("applications").GroupResource(), key.Name)
	}
	l.has.DeepCopyInto(app)
	return nil
}

// TestACaptureGoesByWhatTheApplicationIsNow: it is asked for a moment after the application
// was made or changed. The control is what the cache says of it.
func TestACaptureGoesByWhatTheApplicationIsNow(t *testing.T) {
	for name, has := range map[string]*v1alpha1.Application{
		"just made":    nil,
		"just changed": {Spec: v1alpha1.ApplicationSpec{Vault: "main", Namespaces: []string{"before"}}},
	} {
		s := newSite(t, request("p1", ""))
		s.Client = lagging{s.Client, has}
		got, err := s.subject(t.Context(), request("p1", ""))
		if err != nil || !slices.Equal(got.app.Spec.Namespaces, []string{"shop"}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		s.Reader = s.Client
		if got, err := s.subject(t.Context(), request("p1", "")); err == nil && slices.Equal(got.app.Spec.Namespaces, []string{"shop"}) {
			t.Errorf("%s: control: the cache is ahead", name)
		}
	}
}

func TestViewsAreNotCaptured(t *testing.T) {
	view := request("p1", "")
	view.Annotations = map[string]string{project.AnnotationFromVault: "true"}
	s := newSite(t, view)
	direct := s.Reader
	s.Reader = nil // of thousands none is asked for
	s.reconcile("p1")
	s.Reader = direct
	if s.cluster.asked || s.all()["p1"].Status.Phase != "" {
		t.Error("a view asked for a capture")
	}
}

func TestInterruptedCaptureStartsAgainUnderANewName(t *testing.T) {
	s := newSite(t, request("p1", v1alpha1.PointCapturing))
	s.claim("east")
	s.reconcile("p1")
	old := s.all()["p1"]
	next := old.Annotations[project.AnnotationRestarted]
	if old.Status.Phase != v1alpha1.PointFailed || reason(old) != ReasonInterrupted || next == "" || next == "p1" {
		t.Fatalf("the old one is %+v, %v", old.Status, old.Annotations)
	}
	again, ok := s.all()[next]
	if !ok || again.Status.Phase != "" || again.Spec.Application != "shop" || len(s.all()) != 2 {
		t.Errorf("the new one is %+v of %d", again, len(s.all()))
	}
	s.reconcile("p1")
	if len(s.all()) != 2 {
		t.Error("started a third time")
	}
}

func TestInterruptedAfterPublishingIsThere(t *testing.T) {
	s := newSite(t, request("p1", v1alpha1.PointCapturing))
	s.claim("east")
	s.publish("p1")
	s.reconcile("p1")
	if got := s.all(); got["p1"].Status.Phase != v1alpha1.PointAvailable || len(got) != 1 {
		t.Errorf("%+v", got)
	}
}

// unpinnable is a vault that takes no pins for a while.
type unpinnable struct {
	vault.Store
	full bool
}

func (u *unpinnable) PutIfAbsent(ctx context.Context, key string, r io.ReadSeeker, size int64) error {
	if u.full && strings.Contains(key, "/"+string(vault.MarkPinned)+"-") {
		return vault.ErrUnavailable
	}
	return u.Store.PutIfAbsent(ctx, key, r, size)
}

// silent is a vault that says nothing.
type silent struct{ vault.Store }

func (silent) Get(context.Context, string, int64, int64) (io.ReadCloser, error) {
	return nil, vault.ErrUnavailable
}

func (silent) Stat(context.Context, string) (vault.ObjectInfo, error) {
	return vault.ObjectInfo{}, vault.ErrUnavailable
}

func (silent) List(context.Context, string, func(vault.ObjectInfo) error) error {
	return vault.ErrUnavailable
}

// TestAPointIsShownWithItsPin: whatever comes between a point and its pin, what was to be
// pinned is not shown without: that would be taken for one that somebody unpinned.
func TestAPointIsShownWithItsPin(t *testing.T) {
	for name, interrupted := range map[string]bool{"captured": false, "the agent died before it pinned": true} {
		t.Run(name, func(t *testing.T) {
			rp := request("p1", "")
			rp.Spec.Pinned = true
			if interrupted {
				rp.Status.Phase = v1alpha1.PointCapturing
			}
			s := newSite(t, rp)
			s.cluster.named = "shop"
			s.claim("east")
			if interrupted {
				s.publish("p1")
			}
			store := &unpinnable{full: true}
			s.project = s.project.Over(func(below vault.Store) vault.Store { store.Store = below; return store })
			ask := ctrl.Request{NamespacedName: client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "p1"}}
			for range 2 {
				if _, err := s.Reconcile(t.Context(), ask); !errors.Is(err, vault.ErrUnavailable) {
					t.Fatalf("reconciled without a pin: %v: %+v", err, s.all()["p1"].Status)
				}
				if got := s.all(); got["p1"].Status.Phase != v1alpha1.PointCapturing || got["p1"].Status.FinishedAt == nil || len(got) != 1 {
					t.Fatalf("shown without its pin, or it holds others up: %+v", got["p1"].Status)
				}
				// From here on nobody says where the site stands: that is not needed for a pin.
				s.protector = protection.New(protection.Options{Project: s.project.Over(func(below vault.Store) vault.Store { return silent{below} }), Site: "east", Cluster: s.cluster})
			}
			store.full = false
			s.reconcile("p1")
			s.reconcile("p1")
			marks, err := s.project.Marks(t.Context(), "shop", "p1")
			if err != nil || len(marks) != 1 || !(vault.PointInfo{Marks: marks}).Pinned() {
				t.Errorf("the marks are %+v, %v", marks, err)
			}
			if got := s.all(); got["p1"].Status.Phase != v1alpha1.PointAvailable || len(got) != 1 {
				t.Errorf("%+v", got["p1"].Status)
			}
		})
	}
}

func TestOwnCaptureIsNotTakenForInterrupted(t *testing.T) {
	s := newSite(t, request("p1", v1alpha1.PointCapturing))
	s.mine[client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "p1"}] = true
	s.reconcile("p1")
	if got := s.all(); got["p1"].Status.Phase != v1alpha1.PointCapturing || len(got) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestInterruptedCaptureOfASupersededSiteEnds(t *testing.T) {
	s := newSite(t, request("p1", v1alpha1.PointCapturing))
	s.claim("east", "west")
	s.reconcile("p1")
	if got := s.all(); got["p1"].Status.Phase != v1alpha1.PointFailed || reason(got["p1"]) != v1alpha1.ReasonSuperseded || len(got) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestDeleteFromVaultOnlyWhenAsked(t *testing.T) {
	for name, test := range map[string]struct {
		annotation string
		pinned     bool
		others     []string
		deleted    bool
		event      string
	}{
		"not asked":           {"", false, []string{"p2"}, false, ""},
		"something else":      {"yes", false, []string{"p2"}, false, ""},
		"asked":               {"true", false, []string{"p2"}, true, ""},
		"being read":          {"true", false, []string{"p2"}, false, "being read by restore r1"},
		"pinned":              {"true", true, []string{"p2"}, false, "DeleteRefused"},
		"last good":           {"true", false, nil, false, "DeleteRefused"},
		"last good, meant to": {"last-good", false, nil, true, ""},
	} {
		rp := request("p1", v1alpha1.PointAvailable)
		if test.annotation != "" {
			rp.Annotations = map[string]string{project.AnnotationDelete: test.annotation}
		}
		s := newSite(t, rp)
		s.claim("east")
		for _, id := range append(test.others, "p1") {
			s.publish(id)
		}
		if test.pinned {
			if err := s.project.Mark(t.Context(), "shop", "p1", vault.Mark{Kind: vault.MarkPinned, Site: "east"}); err != nil {
				t.Fatal(err)
			}
		}
		if name == "being read" {
			session, err := reading.Begin(t.Context(), reading.Work{Project: s.project, Application: "shop", Point: "p1", By: "restore r1"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(session.Leave)
		}
		s.reconcile("p1")
		_, object := s.all()["p1"]
		want := len(test.others) + 1
		if test.deleted {
			want--
		}
		if object == test.deleted || s.inVault() != want {
			t.Errorf("%s: object is there: %v; %d points in the vault, want %d", name, object, s.inVault(), want)
		}
		if test.event != "" {
			if e := <-s.events.Events; !strings.Contains(e, test.event) {
				t.Errorf("%s: event %q", name, e)
			}
			if s.all()["p1"].Annotations[project.AnnotationDelete] != "" {
				t.Errorf("%s: the refused request stays", name)
			}
		}
	}
}

// TestACaptureThatTakesTooLongSaysWhatItWasDoing: its policy's time ends it, and
// the application can be captured again.
func TestACaptureThatTakesTooLongSaysWhatItWasDoing(t *testing.T) {
	limit := &metav1.Duration{Duration: time.Millisecond}
	policy := &v1alpha1.ProtectionPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "hasty"},
		Spec:       v1alpha1.ProtectionPolicySpec{CaptureTimeout: limit},
	}
	s := newSite(t, request("p1", ""), policy)
	var app v1alpha1.Application
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "shop"}
	if err := s.Client.Get(t.Context(), key, &app); err != nil {
		t.Fatal(err)
	}
	app.Spec.Policy = "hasty"
	if err := s.Client.Update(t.Context(), &app); err != nil {
		t.Fatal(err)
	}
	s.cluster.hangs = true
	s.reconcile("p1")
	got := s.all()["p1"]
	c := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady)
	if got.Status.Phase != v1alpha1.PointFailed || c == nil {
		t.Fatalf("point is %s: %+v", got.Status.Phase, c)
	}
	// How far it comes in its time depends on the machine.
	for _, want := range []string{"did not end within 1ms", "was stopped while ", "captureTimeout"} {
		if !strings.Contains(c.Message, want) {
			t.Errorf("message %q lacks %q", c.Message, want)
		}
	}
}

// TestExpireForLeavesTimeToCapture: half of the shortest time there may be until the next one.
func TestExpireForLeavesTimeToCapture(t *testing.T) {
	of := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	for name, test := range map[string]struct {
		schedule v1alpha1.Schedule
		rpo      *metav1.Duration
		want     time.Duration
	}{
		"nothing is set":          {want: time.Minute},
		"an interval":             {schedule: v1alpha1.Schedule{Every: of(20 * time.Second)}, want: 10 * time.Second},
		"the shortest interval":   {schedule: v1alpha1.Schedule{Every: of(10 * time.Second)}, want: 5 * time.Second},
		"an objective is shorter": {schedule: v1alpha1.Schedule{Every: of(time.Minute)}, rpo: of(40 * time.Second), want: 20 * time.Second},
		"a tiny objective":        {rpo: of(time.Second), want: 5 * time.Second},
		"a day":                   {schedule: v1alpha1.Schedule{Every: of(24 * time.Hour)}, want: time.Minute},
		"cron, without objective": {schedule: v1alpha1.Schedule{Cron: "* * * * *"}, want: 30 * time.Second},
		"cron, with a long one":   {schedule: v1alpha1.Schedule{Cron: "* * * * *"}, rpo: of(time.Hour), want: 30 * time.Second},
	} {
		spec := v1alpha1.ProtectionPolicySpec{Schedule: test.schedule, Objectives: v1alpha1.Objectives{RPO: test.rpo}}
		if got := expireFor(spec); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}
