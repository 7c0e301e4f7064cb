package restore

import (
	"testing"

	"davit.dev/davit/internal/restore/shape"
)

// TestACopyLeavesTheOriginalsThingsAlone, although operators outside of the copy act on
// its custom resources: what they find there is of the copy, or nothing. The control is
// a restore into another namespace, which does as it is told.
func TestACopyLeavesTheOriginalsThingsAlone(t *testing.T) {
	for name, c := range map[string]struct {
		isolation *Isolation
		in        string
	}{"a copy": {&Isolation{Home: "copy"}, "copy"}, "no copy": {nil, "shop"}} {
		t.Run(name, func(t *testing.T) {
			r := newRig()
			r.m, r.s = pointOf(
				`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","uid":"u-ns"}}`,
				`{"apiVersion":"shop.example.com/v1","kind":"Till","metadata":{"name":"main","namespace":"shop","uid":"u-till"},"spec":{"queue":{"name":"orders","namespace":"shop"}}}`,
				`{"apiVersion":"s3.services.k8s.aws/v1alpha1","kind":"Bucket","metadata":{"name":"orders","namespace":"shop","uid":"u-bucket"},"spec":{"name":"orders"}}`,
			)
			r.c.serve("shop.example.com/v1", "tills", "Till", true)
			r.c.serve("s3.services.k8s.aws/v1alpha1", "buckets", "Bucket", true)
			res := run(t, r, Options{NamespaceMapping: map[string]string{"shop": "copy"}, Isolation: c.isolation})
			if len(res.Failures) > 0 {
				t.Fatal(res.Failures)
			}
			till := r.c.get("Till", "copy", "main")
			if till == nil || shape.Text(till.Object, "spec", "queue", "namespace") != c.in {
				t.Errorf("the custom resource is %v", till)
			}
			if bucket := r.c.get("Bucket", "copy", "orders"); (bucket == nil) != (c.isolation != nil) {
				t.Errorf("the bucket is %v", bucket)
			}
		})
	}
}
