package bed

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"text/template"
	"time"

	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/clientcmd"

	"davit.dev/davit/testbed/bed/host"
	"davit.dev/davit/testbed/bed/pki"
)

// testBed is a bed that exists on paper only.
func testBed(t *testing.T) *Bed {
	t.Helper()
	t.Setenv("DAVIT_BED_STATE", "/s")
	b := must(Open("x"))(t)
	b.dir = t.TempDir()
	b.spec = spec{Sites: []string{"east", "west"}, Subnets: map[string]host.Subnet{VaultName: {Index: 11}, "east": {Index: 12}, "west": {Index: 13}}}
	return b
}

func TestOpenRefusesBadNamesAndLongPaths(t *testing.T) {
	for _, name := range []string{"UPPER", "with-hyphen", "9first", "averyveryverylongname", "../x"} {
		if _, err := Open(name); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
	t.Setenv("DAVIT_BED_STATE", "/a/directory/whose/path/is/much/too/long/for/sockets")
	if _, err := Open("dev"); err == nil || !strings.Contains(err.Error(), "DAVIT_BED_STATE") {
		t.Errorf("got %v", err)
	}
}

func TestConfigurationIsWellFormed(t *testing.T) {
	b := testBed(t)
	v := b.values(b.Site("east"))
	var cni struct{ Name string }
	check(t, json.Unmarshal(must(render("cni.json.tmpl", v))(t), &cni))
	if cni.Name != "bed-x-east" {
		t.Errorf("network is called %q", cni.Name)
	}
	var kubelet struct{ ClusterDNS []string }
	check(t, yaml.UnmarshalStrict(must(render("kubelet.yaml.tmpl", v))(t), &map[string]any{}))
	check(t, yaml.Unmarshal(must(render("kubelet.yaml.tmpl", v))(t), &kubelet))
	if len(kubelet.ClusterDNS) != 1 || kubelet.ClusterDNS[0] != "10.140.0.10" {
		t.Errorf("DNS is %v", kubelet.ClusterDNS)
	}
	if toml := must(render("containerd.toml.tmpl", v))(t); bytes.Contains(toml, []byte("<no value>")) {
		t.Errorf("unset value in\n%s", toml)
	}
}

func TestManifestsAreWellFormed(t *testing.T) {
	b := testBed(t)
	tmpl := template.Must(template.ParseFS(manifestFiles, "manifests/*.yaml"))
	for _, part := range tmpl.Templates() {
		var out bytes.Buffer
		check(t, part.Execute(&out, b.values(b.Site("east"))))
		for _, doc := range strings.Split(out.String(), "\n---\n") {
			var object struct {
				Kind     string
				Metadata struct{ Name string }
			}
			if err := yaml.Unmarshal([]byte(doc), &object); err != nil || object.Kind == "" || object.Metadata.Name == "" {
				t.Errorf("%s: %v in\n%s", part.Name(), err, doc)
			}
		}
	}
}

func TestKubeconfigLoads(t *testing.T) {
	b := testBed(t)
	s := b.Site("east")
	check(t, pki.WriteSite(s.pki(), s.name, s.net, time.Now()))
	cfg := must(clientcmd.RESTConfigFromKubeConfig(must(s.kubeconfig("admin", "admin"))(t)))(t)
	if cfg.Host != "https://10.88.12.2:6443" || len(cfg.CAData) == 0 || len(cfg.KeyData) == 0 {
		t.Errorf("got %s", cfg.Host)
	}
}

func TestEnvironmentQuotesForTheShell(t *testing.T) {
	got := Environment{State: "it's"}.Shell()
	if !strings.Contains(got, `export BED_STATE='it'\''s'`) {
		t.Errorf("got %s", got)
	}
}
