package admission

import (
	"context"
	"fmt"
	"path"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/install"
)

// Directory refuses a vault in a directory that the cluster's agent and node
// processes do not have: they would look for it in their own file systems.
func Directory(ctx context.Context, c client.Client, dir string) error {
	var agent appsv1.Deployment
	var node appsv1.DaemonSet
	for name, object := range map[string]client.Object{install.AgentName: &agent, install.NodeName: &node} {
		key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: name}
		if err := c.Get(ctx, key, object); err != nil {
			return fmt.Errorf("look whether %s has directory %s: %w", name, dir, err)
		}
	}
	for _, part := range []struct {
		name, container string
		pod             corev1.PodSpec
	}{{install.AgentName, "agent", agent.Spec.Template.Spec}, {install.NodeName, "node", node.Spec.Template.Spec}} {
		if !mounts(part.pod, part.container, dir) {
			return exit.Refuse("use s3://BUCKET/PREFIX; a directory is for one that agent and node processes mount at this very path, such as a shared file system",
				"the cluster cannot see directory %s: %s mounts nothing there", dir, part.name)
		}
	}
	return nil
}

// mounts says whether a container has a volume that outlives the pod at a
// directory or above it.
func mounts(pod corev1.PodSpec, container, dir string) bool {
	lasting := map[string]bool{}
	for _, v := range pod.Volumes {
		lasting[v.Name] = v.HostPath != nil || v.NFS != nil || v.CSI != nil || v.PersistentVolumeClaim != nil
	}
	dir = path.Clean(dir) + "/"
	for _, c := range pod.Containers {
		for _, m := range c.VolumeMounts {
			if c.Name == container && lasting[m.Name] && m.SubPath == "" && strings.HasPrefix(dir, strings.TrimSuffix(path.Clean(m.MountPath), "/")+"/") {
				return true
			}
		}
	}
	return false
}
