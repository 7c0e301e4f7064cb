package running

import (
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/standby"
)

// TestWhoMayOnlyApproveWaits: that he may not carry the run is no failure of what he
// asked for. Any other error is.
func TestWhoMayOnlyApproveWaits(t *testing.T) {
	leases := schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("hold run r: hold restore lease: %w", apierrors.NewForbidden(leases, "run-r", errors.New("no"))), true},
		{fmt.Errorf("hold run r: %w", standby.ErrCarried), true},
		{fmt.Errorf("hold run r: %w", apierrors.NewInternalError(errors.New("etcd"))), false},
		{nil, false},
	} {
		if got := forOthers(c.err); got != c.want {
			t.Errorf("%v: %t", c.err, got)
		}
	}
}
