package mover

import (
	"context"
	"errors"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/point"
)

// comingTo says where the volume of a holder that does not run yet will be, if
// that is known and the node's process waits for it: the kubelet mounts first, and
// takes a second or more until the container runs and the cluster knows.
func (m *Mover) comingTo(ctx context.Context, req Request, pod *corev1.Pod) place {
	if pod.Spec.NodeName == "" || !pod.DeletionTimestamp.IsZero() || regrouped(pod) || !m.awaitsMounts(ctx, pod.Spec.NodeName) {
		return place{}
	}
	at, err := m.placeOf(ctx, req, pod)         // it fails while the claim is not bound
	at.coming = err == nil && at.hostPath == "" // nothing is mounted for a directory of the node
	return at
}

// regrouped tells whether the kubelet changes the owners and modes of all that is in the
// volume, after it has mounted it and before the pod runs. Davit asks for no group, but
// an admission may (OpenShift's gives every pod one); work beside that would leave some
// files as they were captured and others not.
func regrouped(pod *corev1.Pod) bool {
	return pod.Spec.SecurityContext != nil && pod.Spec.SecurityContext.FSGroup != nil
}

// awaitsMounts tells whether the node's process is ready and knows how to wait: one
// of an earlier version calls a volume that is not there yet an error.
func (m *Mover) awaitsMounts(ctx context.Context, node string) bool {
	var pods corev1.PodList
	if m.system.List(ctx, &pods, client.InNamespace(v1alpha1.SystemNamespace), client.MatchingLabels{NodeAppLabel: NodeAppName}) != nil {
		return false
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Spec.NodeName == node && podReady(p) {
			return p.Annotations[AwaitsMounts] == "true"
		}
	}
	return false
}

// runWhileStarting is runTask while the holder starts. If that does not come to
// run, this says why, and the task is called off.
func (m *Mover) runWhileStarting(ctx context.Context, req Request, op v1alpha1.VolumeOperation, snap *point.Snapshot, at place) (Result, error) {
	work, stop := context.WithCancelCause(ctx)
	var starting sync.WaitGroup
	starting.Go(func() {
		ctx, cancel := context.WithTimeout(work, at.startBy.Sub(m.opts.Now()))
		defer cancel()
		pod := &corev1.Pod{}
		pod.Namespace, pod.Name = req.Namespace, req.holderName()
		if _, err := m.awaitHolder(ctx, req, pod, func(*corev1.Pod) bool { return false }); err != nil && work.Err() == nil {
			stop(err)
		}
	})
	res, err := m.runTask(work, req, op, snap, at)
	cause := context.Cause(work)
	stop(nil)
	starting.Wait()
	if err != nil && cause != nil && !errors.Is(cause, context.Canceled) && ctx.Err() == nil {
		return Result{}, cause
	}
	return res, err
}
