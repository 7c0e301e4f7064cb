package view

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/process"
)

// TestStatusSaysWhatRunsLeft to people, until the plan runs again. The controls: a later
// drill settles nothing, and an order that was refused left nothing.
func TestStatusSaysWhatRunsLeft(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	run := func(name, plan string, verb v1alpha1.PlanVerb, ago time.Duration, records int64, next string) *v1alpha1.Run {
		return &v1alpha1.Run{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.RunSpec{Plan: plan, Verb: verb},
			Status: v1alpha1.RunStatus{Phase: "RolledBack", Next: next, Sequence: records, BegunAt: &metav1.Time{Time: now.Add(-ago)}},
		}
	}
	for name, tc := range map[string]struct {
		later *v1alpha1.Run
		said  bool
	}{
		"the newest":             {run("other", "other", "failover", time.Hour, 9, ""), true},
		"a drill came later":     {run("later", "shop", "drill", time.Hour, 9, ""), true},
		"a later one is refused": {run("later", "shop", "failover", time.Hour, 0, "solve that"), true},
		"a run came later":       {run("later", "shop", "failover", time.Hour, 9, ""), false},
	} {
		c := clientfake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(run("old", "shop", "failover", 2*time.Hour, 9, "resume it"), tc.later).Build()
		status, err := Gather(t.Context(), c, now)
		if err != nil {
			t.Fatal(err)
		}
		out := &output.Text{}
		status.Text(out)
		if got := strings.Contains(out.String(), "old (plan shop, RolledBack): resume it"); got != tc.said || len(status.Remaining) > 1 {
			t.Errorf("%s: %+v\n%s", name, status.Remaining, out)
		}
	}
}
