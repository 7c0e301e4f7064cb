package bed

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"davit.dev/davit/testbed/bed/host"
)

//go:embed config/*.tmpl
var configFiles embed.FS

var configTemplates = template.Must(template.ParseFS(configFiles, "config/*.tmpl"))

// values is what the templates of configuration files and manifests may use.
type values struct {
	Instance, Site, Dir          string
	Address, PodCIDR             string
	DNSService                   string
	KubeletRoot                  string
	RegistryHosts                []hostEntry // every registry of the bed
	Names                        []hostEntry // names served in the zone bed.
	PauseImage, ToolImage        string
	CoreDNSImage, LocalPathImage string
	LocalPathDir                 string
}

type hostEntry struct{ Name, Address string }

func render(name string, v values) ([]byte, error) {
	var out bytes.Buffer
	if err := configTemplates.ExecuteTemplate(&out, name, v); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// writeConfig renders every configuration file of a node.
func (n *node) writeConfig(v values) error {
	path := func(elem ...string) string { return filepath.Join(append([]string{n.dir}, elem...)...) }
	files := map[string]string{
		"containerd.toml.tmpl": path("containerd", "config.toml"),
		"cni.json.tmpl":        path("cni", "10-bed.conflist"),
		"kubelet.yaml.tmpl":    path("kubelet.yaml"),
	}
	for tmpl, file := range files {
		data, err := render(tmpl, v)
		if err != nil {
			return err
		}
		if err := host.WriteFile(file, data, 0o644); err != nil {
			return err
		}
	}
	for _, r := range v.RegistryHosts {
		hosts := fmt.Sprintf("server = \"http://%s\"\n\n[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\", \"push\"]\n", r.Address, r.Address)
		if err := host.WriteFile(path("containerd", "certs.d", r.Name, "hosts.toml"), []byte(hosts), 0o644); err != nil {
			return err
		}
	}
	// CoreDNS has no upstream: what the bed does not know does not exist, and tests get the answer at once.
	return host.WriteFile(path("resolv.conf"), []byte("options ndots:5\n"), 0o644)
}

// writeKubeconfigs makes one kubeconfig for each client of the API server.
func (s *Site) writeKubeconfigs() error {
	for _, user := range []string{"admin", "controller-manager", "scheduler", "kube-proxy", "kubelet"} {
		data, err := s.kubeconfig(user, user)
		if err != nil {
			return err
		}
		if err := host.WriteFile(s.path("kubeconfig", user), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// kubeconfig carries its certificates inside, so that it can be copied anywhere.
func (s *Site) kubeconfig(user, cert string) ([]byte, error) {
	var parts [3]string
	for i, name := range []string{"ca.crt", cert + ".crt", cert + ".key"} {
		data, err := os.ReadFile(filepath.Join(s.pki(), name))
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		parts[i] = base64.StdEncoding.EncodeToString(data)
	}
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: %[1]s
clusters:
- name: %[1]s
  cluster:
    server: https://%[2]s:6443
    certificate-authority-data: %[3]s
users:
- name: %[1]s-%[6]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
contexts:
- name: %[1]s
  context:
    cluster: %[1]s
    user: %[1]s-%[6]s
`, s.name, s.net.Address(), parts[0], parts[1], parts[2], user), nil
}
