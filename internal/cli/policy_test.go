package cli

import (
	"bytes"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/reconcile/project"
)

// Whoever waits for a backup whose agent dies waits for the one that the next
// agent starts in its place, and for no other.
func TestBackupFollowsItsRestart(t *testing.T) {
	captured := func(name string, phase v1alpha1.PointPhase, restartedAs string) *v1alpha1.RecoveryPoint {
		p := &v1alpha1.RecoveryPoint{ObjectMeta: metav1.ObjectMeta{Namespace: "davit-system", Name: name}}
		p.Status.Phase = phase
		if restartedAs != "" {
			p.Annotations = map[string]string{project.AnnotationRestarted: restartedAs}
		}
		return p
	}
	for name, tc := range map[string]struct {
		first *v1alpha1.RecoveryPoint
		want  string
		code  int
	}{
		"started again":     {captured("shop-1", v1alpha1.PointFailed, "shop-2"), "shop-3 is in the vault", exit.OK},
		"failed by itself":  {captured("shop-1", v1alpha1.PointFailed, ""), "", exit.Failed},
		"was not disturbed": {captured("shop-1", v1alpha1.PointAvailable, ""), "shop-1 is in the vault", exit.OK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			second, third := captured("shop-2", v1alpha1.PointFailed, "shop-3"), captured("shop-3", v1alpha1.PointAvailable, "")
			c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(tc.first, second, third).Build()
			var out bytes.Buffer
			e := &env{Streams: Streams{Out: &out}, progress: &output.Progress{}}
			err := e.awaitPoint(t.Context(), c, tc.first.DeepCopy())
			if exit.Code(err) != tc.code || !strings.HasPrefix(out.String(), tc.want) {
				t.Errorf("exit code %d (%v), printed %q", exit.Code(err), err, out.String())
			}
		})
	}
}
