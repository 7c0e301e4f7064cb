// Package objects writes objects that may be there already.
package objects

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Put creates an object, or changes the one that is there. old is an empty
// object of the same kind, into which that one is read.
func Put[T client.Object](ctx context.Context, c client.Client, object, old T, change func(old T)) error {
	err := c.Create(ctx, object)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	if err := c.Get(ctx, client.ObjectKeyFromObject(object), old); err != nil {
		return err
	}
	change(old)
	return c.Update(ctx, old)
}
