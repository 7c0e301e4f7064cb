package target

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore"
)

// TestASilentVaultIsKeptApartFromDamage: the node's word on why a claim was not
// filled reaches the restore.
func TestASilentVaultIsKeptApartFromDamage(t *testing.T) {
	for name, test := range map[string]struct {
		status  v1alpha1.VolumeTaskStatus
		process bool
		silent  bool
	}{
		"damage":          {v1alpha1.VolumeTaskStatus{Phase: v1alpha1.TaskFailed, Message: "stored data is damaged"}, true, false},
		"silence":         {v1alpha1.VolumeTaskStatus{Phase: v1alpha1.TaskFailed, Message: "vault unavailable", NoAnswer: true}, true, true},
		"no node process": {v1alpha1.VolumeTaskStatus{}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			v := NewVolumes(mover.New(cluster(test.status, test.process), nil, mover.Options{}), nil, "main")
			_, err := v.fill(t.Context(), mover.Request{
				Vault: "main", Site: "east", Source: "shop/shop/data", Node: "n1", HostPath: "/srv", Owner: "r", Namespace: "shop", Claim: "data",
			}, point.Snapshot{ID: "s"})
			if err == nil || errors.Is(err, restore.ErrNoAnswer) != test.silent || !strings.Contains(err.Error(), test.status.Message) {
				t.Errorf("%v", err)
			}
		})
	}
}

// cluster has one node, whose process ends every task with this status.
func cluster(status v1alpha1.VolumeTaskStatus, process bool) client.WithWatch {
	objects := []client.Object{&corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data"},
		Spec:       corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}},
	}}
	if process {
		objects = append(objects, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "davit-node-1", Labels: map[string]string{mover.NodeAppLabel: mover.NodeAppName}},
			Spec:       corev1.PodSpec{NodeName: "n1"},
			Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
		})
	}
	return fake.NewClientBuilder().WithScheme(mover.Scheme()).WithObjects(objects...).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if task, ok := o.(*v1alpha1.VolumeTask); ok {
				task.Status = status
			}
			return c.Create(ctx, o, opts...)
		},
	}).Build()
}
