package index

import (
	"context"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/shape"
)

// source holds objects of one kind.
type source []string

func (s source) ReadResource(_ context.Context, _ point.Resource, fn func([]byte) error) error {
	for _, raw := range s {
		if err := fn([]byte(raw)); err != nil {
			return err
		}
	}
	return nil
}
func (source) CheckObjects(context.Context, *point.Manifest) error { return nil }
func (source) CheckVolume(context.Context, point.Volume) error     { return nil }

// TestACopyLacksWhatIsComposed of things outside of the cluster, whatever its group,
// and a person is told. What is no copy has it.
func TestACopyLacksWhatIsComposed(t *testing.T) {
	fits := func(schema.GroupKind, shape.Document) string { return "" }
	for name, c := range map[string]struct {
		unfit func(schema.GroupKind, shape.Document) string
		total int64
	}{"a copy": {fits, 1}, "no copy": {nil, 2}} {
		r := Reader{
			Source: source{
				`{"metadata":{"namespace":"shop","name":"db","finalizers":["composite.apiextensions.crossplane.io"]}}`,
				`{"metadata":{"namespace":"shop","name":"cache"}}`,
			},
			Manifest: &point.Manifest{ID: "p", Resources: []point.Resource{{Group: "shop.test", Version: "v1", Kind: "Database", Namespaced: true}}},
			LeftOut:  func(point.Resource) string { return "" }, Unfit: c.unfit,
		}
		x, err := r.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if db := x.Entries[0][0]; x.Total != c.total || db.Warn != (c.unfit != nil) || (db.Skip == "") != (c.unfit == nil) {
			t.Errorf("%s has %d objects, and of the database: %q, told: %t", name, x.Total, db.Skip, db.Warn)
		}
	}
}
