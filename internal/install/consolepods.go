package install

import (
	"math"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"davit.dev/davit/internal/capture"
)

// Where things are in a console's pod. The directory is below the volume, so that
// the console itself gives it the mode that it asks for.
const (
	consoleVolume = "/var/lib/davit-console"
	consoleData   = consoleVolume + "/data"
	consoleVault  = "/etc/davit/vault"
	consoleTLS    = "/etc/davit/tls"
	consoleOIDC   = "/etc/davit/oidc"
)

// outage is for how long a console's pod stays on a node that does not answer.
const outage int64 = 20

// RenderConsole returns everything that InstallConsole applies, in that order.
func RenderConsole(opts ConsoleOptions) ([]unstructured.Unstructured, error) {
	if err := opts.Check(); err != nil {
		return nil, err
	}
	opts = opts.withDefaults()
	typed := []runtime.Object{consoleNamespace(), consoleAccount(opts)}
	if opts.Way != nil {
		typed = append(typed,
			&corev1.Secret{ObjectMeta: consoleMeta(ConsoleSecret), Type: corev1.SecretTypeOpaque, Data: opts.Way.Secret},
			&corev1.ConfigMap{ObjectMeta: consoleMeta(ConsoleAuthority), Data: map[string]string{ConsoleAuthorityKey: string(opts.Way.Authority)}})
	}
	typed = append(typed, consoleTraffic(opts), consoleService(opts), consoleBudget(opts), consoleDeployment(opts))
	return toUnstructured(typed...)
}

func consoleLabels() map[string]string {
	return map[string]string{PartOfLabel: partOf, NameLabel: ConsoleName}
}

// consoleMeta has captures of whole clusters leave the console out: its state is in
// the vault, and another cluster has a key of its own.
func consoleMeta(name string) metav1.ObjectMeta {
	labels := consoleLabels()
	labels[capture.LabelExclude] = "true"
	return metav1.ObjectMeta{Namespace: ConsoleNamespace, Name: name, Labels: labels}
}

func consoleNamespace() *corev1.Namespace {
	meta := consoleMeta(ConsoleNamespace)
	meta.Namespace = ""
	for _, mode := range []string{"enforce", "audit", "warn"} {
		meta.Labels["pod-security.kubernetes.io/"+mode] = "restricted"
	}
	return &corev1.Namespace{ObjectMeta: meta}
}

// consoleAccount has no rights at all: a console asks no cluster.
func consoleAccount(opts ConsoleOptions) *corev1.ServiceAccount {
	account := &corev1.ServiceAccount{ObjectMeta: consoleMeta(ConsoleName), AutomountServiceAccountToken: ptr.To(false)}
	for _, secret := range opts.ImagePullSecrets {
		account.ImagePullSecrets = append(account.ImagePullSecrets, corev1.LocalObjectReference{Name: secret})
	}
	return account
}

// consoleService leads to the active console alone, which is the one that is ready.
func consoleService(opts ConsoleOptions) *corev1.Service {
	_, number, _ := hostPort(opts.URL) // it was checked
	p := corev1.ServicePort{Name: "https", Port: number, TargetPort: intstr.FromString("https"), Protocol: corev1.ProtocolTCP}
	spec := corev1.ServiceSpec{Type: corev1.ServiceType(opts.ServiceType), Selector: map[string]string{NameLabel: ConsoleName}}
	switch spec.Type {
	case corev1.ServiceTypeNodePort:
		p.Port, p.NodePort = consolePort, number
	case corev1.ServiceTypeLoadBalancer: // limits on tries go by the address that a client calls from
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	spec.Ports = []corev1.ServicePort{p}
	return &corev1.Service{ObjectMeta: consoleMeta(ConsoleName), Spec: spec}
}

// consoleBudget keeps no node from being drained. One console is ready at a time, so
// that any stricter budget would hold the active one where it is for ever; sent away,
// it hands over within a second.
func consoleBudget(opts ConsoleOptions) *policyv1.PodDisruptionBudget {
	all := intstr.FromInt32(opts.Replicas)
	return &policyv1.PodDisruptionBudget{ObjectMeta: consoleMeta(ConsoleName), Spec: policyv1.PodDisruptionBudgetSpec{
		MaxUnavailable: &all, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{NameLabel: ConsoleName}},
		UnhealthyPodEvictionPolicy: ptr.To(policyv1.AlwaysAllow),
	}}
}

// consoleTraffic lets everybody call the console's port, and the console call name
// servers, its vault and what speaks HTTPS, such as a login provider.
func consoleTraffic(opts ConsoleOptions) *networkv1.NetworkPolicy {
	tcp, udp := corev1.ProtocolTCP, corev1.ProtocolUDP
	at := func(protocol *corev1.Protocol, number int32) networkv1.NetworkPolicyPort {
		return networkv1.NetworkPolicyPort{Protocol: protocol, Port: ptr.To(intstr.FromInt32(number))}
	}
	out := []networkv1.NetworkPolicyPort{at(&udp, 53), at(&tcp, 53)}
	numbers := append([]int32{443, vaultPort(opts.VaultURL)}, opts.EgressPorts...)
	slices.Sort(numbers)
	for _, n := range slices.Compact(numbers) {
		out = append(out, at(&tcp, n))
	}
	return &networkv1.NetworkPolicy{ObjectMeta: consoleMeta(ConsoleName), Spec: networkv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{NameLabel: ConsoleName}},
		PolicyTypes: []networkv1.PolicyType{networkv1.PolicyTypeIngress, networkv1.PolicyTypeEgress},
		Ingress:     []networkv1.NetworkPolicyIngressRule{{Ports: []networkv1.NetworkPolicyPort{at(&tcp, consolePort)}}},
		Egress:      []networkv1.NetworkPolicyEgressRule{{Ports: out}},
	}}
}

// consoleDeployment keeps no volume: what a console has is in the vault before
// it is acknowledged, and a pod that begins with nothing joins from there. So a lost
// node, a lost volume and a new cluster are all the same, and no disk has to follow.
//
// Of several one is ready. A rollout that waited for the others to be would never
// end, so that all are replaced at once: the old active one hands over when it goes.
func consoleDeployment(opts ConsoleOptions) *appsv1.Deployment {
	labels := consoleLabels()
	pod := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{
			"prometheus.io/scrape": "true", "prometheus.io/scheme": "https", "prometheus.io/port": strconv.Itoa(consolePort),
		}},
		Spec: corev1.PodSpec{
			ServiceAccountName: ConsoleName, AutomountServiceAccountToken: ptr.To(false), EnableServiceLinks: ptr.To(false),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To[int64](davitUser), RunAsGroup: ptr.To[int64](davitUser), FSGroup: ptr.To[int64](davitUser),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Affinity: spread(labels), Tolerations: consoleTolerations(),
			InitContainers: []corev1.Container{consoleJoin(opts)},
			Containers:     []corev1.Container{consoleServe(opts)},
			Volumes:        consoleVolumes(opts),
		},
	}
	for _, secret := range opts.ImagePullSecrets {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: secret})
	}
	all, none := intstr.FromString("100%"), intstr.FromInt32(0)
	return &appsv1.Deployment{
		ObjectMeta: consoleMeta(ConsoleName),
		Spec: appsv1.DeploymentSpec{
			Replicas: &opts.Replicas,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{NameLabel: ConsoleName}},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &all, MaxSurge: &none}},
			// Those that follow are never available: that is no rollout that failed.
			ProgressDeadlineSeconds: ptr.To[int32](math.MaxInt32), RevisionHistoryLimit: ptr.To[int32](2),
			Template: pod,
		},
	}
}

// consoleTolerations have a pod leave a node that is lost before the usual five minutes.
func consoleTolerations() (all []corev1.Toleration) {
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		all = append(all, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To(outage)})
	}
	return all
}

func consoleVolumes(opts ConsoleOptions) []corev1.Volume {
	secret := func(name, from string, items ...corev1.KeyToPath) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: from, DefaultMode: ptr.To[int32](0o440), Items: items}}}
	}
	all := []corev1.Volume{scratch("data"), scratch("tmp"), secret("vault", ConsoleSecret)}
	if opts.TLSSecret != "" {
		all = append(all, secret("tls", opts.TLSSecret))
	}
	if opts.OIDCSecret != "" {
		all = append(all, secret("oidc", opts.OIDCSecret))
	}
	return all
}

func consoleContainer(opts ConsoleOptions, name string, args ...string) corev1.Container {
	return corev1.Container{
		Name: name, Image: opts.Image, ImagePullPolicy: corev1.PullPolicy(opts.ImagePullPolicy), Args: args,
		Env:       []corev1.EnvVar{{Name: "TMPDIR", Value: "/tmp"}, {Name: "HOME", Value: "/tmp"}, {Name: "USER", Value: "davit-install"}, {Name: "GOMEMLIMIT", Value: "1800MiB"}},
		Resources: resources("10m", "128Mi", "2Gi"),
		VolumeMounts: []corev1.VolumeMount{
			{Name: "data", MountPath: consoleVolume}, {Name: "tmp", MountPath: "/tmp"},
		},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false),
			ReadOnlyRootFilesystem:   ptr.To(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
	}
}

// consoleJoin brings the console's state from the vault into a volume that has none.
func consoleJoin(opts ConsoleOptions) corev1.Container {
	c := consoleContainer(opts, "join", "console", "join", "--unattended", "--data="+consoleData,
		"--vault-url=$(DAVIT_VAULT_URL)", "--console=$(DAVIT_CONSOLE_ID)",
		"--recovery-key-file="+consoleVault+"/"+ConsoleIdentityKey, "--ca-file="+consoleVault+"/"+ConsoleVaultCAKey)
	c.Env = append(c.Env,
		secretEnv("DAVIT_VAULT_URL", ConsoleURLKey), secretEnv("DAVIT_CONSOLE_ID", ConsoleIDKey), secretEnv("DAVIT_ACCESS_KEY", ConsoleAccessKey),
		secretEnv("DAVIT_SECRET_KEY", ConsoleSecretKey), secretEnv("DAVIT_SESSION_TOKEN", ConsoleSessionKey))
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "vault", MountPath: consoleVault, ReadOnly: true})
	return c
}

// secretEnv is a variable that ConsoleSecret has; one that it has not is empty.
func secretEnv(name, key string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: ConsoleSecret}, Key: key, Optional: ptr.To(true),
	}}}
}

// consoleServe serves the console. It is ready while it is the active one, and
// lives while it answers at all.
func consoleServe(opts ConsoleOptions) corev1.Container {
	host, _, _ := hostPort(opts.URL) // it was checked
	service := ConsoleName + "." + ConsoleNamespace
	args := []string{"console", "--data=" + consoleData, "--listen=:" + strconv.Itoa(consolePort), "--url=" + opts.URL}
	names := append([]string{host}, opts.Names...)
	for _, own := range []string{ConsoleName, service, service + ".svc", service + ".svc.cluster.local"} {
		if !slices.Contains(names, own) {
			names = append(names, own)
		}
	}
	for _, name := range names {
		args = append(args, "--name="+name)
	}
	mounts := []corev1.VolumeMount{}
	if opts.TLSSecret != "" {
		args = append(args, "--tls-cert="+consoleTLS+"/"+corev1.TLSCertKey, "--tls-key="+consoleTLS+"/"+corev1.TLSPrivateKeyKey)
		mounts = append(mounts, corev1.VolumeMount{Name: "tls", MountPath: consoleTLS, ReadOnly: true})
	}
	if opts.OIDCSecret != "" {
		args = append(args, "--oidc-config="+consoleOIDC+"/oidc.yaml")
		mounts = append(mounts, corev1.VolumeMount{Name: "oidc", MountPath: consoleOIDC, ReadOnly: true})
	}
	c := consoleContainer(opts, "console", args...)
	c.VolumeMounts = append(c.VolumeMounts, mounts...)
	c.Ports = []corev1.ContainerPort{port("https", consolePort)}
	c.LivenessProbe, c.ReadinessProbe = overTLS(probe("/healthz", consolePort, 6)), overTLS(probe("/healthz/active", consolePort, 2))
	c.ReadinessProbe.PeriodSeconds = 1 // people wait for whoever takes over
	return c
}

func overTLS(p *corev1.Probe) *corev1.Probe {
	p.HTTPGet.Scheme = corev1.URISchemeHTTPS
	return p
}
