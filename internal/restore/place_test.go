package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/restore/vacancy"
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

// A copy that is to make its namespaces writes into none that came into being after the
// preflight; without that rule it does.
func TestNewNamespacesOnly(t *testing.T) {
	for _, only := range []bool{true, false} {
		opts := Options{NewNamespaces: only, NamespaceMapping: map[string]string{"shop": "copy"}, Workers: 1}
		r := newRig()
		r.m, r.s = pointOf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","uid":"u-ns"}}`, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"shop","uid":"u-a"}}`)
		taken := func(stage string) bool {
			found, err := r.engine(opts).Preflight(t.Context())
			if err != nil {
				t.Fatal(stage, err)
			}
			return slices.ContainsFunc(found, func(f Finding) bool { return f.Reason == "NamespaceTaken" })
		}
		if taken("before") {
			t.Error("a namespace is taken that is not there")
		}
		var err error
		synctest.Test(t, func(t *testing.T) {
			_, err = r.engine(opts).RunAfter(t.Context(), func(context.Context) error {
				r.c.put("v1", "Namespace", "", "copy", shape.Document{})
				return nil
			})
		})
		if wrote := r.c.get("ConfigMap", "copy", "a") != nil; wrote == only || errors.Is(err, vacancy.ErrTaken) != only {
			t.Errorf("only new ones %v: wrote %v, %v", only, wrote, err)
		}
		if taken("after") != only {
			t.Errorf("only new ones %v: the preflight finds taken %v", only, !only)
		}
	}
	r := newRig() // one that it made itself is its own
	if res := run(t, r, Options{NewNamespaces: true, NamespaceMapping: map[string]string{"shop": "copy"}}); res.Failed > 0 {
		t.Errorf("%+v", res)
	}
	r.v = newRig().v
	run(t, r, Options{NewNamespaces: true, NamespaceMapping: map[string]string{"shop": "copy"}})
}
