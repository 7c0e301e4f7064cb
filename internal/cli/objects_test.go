package cli_test

import (
	"context"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/objects"
	"davit.dev/davit/internal/process"
)

// TestPutGoesOnAfterAConflict: the agent changed the object in between.
func TestPutGoesOnAfterAConflict(t *testing.T) {
	app := func(vault string) *v1alpha1.Application {
		return &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "shop"}, Spec: v1alpha1.ApplicationSpec{Vault: vault}}
	}
	conflicts := 2
	c := fake.NewClientBuilder().WithScheme(process.Scheme()).WithObjects(app("old")).WithInterceptorFuncs(interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
			if conflicts--; conflicts >= 0 {
				return apierrors.NewConflict(schema.GroupResource{Resource: "applications"}, "shop", nil)
			}
			return c.Update(ctx, obj, opts...)
		},
	}).Build()
	err := objects.Put(t.Context(), c, app("new"), &v1alpha1.Application{}, func(old *v1alpha1.Application) { old.Spec.Vault = "new" })
	var got v1alpha1.Application
	if getErr := c.Get(t.Context(), client.ObjectKey{Namespace: "ns", Name: "shop"}, &got); err != nil || getErr != nil || got.Spec.Vault != "new" {
		t.Errorf("%v, %v, vault %q", err, getErr, got.Spec.Vault)
	}
}
