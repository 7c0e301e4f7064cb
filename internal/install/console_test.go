package install

import (
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube"
)

func renderConsole(t *testing.T, opts ConsoleOptions) map[string]unstructured.Unstructured {
	t.Helper()
	objects, err := RenderConsole(opts)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]unstructured.Unstructured{}
	for _, o := range objects {
		if o.GetLabels()[capture.LabelExclude] != "true" || o.GetLabels()[PartOfLabel] != partOf {
			t.Errorf("%s %s has the labels %v", o.GetKind(), o.GetName(), o.GetLabels())
		}
		if o.GetKind() != "Namespace" && o.GetNamespace() != ConsoleNamespace {
			t.Errorf("%s %s is in namespace %q", o.GetKind(), o.GetName(), o.GetNamespace())
		}
		all[o.GetKind()] = o
	}
	return all
}

func read(t *testing.T, from unstructured.Unstructured, into any) {
	t.Helper()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(from.Object, into); err != nil {
		t.Fatal(err)
	}
}

func TestConsoleHasNoRights(t *testing.T) {
	all := renderConsole(t, ConsoleOptions{Way: &ConsoleWay{}})
	for kind := range all {
		if strings.Contains(kind, "Role") {
			t.Errorf("it is given a %s", kind)
		}
	}
	var d appsv1.Deployment
	read(t, all["Deployment"], &d)
	if found := unrestricted(d.Spec.Template.Spec); len(found) > 0 {
		t.Errorf("the pods are not restricted: %v", found)
	}
	namespace := all["Namespace"]
	if got := namespace.GetLabels()["pod-security.kubernetes.io/enforce"]; got != "restricted" {
		t.Errorf("the namespace enforces %q", got)
	}
	// The check itself finds what it looks for.
	var agent appsv1.Deployment
	for _, o := range render(t, Options{SiteName: "east"}) {
		if o.GetKind() == "Deployment" {
			read(t, o, &agent)
		}
	}
	if found := unrestricted(agent.Spec.Template.Spec); !slices.Equal(found, []string{"token"}) {
		t.Errorf("of the agent's pods %v was found", found)
	}
	bad := d.Spec.Template.Spec
	bad.SecurityContext = nil
	bad.Containers = append([]corev1.Container{{Name: "bad"}}, bad.Containers...)
	if found := unrestricted(bad); len(found) != 4 {
		t.Errorf("only %v was found", found)
	}
}

// unrestricted says what a pod may that a console's must not.
func unrestricted(p corev1.PodSpec) (found []string) {
	if p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken {
		found = append(found, "token")
	}
	if s := p.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot {
		found = append(found, "root")
	}
	if s := p.SecurityContext; s == nil || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		found = append(found, "system calls")
	}
	for _, c := range slices.Concat(p.InitContainers, p.Containers) {
		s := c.SecurityContext
		if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") {
			found = append(found, c.Name)
		}
		if c.Resources.Limits.Memory().IsZero() {
			found = append(found, c.Name+"'s memory")
		}
	}
	return found
}

func TestConsoleService(t *testing.T) {
	for name, test := range map[string]struct {
		opts ConsoleOptions
		port corev1.ServicePort
		url  string
	}{
		"by itself": {ConsoleOptions{}, corev1.ServicePort{Port: 8443}, "https://davit-console.davit-console.svc:8443"},
		"balanced":  {ConsoleOptions{ServiceType: "LoadBalancer", URL: "https://console.example.com"}, corev1.ServicePort{Port: 443}, "https://console.example.com"},
		"nodes":     {ConsoleOptions{ServiceType: "NodePort", URL: "https://10.0.0.7:30843"}, corev1.ServicePort{Port: 8443, NodePort: 30843}, "https://10.0.0.7:30843"},
	} {
		all := renderConsole(t, test.opts)
		var s corev1.Service
		read(t, all["Service"], &s)
		if p := s.Spec.Ports[0]; p.Port != test.port.Port || p.NodePort != test.port.NodePort || p.TargetPort.StrVal != "https" {
			t.Errorf("%s: %+v", name, p)
		}
		var d appsv1.Deployment
		read(t, all["Deployment"], &d)
		c := d.Spec.Template.Spec.Containers[0]
		host, _, _ := hostPort(test.url)
		if !slices.Contains(c.Args, "--url="+test.url) || !slices.Contains(c.Args, "--name="+host) || c.ReadinessProbe.HTTPGet.Path != "/healthz/active" || c.LivenessProbe.HTTPGet.Path != "/healthz" {
			t.Errorf("%s: %v", name, c.Args)
		}
		if _, ok := all["Secret"]; ok {
			t.Errorf("%s: the Secret that the cluster has would be replaced", name)
		}
	}
}

func TestConsoleGoesToItsVault(t *testing.T) {
	for address, want := range map[string]int32{
		"s3://b/p": 443, "s3://b/p?endpoint=https://s3.example.com": 443, "s3://b/p?endpoint=http%3A%2F%2Fs3%3A9000": 9000, "s3://b?endpoint=http://s3": 80, "": 443,
	} {
		var p networkv1.NetworkPolicy
		read(t, renderConsole(t, ConsoleOptions{VaultURL: address, EgressPorts: []int32{8444}})["NetworkPolicy"], &p)
		var ports []int32
		for _, one := range p.Spec.Egress[0].Ports {
			ports = append(ports, one.Port.IntVal)
		}
		if !slices.Contains(ports, want) || !slices.Contains(ports, 8444) || slices.Contains(ports, 22) || len(p.Spec.PolicyTypes) != 2 {
			t.Errorf("%s: %v", address, ports)
		}
	}
}

func TestConsoleOptionsAreChecked(t *testing.T) {
	for name, opts := range map[string]ConsoleOptions{
		"replicas": {Replicas: 4}, "service": {ServiceType: "Headless"}, "no name": {ServiceType: "LoadBalancer"}, "scheme": {URL: "http://x:1"},
		"path": {URL: "https://x:1/y"}, "port": {URL: "https://x:0"}, "node's port": {ServiceType: "NodePort", URL: "https://x"}, "secret": {TLSSecret: "A b"},
		"pull policy": {ImagePullPolicy: "Sometimes"}, "egress": {EgressPorts: []int32{0}},
	} {
		if _, err := RenderConsole(opts); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestWhenAConsoleIsThere: pods on their way out, whose node may be lost, hold up nothing.
// One that does not run yet does.
func TestWhenAConsoleIsThere(t *testing.T) {
	pod := func(name string, phase corev1.PodPhase) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: consoleMeta(name), Status: corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{}}}}
		if phase == corev1.PodRunning {
			p.Status.ContainerStatuses[0].State.Running = &corev1.ContainerStateRunning{}
		}
		return p
	}
	leaving := pod("leaving", corev1.PodRunning)
	leaving.DeletionTimestamp, leaving.Finalizers = &metav1.Time{}, []string{"example.com/node"}
	leaving.DeletionTimestamp.Time = time.Unix(1, 0)
	for name, test := range map[string]struct {
		more  *corev1.Pod
		ready int32
		want  bool
	}{
		"none more": {nil, 1, true}, "leaving": {leaving, 1, true}, "evicted": {pod("evicted", corev1.PodFailed), 1, true},
		"begins": {pod("begins", corev1.PodPending), 1, false}, "none is active": {nil, 0, false},
	} {
		d := consoleDeployment(ConsoleOptions{}.withDefaults())
		d.Status = appsv1.DeploymentStatus{Replicas: 2, UpdatedReplicas: 2, ReadyReplicas: test.ready}
		objects := []runtime.Object{d, pod("a", corev1.PodRunning), pod("b", corev1.PodRunning)}
		if test.more != nil {
			objects = append(objects, test.more)
		}
		in := installer{clients: &kube.Clients{Kubernetes: fake.NewClientset(objects...)}}
		if text, ready := in.consoleState(t.Context()); ready != test.want {
			t.Errorf("%s: %t: %s", name, ready, text)
		}
	}
}
