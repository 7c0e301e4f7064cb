package application

import (
	"context"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// access opens one vault, whatever its name.
type access struct {
	project   *vault.Project
	protector *protection.Protector
}

func (a access) Protector(context.Context, string) (*protection.Protector, error) {
	return a.protector, nil
}
func (a access) Project(context.Context, string) (*vault.Project, error) { return a.project, nil }

// site is a reconciler of the site east, its cluster and its vault.
type site struct {
	*Reconciler
	t       *testing.T
	project *vault.Project
}

func newSite(t *testing.T, domain string, objects ...client.Object) *site {
	t.Helper()
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	project, err := vault.CreateProject(t.Context(), mem.New(time.Now), "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.Application{}, &v1alpha1.RecoveryPoint{}).Build()
	p := protection.New(protection.Options{Project: project, Site: "east", VaultDomain: "hall", SiteDomain: domain})
	return &site{t: t, project: project, Reconciler: &Reconciler{
		Client: c, Reader: c, Vaults: access{project, p}, Events: record.NewFakeRecorder(100), Site: "east", Now: time.Now,
		known: map[types.NamespacedName]*memory{},
	}}
}

// claim writes the next epochs, one for each site.
func (s *site) claim(app string, sites ...string) {
	s.t.Helper()
	for i, name := range sites {
		c := lease.Claim{Site: name, Request: name}
		if _, err := lease.New(s.project).Claim(s.t.Context(), app, int64(i+1), c); err != nil {
			s.t.Fatal(err)
		}
	}
}

// reconcile looks at an application once and returns it.
func (s *site) reconcile(app *v1alpha1.Application) v1alpha1.Application {
	s.t.Helper()
	key := client.ObjectKeyFromObject(app)
	if _, err := s.Reconcile(s.t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
		s.t.Fatal(err)
	}
	var got v1alpha1.Application
	if err := s.Client.Get(s.t.Context(), key, &got); err != nil {
		s.t.Fatal(err)
	}
	return got
}

func (s *site) replicas(namespace string) int32 {
	s.t.Helper()
	var d appsv1.Deployment
	if err := s.Client.Get(s.t.Context(), client.ObjectKey{Namespace: namespace, Name: "web"}, &d); err != nil {
		s.t.Fatal(err)
	}
	return ptr.Deref(d.Spec.Replicas, 1)
}

func web(namespace string) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"},
		Spec:       appsv1.DeploymentSpec{Replicas: ptr.To[int32](2)},
	}
}

func shop(namespace string, spec v1alpha1.ApplicationSpec) *v1alpha1.Application {
	spec.Vault = "main"
	return &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "shop"}, Spec: spec}
}

// TestSupersededIsFencedWhateverElseIsWrong: a mistake in the application's
// documents must not leave two sites writing.
func TestSupersededIsFencedWhateverElseIsWrong(t *testing.T) {
	system := v1alpha1.SystemNamespace
	for name, c := range map[string]struct {
		domain string
		app    *v1alpha1.Application
		as     string
	}{
		"nothing else":          {"", shop(system, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}}), "shop"},
		"policy is missing":     {"", shop(system, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}, Policy: "gone"}), "shop"},
		"vault in the domain":   {"hall", shop(system, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}}), "shop"},
		"kind filter not valid": {"", shop(system, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}, IncludeKinds: []string{"."}}), "shop"},
		"names a foreign one":   {"", shop("shop", v1alpha1.ApplicationSpec{Namespaces: []string{"shop", "other"}}), "shop.shop"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, c.domain, c.app, web("shop"), web("other"))
			s.claim(c.as, "east", "west")
			got := s.reconcile(c.app)
			if got.Status.Role != v1alpha1.RoleSuperseded || s.replicas("shop") != 0 {
				t.Errorf("role %q, %d replicas run on", got.Status.Role, s.replicas("shop"))
			}
			if s.replicas("other") != 2 {
				t.Error("stopped what is not the application's")
			}
		})
	}
}

// TestInvalidApplicationClaimsNothing: only one that can be protected becomes
// anybody's.
func TestInvalidApplicationClaimsNothing(t *testing.T) {
	app := shop("shop", v1alpha1.ApplicationSpec{Namespaces: []string{"other"}})
	s := newSite(t, "", app, web("shop"), web("other"))
	s.reconcile(app)
	if e, err := lease.New(s.project).Current(t.Context(), "shop.shop"); err != nil || e.Number != 0 {
		t.Errorf("epoch %+v, %v; want none", e, err)
	}
}

// TestNothingIsCapturedWhileRestoring: half an application would become its
// newest recovery point, and retention would let the whole ones go.
func TestNothingIsCapturedWhileRestoring(t *testing.T) {
	policy := &v1alpha1.ProtectionPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "often"},
		Spec:       v1alpha1.ProtectionPolicySpec{Schedule: v1alpha1.Schedule{Every: &metav1.Duration{Duration: time.Minute}}},
	}
	for id, want := range map[string]int{"": 1, "r1": 0} {
		app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}, Policy: "often"})
		if id != "" {
			app.Annotations = map[string]string{v1alpha1.AnnotationRestoring: id}
		}
		s := newSite(t, "", app, policy.DeepCopy())
		got := s.reconcile(app)
		var points v1alpha1.RecoveryPointList
		if err := s.Client.List(t.Context(), &points); err != nil || len(points.Items) != want {
			t.Errorf("annotation %q: %d captures asked for, %v; want %d", id, len(points.Items), err, want)
		}
		doc, err := s.project.GetDocument(t.Context(), "shop")
		if err != nil || strings.Contains(string(doc.Objects[0]), v1alpha1.AnnotationRestoring) {
			t.Errorf("annotation %q: mirrored %s, %v", id, doc.Objects, err)
		}
		if ready := meta.IsStatusConditionTrue(got.Status.Conditions, v1alpha1.ConditionReady); ready && id != "" {
			t.Error("ready while it is restored")
		}
	}
}
