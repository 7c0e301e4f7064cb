// Package objects helps the commands to make objects and to write them, also
// where they are there already.
package objects

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Put creates an object, or changes the one that is there. old is an empty
// object of the same kind, into which that one is read.
func Put[T client.Object](ctx context.Context, c client.Client, object, old T, change func(old T)) error {
	err := c.Create(ctx, object)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	// The agent writes status all the time: a conflict is no reason to fail.
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(object), old); err != nil {
			return err
		}
		change(old)
		return c.Update(ctx, old)
	})
}

// Duration is the field for a flag: none where the flag was not given.
func Duration(d time.Duration) *metav1.Duration {
	if d == 0 {
		return nil
	}
	return &metav1.Duration{Duration: d}
}
