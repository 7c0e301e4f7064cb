package cli

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/internal/cli/objects"
)

// A change made meanwhile, as the agent makes them all the time, does not make
// a command fail; what else is wrong does.
func TestPutTriesAgainAfterAConflict(t *testing.T) {
	conflict := apierrors.NewConflict(schema.GroupResource{Resource: "configmaps"}, "a", errors.New("changed"))
	for name, tc := range map[string]struct {
		first  error
		writes int
	}{"conflict": {conflict, 2}, "refused": {apierrors.NewForbidden(schema.GroupResource{}, "a", nil), 1}} {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a"}}
		writes := 0
		c := fake.NewClientBuilder().WithObjects(object.DeepCopy()).WithInterceptorFuncs(interceptor.Funcs{
			Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
				if writes++; writes == 1 {
					return tc.first
				}
				return c.Update(ctx, o, opts...)
			},
		}).Build()
		err := objects.Put(t.Context(), c, object, &corev1.ConfigMap{}, func(old *corev1.ConfigMap) { old.Data = map[string]string{"k": "v"} })
		var got corev1.ConfigMap
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(object), &got); err != nil {
			t.Fatal(err)
		}
		if writes != tc.writes || (err == nil) != (got.Data["k"] == "v") || (err == nil) != (tc.writes == 2) {
			t.Errorf("%s: %v after %d writes, data %v", name, err, writes, got.Data)
		}
	}
}
