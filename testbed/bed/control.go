package bed

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"davit.dev/davit/testbed/build"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// components returns every daemon of the site by name.
func (s *Site) components(bin build.Set) map[string]process {
	list := []process{s.etcd(bin), s.containerd(), s.registry(bin), s.apiServer(bin), s.controllerManager(bin), s.scheduler(bin), s.kubelet(bin), s.kubeProxy(bin)}
	byName := make(map[string]process, len(list))
	for _, p := range list {
		byName[p.name] = p
	}
	return byName
}

// startSite starts what does not run and returns when the node is Ready and the add-ons, if installed, run again.
func (s *Site) startSite(ctx context.Context, bin build.Set) error {
	cold := !s.containersLive()
	if err := s.startDaemons(ctx, bin); err != nil {
		return err
	}
	if err := s.startWorkers(ctx, bin); err != nil {
		return err
	}
	if err := s.awaitNode(ctx); err != nil || !cold || !s.applied("base") {
		return err
	}
	// No container lived when this began, so those that the API shows as running from before are ghosts.
	return s.awaitAddOns(ctx, s.startedAt("kubelet"))
}

// startDaemons follows the order of need: a component that starts before what it needs falls into long back-offs.
func (s *Site) startDaemons(ctx context.Context, bin build.Set) error {
	all := s.components(bin)
	for _, name := range []string{"etcd", "containerd", "registry", "kube-apiserver"} {
		if err := s.start(all[name]); err != nil {
			return err
		}
		if name == "etcd" {
			if err := s.await(ctx, name, s.dial(2379)); err != nil {
				return err
			}
		}
	}
	if err := s.await(ctx, "containerd", func() error { return dialUnix(s.ContainerdSocket()) }); err != nil {
		return err
	}
	if err := s.loadImages(ctx, bin); err != nil {
		return err
	}
	if err := s.await(ctx, "kube-apiserver", s.apiReady); err != nil {
		return err
	}
	for _, name := range []string{"kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		if err := s.start(all[name]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Site) loadImages(ctx context.Context, bin build.Set) error {
	tars, err := baseImages(bin)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, tar := range tars {
		g.Go(func() error { return s.LoadImage(ctx, tar) })
	}
	return g.Wait()
}

func (s *Site) dial(port int) func() error {
	return func() error {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", s.net.Address(), port), time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

func dialUnix(path string) error {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// apiReady asks /readyz, which is open to everyone. Certificates are checked by the clients that carry secrets.
func (s *Site) apiReady() error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	c := http.Client{Timeout: 2 * time.Second, Transport: transport}
	resp, err := c.Get("https://" + s.net.Address() + ":6443/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask readiness: %s", resp.Status)
	}
	return nil
}

// awaitNode waits until the node that this kubelet started is Ready: after a revive the API first shows the old state,
// so only a heartbeat newer than the kubelet counts.
func (s *Site) awaitNode(ctx context.Context) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	since := s.startedAt("kubelet")
	return s.await(ctx, "kubelet", func() error { return nodeReady(ctx, client, s.name, since) })
}

func (s *Site) nodeReady(ctx context.Context, name string, since time.Time) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	return nodeReady(ctx, client, name, since)
}

func nodeReady(ctx context.Context, client *kubernetes.Clientset, name string, since time.Time) error {
	n, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if c.Status == corev1.ConditionTrue && !c.LastHeartbeatTime.Time.Before(since) {
			return nil
		}
		return fmt.Errorf("node %s is not Ready: %s", name, c.Message)
	}
	return fmt.Errorf("node %s has no condition Ready yet", name)
}

func (s *Site) etcd(bin build.Set) process {
	dir := s.path("pki", "etcd")
	return process{name: "etcd", argv: []string{
		bin.Path("etcd"), "--name=" + s.name, "--data-dir=" + s.path("etcd"),
		"--listen-client-urls=https://127.0.0.1:2379,https://" + s.net.Address() + ":2379",
		"--advertise-client-urls=https://" + s.net.Address() + ":2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=" + s.name + "=http://127.0.0.1:2380",
		"--cert-file=" + dir + "/server.crt", "--key-file=" + dir + "/server.key",
		"--trusted-ca-file=" + dir + "/ca.crt", "--client-cert-auth",
		"--listen-metrics-urls=http://127.0.0.1:2381",
		// A killed process loses nothing that it has written; only a crash of the whole host would.
		"--unsafe-no-fsync", "--log-level=warn",
	}}
}

func (s *Site) containerd() process {
	return process{name: "containerd", argv: []string{"containerd", "--config", s.path("containerd", "config.toml"), "--log-level", "warn"}}
}

func (s *Site) registry(bin build.Set) process {
	return process{name: "registry", argv: []string{bin.Path("bed-registry"), "-listen", ":5000", "-dir", s.path("registry")}}
}

func (s *Site) apiServer(bin build.Set) process {
	p := s.pki()
	return process{name: "kube-apiserver", argv: []string{
		bin.Path("kube-apiserver"), "--advertise-address=" + s.net.Address(), "--secure-port=6443",
		"--etcd-servers=https://127.0.0.1:2379", "--etcd-cafile=" + p + "/etcd/ca.crt",
		"--etcd-certfile=" + p + "/etcd/apiserver-etcd-client.crt", "--etcd-keyfile=" + p + "/etcd/apiserver-etcd-client.key",
		"--client-ca-file=" + p + "/ca.crt", "--tls-cert-file=" + p + "/apiserver.crt", "--tls-private-key-file=" + p + "/apiserver.key",
		"--kubelet-certificate-authority=" + p + "/ca.crt", "--kubelet-client-certificate=" + p + "/apiserver-kubelet-client.crt",
		"--kubelet-client-key=" + p + "/apiserver-kubelet-client.key",
		// Without it exec and logs look up the node's name in the host's DNS.
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + p + "/sa.pub", "--service-account-signing-key-file=" + p + "/sa.key",
		"--service-cluster-ip-range=" + s.net.ServiceCIDR(), "--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction", "--allow-privileged=true", "--profiling=false",
	}}
}

func (s *Site) controllerManager(bin build.Set) process {
	p, kc := s.pki(), s.path("kubeconfig", "controller-manager")
	return process{name: "kube-controller-manager", argv: []string{
		bin.Path("kube-controller-manager"), "--kubeconfig=" + kc, "--authentication-kubeconfig=" + kc, "--authorization-kubeconfig=" + kc,
		"--root-ca-file=" + p + "/ca.crt", "--service-account-private-key-file=" + p + "/sa.key", "--use-service-account-credentials",
		"--cluster-signing-cert-file=" + p + "/ca.crt", "--cluster-signing-key-file=" + p + "/ca.key",
		// One of each per site: an election would only delay the start and the revival.
		"--leader-elect=false", "--allocate-node-cidrs=false", "--profiling=false",
		"--kube-api-qps=100", "--kube-api-burst=200",
	}}
}

func (s *Site) scheduler(bin build.Set) process {
	kc := s.path("kubeconfig", "scheduler")
	return process{name: "kube-scheduler", argv: []string{
		bin.Path("kube-scheduler"), "--kubeconfig=" + kc, "--authentication-kubeconfig=" + kc, "--authorization-kubeconfig=" + kc,
		"--leader-elect=false", "--profiling=false",
	}}
}

func (s *Site) kubelet(bin build.Set) process {
	return process{name: "kubelet", argv: []string{
		bin.Path("kubelet"), "--config=" + s.path("kubelet.yaml"), "--kubeconfig=" + s.path("kubeconfig", "kubelet"),
		"--root-dir=" + s.KubeletRoot(), "--hostname-override=" + s.name, "--node-ip=" + s.net.Address(),
		"--cert-dir=" + s.path("kubelet-pki"),
		// For its figures of containers, which nobody reads, it counts the open files of every process of this machine.
		"--housekeeping-interval=1m",
	}}
}

func (s *Site) kubeProxy(bin build.Set) process {
	return process{name: "kube-proxy", argv: []string{
		bin.Path("kube-proxy"), "--kubeconfig=" + s.path("kubeconfig", "kube-proxy"), "--hostname-override=" + s.name,
		"--proxy-mode=nftables", "--cluster-cidr=" + s.net.PodCIDR(), "--oom-score-adj=0",
		// These sysctls are read-only in a network namespace; 0 leaves them alone.
		"--conntrack-max-per-core=0", "--conntrack-min=0",
		"--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
	}}
}
