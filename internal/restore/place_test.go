package restore

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"davit.dev/davit/internal/restore/shape"
)

// Where objects are there already they are looked at, not created again; one
// that is missing among them is created all the same.
func TestLooksFirstWhereObjectsExist(t *testing.T) {
	for _, n := range []int{20, 2 * many} { // one by one, and page by page
		t.Run(fmt.Sprint(n), func(t *testing.T) { looksFirst(t, n) })
	}
}

func looksFirst(t *testing.T, n int) {
	const missing = 12
	objects := []string{`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","uid":"u-ns"}}`}
	for i := range n {
		objects = append(objects, fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c%d","namespace":"shop","uid":"u-%d"},"data":{"a":"b"}}`, i, i))
	}
	r := newRig()
	r.m, r.s = pointOf(objects...)
	r.c.put("v1", "Namespace", "", "shop", shape.Document{})
	for i := range n {
		if i != missing {
			r.c.put("v1", "ConfigMap", "shop", fmt.Sprintf("c%d", i), shape.Document{"data": shape.Document{"a": "b"}})
		}
	}
	res := run(t, r, Options{Workers: 1})
	if len(res.Failures)+len(res.Warnings) > 0 || res.Created != 1 || res.Skipped != int64(n) { // the namespace is skipped too
		t.Errorf("result %+v", res)
	}
	if r.c.get("ConfigMap", "shop", fmt.Sprintf("c%d", missing)) == nil {
		t.Error("the missing object was not created")
	}
	creates := strings.Count(strings.Join(r.c.asked, "\n"), "create ConfigMap shop/")
	if want := 2; creates != want { // the missing one, and the one after it
		t.Errorf("%d creates, want %d: %v", creates, want, r.c.asked)
	}
}

// Quotas count an object that is refused because it exists: in a namespace that
// has any, nothing is created before it was looked for.
func TestQuotasAreNotChargedForWhatExists(t *testing.T) {
	for _, quota := range []bool{true, false} {
		r := newRig()
		r.m, r.s = pointOf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","uid":"u-ns"}}`,
			`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"shop","uid":"u-a"}}`,
			`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b","namespace":"shop","uid":"u-b"}}`)
		r.c.put("v1", "Namespace", "", "shop", shape.Document{})
		r.c.put("v1", "ConfigMap", "shop", "b", shape.Document{})
		if quota {
			r.c.put("v1", "ResourceQuota", "shop", "q", shape.Document{})
		}
		run(t, r, Options{Workers: 1})
		charged := slices.Contains(r.c.asked, "create ConfigMap shop/b")
		if charged == quota {
			t.Errorf("with a quota %t: charged for what exists: %t (%v)", quota, charged, r.c.asked)
		}
	}
}
