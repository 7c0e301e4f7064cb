package demand

import (
	"testing"

	"davit.dev/davit/internal/preflight"
)

func TestPodsOf(t *testing.T) {
	const c = `{"containers":[{"resources":{"requests":{"cpu":"250m","memory":"64Mi"}}}]}`
	one := preflight.Room{CPU: 250, Memory: 64 << 20, Pods: 1}
	for _, x := range []struct {
		name, kind, object string
		count              int64
		every              bool
		each               preflight.Room
	}{
		{"deployment without replicas", "deployments.apps", `{"spec":{"template":{"spec":` + c + `}}}`, 1, false, one},
		{"none wanted", "deployments.apps", `{"spec":{"replicas":0,"template":{"spec":` + c + `}}}`, 0, false, one},
		{"at rest", "deployments.apps", `{"metadata":{"annotations":{"davit.dev/replicas-before-fence":"4"}},"spec":{"replicas":0,"template":{"spec":` + c + `}}}`, 4, false, one},
		{"every node", "daemonsets.apps", `{"spec":{"template":{"spec":` + c + `}}}`, 1, true, one},
		{"pod", "pods", `{"metadata":{"name":"p"},"spec":` + c + `}`, 1, false, one},
		{"pod of a controller", "pods", `{"metadata":{"ownerReferences":[{"controller":true}]},"spec":` + c + `}`, 0, false, preflight.Room{}},
		{"job", "jobs.batch", `{"spec":{"parallelism":3,"template":{"spec":` + c + `}}}`, 3, false, one},
		{"job that is over", "jobs.batch", `{"spec":{"template":{"spec":` + c + `}},"status":{"completionTime":"2026-01-01T00:00:00Z"}}`, 0, false, preflight.Room{}},
		{"overhead", "pods", `{"spec":{"overhead":{"cpu":"50m"},"containers":[{"resources":{"requests":{"cpu":"250m"}}}]}}`, 1, false, preflight.Room{CPU: 300, Pods: 1}},
		{"less than nothing", "pods", `{"spec":{"containers":[{"resources":{"requests":{"cpu":"-1"}}}]}}`, 1, false, preflight.Room{Pods: 1}},
	} {
		got, err := podsOf(x.kind, []byte(x.object))
		if err != nil || got.Count != x.count || x.count > 0 && (got.EveryNode != x.every || got.Each != x.each) {
			t.Errorf("%s: %+v, %v", x.name, got, err)
		}
	}
	if _, err := podsOf("pods", []byte(`{`)); err == nil {
		t.Error("half an object was taken")
	}
}

// FuzzPodsOf: whatever a point holds, sums of it stay numbers.
func FuzzPodsOf(f *testing.F) {
	f.Add("pods", []byte(`{"spec":{"containers":[{"resources":{"requests":{"cpu":"9E","memory":"9E"}}}]}}`))
	f.Add("deployments.apps", []byte(`{"spec":{"replicas":2147483647,"template":{"spec":{"initContainers":[{}]}}}}`))
	f.Fuzz(func(t *testing.T, kind string, object []byte) {
		p, err := podsOf(kind, object)
		if err != nil {
			return
		}
		if p.Count < 0 || p.Each.CPU < 0 || p.Each.Memory < 0 {
			t.Fatalf("%+v", p)
		}
	})
}
