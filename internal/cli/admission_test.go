package cli_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"davit.dev/davit/internal/cli/admission"
	"davit.dev/davit/internal/cli/exit"
)

// A directory is a vault only where all that works with it mounts it.
func TestDirectory(t *testing.T) {
	host := corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv"}}
	claim := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "shared"}}
	scratch := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	pod := func(container, at string, source corev1.VolumeSource) corev1.PodTemplateSpec {
		return corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			Volumes:    []corev1.Volume{{Name: "v", VolumeSource: source}},
			Containers: []corev1.Container{{Name: container, VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: at}}}},
		}}
	}
	for name, tc := range map[string]struct {
		agent, node corev1.PodTemplateSpec
		refused     string
	}{
		"both":                  {pod("agent", "/vault", claim), pod("node", "/vault/", claim), ""},
		"the nodes alone":       {pod("agent", "/tmp", scratch), pod("node", "/vault", host), "davit-agent mounts nothing"},
		"the agent alone":       {pod("agent", "/vault", claim), pod("node", "/var/lib/kubelet", host), "davit-node mounts nothing"},
		"gone with the pod":     {pod("agent", "/vault", scratch), pod("node", "/vault", host), "davit-agent mounts nothing"},
		"a name that begins so": {pod("agent", "/vau", claim), pod("node", "/vault", host), "davit-agent mounts nothing"},
		"another container":     {pod("sidecar", "/vault", claim), pod("node", "/vault", host), "davit-agent mounts nothing"},
	} {
		meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "davit-system", Name: name} }
		c := fake.NewClientBuilder().WithObjects(
			&appsv1.Deployment{ObjectMeta: meta("davit-agent"), Spec: appsv1.DeploymentSpec{Template: tc.agent}},
			&appsv1.DaemonSet{ObjectMeta: meta("davit-node"), Spec: appsv1.DaemonSetSpec{Template: tc.node}},
		).Build()
		err := admission.Directory(t.Context(), c, "/vault/davit")
		if tc.refused == "" && err != nil || tc.refused != "" && (exit.Code(err) != exit.Refused || !strings.Contains(err.Error(), tc.refused)) {
			t.Errorf("%s: %v, want %q", name, err, tc.refused)
		}
	}
	if err := admission.Directory(t.Context(), fake.NewClientBuilder().Build(), "/vault"); err == nil {
		t.Error("a cluster without an agent was taken for one that sees the directory")
	}
}
