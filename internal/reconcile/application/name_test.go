package application

import (
	"context"
	"errors"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/vault"
)

func often() *v1alpha1.ProtectionPolicy {
	return &v1alpha1.ProtectionPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "often"},
		Spec:       v1alpha1.ProtectionPolicySpec{Schedule: v1alpha1.Schedule{Every: &metav1.Duration{Duration: time.Minute}}},
	}
}

func (s *site) asked() int {
	s.t.Helper()
	var points v1alpha1.RecoveryPointList
	if err := s.Client.List(s.t.Context(), &points); err != nil {
		s.t.Fatal(err)
	}
	return len(points.Items)
}

// as makes the site's cluster known.
func (s *site) as(cluster string) {
	p := protection.New(protection.Options{Project: s.project, Site: "east", ClusterID: cluster})
	s.Vaults = access{s.project, p}
}

// TestTwoSitesOfAName: the cluster a protects shop as east; b is another
// cluster called east that has the same Application.
func TestTwoSitesOfAName(t *testing.T) {
	for _, c := range []struct {
		name, self, bearer string
		role               v1alpha1.Role
		reason             string
		asked              int
	}{
		{"the holder", "a", "a", v1alpha1.RoleActive, "", 1},
		{"the holder whose name was given away", "a", "b", v1alpha1.RoleActive, v1alpha1.ReasonNameTaken, 0},
		{"the newcomer", "b", "a", v1alpha1.RoleStandby, "", 0},
		{"the newcomer that was given the name", "b", "b", v1alpha1.RoleStandby, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}, Policy: "often"})
			s := newSite(t, "", app, often(), web("shop"))
			claim := lease.Claim{Site: "east", Cluster: "a", Request: "first"}
			if _, err := lease.New(s.project).Claim(t.Context(), "shop", 1, claim); err != nil {
				t.Fatal(err)
			}
			if err := lease.Beat(t.Context(), s.project, vault.SiteStatus{Site: "east", Cluster: c.bearer}); err != nil {
				t.Fatal(err)
			}
			s.as(c.self)
			got := s.reconcile(app)
			ready := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady)
			if got.Status.Role != c.role || s.asked() != c.asked || c.reason != "" && ready.Reason != c.reason {
				t.Errorf("role %s, %d captures asked for, %+v", got.Status.Role, s.asked(), ready)
			}
			if s.replicas("shop") != 2 {
				t.Error("a name alone stopped the application")
			}
		})
	}
}

// TestFirstClaimUnderAnothersName claims nothing, and says why.
func TestFirstClaimUnderAnothersName(t *testing.T) {
	app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}, Policy: "often"})
	s := newSite(t, "", app, often())
	if err := lease.Beat(t.Context(), s.project, vault.SiteStatus{Site: "east", Cluster: "a"}); err != nil {
		t.Fatal(err)
	}
	s.as("b")
	got := s.reconcile(app)
	ready := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady)
	if got.Status.Epoch != 0 || s.asked() != 0 || ready.Reason != v1alpha1.ReasonNameTaken {
		t.Errorf("epoch %d, %d captures asked for, %+v", got.Status.Epoch, s.asked(), ready)
	}
}

// mirrorless is a vault whose project cannot be opened for the mirror.
type mirrorless struct{ access }

func (mirrorless) Project(context.Context, string) (*vault.Project, error) {
	return nil, errors.New("no mirror today")
}

func TestAFailingMirrorKeepsNoCaptureWaiting(t *testing.T) {
	app := shop(v1alpha1.SystemNamespace, v1alpha1.ApplicationSpec{Namespaces: []string{"shop"}, Policy: "often"})
	s := newSite(t, "", app, often())
	s.Vaults = mirrorless{s.Vaults.(access)} //nolint:forcetypeassert // newSite made it
	got := s.reconcile(app)
	ready := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady)
	if s.asked() != 1 || ready.Status != metav1.ConditionFalse {
		t.Errorf("%d captures asked for, %+v", s.asked(), ready)
	}
}
