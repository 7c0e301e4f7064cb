package restore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/vault"
)

// door records who came, and does not open.
type door struct {
	asked []string
	meet  func()
}

func (d *door) Recovery(_ context.Context, vaultName, namespace, account string) (recovery.Deps, error) {
	d.asked = append(d.asked, vaultName+" as "+namespace+":"+account)
	if d.meet != nil {
		d.meet()
	}
	return recovery.Deps{}, fmt.Errorf("open vault: %w", vault.ErrUnavailable)
}

func reconcile(ctx context.Context, t *testing.T, d *door, namespace string, mode v1alpha1.RestoreMode, phase v1alpha1.RestorePhase) v1alpha1.Restore {
	t.Helper()
	key := client.ObjectKey{Namespace: namespace, Name: "r1"}
	rs := &v1alpha1.Restore{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		Spec:       v1alpha1.RestoreSpec{Vault: "main", Application: "shop", Mode: mode, ServiceAccountName: "someone"},
		Status:     v1alpha1.RestoreStatus{Phase: phase},
	}
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(rs).WithStatusSubresource(rs).Build()
	r := &Reconciler{Client: c, Reader: c, Access: d, Events: record.NewFakeRecorder(10), Now: time.Now}
	if _, err := r.Reconcile(ctx, ctrl.Request{NamespacedName: key}); err != nil {
		t.Fatal(err)
	}
	var got v1alpha1.Restore
	if err := c.Get(t.Context(), key, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRestoreRunsAsTheNamedAccount(t *testing.T) {
	d := &door{}
	got := reconcile(t.Context(), t, d, v1alpha1.SystemNamespace, v1alpha1.RestoreInPlace, "")
	if strings.Join(d.asked, ",") != "main as davit-system:someone" {
		t.Errorf("asked %q", d.asked)
	}
	ready := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady)
	if got.Status.Phase != v1alpha1.RestoreFailed || got.Status.StartedAt == nil || got.Status.FinishedAt == nil || ready.Reason != v1alpha1.ReasonRestoreFailed || !strings.Contains(ready.Message, "vault unavailable") {
		t.Errorf("status %+v", got.Status)
	}
}

// Only of a first try it is known that nothing was changed: what an agent did that died
// is not in the report of the next one.
func TestUntouched(t *testing.T) {
	for phase, want := range map[v1alpha1.RestorePhase]bool{"": true, v1alpha1.RestoreRunning: false} {
		got := reconcile(t.Context(), t, &door{}, v1alpha1.SystemNamespace, v1alpha1.RestoreInPlace, phase)
		if is := meta.IsStatusConditionTrue(got.Status.Conditions, v1alpha1.ConditionUntouched); is != want || got.Status.Phase != v1alpha1.RestoreFailed {
			t.Errorf("%q: untouched %v, %+v", phase, is, got.Status)
		}
	}
	if untouched(recovery.Report{StartedAt: time.Now()}, errors.New("the vault is away under way")) || !untouched(recovery.Report{StartedAt: time.Now()}, recovery.ErrRefused) {
		t.Error("what failed under way counts as untouched, or what was refused does not")
	}
}

func TestRefusedRestoreOpensNothing(t *testing.T) {
	d := &door{}
	got := reconcile(t.Context(), t, d, "guest", v1alpha1.RestoreTakeOver, "")
	if len(d.asked) > 0 || got.Status.Phase != v1alpha1.RestoreFailed {
		t.Errorf("asked %q, status %+v", d.asked, got.Status)
	}
}

func TestEndedRestoresStayAsTheyAre(t *testing.T) {
	for _, phase := range []v1alpha1.RestorePhase{v1alpha1.RestoreCompleted, v1alpha1.RestoreWarned, v1alpha1.RestoreFailed} {
		d := &door{}
		if got := reconcile(t.Context(), t, d, v1alpha1.SystemNamespace, v1alpha1.RestoreInPlace, phase); len(d.asked) > 0 || got.Status.Phase != phase {
			t.Errorf("%s became %s, asked %q", phase, got.Status.Phase, d.asked)
		}
	}
	d := &door{} // the control: one that was interrupted is taken up
	if reconcile(t.Context(), t, d, v1alpha1.SystemNamespace, v1alpha1.RestoreInPlace, v1alpha1.RestoreRunning); len(d.asked) != 1 {
		t.Errorf("an interrupted restore was left alone: %q", d.asked)
	}
}

func TestRestoreOfAnAgentThatStopsGoesOnLater(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := &door{meet: cancel}
	if got := reconcile(ctx, t, d, v1alpha1.SystemNamespace, v1alpha1.RestoreInPlace, ""); got.Status.Phase != "" || got.Status.FinishedAt != nil {
		t.Errorf("status %+v", got.Status)
	}
}

// TestARestoreHasADeadlineByItself counts from when it was first taken up, not
// from when the present agent did.
func TestARestoreHasADeadlineByItself(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	r := &Reconciler{Now: func() time.Time { return now }}
	for _, tt := range []struct {
		name  string
		limit time.Duration // 0: none of its own
		age   time.Duration
		over  bool
	}{
		{"of a day", 0, time.Hour, false},
		{"of a day, over", 0, 24*time.Hour + time.Second, true},
		{"longer by order", 72 * time.Hour, 25 * time.Hour, false},
		{"shorter by order", time.Hour, 2 * time.Hour, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rs := &v1alpha1.Restore{Status: v1alpha1.RestoreStatus{StartedAt: &metav1.Time{Time: now.Add(-tt.age)}}}
			if tt.limit > 0 {
				rs.Spec.Timeout = &metav1.Duration{Duration: tt.limit}
			}
			ctx, free := r.bounded(t.Context(), rs)
			defer free()
			if over := ctx.Err() != nil; over != tt.over {
				t.Fatalf("its time is over: %v, want %v", over, tt.over)
			}
			if cause := context.Cause(ctx); tt.over && (!errors.Is(cause, errTimeOver) || !strings.Contains(cause.Error(), "spec.timeout is")) {
				t.Errorf("it ended by %v", cause)
			}
		})
	}
}
