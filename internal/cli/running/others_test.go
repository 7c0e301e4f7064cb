package running

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/failover"
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

// TestNobodyAnswers: who may only approve waits for an agent to take the run over, and is
// told at last that none does. Of a run that somebody carries the answer comes.
func TestNobodyAnswers(t *testing.T) {
	leases := schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
	forbidden := fmt.Errorf("hold run r: %w", apierrors.NewForbidden(leases, "run-r", errors.New("no")))
	carried := fmt.Errorf("hold run r: %w", standby.ErrCarried)
	for _, err := range []error{unanswered("r", forbidden, 0), unanswered("r", carried, 2*longPatience), unanswered("r", nil, 0)} {
		if err != nil {
			t.Errorf("it does not wait: %v", err)
		}
	}
	if err := unanswered("r", forbidden, longPatience); err == nil || !strings.Contains(err.Error(), "stays asked") {
		t.Errorf("it waits for ever: %v", err)
	}
	lost := errors.New("no answer")
	if err := unanswered("r", lost, 0); !errors.Is(err, lost) {
		t.Errorf("%v", err)
	}
}

// TestWhatWasAskedForWasToGoBack: who goes on with a roll-back has got what he asked for
// when the run is rolled back; who goes on with a move has not.
func TestWhatWasAskedForWasToGoBack(t *testing.T) {
	for _, c := range []struct {
		kind  failover.EventKind
		phase failover.Phase
		want  bool
	}{
		{failover.RollBack, failover.Running, true},
		{failover.Retry, failover.RollbackFailed, true},
		{failover.Resume, failover.RollbackFailed, true},
		{"", failover.RollingBack, true}, // taken over
		{failover.Retry, failover.Running, false},
		{failover.Skip, failover.OutcomeUnknown, false},
		{"", failover.Running, false},
	} {
		if got := isBack(c.kind, &failover.State{Phase: c.phase}); got != c.want {
			t.Errorf("%q of a run that is %s: %t", c.kind, c.phase, got)
		}
	}
}
