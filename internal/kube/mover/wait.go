package mover

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// relook bounds how long a wait trusts its watch.
const relook = 5 * time.Second

// pause waits, or returns ctx's error if it is done first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// await reads obj whenever something changed in its namespace's objects of its
// kind, and at least every few seconds, until look says it is done. look gets
// exists false when there is no such object.
func await(ctx context.Context, c client.WithWatch, obj client.Object, list client.ObjectList, look func(exists bool) (done bool, err error)) error {
	for {
		w, err := c.Watch(ctx, list, client.InNamespace(obj.GetNamespace()), client.MatchingFields{"metadata.name": obj.GetName()})
		if err != nil {
			w = watch.NewEmptyWatch() // look at intervals instead
		}
		done, err := awaitOn(ctx, c, obj, w, look)
		w.Stop()
		if done || err != nil {
			return err
		}
	}
}

// awaitOn is await for the life of one watch.
func awaitOn(ctx context.Context, c client.Client, obj client.Object, w watch.Interface, look func(bool) (bool, error)) (bool, error) {
	key := client.ObjectKeyFromObject(obj)
	timer := time.NewTicker(relook)
	defer timer.Stop()
	for {
		err := c.Get(ctx, key, obj)
		switch {
		case err == nil || apierrors.IsNotFound(err):
			done, lookErr := look(err == nil)
			if done || lookErr != nil {
				return true, lookErr
			}
		case ctx.Err() != nil:
			return false, ctx.Err()
		case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
			return false, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-timer.C:
		case _, open := <-w.ResultChan():
			if !open {
				return false, pause(ctx, 200*time.Millisecond)
			}
		}
	}
}

// deleteAndWait removes obj and returns when it is gone. A missing object is
// no error; one that has since been made anew under the name is left alone.
func (m *Mover) deleteAndWait(ctx context.Context, c client.WithWatch, obj client.Object) error {
	key := client.ObjectKeyFromObject(obj)
	err := c.Get(ctx, key, obj)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	uid := obj.GetUID()
	err = c.Delete(ctx, obj, client.Preconditions{UID: &uid})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil && !apierrors.IsConflict(err) {
		return err
	}
	err = await(ctx, c, obj, listFor(obj), func(exists bool) (bool, error) {
		if pod, ok := obj.(*corev1.Pod); ok && exists && obj.GetUID() == uid {
			if why := m.nodeTrouble(ctx, pod.Spec.NodeName); why != "" {
				return false, fmt.Errorf("it goes when its node is back, or removed from the cluster: %s", why)
			}
		}
		return !exists || obj.GetUID() != uid, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("still there after a minute: is its node alive?")
	}
	return err
}
