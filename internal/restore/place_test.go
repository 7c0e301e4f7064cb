package restore

import (
	"fmt"
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
	if want := 3; creates != want { // the first, the missing one, and the one after it
		t.Errorf("%d creates, want %d: %v", creates, want, r.c.asked)
	}
}
