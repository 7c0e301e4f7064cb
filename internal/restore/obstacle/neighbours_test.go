package obstacle

import (
	"context"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/report"
)

// holding is a target that has some objects, by name, and no more.
type holding struct {
	port.Cluster
	names []string
}

func (h *holding) Get(_ context.Context, _ port.Served, _, name string) (*unstructured.Unstructured, error) {
	if slices.Contains(h.names, name) {
		return &unstructured.Unstructured{}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{}, name)
}

func (h *holding) Serves(context.Context, schema.GroupKind) ([]port.Served, error) {
	return []port.Served{{}}, nil
}

// TestPodsThatWouldBeginEmpty: the controller of a StatefulSet makes all its pods, also
// beside the one whose volume the point has.
func TestPodsThatWouldBeginEmpty(t *testing.T) {
	for name, tt := range map[string]struct {
		replicas any
		brings   []string
		there    []string
		want     string // empty: nothing is said
	}{
		"one of three":               {int64(3), []string{"data-ring-1"}, nil, "of ring-1 alone: ring-0, ring-2 would"},
		"the others are there":       {int64(3), []string{"data-ring-1"}, []string{"data-ring-0", "data-ring-2"}, ""},
		"one of the others is there": {int64(3), []string{"data-ring-1"}, []string{"data-ring-0"}, "ring-1 alone: ring-2 would"},
		"the whole set is there":     {int64(3), []string{"data-ring-1"}, []string{"ring"}, ""},
		"all of three":               {int64(3), []string{"data-ring-0", "data-ring-1", "data-ring-2"}, nil, ""},
		"none, as was asked for":     {int64(3), nil, nil, ""},
		"one of one":                 {nil, []string{"data-ring-0"}, nil, ""},
		"at rest":                    {int64(0), []string{"data-ring-0"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			spec := map[string]any{"volumeClaimTemplates": []any{map[string]any{"metadata": map[string]any{"name": "data"}}}}
			if tt.replicas != nil {
				spec["replicas"] = tt.replicas
			}
			ring := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": map[string]any{"name": "ring", "namespace": "shop"}, "spec": spec,
			}}
			f := Finder{
				Cluster: &holding{names: tt.there}, Exists: func(string) bool { return false },
				Brings: func(_ schema.GroupKind, _, name string) bool { return slices.Contains(tt.brings, name) },
			}
			found, err := f.Object(t.Context(), Object{Name: "StatefulSet shop/ring", Kind: schema.GroupKind{Group: "apps", Kind: "StatefulSet"}, Obj: ring})
			if err != nil || len(found) > 1 || (tt.want == "") != (len(found) == 0) {
				t.Fatalf("%+v, %v", found, err)
			}
			if tt.want != "" && (!strings.Contains(found[0].Message, tt.want) || found[0].Severity != report.Warning) {
				t.Errorf("%+v, want %q", found[0], tt.want)
			}
		})
	}
}
