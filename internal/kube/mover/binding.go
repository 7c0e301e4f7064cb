package mover

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// errBound ends the wait for a pod whose claim has come to have its volume.
var errBound = errors.New("claim is bound")

// awaitBinding is awaitHolder for a claim without a volume. The scheduler has the
// volume made for the pod, and then looks only once a second whether it is there; a
// pod that was tried too early it leaves alone for as long. A pod of a claim that is
// bound it places at once: so the pod is made anew when that is so, unless it has
// its node by then.
func (m *Mover) awaitBinding(ctx context.Context, req Request, pod *corev1.Pod, enough func(*corev1.Pod) bool) (*corev1.Pod, error) {
	waiting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		claim := &corev1.PersistentVolumeClaim{}
		claim.Namespace, claim.Name = req.Namespace, req.Claim
		err := await(waiting, m.workload, claim, &corev1.PersistentVolumeClaimList{}, func(exists bool) (bool, error) {
			return exists && claim.Status.Phase == corev1.ClaimBound, nil
		})
		if err == nil {
			stop(errBound)
		}
	}()
	running, err := m.awaitHolder(waiting, req, pod, enough)
	bound := err != nil && ctx.Err() == nil && errors.Is(context.Cause(waiting), errBound)
	stop(nil)
	<-looked
	if !bound {
		return running, err
	}
	if err := m.placeAnew(ctx, req, pod); err != nil {
		return nil, err
	}
	return m.awaitHolder(ctx, req, pod, enough)
}

// placeAnew replaces a holder that has no node: such a one is gone at once.
func (m *Mover) placeAnew(ctx context.Context, req Request, pod *corev1.Pod) error {
	var now corev1.Pod
	err := m.workload.Get(ctx, client.ObjectKeyFromObject(pod), &now)
	if err != nil || now.Spec.NodeName != "" {
		return nil //nolint:nilerr // whoever waits for it sees what is wrong
	}
	as := client.Preconditions{UID: &now.UID, ResourceVersion: &now.ResourceVersion}
	err = m.workload.Delete(ctx, &now, as, client.GracePeriodSeconds(0))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // it has its node now
	}
	if err != nil {
		return fmt.Errorf("make holder pod anew: %w", err)
	}
	for { // what is gone uses up the namespace's quota until their controller has looked
		err := m.createHolder(ctx, req, pod)
		if !apierrors.IsForbidden(err) || pause(ctx, 250*time.Millisecond) != nil {
			return err
		}
	}
}
