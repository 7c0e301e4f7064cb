package mover

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestADecoyIsNotTakenForTheHolder: a pod of the holder's name and labels,
// made by whoever may make pods there, does more with the volume than hold it.
func TestADecoyIsNotTakenForTheHolder(t *testing.T) {
	mount := []corev1.VolumeMount{{Name: "data", MountPath: "/x"}}
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		usable bool
	}{
		"the holder itself": {func(*corev1.Pod) {}, true},
		"a sidecar that an admission adds": {func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "proxy", Image: "mesh"})
		}, true},
		"a container more with the volume": {func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "thief", Image: "x", VolumeMounts: mount})
		}, false},
		"an init container with the volume": {func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "thief", Image: "x", VolumeMounts: mount}}
		}, false},
		"another image":   {func(p *corev1.Pod) { p.Spec.Containers[0].Image = "evil" }, false},
		"another command": {func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"sh"} }, false},
		"another claim":   {func(p *corev1.Pod) { p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName = "other" }, false},
		"another claim besides": {func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "more", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "other"},
			}})
		}, false},
		"the node's file system": {func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "root", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}})
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			cl := newCluster(bound(), daemon())
			m := New(cl, cl, Options{})
			want, err := m.holderPod(t.Context(), request())
			if err != nil {
				t.Fatal(err)
			}
			there := want.DeepCopy()
			c.change(there)
			if err := cl.Create(t.Context(), there); err != nil {
				t.Fatal(err)
			}
			usable, err := m.reuseHolder(t.Context(), want)
			if err != nil || usable != c.usable {
				t.Fatalf("usable %v, %v; want %v", usable, err, c.usable)
			}
			if left := len(cl.leftovers(t)); (left == 1) != c.usable {
				t.Errorf("%d pods left", left)
			}
		})
	}
	cl := newCluster(bound(), daemon())
	m := New(cl, cl, Options{})
	want, err := m.holderPod(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	foreign := want.DeepCopy()
	foreign.Labels = nil
	if err := cl.Create(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	if usable, err := m.reuseHolder(t.Context(), want); err == nil || usable {
		t.Errorf("a pod that is not Davit's was taken or removed: %v, %v", usable, err)
	}
}
