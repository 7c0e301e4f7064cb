// Package policy is what the reconcilers share about policies.
package policy

import (
	"context"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"davit.dev/davit/api/v1alpha1"
)

// Applications finds the applications that use a policy, so that they are
// looked at when it changes.
func Applications(c client.Reader) handler.MapFunc {
	return func(ctx context.Context, o client.Object) []ctrl.Request {
		var apps v1alpha1.ApplicationList
		if err := c.List(ctx, &apps, client.InNamespace(o.GetNamespace())); err != nil {
			log.FromContext(ctx).Error(err, "applications not listed")
			return nil
		}
		var out []ctrl.Request
		for i := range apps.Items {
			if apps.Items[i].Spec.Policy == o.GetName() {
				out = append(out, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&apps.Items[i])})
			}
		}
		return out
	}
}
