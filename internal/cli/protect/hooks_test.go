package protect

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func TestIdle(t *testing.T) {
	pod := func(namespace, app string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: app, Labels: map[string]string{"app": app}}}
	}
	c := fake.NewClientBuilder().WithObjects(pod("shop", "db"), pod("elsewhere", "queue")).Build()
	for selector, idle := range map[string]bool{"db": false, "dbb": true, "queue": true} {
		app, policy, err := New("shop")
		if err != nil {
			t.Fatal(err)
		}
		if err := given(t, app, policy, "--namespace", "shop", "--hook", "name=rest; pods=app="+selector+"; before=true"); err != nil {
			t.Fatal(err)
		}
		said := strings.Join(Idle(t.Context(), c, app), "\n")
		if got := strings.Contains(said, "hook rest: no pod of the application has the labels"); got != idle {
			t.Errorf("pods=app=%s: %q, want it told: %v", selector, said, idle)
		}
		app.Spec.Namespaces = []string{"else*"}
		if said := Idle(t.Context(), c, app); selector == "queue" && len(said) > 0 {
			t.Errorf("by pattern: %q, want nothing", said)
		}
	}
}
