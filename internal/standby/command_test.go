package standby

import (
	"context"
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore"
)

// jobless is a cluster that answers every Create with an error.
type jobless struct {
	restore.Cluster
	err error
}

func (j jobless) Serves(context.Context, schema.GroupKind) ([]restore.Served, error) {
	return make([]restore.Served, 1), nil
}

func (j jobless) Create(context.Context, restore.Served, *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return nil, j.err
}

// TestAJobThatMayHaveArrivedIsNotRefused: only where the API server said no is
// it certain that nothing runs.
func TestAJobThatMayHaveArrivedIsNotRefused(t *testing.T) {
	jobs := schema.GroupResource{Group: "batch", Resource: "jobs"}
	for _, tc := range []struct {
		err  error
		want failover.Outcome
	}{
		{context.DeadlineExceeded, failover.NoAnswer},
		{errors.New("connection reset by peer"), failover.NoAnswer},
		{apierrors.NewServerTimeout(jobs, "create", 1), failover.NoAnswer},
		{apierrors.NewInternalError(errors.New("etcd")), failover.NoAnswer},
		{apierrors.NewTimeoutError("request did not complete", 1), failover.NoAnswer},
		{apierrors.NewForbidden(jobs, "j", errors.New("quota")), failover.Refused},
		{apierrors.NewInvalid(schema.GroupKind{Group: "batch", Kind: "Job"}, "j", nil), failover.Refused},
		{apierrors.NewBadRequest("no"), failover.Refused},
		{apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "davit-system"), failover.Refused},
	} {
		s := New(Options{Recovery: recovery.Deps{Cluster: jobless{err: tc.err}}})
		got := s.command(t.Context(), execute.Order{Action: failover.Act, Run: "r", Step: plan.Step{Name: "mail", Kind: plan.KindCommand, Command: &plan.Command{Image: "i"}}})
		if got.Outcome != tc.want || got.Note == "" {
			t.Errorf("%v: %+v, want %s", tc.err, got, tc.want)
		}
	}
}
