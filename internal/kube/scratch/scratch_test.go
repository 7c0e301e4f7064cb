package scratch

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"davit.dev/davit/internal/kube"
)

// TestAVolumeThatWasThereIsKept: only what was provisioned for the copy's
// claim is let go with it.
func TestAVolumeThatWasThereIsKept(t *testing.T) {
	noon := time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		by   string
		at   time.Time
		want corev1.PersistentVolumeReclaimPolicy
	}{
		"made for it":      {"csi.test", noon.Add(time.Second), corev1.PersistentVolumeReclaimDelete},
		"made by a person": {"", noon.Add(time.Second), corev1.PersistentVolumeReclaimRetain},
		"there before":     {"csi.test", noon.Add(-time.Hour), corev1.PersistentVolumeReclaimRetain},
	} {
		volume := &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv", CreationTimestamp: metav1.NewTime(c.at), Annotations: map[string]string{}},
			Spec: corev1.PersistentVolumeSpec{
				PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain, ClaimRef: &corev1.ObjectReference{UID: "u"},
			},
		}
		if c.by != "" {
			volume.Annotations["pv.kubernetes.io/provisioned-by"] = c.by
		}
		k := fake.NewClientset(volume, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "copy", Name: "data", UID: "u", CreationTimestamp: metav1.NewTime(noon)},
			Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv"},
		})
		if err := (&Cluster{clients: &kube.Clients{Kubernetes: k}}).releaseVolumes(t.Context(), "copy"); err != nil {
			t.Fatal(err)
		}
		got, err := k.CoreV1().PersistentVolumes().Get(t.Context(), "pv", metav1.GetOptions{})
		if err != nil || got.Spec.PersistentVolumeReclaimPolicy != c.want {
			t.Errorf("%s: %v %s", name, err, got.Spec.PersistentVolumeReclaimPolicy)
		}
	}
}
