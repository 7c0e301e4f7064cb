package install

import (
	"fmt"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/mover"
)

// davitUser runs the agent.
const davitUser = 65532

func agentDeployment(opts Options) *appsv1.Deployment {
	labels := map[string]string{PartOfLabel: partOf, NameLabel: AgentName}
	pod := podTemplate(opts, AgentName, AgentMetrics)
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsNonRoot:   ptr.To(true),
		RunAsUser:      ptr.To[int64](davitUser),
		RunAsGroup:     ptr.To[int64](davitUser),
		FSGroup:        ptr.To[int64](davitUser),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	pod.Spec.Affinity = spread(labels)
	pod.Spec.Containers = []corev1.Container{agentContainer(opts)}
	pod.Spec.Volumes = []corev1.Volume{scratch("tmp")}
	return &appsv1.Deployment{
		ObjectMeta: systemMeta(AgentName),
		Spec: appsv1.DeploymentSpec{
			Replicas: &opts.Replicas,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{NameLabel: AgentName}},
			Template: pod,
		},
	}
}

func agentContainer(opts Options) corev1.Container {
	return corev1.Container{
		Name:            "agent",
		Image:           opts.Image,
		ImagePullPolicy: corev1.PullPolicy(opts.ImagePullPolicy),
		Args: []string{
			"agent",
			"--site=" + opts.SiteName,
			"--metrics-address=:" + strconv.Itoa(AgentMetrics),
			"--health-address=:" + strconv.Itoa(AgentHealth),
			"--log-level=" + opts.LogLevel,
		},
		Env:            []corev1.EnvVar{downward("POD_NAME", "metadata.name"), {Name: "TMPDIR", Value: "/tmp"}, {Name: "HOME", Value: "/tmp"}, {Name: "GOMEMLIMIT", Value: "900MiB"}},
		Ports:          []corev1.ContainerPort{port("metrics", AgentMetrics), port("health", AgentHealth)},
		Resources:      resources("10m", "64Mi", "1Gi"),
		LivenessProbe:  probe("/healthz", AgentHealth, 10),
		ReadinessProbe: probe("/readyz", AgentHealth, 3),
		VolumeMounts:   []corev1.VolumeMount{{Name: "tmp", MountPath: "/tmp"}},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false),
			ReadOnlyRootFilesystem:   ptr.To(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
	}
}

func nodeDaemonSet(opts Options) *appsv1.DaemonSet {
	pod := podTemplate(opts, NodeName, NodeMetrics)
	pod.Annotations[mover.AwaitsMounts] = "true"
	pod.Spec.PriorityClassName = "system-node-critical"
	// Fencing finds the container runtime and pods' networks through the node's processes.
	pod.Spec.HostPID = true
	pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	pod.Spec.Containers = []corev1.Container{nodeContainer(opts), watchdogContainer(opts)}
	pod.Spec.Volumes = []corev1.Volume{
		hostDir("kubelet", opts.KubeletRoot, corev1.HostPathDirectory), scratch("cache"),
		hostDir("run", ownDir(opts, runMount), corev1.HostPathDirectoryOrCreate),
		hostDir("state", ownDir(opts, stateMount), corev1.HostPathDirectoryOrCreate),
	}
	if opts.PeerPort > 0 {
		node := &pod.Spec.Containers[0]
		at := port("peers", opts.PeerPort)
		at.HostPort = opts.PeerPort
		node.Args, node.Ports = append(node.Args, "--peer-address=:"+strconv.Itoa(int(opts.PeerPort))), append(node.Ports, at)
	}
	for i, dir := range opts.HostPathRoots {
		pod.Spec.Volumes = append(pod.Spec.Volumes, hostDir(fmt.Sprintf("root-%d", i), dir, corev1.HostPathDirectoryOrCreate))
	}
	return &appsv1.DaemonSet{
		ObjectMeta: systemMeta(NodeName),
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{NameLabel: NodeName}},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{
				Type:          appsv1.RollingUpdateDaemonSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: ptr.To(intstr.FromString("25%"))},
			},
			Template: pod,
		},
	}
}

// nodeContainer is privileged: it reads and writes files of any owner in
// volumes that the kubelet mounts after it has started.
func nodeContainer(opts Options) corev1.Container {
	propagation := corev1.MountPropagationHostToContainer
	mounts := []corev1.VolumeMount{
		{Name: "kubelet", MountPath: opts.KubeletRoot, MountPropagation: &propagation},
		{Name: "cache", MountPath: "/cache"},
		{Name: "run", MountPath: runMount},
		{Name: "state", MountPath: stateMount},
	}
	for i, dir := range opts.HostPathRoots {
		mounts = append(mounts, corev1.VolumeMount{Name: fmt.Sprintf("root-%d", i), MountPath: dir, MountPropagation: &propagation})
	}
	return corev1.Container{
		Name:            "node",
		Image:           opts.Image,
		ImagePullPolicy: corev1.PullPolicy(opts.ImagePullPolicy),
		Args: []string{
			"node",
			"--kubelet-root=" + opts.KubeletRoot,
			"--host-path-roots=" + strings.Join(opts.HostPathRoots, ","),
			"--cache-dir=/cache",
			"--run-dir=" + runMount,
			"--state-dir=" + stateMount,
			"--site=" + opts.SiteName,
			"--cri-socket=" + opts.RuntimeSocket,
			"--disk-read=" + opts.DiskRead,
			"--disk-write=" + opts.DiskWrite,
			"--metrics-address=:" + strconv.Itoa(NodeMetrics),
			"--health-address=:" + strconv.Itoa(NodeHealth),
			"--log-level=" + opts.LogLevel,
		},
		Env:            []corev1.EnvVar{downward("NODE_NAME", "spec.nodeName"), downward("POD_UID", "metadata.uid"), {Name: "TMPDIR", Value: "/cache"}, {Name: "HOME", Value: "/cache"}, {Name: "GOMEMLIMIT", Value: "1800MiB"}},
		Ports:          []corev1.ContainerPort{port("metrics", NodeMetrics), port("health", NodeHealth)},
		Resources:      resources("10m", "64Mi", "2Gi"),
		LivenessProbe:  probe("/healthz", NodeHealth, 10),
		ReadinessProbe: probe("/readyz", NodeHealth, 3),
		VolumeMounts:   mounts,
		SecurityContext: &corev1.SecurityContext{
			Privileged:             ptr.To(true),
			RunAsUser:              ptr.To[int64](0),
			RunAsNonRoot:           ptr.To(false),
			ReadOnlyRootFilesystem: ptr.To(true),
		},
	}
}

// Both containers of a node see these directories of it: one in memory, and
// one that outlives the machine.
const (
	runMount   = "/run/davit"
	stateMount = "/var/lib/davit"
)

// ownDir is a node's own directory: a machine that is several nodes has one
// for each kubelet.
func ownDir(opts Options, dir string) string {
	if opts.KubeletRoot == defaultRoot {
		return dir
	}
	return dir + "/" + strings.ReplaceAll(strings.Trim(opts.KubeletRoot, "/"), "/", "-")
}

// watchdogContainer thaws what the node container leaves frozen, and keeps its
// fences while it is silent. It is a process of its own so that neither dies with the other, and privileged to see
// the kubelet's mounts and to thaw.
func watchdogContainer(opts Options) corev1.Container {
	propagation := corev1.MountPropagationHostToContainer
	return corev1.Container{
		Name:            "watchdog",
		Image:           opts.Image,
		ImagePullPolicy: corev1.PullPolicy(opts.ImagePullPolicy),
		Args: []string{
			"node", "watchdog", "--run-dir=" + runMount, "--state-dir=" + stateMount, "--cri-socket=" + opts.RuntimeSocket, "--log-level=" + opts.LogLevel,
		},
		Env:       []corev1.EnvVar{downward("POD_UID", "metadata.uid"), {Name: "GOMEMLIMIT", Value: "100MiB"}},
		Resources: resources("1m", "32Mi", "128Mi"),
		VolumeMounts: []corev1.VolumeMount{
			{Name: "run", MountPath: runMount},
			{Name: "state", MountPath: stateMount},
			{Name: "kubelet", MountPath: opts.KubeletRoot, MountPropagation: &propagation},
		},
		SecurityContext: &corev1.SecurityContext{
			Privileged:             ptr.To(true),
			RunAsUser:              ptr.To[int64](0),
			RunAsNonRoot:           ptr.To(false),
			ReadOnlyRootFilesystem: ptr.To(true),
		},
	}
}

func podTemplate(opts Options, name string, metrics int) corev1.PodTemplateSpec {
	var secrets []corev1.LocalObjectReference
	for _, secret := range opts.ImagePullSecrets {
		secrets = append(secrets, corev1.LocalObjectReference{Name: secret})
	}
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{PartOfLabel: partOf, NameLabel: name, v1alpha1.LabelManagedBy: partOf},
			Annotations: map[string]string{
				"prometheus.io/scrape": "true",
				"prometheus.io/port":   strconv.Itoa(metrics),
			},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName:           name,
			AutomountServiceAccountToken: ptr.To(true),
			EnableServiceLinks:           ptr.To(false),
			ImagePullSecrets:             secrets,
		},
	}
}

func spread(labels map[string]string) *corev1.Affinity {
	return &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
			Weight: 100,
			PodAffinityTerm: corev1.PodAffinityTerm{
				TopologyKey:   corev1.LabelHostname,
				LabelSelector: &metav1.LabelSelector{MatchLabels: labels},
			},
		}},
	}}
}

func hostDir(name, dir string, kind corev1.HostPathType) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: &kind}}}
}

func scratch(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
}

func downward(name, field string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: field}}}
}

func port(name string, number int32) corev1.ContainerPort {
	return corev1.ContainerPort{Name: name, ContainerPort: number, Protocol: corev1.ProtocolTCP}
}

func resources(cpu, memory, limit string) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limit)},
	}
}

func probe(path string, number int32, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(number)}},
		PeriodSeconds:    5,
		TimeoutSeconds:   5,
		FailureThreshold: failures,
	}
}
