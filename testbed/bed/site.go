package bed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"davit.dev/davit/testbed/bed/host"
)

// Site is one Kubernetes cluster with its storage and its way in. Its own node runs the control plane; it may have
// workers beside it.
type Site struct {
	*node
	bed *Bed
}

func (s *Site) path(elem ...string) string { return filepath.Join(append([]string{s.dir}, elem...)...) }
func (s *Site) pki() string                { return s.path("pki") }

// Name is the site's name, which is its first node's name too.
func (s *Site) Name() string { return s.name }

// Kubeconfig is the path of the administrator's kubeconfig; it works from the host.
func (s *Site) Kubeconfig() string { return s.path("kubeconfig", "admin") }

// Address is the site's address; the API server listens on its port 6443.
func (s *Site) Address() string { return s.net.Address() }

// Registry is the host and port of the site's OCI registry (plain HTTP). Pods may also say registry.bed.
func (s *Site) Registry() string { return s.net.Address() + ":5000" }

// KubeletRoot is the kubelet's root directory.
func (s *Site) KubeletRoot() string { return s.path("kubelet") }

// StorageDir is where the CSI driver keeps the site's volumes.
func (s *Site) StorageDir() string { return s.path("csi") }

// ContainerdSocket is the socket of the site's containerd.
func (s *Site) ContainerdSocket() string { return s.containerdSocket() }

// Netns is the path of the site's network namespace.
func (s *Site) Netns() string { return s.netns() }

// PKIDir holds the site's keys and certificates, laid out as kubeadm does.
func (s *Site) PKIDir() string { return s.pki() }

// EtcdEndpoint is where the site's etcd answers; its client certificate is apiserver-etcd-client in PKIDir()/etcd.
func (s *Site) EtcdEndpoint() string { return "https://" + s.net.Address() + ":2379" }

// RESTConfig returns the administrator's client configuration, without client-side throttling.
func (s *Site) RESTConfig() (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("load kubeconfig of %s: %w; is the bed up?", s.name, err)
	}
	cfg.QPS = -1
	return cfg, nil
}

func (s *Site) client() (*kubernetes.Clientset, error) {
	cfg, err := s.RESTConfig()
	if err != nil {
		return nil, err
	}
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client of %s: %w", s.name, err)
	}
	return c, nil
}

// Kill takes the site down the hard way; see Bed.Kill.
func (s *Site) Kill(ctx context.Context) error { return s.bed.Kill(ctx, s.name) }

// Revive starts a killed site again and returns when its node is Ready.
func (s *Site) Revive(ctx context.Context) error { return s.bed.Revive(ctx, s.name) }

// LoadImage imports an image tar (OCI or Docker layout) into the containerd of every node of the site, unless that very
// file is in already.
func (s *Site) LoadImage(ctx context.Context, tar string) error {
	if err := s.loadImage(ctx, tar); err != nil {
		return err
	}
	for _, w := range s.workers() {
		if !w.running("containerd") {
			continue // it takes what the site has when it starts
		}
		if err := w.loadImage(ctx, tar); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) loadImage(ctx context.Context, tar string) error {
	tar, err := filepath.Abs(tar)
	if err != nil {
		return fmt.Errorf("find image: %w", err)
	}
	st, err := os.Stat(tar)
	if err != nil {
		return fmt.Errorf("find image: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", tar, st.Size(), st.ModTime().UnixNano()))
	marker := filepath.Join(n.dir, "loaded", hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(marker); err == nil {
		return nil
	}
	if _, err := n.ctr(ctx, "images", "import", "--snapshotter", "overlayfs", tar); err != nil {
		return fmt.Errorf("import %s into %s: %w", tar, n.name, err)
	}
	return host.WriteFile(marker, []byte(tar+"\n"), 0o644)
}

// Images lists the references of the images the site has.
func (s *Site) Images(ctx context.Context) ([]string, error) {
	out, err := s.Containerd(ctx, "images", "list", "-q")
	return strings.Fields(out), err
}

// Containerd runs ctr against the site's containerd in the namespace of Kubernetes.
func (s *Site) Containerd(ctx context.Context, args ...string) (string, error) {
	return s.ctr(ctx, args...)
}

func (n *node) containerdSocket() string {
	return filepath.Join(n.dir, "containerd", "containerd.sock")
}

func (n *node) ctr(ctx context.Context, args ...string) (string, error) {
	return run(ctx, "ctr", append([]string{"-a", n.containerdSocket(), "-n", "k8s.io"}, args...)...)
}
