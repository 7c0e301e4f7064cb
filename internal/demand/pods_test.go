package demand

import (
	"fmt"
	"slices"
	"strings"
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

// TestWhere: node selectors and what affinity requires, without what Davit adds; what is
// preferred holds nobody back.
func TestWhere(t *testing.T) {
	for spec, want := range map[string]string{
		`{}`: "[]",
		`{"nodeSelector":{"pool":"db","davit.dev/parked":"true"}}`: "[pool=db]",
		`{"nodeSelector":{"davit.dev/parked":"true"}}`:             "[]",
		`{"nodeSelector":{"pool":"db"},"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[
			{"matchExpressions":[{"key":"zone","operator":"In","values":["a","b"]}]},{},{"matchFields":[{"key":"metadata.name","operator":"In","values":["n1"]}]}]}}}}`: "[pool=db and zone In (a, b) pool=db and metadata.name=n1]",
		`{"affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":1,"preference":{"matchExpressions":[{"key":"zone","operator":"Exists"}]}}]}}}`: "[]",
	} {
		got, err := podsOf("pods", []byte(`{"metadata":{"name":"p"},"spec":`+spec+`}`))
		if err != nil || fmt.Sprint(got.Where) != want {
			t.Errorf("%s: %v, %v", spec, got.Where, err)
		}
	}
}

// TestDoors: classes by field and by annotation, and those that a point has itself.
func TestDoors(t *testing.T) {
	var d Demand
	for object, kind := range map[string]string{
		`{"metadata":{"namespace":"shop","name":"a"},"spec":{"ingressClassName":"nginx"}}`:                 ingresses,
		`{"metadata":{"namespace":"shop","name":"b","annotations":{"kubernetes.io/ingress.class":"old"}}}`: ingresses,
		`{"metadata":{"namespace":"shop","name":"c"}}`:                                                     ingresses,
		`{"metadata":{"name":"own"}}`:                                                                      ingressClasses,
		`{"metadata":{"namespace":"shop","name":"g"},"spec":{"gatewayClassName":"mesh"}}`:                  gateways,
	} {
		if err := d.door(kind, []byte(object)); err != nil {
			t.Error(err)
		}
	}
	slices.SortFunc(d.Doors, func(a, b preflight.Door) int { return strings.Compare(a.Name, b.Name) })
	want := []preflight.Door{
		{Namespace: "shop", Name: "a", Class: "nginx"},
		{Namespace: "shop", Name: "b", Class: "old", Noted: true},
		{Namespace: "shop", Name: "c"},
		{Namespace: "shop", Name: "g", Class: "mesh", Gateway: true},
	}
	if !slices.Equal(d.Doors, want) || !slices.Equal(d.IngressClasses, []string{"own"}) {
		t.Errorf("%+v", d)
	}
	if d.door(ingresses, []byte("{")) == nil {
		t.Error("half an object was taken")
	}
}
