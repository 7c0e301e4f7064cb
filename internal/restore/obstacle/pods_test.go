package obstacle

import (
	"context"
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/restore/port"
)

// fickle is a target whose quota has room for the second pod that is tried.
type fickle struct {
	port.Cluster
	tried int
}

func (f *fickle) Get(context.Context, port.Served, string, string) (*unstructured.Unstructured, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "deployments"}, "web")
}

func (f *fickle) May(context.Context, string, port.Served, string) (bool, string, error) {
	return true, "", nil
}

func (f *fickle) Serves(context.Context, schema.GroupKind) ([]port.Served, error) {
	return []port.Served{{}}, nil
}

func (f *fickle) Try(_ context.Context, _ port.Served, obj *unstructured.Unstructured) error {
	if obj.GetKind() != "Pod" {
		return nil
	}
	if f.tried++; f.tried > 1 {
		return nil
	}
	return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web", errors.New("exceeded quota: tight"))
}

// TestRefusedOnce: a pod is tried once. The restore died where a quota got room between
// the refusal and the question for its words.
func TestRefusedOnce(t *testing.T) {
	web := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "web", "namespace": "shop"},
		"spec": map[string]any{"replicas": int64(1), "template": map[string]any{"spec": map[string]any{}}},
	}}
	cluster := &fickle{}
	f := Finder{Cluster: cluster, Exists: func(string) bool { return true }}
	found, err := f.Object(t.Context(), Object{Name: "Deployment shop/web", Kind: schema.GroupKind{Group: "apps", Kind: "Deployment"}, Obj: web})
	if err != nil || len(found) != 1 || !strings.Contains(found[0].Message, "exceeded quota: tight") || cluster.tried != 1 {
		t.Errorf("%+v, %v, tried %d times", found, err, cluster.tried)
	}
}
