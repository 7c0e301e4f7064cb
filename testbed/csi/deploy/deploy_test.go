package deploy

import (
	"strings"
	"testing"
)

func TestDriver(t *testing.T) {
	p := Params{Image: "img:1", Namespace: "kube-system", KubeletRoot: "/k", StateDir: "/s", OuterBytes: 1 << 30}
	out, err := Driver(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"-state=/s", "path: /k/plugins/reflink.csi.davit.dev", "image: img:1", "-outer-bytes=1073741824"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("manifests lack %q", want)
		}
	}
	if strings.Contains(string(out), "nodeSelector") {
		t.Error("manifests pin a node without being asked to")
	}
}

func TestDriverRefusesBadParams(t *testing.T) {
	good := Params{Image: "img:1", Namespace: "kube-system", KubeletRoot: "/k", StateDir: "/s"}
	long, relative, empty := good, good, good
	long.KubeletRoot = "/" + strings.Repeat("k", socketMax)
	relative.StateDir = "state"
	empty.Image = ""
	for name, p := range map[string]Params{"long socket path": long, "relative path": relative, "no image": empty} {
		if _, err := Driver(p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
