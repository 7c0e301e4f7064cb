package gitops

import (
	"context"
	"maps"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/port"
	"davit.dev/davit/internal/restore/shape"
)

// one is a cluster with one reconciler, of which another takes itself off before the
// first write.
type one struct {
	port.Cluster
	live  shape.Document
	other string // what its annotation says by then

	patches []string
}

func (c *one) Serves(context.Context, schema.GroupKind) ([]port.Served, error) {
	return make([]port.Served, 1), nil
}

func (c *one) Get(context.Context, port.Served, string, string) (*unstructured.Unstructured, error) {
	return (&unstructured.Unstructured{Object: c.live}).DeepCopy(), nil
}

func (c *one) Patch(_ context.Context, _ port.Served, _, _ string, patch []byte) (*unstructured.Unstructured, error) {
	c.patches = append(c.patches, string(patch))
	if c.other != "" {
		shape.Child(c.live, "metadata")["annotations"], c.other = map[string]any{Annotation: c.other}, ""
		return nil, apierrors.NewConflict(schema.GroupResource{}, "shop", nil)
	}
	return nil, nil
}

// TestTwoThatEndAtOnce: the second of them resumes what it made, and does not say that it
// stays suspended for the first.
func TestTwoThatEndAtOnce(t *testing.T) {
	c := &one{other: `{"by":"r1","for":{"shop":"r1"}}`, live: shape.Document{"metadata": shape.Document{
		"name": "shop", "annotations": map[string]any{Annotation: `{"by":"r1","for":{"shop":"r1","news":"r2"}}`},
	}}}
	s := Stage{Cluster: c, ID: "r1", Application: "shop"}
	resumed, why, err := s.Resume(t.Context(), Reconciler{Kind: KindKustomization, Namespace: "flux-system", Name: "shop"})
	if !resumed || why != "" || err != nil {
		t.Errorf("resumed %t, %q, %v", resumed, why, err)
	}
}

// Apply is as the API server's: what it is given with another version it refuses.
func (c *one) Apply(_ context.Context, _ port.Served, u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if c.other != "" {
		shape.Child(c.live, "metadata")["annotations"], c.other = map[string]any{Annotation: c.other}, ""
		shape.Child(c.live, "metadata")["resourceVersion"] = "2"
	}
	if v := u.GetResourceVersion(); v != "" && v != shape.Text(c.live, "metadata", "resourceVersion") {
		return nil, apierrors.NewConflict(schema.GroupResource{}, "shop", nil)
	}
	c.live = u.DeepCopy().Object
	return u, nil
}

// TestWhoComesWhileAReconcilerIsWritten: another restore notes that it relies on its rest, or does so no longer, after
// this one has read it and before it writes it as the point has it. The control is an object that this one does not
// keep at rest, which is written as it is.
func TestWhoComesWhileAReconcilerIsWritten(t *testing.T) {
	const ours = `{"by":"r1","for":{"shop":"r1"}}`
	for name, tt := range map[string]struct {
		own, read, then string
		want            map[string]string
	}{
		"comes":   {ours, "", `{"by":"r2","for":{"news":"r2"}}`, map[string]string{"shop": "r1", "news": "r2"}},
		"goes":    {ours, `{"by":"r2","for":{"news":"r2"}}`, `{"by":"r3","for":{"till":"r3"}}`, map[string]string{"shop": "r1", "till": "r3"}},
		"no rest": {"", "", `{"by":"r2","for":{"news":"r2"}}`, nil},
	} {
		noting := func(note string) shape.Document {
			u := &unstructured.Unstructured{Object: shape.Document{"metadata": shape.Document{"name": "shop"}}}
			if note != "" {
				u.SetAnnotations(map[string]string{Annotation: note})
			}
			return u.Object
		}
		c := &one{other: tt.then, live: noting(tt.read)}
		shape.Child(c.live, "metadata")["resourceVersion"] = "1"
		live, _ := c.Get(t.Context(), port.Served{}, "", "") // never fails
		obj := &unstructured.Unstructured{Object: noting(tt.own)}
		if _, err := (Stage{Cluster: c, ID: "r1", Application: "shop"}).Apply(t.Context(), port.Served{}, obj, live); err != nil {
			t.Fatal(err)
		}
		if got := noted(c.live).For; !maps.Equal(got, tt.want) {
			t.Errorf("%s: relied on by %v, want %v", name, got, tt.want)
		}
	}
}

// TestReleasedForTheLast: a run lets a reconciler go on that restores of other applications rely
// on, and does not start it under them; the last of these does. One nobody relies on goes on.
func TestReleasedForTheLast(t *testing.T) {
	for note, waits := range map[string]bool{`{"by":"run"}`: false, `{"by":"r1","for":{"shop":"r1"}}`: true} {
		c := &one{live: shape.Document{"metadata": shape.Document{"name": "shop", "annotations": map[string]any{Annotation: note}}, "spec": shape.Document{"suspend": true}}}
		why, err := Stage{Cluster: c, ID: "run"}.Release(t.Context(), Reconciler{Kind: KindKustomization, Namespace: "flux-system", Name: "shop"})
		if err != nil || (why != "") != waits || (len(c.patches) > 0) == waits {
			t.Errorf("%s: %q, %v, %q", note, why, err, c.patches)
		}
		if waits && !strings.Contains(why, "r1 of shop") {
			t.Errorf("%s: it does not say for whom: %q", note, why)
		}
	}
}
