package cli_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
)

func TestALeaseKeepsItsKeepers(t *testing.T) {
	free := v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "bank"}}
	leased := v1alpha1.Application{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "shop"},
		Status:     v1alpha1.ApplicationStatus{Lease: &v1alpha1.LeaseStatus{Epoch: 2}},
	}
	if err := access.Unleased(free); err != nil {
		t.Error(err)
	}
	if err := access.Unleased(free, leased); err == nil || exit.Code(err) != exit.Refused || !strings.Contains(err.Error(), "shop runs here under a lease") {
		t.Error(err)
	}
}
