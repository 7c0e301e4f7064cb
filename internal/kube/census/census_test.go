package census

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestOwn: what people made is listed whatever its name, else a plan that names it
// would be refused for it.
func TestOwn(t *testing.T) {
	for _, c := range []struct {
		name   string
		labels map[string]string
		want   bool
	}{
		{"west-network", nil, false},
		{"davit-network", nil, false},
		{"network", map[string]string{"app.kubernetes.io/part-of": "davit"}, false},
		{"davit-run-r1", map[string]string{"davit.dev/managed-by": "davit"}, true},
		{"restore-report-x", map[string]string{"davit.dev/restore": "x"}, true},
		{"davit-alerts", map[string]string{"app.kubernetes.io/part-of": "davit"}, true},
	} {
		if got := own(metav1.ObjectMeta{Name: c.name, Labels: c.labels}); got != c.want {
			t.Errorf("%s %v: %t", c.name, c.labels, got)
		}
	}
}
