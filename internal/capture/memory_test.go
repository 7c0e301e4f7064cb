package capture

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/selection"
)

// crowd is a cluster with any number of objects of some kinds, which it makes
// page by page and forgets.
type crowd struct {
	*world
	each int // of every kind
}

// crowded are the kinds of which there may be very many.
var crowded = map[string]string{
	"configmaps": "ConfigMap", "secrets": "Secret", "serviceaccounts": "ServiceAccount", "services": "Service", "endpoints": "Endpoints",
	"pods": "Pod", "deployments.apps": "Deployment", "orders.shop.example.com": "Order",
}

func (c *crowd) List(ctx context.Context, q Query, page func([]unstructured.Unstructured) error) (Listed, error) {
	kind := crowded[q.Kind.Name()]
	if kind == "" || q.Name != "" {
		return c.world.List(ctx, q, page)
	}
	const size = 25
	for from := 0; from < c.each; from += size {
		objects := make([]unstructured.Unstructured, 0, size)
		for i := from; i < min(from+size, c.each); i++ {
			objects = append(objects, c.object(kind, i))
		}
		if err := page(objects); err != nil {
			return Listed{}, err
		}
	}
	return Listed{Revision: "100"}, nil
}

func (c *crowd) object(kind string, i int) unstructured.Unstructured {
	o := map[string]any{
		"apiVersion": "v1", "kind": kind,
		"metadata": map[string]any{"name": fmt.Sprintf("a-name-of-some-length-as-generated-%08d", i), "namespace": "shop", "labels": map[string]any{"app": "shop"}},
		"data":     map[string]any{"text": strings.Repeat("x", 500)},
	}
	pod := map[string]any{"containers": []any{map[string]any{"name": "c", "image": "shop:1"}}}
	switch kind {
	case "Service":
		o["spec"] = map[string]any{"selector": map[string]any{"app": "shop"}}
	case "Pod":
		o["spec"] = pod
	case "Deployment":
		o["spec"] = map[string]any{"template": map[string]any{"spec": pod}}
	}
	return unstructured.Unstructured{Object: o}
}

// meter is a sink that counts, and weighs what the capture keeps once all
// objects have come.
type meter struct {
	mu     sync.Mutex
	count  int64
	total  int64
	weight uint64
}

func (m *meter) Resource(res point.Resource) ObjectWriter { return &meterWriter{m: m, res: res} }

type meterWriter struct {
	m   *meter
	res point.Resource
}

func (w *meterWriter) Add(context.Context, []byte) error {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	w.res.Count++
	if w.m.count++; w.m.count == w.m.total {
		w.m.weight = weigh()
	}
	return nil
}

func (w *meterWriter) Close(context.Context) (point.Resource, error) { return w.res, nil }

func weigh() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// weightOf captures so many objects of each kind and returns what the capture had in memory
// at the last of them, and how many there were.
func weightOf(t *testing.T, each int, selector labels.Selector) (bytes, objects int64) {
	t.Helper()
	c := &crowd{world: newWorld(t, "kind: Namespace\nmetadata: {name: shop}"), each: each}
	m := &meter{total: int64(each * (len(crowded) - 1))} // Endpoints follow their Services
	spec := Spec{Application: "shop", ID: "shop-1", Namespaces: []string{"shop"}, Mode: ModeSnapshot}
	if selector != nil {
		spec.Select = selection.Selection{Any: []labels.Selector{selector}}
	}
	before := weigh()
	if _, err := Run(t.Context(), spec, Ports{Cluster: c, Volumes: c, Hooks: c, Sink: m}, Options{Now: c.clock}); err != nil {
		t.Fatal(err)
	}
	if m.weight == 0 {
		t.Fatalf("%d objects written, expected %d", m.count, m.total)
	}
	return int64(m.weight) - int64(before), m.total
}

// TestMemoryDoesNotGrowWithObjects captures N objects and ten times as many.
// What is kept of each must leave room for 300,000 of them in 200 MiB, of
// which the packs that are under way and one page of each kind take most.
func TestMemoryDoesNotGrowWithObjects(t *testing.T) {
	for name, test := range map[string]struct {
		selector labels.Selector
		most     float64 // bytes kept of an object, of all kinds together
	}{
		// Of Services 16 bytes are kept each, for the Endpoints that follow.
		"whole": {nil, 24},
		// Names of all, so that none is written twice, and workloads for
		// deciding which are covered.
		"selected": {labels.SelectorFromSet(labels.Set{"app": "shop"}), 350},
	} {
		t.Run(name, func(t *testing.T) {
			const n = 250
			weightOf(t, n, test.selector) // what is made once
			few, fewObjects := weightOf(t, n, test.selector)
			many, manyObjects := weightOf(t, 10*n, test.selector)
			each := float64(many-few) / float64(manyObjects-fewObjects)
			t.Logf("%d objects: %d KiB; %d objects: %d KiB; %.1f bytes each", fewObjects, few>>10, manyObjects, many>>10, each)
			if each > test.most {
				t.Errorf("%.1f bytes are kept of each object, want %.0f at most", each, test.most)
			}
		})
	}
}
