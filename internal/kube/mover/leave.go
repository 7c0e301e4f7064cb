package mover

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
)

// letGo removes the holder of a volume that was moved, or was not. Nothing waits
// for the end of a pod that no longer matters: it does nothing with the volume,
// and what the node wrote there was on the disk before the task was done.
func (m *Mover) letGo(ctx context.Context, req Request, op v1alpha1.VolumeOperation, failed error) error {
	switch {
	case op == v1alpha1.VolumeRead && !req.Live:
		return m.dismissHolder(ctx, req) // nobody else wants a volume that was made to be read
	case failed != nil || m.isInTheWay(ctx, req):
		return m.removeHolder(ctx, req)
	}
	return m.dismissHolder(ctx, req)
}

// isInTheWay tells whether a holder on its way out could keep a workload from
// starting for longer than until it is gone. Two pods of one node share a volume,
// and what another node wants attached is waited for there, as long as it takes:
// but the volume that one pod alone may use is refused to all others, and so is a
// pod for which a quota has no room, to be tried again only after a while. What
// cannot be found out counts as in the way.
func (m *Mover) isInTheWay(ctx context.Context, req Request) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var pvc corev1.PersistentVolumeClaim
	if err := m.workload.Get(ctx, client.ObjectKey{Namespace: req.Namespace, Name: req.Claim}, &pvc); err != nil {
		return true
	}
	if slices.Contains(pvc.Spec.AccessModes, corev1.ReadWriteOncePod) {
		return true
	}
	var quotas corev1.ResourceQuotaList
	err := m.workload.List(ctx, &quotas, client.InNamespace(req.Namespace), client.Limit(1))
	return err != nil || len(quotas.Items) > 0
}

// removeHolder removes the pod also when ctx is done already, and waits until
// it is gone, so that the volume is free for its workload.
func (m *Mover) removeHolder(ctx context.Context, req Request) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: req.Namespace, Name: req.holderName()}}
	if err := m.deleteAndWait(ctx, m.workload, pod); err != nil {
		return fmt.Errorf("remove holder pod %s/%s: %w", req.Namespace, pod.Name, err)
	}
	return nil
}

// dismissHolder removes the pod and does not wait until it is gone.
func (m *Mover) dismissHolder(ctx context.Context, req Request) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: req.Namespace, Name: req.holderName()}}
	if err := client.IgnoreNotFound(m.workload.Delete(ctx, pod)); err != nil {
		return fmt.Errorf("remove holder pod %s/%s: %w", req.Namespace, pod.Name, err)
	}
	return nil
}
